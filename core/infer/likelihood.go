package infer

import (
	"context"
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// likelihoodRows is how many rows of logits a likelihood keeps at a time.
const likelihoodRows = 64

// LogLikelihood returns the sum of log p(ids[i] | window before i) over all i > 0 in nats, and how many tokens that
// are. The text is read in windows of at most window tokens that start stride apart; a token is scored in the first
// window that holds it, so each has at least window-stride tokens of context where the text gives them (the strided
// perplexity of Hugging Face's guide). perplexity = exp(-sum/count).
func (e *Engine) LogLikelihood(ctx context.Context, ids []int32, window, stride int) (sum float64, count int, err error) {
	cfg := e.model.Config
	switch {
	case len(ids) < 2:
		return 0, 0, &ArgumentError{Field: "tokens", Value: len(ids), Reason: "expected at least two tokens: the first has no context to be scored in"}
	case window < 2 || window > cfg.MaxPositionEmbeddings:
		return 0, 0, &ArgumentError{Field: "window", Value: window, Reason: fmt.Sprintf("expected 2 <= window <= max_position_embeddings = %d", cfg.MaxPositionEmbeddings)}
	case stride < 1 || stride >= window:
		return 0, 0, &ArgumentError{Field: "stride", Value: stride, Reason: fmt.Sprintf("expected 1 <= stride < window = %d", window)}
	}
	if err := e.checkIDs(ids, 0); err != nil { // also of the last one, which no step reads
		return 0, 0, err
	}
	scored := 1 // ids[:scored] are scored
	logits := make([]float32, min(likelihoodRows, window)*cfg.VocabSize)
	for first := 0; scored < len(ids); first += stride {
		end := min(first+window, len(ids))
		s, err := e.windowLikelihood(ctx, ids[first:end], scored-first, logits)
		if err != nil {
			return 0, 0, err
		}
		sum += s
		count += end - scored
		scored = end
	}
	return sum, count, nil
}

// Prediction is how well the targets of a sequence are predicted.
type Prediction struct {
	LogLikelihood float64 // sum of log p(target) in nats
	Targets       int     // those that count
	Correct       int     // how many of them had the highest logit, the first of several
}

// Predict reads a sequence and scores at each of its positions what should follow there; targets that are nn.IgnoreTarget do not
// count. It is what a trainer's evaluation computes, by the path that generates text.
func (e *Engine) Predict(ctx context.Context, ids, targets []int32) (p Prediction, err error) {
	if err := e.checkTokens(ids, 0); err != nil {
		return p, err
	}
	if len(targets) != len(ids) {
		return p, &ArgumentError{Field: "targets", Value: len(targets), Reason: fmt.Sprintf("expected one for each of the %d tokens", len(ids))}
	}
	v := e.model.Config.VocabSize
	for i, id := range targets {
		if id != nn.IgnoreTarget && (id < 0 || int(id) >= v) {
			return p, &ArgumentError{Field: fmt.Sprintf("targets[%d]", i), Value: id,
				Reason: fmt.Sprintf("expected 0 <= id < vocab_size = %d or %d", v, nn.IgnoreTarget)}
		}
	}
	seq := e.NewSequence()
	defer seq.Close()
	logits := make([]float32, min(likelihoodRows, len(ids))*v)
	for i := 0; i < len(ids); i += likelihoodRows {
		n := min(likelihoodRows, len(ids)-i)
		if err := e.Step(ctx, []Chunk{{Seq: seq, IDs: ids[i : i+n], Logits: n}}, logits[:n*v]); err != nil {
			return p, err
		}
		t := newLogProbs(logits, targets[i:i+n], v)
		cpu.Parallel(n, t)
		for r, id := range t.ids {
			if id != nn.IgnoreTarget {
				p.LogLikelihood += t.out[r]
				p.Targets++
			}
			if t.best[r] {
				p.Correct++
			}
		}
	}
	return p, nil
}

// windowLikelihood sums log p(ids[i]) for i >= from.
func (e *Engine) windowLikelihood(ctx context.Context, ids []int32, from int, logits []float32) (sum float64, err error) {
	v := e.model.Config.VocabSize
	seq := e.NewSequence()
	defer seq.Close()
	for i := 0; i < len(ids)-1; { // row i predicts ids[i+1]
		n := min(likelihoodRows, len(ids)-1-i)
		rows := min(n, max(0, i+n-(from-1)))
		if err := e.Step(ctx, []Chunk{{Seq: seq, IDs: ids[i : i+n], Logits: rows}}, logits[:rows*v]); err != nil {
			return 0, err
		}
		t := newLogProbs(logits, ids[i+1+n-rows:i+1+n], v)
		cpu.Parallel(rows, t)
		for _, p := range t.out {
			sum += p
		}
		i += n
	}
	return sum, nil
}

// logProbTask computes log softmax(logits[r])[ids[r]] for each row, overwriting the logits, and whether no other id is better.
type logProbTask struct {
	logits []float32
	ids    []int32
	vocab  int
	out    []float64
	best   []bool
}

func newLogProbs(logits []float32, ids []int32, vocab int) *logProbTask {
	return &logProbTask{logits: logits, ids: ids, vocab: vocab, out: make([]float64, len(ids)), best: make([]bool, len(ids))}
}

func (t *logProbTask) Run(r int) {
	row, id := t.logits[r*t.vocab:(r+1)*t.vocab], t.ids[r]
	if id == nn.IgnoreTarget {
		return
	}
	t.best[r] = nn.Predicts(row, id)
	t.out[r], _ = nn.LogProb(row, id)
}
