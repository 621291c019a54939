package infer

import (
	"math"
	"slices"
)

// keepRaw returns the model's own logits as addLogprobs will need them: logits itself if nothing will change them, else a copy.
func (s *Sampler) keepRaw(logits []float32) []float32 {
	if s.params.Logprobs < 0 || (len(s.bias) == 0 && !s.penalty.active()) {
		return logits
	}
	s.raw = append(s.raw[:0], logits...)
	return s.raw
}

// addLogprobs fills in log-probabilities: log softmax(model).
func (s *Sampler) addLogprobs(tok *Token, model []float32) {
	norm := logSumExp(model)
	tok.Logprob = float32(float64(model[tok.ID]) - norm)
	n := s.params.Logprobs
	if n == 0 {
		return
	}
	var last candidate
	last, s.shuffled = topBorder(model, n, s.shuffled)
	top := make([]candidate, 0, n)
	for i, v := range model {
		if last.within(i, v) {
			top = append(top, candidate{id: int32(i), key: v})
		}
	}
	slices.SortFunc(top, func(a, b candidate) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	tok.Top = make([]TokenLogprob, len(top))
	for i, c := range top {
		tok.Top[i] = TokenLogprob{c.id, float32(float64(c.key) - norm)}
	}
}

// logSumExp returns log(sum(exp(x))), summed in float64 in ascending order.
func logSumExp(x []float32) float64 {
	best := slices.Max(x)
	var sum float64
	for _, v := range x {
		sum += math.Exp(float64(v) - float64(best))
	}
	return float64(best) + math.Log(sum)
}
