package nn

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Distillation adds a teacher's distribution to a loss (Hinton et al. 2015): with the student's logits z and the teacher's t,
// a position's loss is
//
//	(1-Alpha) * cross-entropy(z, target) + Alpha * T^2 * KL(softmax(t/T) || softmax(z/T))
//
// The factor T^2 keeps gradients of the second term as large as those of the first, whatever the temperature T is.
type Distillation struct {
	Alpha, Temperature float32        // the teacher's share, and T
	Teacher            *Head          // computes t of Hidden
	Ctx                *Ctx           // of the teacher's forward pass, which is open: its memory is not the student's
	Hidden             *tensor.Tensor // the teacher's residual stream [rows, its hidden_size]
	KL                 []float64      // [rows] gets the divergence of each position, in nats; 0 where the target is ignored
}

// logits writes the teacher's logits of rows [first, first+n) to out [n, vocab_size].
func (d *Distillation) logits(first, n int, out []float32) {
	dim := d.Hidden.Dim(1)
	x := d.Ctx.view(d.Hidden.Float32s()[first*dim:(first+n)*dim], n, dim)
	last := d.Teacher.Norm.normalize(d.Ctx, x)
	d.Ctx.denseInto(last, d.Teacher.Proj, out)
	d.Ctx.Free(last)
}

// distillTask makes rows of logits ready for entropyTask: it computes the divergence and leaves its gradient in teacher.
type distillTask struct {
	d             *Distillation
	logits        []float32 // the student's; not changed
	teacher       []float32 // the teacher's; becomes scale * Alpha * T * (softmax(z/T) - softmax(t/T)) if differentiate
	work          []float32
	vocab         int
	targets       []int32
	kl            []float64
	scale         float32
	differentiate bool
}

func (t *distillTask) row(r int) {
	from, to := r*t.vocab, (r+1)*t.vocab
	z, q, p := t.logits[from:to], t.teacher[from:to], t.work[from:to]
	t.kl[r] = 0
	if t.targets[r] == IgnoreTarget {
		clear(q)
		return
	}
	cold := 1 / t.d.Temperature
	cpu.ScaleMul(q, q, nil, cold)
	cpu.ScaleMul(p, z, nil, cold)
	topQ, topP := cpu.MaxF32(q), cpu.MaxF32(p)
	for i, v := range q {
		p[i] = v - p[i] // log q - log p, up to a constant
	}
	sumQ := cpu.ExpSum(q, topQ)
	mean := 0.0
	for i, v := range q {
		mean += float64(float64(v) * float64(p[i])) // rounded before it is added
	}
	cpu.ScaleMul(p, z, nil, cold)
	sumP := cpu.ExpSum(p, topP)
	logQ, logP := float64(topQ)+math.Log(float64(sumQ)), float64(topP)+math.Log(float64(sumP))
	t.kl[r] = mean/float64(sumQ) - logQ + logP
	if t.differentiate {
		weight := t.scale * t.d.Alpha * t.d.Temperature
		cpu.ScaleMul(p, p, nil, weight/sumP)
		cpu.ScaleMul(q, q, nil, -weight/sumQ)
		cpu.Add(q, q, p)
	}
}

// distill compares rows [first, first+n) of the student's logits with the teacher's and returns the gradient of what
// Distillation adds to the loss, [n, vocab_size], to be freed.
func (c *Ctx) distill(logits *tensor.Tensor, first int, targets []int32, scale float32, differentiate bool) *tensor.Tensor {
	n, vocab := logits.Dim(0), logits.Dim(1)
	d := c.training.Distill
	teacher, work := c.New(n, vocab), c.New(n, vocab)
	d.logits(first, n, teacher.Float32s())
	c.distilled = distillTask{d: d, logits: logits.Float32s(), teacher: teacher.Float32s(), work: work.Float32s(), vocab: vocab,
		targets: targets, kl: d.KL[first : first+n], scale: scale, differentiate: differentiate}
	c.eachRow(n, &c.distilled)
	c.Free(work)
	return teacher
}
