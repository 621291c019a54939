package infer

import (
	"context"
	"slices"
)

// draft is what is guessed of a request's next tokens.
type draft struct {
	ids   []int32 // the guess for the step under way
	rows  []int32 // the last token and the guess: memory for the step
	limit int     // how many to guess next time, 0 before the first time

	// With a drafter.
	want    int // how long the guess should be
	seq     *Sequence
	sampler *Sampler
}

// draftRows is how many rows a step may have with guesses. Up to about as many, reading the weights takes longer than multiplying with them.
const draftRows = 16

// propose guesses the next tokens of the requests that decode, by lookup for those that want it, else with the drafter if there is one,
// as long as the step stays small.
func (b *batch) propose(ctx context.Context) error {
	rows := 0
	b.drafting = b.drafting[:0]
	for _, r := range b.active {
		if r.draft.ids = r.draft.ids[:0]; r.decodes() {
			rows++
		}
	}
	for _, r := range b.active {
		if !r.decodes() {
			continue
		}
		most := min(draftRows-rows, b.left(r)-1)
		if r.draft.limit > 0 {
			most = min(most, r.draft.limit)
		}
		if n := min(most, r.params.PromptLookup); n > 0 {
			r.draft.ids = lookup(r.tokens, n, r.draft.ids)
		}
		if b.drafter != nil && !b.drafter.yielded && len(r.draft.ids) == 0 {
			r.draft.want = min(most, b.drafter.most, b.drafter.e.model.Config.MaxPositionEmbeddings-len(r.tokens))
			b.drafting = append(b.drafting, r)
			rows += max(r.draft.want, 0)
		}
		rows += len(r.draft.ids)
	}
	if len(b.drafting) == 0 {
		return nil
	}
	return b.drafter.guess(ctx, b.drafting)
}

// learn sets how many tokens are guessed next time: more after a guess that was right to its end, else about as many as were right.
func (d *draft) learn(right int) {
	if right == len(d.ids) {
		d.limit = right + 2
	} else {
		d.limit = right + 1
	}
}

// Lengths of the runs of tokens that lookup searches for.
const (
	longestRun  = 3
	shortestRun = 2
)

// lookup appends to out the tokens that followed when the last few tokens stood in the sequence before; the longest run that is found
// counts, and of its places the latest. Where that reaches to the end, what was found goes on: a period repeats itself. There are `most`
// tokens, or none if no run is found.
func lookup(tokens []int32, most int, out []int32) []int32 {
	for n := longestRun; n >= shortestRun; n-- {
		end := len(tokens) - n
		if end < 1 {
			continue
		}
		run := tokens[end:]
		for at := end - 1; at >= 0; at-- {
			if tokens[at] == run[0] && slices.Equal(tokens[at:at+n], run) {
				first := len(out)
				for i := at + n; len(out)-first < most; i++ {
					if i < len(tokens) {
						out = append(out, tokens[i])
					} else {
						out = append(out, out[first+i-len(tokens)])
					}
				}
				return out
			}
		}
	}
	return out
}
