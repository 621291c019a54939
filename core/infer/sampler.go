package infer

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Token is one sampled token.
type Token struct {
	ID      int32          // in the vocabulary
	Logprob float32        // natural logarithm of the token's probability; 0 unless SamplingParams.Logprobs asks for it
	Top     []TokenLogprob // the most probable tokens, most probable first, ties by id; nil unless Logprobs > 0
}

// TokenLogprob is a token id and the natural logarithm of its probability.
type TokenLogprob struct {
	ID      int32   // in the vocabulary
	Logprob float32 // of the model's own softmax
}

// Sampler chooses one sequence's tokens from the model's logits. Each step applies, in the order of Hugging Face transformers:
//
//	logit bias -> repetition penalty -> presence and frequency penalty -> temperature -> top-k -> top-p -> min-p -> typical-p -> draw
//
// Each filter works on the probabilities that the filters before it left over, made to sum to 1 again. Two tokens that a filter
// finds equal are told apart by their ids, the lower one first, so k in top-k is exact and a choice never depends on memory order.
//
// A step takes one random number from a generator that belongs to the sampler and walks the remaining tokens in ascending order of
// their ids. So the tokens follow from parameters, seed and logits alone, whatever else is in the batch.
//
// A Sampler allocates its buffers at most once and then nothing per token, unless SamplingParams.Logprobs > 0.
// It is not safe for concurrent use.
type Sampler struct {
	params SamplingParams
	vocab  int
	seed   uint64
	rng    *rand.PCG

	bias    []biasEntry
	penalty penalties
	*workspace
}

// workspace is memory for one call of Sample at a time, several times the size of the logits. Nothing in it outlasts the call.
type workspace struct {
	raw      []float32   // the model's own logits, kept only when log-probabilities must survive bias and penalties
	weights  []float32   // working copy for the softmax
	kept     []candidate // tokens that passed the filters so far, ascending ids
	shuffled []candidate // working copy for selection
}

type biasEntry struct {
	id    int32
	value float32
}

// NewSampler validates p for a model with vocab tokens (see SamplingParams.Validate) and returns a sampler without history.
func NewSampler(p SamplingParams, vocab int) (*Sampler, error) {
	if err := p.Validate(vocab); err != nil {
		return nil, err
	}
	return makeSampler(p, vocab, new(workspace)), nil
}

// makeSampler is NewSampler for parameters that are known to be valid.
func makeSampler(p SamplingParams, vocab int, w *workspace) *Sampler {
	s := &Sampler{params: p, vocab: vocab, penalty: newPenalties(p, vocab), workspace: w}
	if p.Seed != nil {
		s.seed = *p.Seed
	} else {
		s.seed = rand.Uint64()
	}
	s.rng = rand.NewPCG(s.seed, samplerStream)
	for _, id := range p.LogitBias.ids() {
		s.bias = append(s.bias, biasEntry{id, p.LogitBias[id]})
	}
	return s
}

// samplerStream is the second half of the generator's state: it keeps samplers apart from other users of the same seed.
const samplerStream = 0x9e3779b97f4a7c15

// Seed returns the seed in use, also when it was taken from the system.
func (s *Sampler) Seed() uint64 { return s.seed }

// Observe tells the sampler which tokens the model has read: the prompt. They count for the repetition penalty, not for the
// presence and frequency penalties, which are about the continuation. Sample observes its own tokens. Ids outside the vocabulary are
// ignored.
func (s *Sampler) Observe(ids ...int32) { s.penalty.observe(ids) }

// Sample chooses the next token from the model's logits [vocab], which it may overwrite. A NaN or +inf logit is a *LogitsError that
// names its index; so is a step in which every logit is -inf.
func (s *Sampler) Sample(logits []float32) (Token, error) {
	if len(logits) != s.vocab {
		return Token{}, badLogits("got %d of them for a vocabulary of %d tokens", len(logits), s.vocab)
	}
	model := s.keepRaw(logits)
	for _, b := range s.bias {
		logits[b.id] += b.value
	}
	s.penalty.apply(logits)

	best, err := argmax(logits)
	if err != nil {
		return Token{}, err
	}
	tok := Token{ID: best}
	if !s.params.Greedy() {
		tok.ID = s.draw(logits, logits[best])
	}
	s.penalty.generated(tok.ID)
	if s.params.Logprobs >= 0 {
		s.addLogprobs(&tok, model)
	}
	return tok, nil
}

// argmax returns the lowest index of the largest logit: two vector passes, and a search that ends where it finds it.
func argmax(logits []float32) (int32, error) {
	if m := float64(cpu.AbsMax(logits)); math.IsNaN(m) || math.IsInf(m, 1) {
		for i, v := range logits {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 1) {
				return 0, badLogit(i, v)
			}
		}
	}
	best := cpu.MaxF32(logits)
	if best == negInf {
		return 0, badLogits("every token has -inf: none can be chosen")
	}
	return int32(slices.Index(logits, best)), nil
}

// draw chooses a token with the probabilities that the filters leave. best is the largest logit.
func (s *Sampler) draw(logits []float32, best float32) int32 {
	p := &s.params
	if p.TopK > 0 && p.TopK < s.vocab {
		s.keepTopK(logits, best)
	} else {
		s.keepAll(logits, best)
	}
	if p.TopP < 1 {
		s.keepTopP()
	}
	if p.MinP > 0 {
		s.keepMinP()
	}
	if p.TypicalP < 1 {
		s.keepTypical(logits, best)
	}
	return pick(s.kept, s.uniform()*mass(s.kept))
}

// uniform returns the step's random number in [0, 1): the 53 high bits of the generator.
func (s *Sampler) uniform() float64 { return float64(s.rng.Uint64()>>11) * 0x1p-53 }

// pick returns the first token at which the running sum of weights passes target.
func pick(c []candidate, target float64) int32 {
	var sum float64
	last := c[0].id
	for i := range c {
		if c[i].weight == 0 {
			continue
		}
		last = c[i].id
		if sum += float64(c[i].weight); sum > target {
			break
		}
	}
	return last
}
