package nn

import (
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// IgnoreTarget marks positions that do not count in a loss (the value that PyTorch and Hugging Face use).
const IgnoreTarget = -100

// lossRows is how many rows of logits a loss has in memory at a time.
const lossRows = 256

// LogProb returns p = log softmax(logits)[id] and leaves exp(logits - max) in logits, whose sum it returns too.
func LogProb(logits []float32, id int32) (p float64, sum float32) {
	return logProb(logits, id, cpu.MaxF32(logits))
}

func logProb(logits []float32, id int32, top float32) (p float64, sum float32) {
	at := logits[id]
	sum = cpu.ExpSum(logits, top)
	return float64(at) - float64(top) - math.Log(float64(sum)), sum
}

// Predicts says whether id has the highest logit, the first of several.
func Predicts(logits []float32, id int32) bool { return predicts(logits, id, cpu.MaxF32(logits)) }

func predicts(logits []float32, id int32, top float32) bool {
	return logits[id] == top && slices.Index(logits, top) == int(id)
}

// Loss computes the cross-entropy, in nats, between the head's logits for each row of x [rows, hidden_size] and its target
// and writes it to nats [rows]; a row whose target is ignored gets 0. It returns how many targets are the token with the
// highest logit, the first of several. Logits exist lossRows rows at a time, and so do a teacher's (see Distillation). With a tape attached it also computes the
// gradient of scale times the sum of nats right away, which is the end that Tape.Backward starts from.
func (h *Head) Loss(c *Ctx, x *tensor.Tensor, targets []int32, scale float32, nats []float64) (correct int) {
	dim, vocab := x.Dim(1), h.Proj.Out
	var table packed
	var dx *tensor.Tensor
	differentiate := c.tape != nil
	if differentiate {
		table = c.pack(h.Proj.Weight.Data, vocab, dim)
		dx = c.New(x.Dim(0), dim)
	}
	for r := 0; r < x.Dim(0); r += lossRows {
		n := min(lossRows, x.Dim(0)-r)
		xs := c.view(x.Float32s()[r*dim:(r+n)*dim], n, dim)
		last, logits := h.Norm.normalize(c, xs), c.New(n, vocab)
		c.denseInto(last, h.Proj, logits.Float32s())
		share := scale // of the cross-entropy
		var dTeacher *tensor.Tensor
		if d := c.training.Distill; d != nil {
			dTeacher = c.distill(logits, r, targets[r:r+n], scale, differentiate)
			share *= 1 - d.Alpha
		}
		hits := c.scratch.Alloc(n)
		c.entropy = entropyTask{
			logits: logits.Float32s(), vocab: vocab, targets: targets[r : r+n], nats: nats[r : r+n], hits: hits,
			scale: share, differentiate: differentiate,
		}
		c.eachRow(n, &c.entropy)
		for _, hit := range hits {
			correct += int(hit)
		}
		c.scratch.Free(hits)
		if dTeacher != nil {
			if differentiate {
				cpu.Add(logits.Float32s(), logits.Float32s(), dTeacher.Float32s())
			}
			c.Free(dTeacher)
		}
		if differentiate {
			d := c.view(dx.Float32s()[r*dim:(r+n)*dim], n, dim)
			c.mulPacked(d, logits, table)
			c.addOuter(h.Proj.Weight.Grad, logits, last)
			c.normBackward(h.Norm, xs, d, d, false)
		}
		c.Free(logits)
		c.Free(last)
	}
	if differentiate {
		table.free(c)
		c.tape.Add(x, dx)
	}
	return correct
}

// entropyTask computes the loss of each row of logits and, when asked, replaces the row by its gradient.
type entropyTask struct {
	logits        []float32
	vocab         int
	targets       []int32
	nats          []float64
	hits          []byte // 1 where the target has the highest logit
	scale         float32
	differentiate bool
}

func (t *entropyTask) row(r int) {
	row, id := t.logits[r*t.vocab:(r+1)*t.vocab], t.targets[r]
	t.nats[r], t.hits[r] = 0, 0
	if id == IgnoreTarget {
		clear(row)
		return
	}
	top := cpu.MaxF32(row)
	if predicts(row, id, top) {
		t.hits[r] = 1
	}
	p, sum := logProb(row, id, top)
	t.nats[r] = -p
	if t.differentiate {
		cpu.ScaleMul(row, row, nil, t.scale/sum)
		row[id] -= t.scale
	}
}
