package infer

import "slices"

// draw is the rows of logits of one request in a step.
type draw struct {
	r     *request
	first int // row
	rows  int // one, and one for each guessed token
	made  int // tokens that were sampled
	err   error
}

// drawTask samples tokens, the requests of a step side by side.
type drawTask struct {
	logits []float32
	vocab  int
	of     []draw
	tokens []Token // by row
}

func (t *drawTask) start(logits []float32, vocab int) {
	t.logits, t.vocab = logits, vocab
	t.of, t.tokens = t.of[:0], t.tokens[:0]
}

func (t *drawTask) add(r *request, rows int) {
	t.of = append(t.of, draw{r: r, first: len(t.tokens), rows: rows})
	for range rows {
		t.tokens = append(t.tokens, Token{})
	}
}

// Run samples one request's tokens. A row that follows a guessed token counts when that token is the one that was sampled; then it is the
// row that a step of its own would have had. So guesses change the number of steps, and neither a token nor the use of random numbers.
func (t *drawTask) Run(i int) {
	d := &t.of[i]
	for j := range d.rows {
		row := d.first + j
		tok, err := d.r.sampler.Sample(t.logits[row*t.vocab : (row+1)*t.vocab])
		if err != nil {
			d.err = err
			return
		}
		t.tokens[row] = tok
		d.made++
		if j+1 < d.rows && d.r.draft.ids[j] != tok.ID || slices.Contains(d.r.params.StopTokenIDs, tok.ID) {
			return
		}
	}
}
