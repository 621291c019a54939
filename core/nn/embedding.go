package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Embedding is a table [rows, dim]: of tokens, or of learned positions (see Ctx.Positions).
type Embedding struct {
	Table *quant.Dense    // [rows, dim]
	Param *autograd.Param // the table as a trainable parameter, or nil
}

// Forward returns the rows of ids, [len(ids), hidden_size]. The ids must be in range.
func (e *Embedding) Forward(c *Ctx, ids []int32) *tensor.Tensor {
	y := c.New(len(ids), e.Table.Cols)
	c.lookup = lookupTask{e: e, ids: ids, out: y.Float32s()}
	c.eachRow(len(ids), &c.lookup)
	c.didRead(OpEmbedding, len(ids)*e.Table.Bytes()/e.Table.Rows, 0)
	if c.tape != nil && e.Param != nil {
		c.tape.Record(&lookupOp{table: e.Param, ids: ids, out: y})
	}
	return y
}

type lookupTask struct {
	e   *Embedding
	ids []int32
	out []float32
}

func (t *lookupTask) row(r int) {
	w := t.e.Table
	if p := t.e.Param; p != nil { // its rows are contiguous
		copy(t.out[r*w.Cols:(r+1)*w.Cols], p.Data[int(t.ids[r])*w.Cols:])
		return
	}
	cpu.DenseRow(t.out[r*w.Cols:(r+1)*w.Cols], w.Format, w.Panels, w.RowScale, w.Cols, int(t.ids[r]))
}

// Head turns the last hidden states into logits.
type Head struct {
	Norm *Norm   // the model's final norm
	Proj *Linear // [vocab_size, hidden_size], dense

	Scores *quant.Scores // of Proj, for ForwardTop, or nil
}

// Forward writes the logits of the given rows of x [rows, hidden_size] into out [len(rows), vocab_size].
func (h *Head) Forward(c *Ctx, x *tensor.Tensor, rows []int32, out []float32) {
	last := h.normalized(c, x, rows)
	c.denseInto(last, h.Proj, out)
	c.didRows(OpHead, len(rows), h.Proj)
	c.Free(last)
}

// Hidden writes the given rows of x [rows, hidden_size] after the final norm, from which Forward computes logits, into out
// [len(rows), hidden_size].
func (h *Head) Hidden(c *Ctx, x *tensor.Tensor, rows []int32, out []float32) {
	c.enter(-1)
	dim := x.Dim(1)
	for i, r := range rows {
		h.Norm.apply(out[i*dim:(i+1)*dim], x.Float32s()[int(r)*dim:(int(r)+1)*dim])
	}
	c.did(OpQuantize)
}

// normalized gives some rows of x, normalized.
func (h *Head) normalized(c *Ctx, x *tensor.Tensor, rows []int32) *tensor.Tensor {
	last := c.New(len(rows), x.Dim(1))
	h.Hidden(c, x, rows, last.Float32s())
	return last
}
