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
		t := &logProbTask{logits: logits, ids: ids[i+1+n-rows:], vocab: v, out: make([]float64, rows)}
		cpu.Parallel(rows, t)
		for _, p := range t.out {
			sum += p
		}
		i += n
	}
	return sum, nil
}

// logProbTask computes log softmax(logits[r])[ids[r]] for each row, overwriting the logits.
type logProbTask struct {
	logits []float32
	ids    []int32
	vocab  int
	out    []float64
}

func (t *logProbTask) Run(r int) {
	t.out[r], _ = nn.LogProb(t.logits[r*t.vocab:(r+1)*t.vocab], t.ids[r])
}
