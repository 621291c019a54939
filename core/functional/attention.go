package functional

import (
	"context"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// attention is attention of q [batch, length, heads, head_dim] over k, v [batch, length, kv_heads, head_dim], where
// kv_heads divides heads, causal or over whole sequences. Rows beyond a sequence's length are not computed: their results and gradients are zero.
func attention(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	data, err := floats(x)
	if err != nil {
		return nil, err
	}
	q, k := data[0].Shape(), data[1].Shape()
	switch {
	case len(q) != 4 || len(k) != 4:
		return nil, shapeError("q %v and k %v, expected (batch, length, heads, head_dim)", q, k)
	case !slices.Equal(k, data[2].Shape()):
		return nil, shapeError("k %v and v %v differ", k, data[2].Shape())
	case q[0] != k[0] || q[1] != k[1] || q[3] != k[3]:
		return nil, shapeError("q %v and k %v differ in batch, length or head_dim", q, k)
	case data[0].Len() == 0 || k[2] == 0 || q[2]%k[2] != 0:
		return nil, shapeError("q %v has %d heads, expected a positive multiple of the %d of k", q, q[2], k[2])
	}
	if err := share("p", p.P); err != nil {
		return nil, err
	}
	lengths := p.Lengths
	if lengths == nil {
		lengths = slices.Repeat([]int{q[1]}, q[0])
	}
	if len(lengths) != q[0] {
		return nil, argumentError("%d lengths for a batch of %d", len(lengths), q[0])
	}
	op := &operation{name: "attention", key: planKey("attention", data, lengths...), x: data, out: q, lengths: lengths, kvHeads: k[2], headDim: q[3],
		training: nn.Training{AttentionDropout: float32(p.P), Seed: nn.StepSeed(p.Seed, 0, 0)}}
	padded := false
	for b, n := range lengths {
		if n < 1 || n > q[1] {
			return nil, argumentError("lengths[%d] = %d: expected 1 to %d", b, n, q[1])
		}
		padded = padded || n < q[1]
		for i := range n {
			op.rows = append(op.rows, nn.Row{Seq: int32(b), Pos: int32(i)})
		}
	}
	a := nn.Attention{Heads: q[2], KVHeads: k[2], Dim: q[3], Bidirectional: !p.Causal}
	if !padded {
		op.forward = func(s *step) *tensor.Tensor {
			return a.Attend(s.ctx, s.see(0, q[2]*q[3]), s.see(1, k[2]*k[3]), s.see(2, k[2]*k[3]))
		}
		return op.run(ctx, m, x)
	}
	// The rows that count, one after the other; their gradients go back to where they came from.
	packed := packing{lengths: lengths, length: q[1]}
	op.forward = func(s *step) *tensor.Tensor {
		rows := [3]*tensor.Tensor{}
		for i, cols := range [3]int{q[2] * q[3], k[2] * k[3], k[2] * k[3]} {
			whole := s.see(i, cols)
			rows[i] = s.ctx.New(len(op.rows), cols)
			packed.gather(rows[i].Float32s(), whole.Float32s(), cols)
			if s.ctx.Recording() {
				s.tape.Record(&packOp{packing: packed, whole: whole, rows: rows[i]})
			}
		}
		y := a.Attend(s.ctx, rows[0], rows[1], rows[2])
		out := s.ctx.New(q[0]*q[1], q[2]*q[3])
		clear(out.Float32s())
		packed.scatter(out.Float32s(), y.Float32s(), q[2]*q[3])
		if s.ctx.Recording() {
			s.tape.Record(&unpackOp{packing: packed, rows: y, whole: out})
		}
		return out
	}
	return op.run(ctx, m, x)
}

// packing says which rows of a padded batch count.
type packing struct {
	lengths []int
	length  int // with padding
}

func (p packing) each(f func(packed, whole int)) {
	row := 0
	for b, n := range p.lengths {
		for i := range n {
			f(row, b*p.length+i)
			row++
		}
	}
}

func (p packing) gather(packed, whole []float32, cols int) {
	p.each(func(to, from int) { copy(packed[to*cols:(to+1)*cols], whole[from*cols:(from+1)*cols]) })
}

func (p packing) scatter(whole, packed []float32, cols int) {
	p.each(func(from, to int) { copy(whole[to*cols:(to+1)*cols], packed[from*cols:(from+1)*cols]) })
}

// packOp is rows = the rows of whole that count.
type packOp struct {
	packing
	whole, rows *tensor.Tensor
}

func (o *packOp) Backward(t *autograd.Tape) {
	d := t.Memory().New(o.whole.Dim(0), o.whole.Dim(1))
	clear(d.Float32s())
	o.scatter(d.Float32s(), t.Take(o.rows).Float32s(), o.whole.Dim(1))
	t.Done(o.rows)
	t.Add(o.whole, d)
}

// unpackOp is the reverse, with zeros elsewhere.
type unpackOp struct {
	packing
	rows, whole *tensor.Tensor
}

func (o *unpackOp) Backward(t *autograd.Tape) {
	d := t.Memory().New(o.rows.Dim(0), o.rows.Dim(1))
	o.gather(d.Float32s(), t.Take(o.whole).Float32s(), o.rows.Dim(1))
	t.Done(o.whole)
	t.Add(o.rows, d)
}
