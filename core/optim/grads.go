package optim

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Gradients works on the gradients of a list of parameters in place, and measures them. Parameters without a gradient are
// passed over. Its methods allocate nothing and return an *ArgumentError when a slice has changed its length.
type Gradients struct {
	params  []*Param
	lengths []int // of Data, fixed from the start
	spans   []span
	sums    []float64 // of squares, one a span
	norms   []float64 // one a parameter

	// The job under way.
	job     gradJob
	factor  float32
	factors []float32 // one a parameter, for scaleEach
}

type gradJob uint8

const (
	sumSquaresJob gradJob = iota
	scaleJob
	scaleEachJob
	clampJob
	zeroJob
)

// NewGradients gives access to the gradients of params; an optimizer has one of its own ([Optimizer.Grads]). It returns an
// *ArgumentError for a nil parameter, a shape that does not fit, and names or memory that appear twice.
func NewGradients(params []*Param) (*Gradients, error) {
	if err := checkParams(params); err != nil {
		return nil, err
	}
	g := &Gradients{params: params, lengths: make([]int, len(params)), norms: make([]float64, len(params)), factors: make([]float32, len(params))}
	for i, p := range params {
		g.lengths[i] = len(p.Data)
	}
	g.spans = cut(g.lengths)
	g.sums = make([]float64, len(g.spans))
	return g, g.check()
}

func (g *Gradients) check() error {
	for i, p := range g.params {
		if err := checkLengths(p, i, g.lengths[i]); err != nil {
			return err
		}
	}
	return nil
}

// Zero sets all gradients to zero.
func (g *Gradients) Zero() error { return g.run(zeroJob) }

// Scale multiplies all gradients by factor: 1/n makes a mean of the sum over n micro-batches.
func (g *Gradients) Scale(factor float32) error {
	if f := float64(factor); math.IsNaN(f) || math.IsInf(f, 0) {
		return &ArgumentError{"factor", factor, "expected a finite number"}
	}
	g.factor = factor
	return g.run(scaleJob)
}

// Average divides gradients that were summed over a number of micro-batches by that number.
func (g *Gradients) Average(microBatches int) error {
	if microBatches < 1 {
		return &ArgumentError{"micro_batches", microBatches, "expected a whole number >= 1"}
	}
	if microBatches == 1 {
		return g.check()
	}
	return g.Scale(float32(1 / float64(microBatches)))
}

// Norm is the Euclidean norm of all gradients taken as one vector: sums of squares in float64, in one order whatever the number
// of threads. It is finite exactly if every gradient is.
func (g *Gradients) Norm() (float64, error) {
	if err := g.run(sumSquaresJob); err != nil {
		return 0, err
	}
	total := 0.0
	clear(g.norms)
	for i, at := range g.spans {
		g.norms[at.param] += g.sums[i]
	}
	for i, sum := range g.norms {
		total += sum
		g.norms[i] = math.Sqrt(sum)
	}
	return math.Sqrt(total), nil
}

// Norms appends each parameter's norm as of the last call of Norm, or of a method that takes the norm, to dst.
func (g *Gradients) Norms(dst []float64) []float64 { return append(dst, g.norms...) }

// FirstNonFinite finds the first infinity or NaN in the order of the parameters, nil if there is none.
func (g *Gradients) FirstNonFinite() *NonFiniteError {
	for i, p := range g.params {
		for j, x := range p.Grad {
			if x-x != 0 {
				return &NonFiniteError{label(p, i), j, x}
			}
		}
	}
	return nil
}

// finiteNorm is Norm with an error that names the place when it is not finite.
func (g *Gradients) finiteNorm() (float64, error) {
	norm, err := g.Norm()
	if err != nil {
		return 0, err
	}
	if !finiteFrom(norm, 0) { // one is not: float32 squares do not overflow float64
		return norm, g.FirstNonFinite()
	}
	return norm, nil
}

func (g *Gradients) run(job gradJob) error {
	if err := g.check(); err != nil {
		return err
	}
	g.job = job
	cpu.Parallel(len(g.spans), (*gradTask)(g))
	return nil
}

// gradTask is the parallel part.
type gradTask Gradients

func (g *gradTask) Run(chunk int) {
	at := g.spans[chunk]
	x := g.params[at.param].Grad
	if len(x) == 0 {
		g.sums[chunk] = 0
		return
	}
	x = x[at.lo:at.hi]
	switch g.job {
	case sumSquaresJob:
		g.sums[chunk] = sumSquares(x)
	case scaleJob:
		scale(x, g.factor)
	case scaleEachJob:
		scale(x, g.factors[at.param])
	case clampJob:
		clamp(x, g.factor)
	case zeroJob:
		clear(x)
	}
}

// sumSquares adds x[i]^2 in float64 in four chains by i modulo 4, (s0+s1)+(s2+s3). The square of a float32 is exact.
func sumSquares(x []float32) float64 {
	var s [4]float64
	cpu.AddSquares64(&s, x)
	return (s[0] + s[1]) + (s[2] + s[3])
}

func scale(x []float32, by float32) {
	for i := range x {
		x[i] *= by
	}
}

// clamp limits x to [-limit, limit]; a NaN stays one.
func clamp(x []float32, limit float32) {
	for i, v := range x {
		if v > limit {
			x[i] = limit
		} else if v < -limit {
			x[i] = -limit
		}
	}
}
