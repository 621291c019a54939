package infer

// penalties lowers the logits of tokens that were already used. It touches only those: a step costs as much as there are distinct
// tokens in the history, not the vocabulary. The zero value does nothing.
type penalties struct {
	repetition, presence, frequency float32
	count                           []int32 // by token id: occurrences in the continuation plus one; 0 = not in the history at all
	used                            []int32 // the ids with count > 0, in order of first use
}

func newPenalties(p SamplingParams, vocab int) penalties {
	if p.RepetitionPenalty == 1 && p.PresencePenalty == 0 && p.FrequencyPenalty == 0 {
		return penalties{}
	}
	return penalties{
		repetition: float32(p.RepetitionPenalty),
		presence:   float32(p.PresencePenalty),
		frequency:  float32(p.FrequencyPenalty),
		count:      make([]int32, vocab),
		used:       make([]int32, 0, vocab),
	}
}

func (h *penalties) active() bool { return h.count != nil }

// observe adds tokens to the history.
func (h *penalties) observe(ids []int32) {
	for _, id := range ids {
		if id < 0 || int(id) >= len(h.count) || h.count[id] > 0 {
			continue
		}
		h.count[id] = 1
		h.used = append(h.used, id)
	}
}

// generated adds a token of the continuation to the history.
func (h *penalties) generated(id int32) {
	if !h.active() {
		return
	}
	if h.count[id] == 0 {
		h.count[id] = 1
		h.used = append(h.used, id)
	}
	h.count[id]++
}

func (h *penalties) apply(logits []float32) {
	for _, id := range h.used {
		v := logits[id]
		if v < 0 {
			v *= h.repetition
		} else {
			v /= h.repetition
		}
		if n := h.count[id] - 1; n > 0 {
			v -= float32(float32(n)*h.frequency) + h.presence
		}
		logits[id] = v
	}
}
