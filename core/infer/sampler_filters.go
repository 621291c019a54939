package infer

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Weights are exp((logit - best) / temperature): the most probable token weighs 1, and no temperature overflows.

func (s *Sampler) scaled(logit, best float32) float64 {
	return (float64(logit) - float64(best)) / s.params.Temperature
}

// keepAll starts with every token that has a weight.
func (s *Sampler) keepAll(logits []float32, best float32) {
	s.weigh(logits, best)
	s.kept = grow(s.kept, len(logits))
	for i, w := range s.weights {
		if w > 0 {
			s.kept = append(s.kept, candidate{id: int32(i), key: logits[i], weight: w})
		}
	}
}

// keepTopK starts with the TopK largest logits.
func (s *Sampler) keepTopK(logits []float32, best float32) {
	var kth candidate
	kth, s.shuffled = topBorder(logits, s.params.TopK, s.shuffled)
	s.kept = grow(s.kept, s.params.TopK)
	s.weights = s.weights[:0]
	for i, v := range logits {
		if kth.within(i, v) {
			s.kept = append(s.kept, candidate{id: int32(i), key: v})
			s.weights = append(s.weights, v)
		}
	}
	s.weigh(s.weights, best)
	for i, w := range s.weights {
		s.kept[i].weight = w
	}
}

// weigh sets s.weights to the weights of the logits, which may be s.weights itself.
func (s *Sampler) weigh(logits []float32, best float32) {
	s.weights = append(s.weights[:0], logits...)
	for i, v := range s.weights {
		s.weights[i] = float32(s.scaled(v, best))
	}
	cpu.ExpSum(s.weights, 0)
}

// keepTopP keeps the shortest run of most probable tokens that holds TopP of the probability.
//
// n tokens below a weight of (1-TopP)/n of the total hold less than 1-TopP together, so the run ends above that weight and the
// selection need not look below: of a real model's vocabulary it sees some hundred tokens.
func (s *Sampler) keepTopP() {
	total := mass(s.kept)
	least := float32((1 - s.params.TopP) * total / float64(len(s.kept)))
	s.shuffled = grow(s.shuffled, len(s.kept))
	for _, c := range s.kept {
		if c.weight >= least {
			s.shuffled = append(s.shuffled, c)
		}
	}
	s.kept = keepThrough(s.kept, border(s.shuffled, s.params.TopP*total, byWeight))
}

// keepMinP keeps the tokens that have at least MinP of the largest probability. The filters before it never drop the most probable
// token, so the largest weight is 1.
func (s *Sampler) keepMinP() {
	n := 0
	for _, c := range s.kept {
		if float64(c.weight) >= s.params.MinP {
			s.kept[n] = c
			n++
		}
	}
	s.kept = s.kept[:n]
}

// keepTypical keeps the shortest run of tokens, those whose information -log p is nearest to its mean, the entropy, first, that
// holds TypicalP of the probability. Information differs from (best - logit) / temperature by a constant, so the distance from
// the mean is the same for both.
func (s *Sampler) keepTypical(logits []float32, best float32) {
	var sum, mean float64
	for i := range s.kept {
		w := float64(s.kept[i].weight)
		if w == 0 {
			continue // its logit may be so low that it scales to -inf
		}
		sum += w
		mean += float64(w * s.scaled(logits[s.kept[i].id], best))
	}
	mean /= sum
	for i := range s.kept {
		s.kept[i].key = float32(-math.Abs(s.scaled(logits[s.kept[i].id], best) - mean))
	}
	s.shuffled = append(grow(s.shuffled, len(s.kept)), s.kept...)
	s.kept = keepThrough(s.kept, border(s.shuffled, s.params.TypicalP*mass(s.kept), byWeight))
}

func mass(c []candidate) float64 {
	var sum float64
	for i := range c {
		sum += float64(c[i].weight)
	}
	return sum
}
