package infer

import "slices"

// draft is what is guessed of a request's next tokens.
type draft struct {
	ids   []int32 // the guess for the step under way
	rows  []int32 // the last token and the guess: memory for the step
	limit int     // how many to guess next time, 0 before the first time
}

// draftRows is how many rows a step may have with guesses. Up to about as many, reading the weights takes longer than multiplying with them.
const draftRows = 16

// propose guesses the next tokens of the requests that decode and want it, as long as the step stays small.
func (b *batch) propose() {
	rows := 0
	for _, r := range b.active {
		if r.draft.ids = r.draft.ids[:0]; r.decodes() {
			rows++
		}
	}
	for _, r := range b.active {
		if r.params.PromptLookup == 0 || !r.decodes() {
			continue
		}
		most := min(r.params.PromptLookup, draftRows-rows, b.left(r)-1)
		if r.draft.limit > 0 {
			most = min(most, r.draft.limit)
		}
		if most > 0 {
			r.draft.ids = lookup(r.tokens, most, r.draft.ids)
			rows += len(r.draft.ids)
		}
	}
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

// lookup appends to out the tokens, most at most, that followed when the last few tokens stood in the sequence before; the longest run
// that is found counts, and of its places the latest.
func lookup(tokens []int32, most int, out []int32) []int32 {
	for n := longestRun; n >= shortestRun; n-- {
		end := len(tokens) - n
		if end < 1 {
			continue
		}
		run := tokens[end:]
		for at := end - 1; at >= 0; at-- {
			if tokens[at] == run[0] && slices.Equal(tokens[at:at+n], run) {
				next := tokens[at+n:]
				return append(out, next[:min(most, len(next))]...)
			}
		}
	}
	return out
}
