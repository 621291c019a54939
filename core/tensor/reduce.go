package tensor

import (
	"math"
	"slices"
)

// reduction splits the axes of a tensor into kept and reduced ones.
type reduction struct {
	x       *Tensor
	kept    []int // axes of x
	reduced []int
	outer   int   // output elements
	inner   int   // elements folded into each
	shape   []int // of the result
}

// planReduction resolves axes; nil means all of them.
func planReduction(op string, x *Tensor, axes []int, keepDims bool) (reduction, error) {
	p := reduction{x: x, outer: 1, inner: 1}
	drop := make([]bool, len(x.shape))
	for i := range drop {
		drop[i] = axes == nil
	}
	for _, a := range axes {
		a, err := axisOf(op, a, x.shape)
		if err != nil {
			return p, err
		}
		if drop[a] {
			return p, valueErrorf("%s: axis %d appears twice in %v", op, a, axes)
		}
		drop[a] = true
	}
	for i, n := range x.shape {
		switch {
		case !drop[i]:
			p.kept = append(p.kept, i)
			p.shape = append(p.shape, n)
			p.outer *= n
		default:
			p.reduced = append(p.reduced, i)
			p.inner *= n
			if keepDims {
				p.shape = append(p.shape, 1)
			}
		}
	}
	return p, nil
}

// fold is the reduce engine: for each output element i it starts from init(i)
// and steps over the reduced elements in row-major order. step sees them in
// slices whose lengths carry no meaning.
func fold[T number, A any](p reduction, init func(i int) A, step func(A, []T) A) []A {
	out := make([]A, p.outer)
	for i := range out {
		out[i] = init(i)
	}
	if p.inner == 0 {
		return out
	}
	if p.columnwise() {
		foldColumns(p, out, step)
		return out
	}
	parallel(p.outer, grain/p.inner+1, func(lo, hi int) {
		r := newReader[T](p.x, pick(p.x.shape, p.kept, p.reduced), pick(p.x.strides, p.kept, p.reduced))
		r.seek(lo * p.inner)
		for i := lo; i < hi; i++ {
			for n := range chunks(p.inner) {
				out[i] = step(out[i], r.next(n))
			}
		}
	})
	return out
}

// tileColumns is the number of output elements foldColumns works on at once.
const tileColumns = 32

// columnwise reports whether neighbouring outputs lie closer in memory than
// the elements folded into one output, as when axis 0 of a matrix is reduced.
func (p *reduction) columnwise() bool {
	if len(p.kept) == 0 || len(p.reduced) == 0 || p.inner < 8 {
		return false
	}
	k, r := p.kept[len(p.kept)-1], p.reduced[len(p.reduced)-1]
	return p.x.shape[k] >= 8 && abs(p.x.strides[k]) < abs(p.x.strides[r])
}

// foldColumns reads tiles of tileColumns outputs row by row, the way memory
// runs, and turns them so that step sees each output's elements in the same
// order as in fold.
func foldColumns[T number, A any](p reduction, out []A, step func(A, []T) A) {
	x := p.x
	last := p.kept[len(p.kept)-1]
	width := x.shape[last]
	tiles := (width + tileColumns - 1) / tileColumns
	rows := chunk / tileColumns
	parallel(p.outer/width*tiles, grain/(p.inner*tileColumns)+1, func(lo, hi int) {
		base := newCursor(pick(x.shape, p.kept[:len(p.kept)-1], nil), pick(x.strides, p.kept[:len(p.kept)-1], nil), x.offset)
		turned := make([]T, rows*tileColumns)
		for t := lo; t < hi; t++ {
			line, first := t/tiles, t%tiles*tileColumns
			columns := min(tileColumns, width-first)
			base.seek(line)
			tile := x.view(append(pick(x.shape, p.reduced, nil), columns), append(pick(x.strides, p.reduced, nil), x.strides[last]),
				base.pos+first*x.strides[last])
			r, acc := read[T](tile), out[line*width+first:][:columns]
			for done := 0; done < p.inner; done += rows {
				n := min(rows, p.inner-done)
				for i, v := range r.next(n * columns) {
					turned[i%columns*n+i/columns] = v
				}
				for j := range acc {
					acc[j] = step(acc[j], turned[j*n:j*n+n])
				}
			}
		}
	})
}

// collect turns accumulators into the result tensor.
func collect[A any, U number](p reduction, dt DType, acc []A, value func(A) U) (*Tensor, error) {
	out, err := New(dt, p.shape...)
	if err != nil {
		return nil, err
	}
	w, i := write[U](out), 0
	for n := range chunks(len(acc)) {
		for j, dst := 0, w.next(n); j < n; j++ {
			dst[j] = value(acc[i])
			i++
		}
		w.done()
	}
	return out, nil
}

func zero[A any](int) (a A) { return a }

// Sum adds over the axes (nil: all). Floats accumulate in float64 and answer in
// their dtype; integers and bools in int64. An empty sum is 0.
func Sum(x *Tensor, axes []int, keepDims bool) (*Tensor, error) {
	p, err := planReduction("sum", x, axes, keepDims)
	if err != nil {
		return nil, err
	}
	if !x.dtype.IsFloat() {
		acc := fold(p, zero[int64], func(s int64, x []int64) int64 {
			for _, v := range x {
				s += v
			}
			return s
		})
		return collect(p, Int64, acc, func(s int64) int64 { return s })
	}
	return collect(p, x.dtype, fold(p, zero[float64], addUp), narrow)
}

// Prod multiplies over the axes; dtypes as in [Sum]. An empty product is 1.
func Prod(x *Tensor, axes []int, keepDims bool) (*Tensor, error) {
	p, err := planReduction("prod", x, axes, keepDims)
	if err != nil {
		return nil, err
	}
	if !x.dtype.IsFloat() {
		acc := fold(p, func(int) int64 { return 1 }, func(s int64, x []int64) int64 {
			for _, v := range x {
				s *= v
			}
			return s
		})
		return collect(p, Int64, acc, func(s int64) int64 { return s })
	}
	acc := fold(p, func(int) float64 { return 1 }, func(s float64, x []float32) float64 {
		for _, v := range x {
			s *= float64(v)
		}
		return s
	})
	return collect(p, x.dtype, acc, narrow)
}

// Mean averages over the axes in float64; the mean of integers is float32, the
// mean of nothing NaN.
func Mean(x *Tensor, axes []int, keepDims bool) (*Tensor, error) {
	p, err := planReduction("mean", x, axes, keepDims)
	if err != nil {
		return nil, err
	}
	return collect(p, x.dtype.floating(), means(p), narrow)
}

// Var is the mean squared deviation from the mean, with divisor n-ddof: two
// passes in float64. With n <= ddof the result is NaN or infinite.
func Var(x *Tensor, axes []int, ddof int, keepDims bool) (*Tensor, error) {
	return variance("var", x, axes, ddof, keepDims, func(v float64) float32 { return float32(v) })
}

// Std is the square root of [Var].
func Std(x *Tensor, axes []int, ddof int, keepDims bool) (*Tensor, error) {
	return variance("std", x, axes, ddof, keepDims, func(v float64) float32 { return float32(math.Sqrt(v)) })
}

func variance(op string, x *Tensor, axes []int, ddof int, keepDims bool, finish func(float64) float32) (*Tensor, error) {
	p, err := planReduction(op, x, axes, keepDims)
	if err != nil {
		return nil, err
	}
	type deviation struct{ mean, sum float64 }
	center := means(p)
	acc := fold(p, func(i int) deviation { return deviation{mean: center[i]} }, func(d deviation, x []float32) deviation {
		for _, v := range x {
			e := float64(v) - d.mean
			d.sum += float64(e * e)
		}
		return d
	})
	divisor := float64(max(p.inner-ddof, 0))
	return collect(p, x.dtype.floating(), acc, func(d deviation) float32 { return finish(d.sum / divisor) })
}

// means returns the float64 mean for each output element.
func means(p reduction) []float64 {
	var acc []float64
	if p.x.dtype.IsFloat() {
		acc = fold(p, zero[float64], addUp)
	} else { // int64 values would round on the way through float32
		acc = fold(p, zero[float64], func(s float64, x []int64) float64 {
			for _, v := range x {
				s += float64(v)
			}
			return s
		})
	}
	for i := range acc {
		acc[i] /= float64(p.inner)
	}
	return acc
}

// Norm is the vector norm of the given order over the axes: 2 Euclidean, 1 the
// sum and +Inf or -Inf the largest or smallest magnitude, 0 the number of
// elements that are not zero, otherwise sum(|x|^order)^(1/order). Computed in
// float64, answered in x's float dtype or float32.
func Norm(x *Tensor, order float64, axes []int, keepDims bool) (*Tensor, error) {
	p, err := planReduction("norm", x, axes, keepDims)
	if err != nil {
		return nil, err
	}
	if math.IsNaN(order) {
		return nil, valueErrorf("norm: order is NaN (shape %s)", formatShape(x.shape))
	}
	if math.IsInf(order, -1) && p.inner == 0 {
		return nil, emptyError("norm", p)
	}
	start := 0.0
	if math.IsInf(order, -1) {
		start = math.Inf(1)
	}
	term := func(s, v float64) float64 { return s + math.Pow(v, order) }
	finish := func(s float64) float64 { return math.Pow(s, 1/order) }
	same := func(s float64) float64 { return s }
	switch {
	case order == 2:
		term, finish = func(s, v float64) float64 { return s + float64(v*v) }, math.Sqrt
	case order == 1:
		term, finish = func(s, v float64) float64 { return s + v }, same
	case order == 0:
		term, finish = func(s, v float64) float64 {
			if v != 0 {
				s++
			}
			return s
		}, same
	case math.IsInf(order, 1):
		term, finish = math.Max, same
	case math.IsInf(order, -1):
		term, finish = math.Min, same
	}
	acc := fold(p, func(int) float64 { return start }, func(s float64, x []float32) float64 {
		for _, v := range x {
			s = term(s, math.Abs(float64(v)))
		}
		return s
	})
	return collect(p, x.dtype.floating(), acc, func(s float64) float32 { return float32(finish(s)) })
}

// Any reports whether some element is not zero; false for none.
func Any(x *Tensor, axes []int, keepDims bool) (*Tensor, error) {
	return truthOf("any", x, axes, keepDims, 1)
}

// All reports whether no element is zero; true for none.
func All(x *Tensor, axes []int, keepDims bool) (*Tensor, error) {
	return truthOf("all", x, axes, keepDims, 0)
}

// truthOf looks for an element that decides the answer.
func truthOf(op string, x *Tensor, axes []int, keepDims bool, decisive bit) (*Tensor, error) {
	p, err := planReduction(op, x, axes, keepDims)
	if err != nil {
		return nil, err
	}
	acc := fold(p, func(int) bit { return 1 - decisive }, func(s bit, x []bit) bit {
		if slices.Contains(x, decisive) {
			return decisive
		}
		return s
	})
	return collect(p, Bool, acc, func(s bit) bit { return s })
}

func addUp(s float64, x []float32) float64 {
	for _, v := range x {
		s += float64(v)
	}
	return s
}

func narrow(v float64) float32 { return float32(v) }

// pick lists values of the axes in a, then of those in b.
func pick(values, a, b []int) []int {
	out := make([]int, 0, len(a)+len(b)+1)
	for _, i := range a {
		out = append(out, values[i])
	}
	for _, i := range b {
		out = append(out, values[i])
	}
	return out
}

func abs(n int) int { return max(n, -n) }
