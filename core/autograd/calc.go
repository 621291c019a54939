package autograd

import (
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// T shortens the rules.
type T = *tensor.Tensor

// calc is what a rule computes with: the recorded call, the gradients of its results, and operations of core/tensor that
// stop at the first error.
type calc struct {
	*ruleFunction
	g   []T // gradients of the results
	err error
}

func (c *calc) take(t T, err error) T {
	if c.err == nil {
		c.err = err
	}
	return t
}

func (c *calc) one(f func(T) (T, error), x T) T {
	if c.err != nil {
		return nil
	}
	return c.take(f(x))
}

func (c *calc) two(f func(a, b T) (T, error), a, b T) T {
	if c.err != nil {
		return nil
	}
	return c.take(f(a, b))
}

func (c *calc) add(a, b T) T { return c.two(tensor.Add, a, b) }
func (c *calc) sub(a, b T) T { return c.two(tensor.Sub, a, b) }
func (c *calc) mul(a, b T) T { return c.two(tensor.Mul, a, b) }
func (c *calc) div(a, b T) T { return c.two(tensor.Div, a, b) }
func (c *calc) neg(a T) T    { return c.one(tensor.Neg, a) }

// num is a scalar of the dtype that gradients of like have.
func (c *calc) num(v float64, like T) T {
	if c.err != nil {
		return nil
	}
	dt := like.DType()
	if !dt.IsFloat() {
		dt = tensor.Float32
	}
	return c.take(tensor.Scalar(dt, v))
}

// scale is v x.
func (c *calc) scale(v float64, x T) T { return c.mul(x, c.num(v, x)) }

// where is a where cond holds and b elsewhere.
func (c *calc) where(cond, a, b T) T {
	if c.err != nil {
		return nil
	}
	return c.take(tensor.Where(cond, a, b))
}

// zeroWhere is x with zeros where cond holds.
func (c *calc) zeroWhere(cond, x T) T { return c.where(cond, c.num(0, x), x) }

func (c *calc) sum(x T, axes []int, keepDims bool) T {
	if c.err != nil {
		return nil
	}
	return c.take(tensor.Sum(x, axes, keepDims))
}

func (c *calc) reshape(x T, shape ...int) T {
	if c.err != nil {
		return nil
	}
	return c.take(x.Reshape(shape...))
}

func (c *calc) expand(x T, shape []int) T {
	if c.err != nil {
		return nil
	}
	return c.take(x.Expand(shape...))
}

// zeros are as large as operand i.
func (c *calc) zeros(m meta) T {
	if c.err != nil {
		return nil
	}
	return c.take(tensor.New(m.dtype, m.shape...))
}

// put writes src into dst, which may be a view.
func (c *calc) put(dst, src T) {
	if c.err == nil {
		c.err = tensor.Copy(dst, src)
	}
}

// swap swaps the last two axes.
func (c *calc) swap(x T) T {
	if c.err != nil {
		return nil
	}
	return c.take(x.Transpose(-1, -2))
}

// reduced gives the axes of a reduction of operand 0, and its shape with those axes of length one.
func (c *calc) reduced() (axes, kept []int, count int) {
	shape := c.inputs[0].shape
	kept, count = slices.Clone(shape), 1
	axes = c.params.Axes
	if axes == nil {
		for i := range shape {
			axes = append(axes, i)
		}
	}
	for _, a := range axes {
		if a < 0 {
			a += len(shape)
		}
		count *= shape[a]
		kept[a] = 1
	}
	return axes, kept, count
}

// spread undoes a reduction's loss of axes: x, shaped as a result, becomes one that broadcasts to operand 0.
func (c *calc) spread(x T) T {
	_, kept, _ := c.reduced()
	return c.reshape(x, kept...)
}

// axis is the parameter, counted from the front.
func (c *calc) axis(dims int) int {
	if a := c.params.Axis; a >= 0 {
		return a
	}
	return c.params.Axis + dims
}
