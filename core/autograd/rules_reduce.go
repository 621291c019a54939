package autograd

import (
	"math"
	"strconv"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Reductions: sums and their kin over axes.

var reduceRules = map[string]*rule{
	"sum":  {0, func(c *calc, _ int) T { return c.expand(c.spread(c.g[0]), c.inputs[0].shape) }},
	"mean": {0, meanRule},
	"prod": {needX, prodRule},
	"max":  {needX | needY, extremumRule},
	"min":  {needX | needY, extremumRule},
	"var":  {needX, func(c *calc, _ int) T { return c.mul(c.spread(c.g[0]), varSlope(c)) }},
	"std":  {needX | needY, stdRule},
	"norm": {needX | needY, normRule},
}

func meanRule(c *calc, _ int) T {
	_, _, n := c.reduced()
	return c.expand(c.scale(1/float64(n), c.spread(c.g[0])), c.inputs[0].shape)
}

// prodRule gives each element the product of the others, which is not 0 only where all others are not.
func prodRule(c *calc, _ int) T {
	x := c.x[0]
	axes, _, _ := c.reduced()
	zero := c.two(tensor.Equal, x, c.num(0, x)) // bool
	rest := c.where(zero, c.num(1, x), x)       // zeros out of the way
	if c.err != nil {
		return nil
	}
	product := c.take(tensor.Prod(rest, axes, true))
	others := c.sub(c.sum(zero, axes, true), c.take(zero.Cast(tensor.Int64))) // zeros among the others
	slope := c.div(product, rest)
	return c.mul(c.spread(c.g[0]), c.zeroWhere(others, slope))
}

// extremumRule shares the gradient among the elements that are equal to the result.
func extremumRule(c *calc, _ int) T {
	axes, _, _ := c.reduced()
	best := c.two(tensor.Equal, c.x[0], c.spread(c.y[0]))
	return c.mul(best, c.div(c.spread(c.g[0]), c.sum(best, axes, true)))
}

// varSlope is 2 (x - mean) / (n - ddof).
func varSlope(c *calc) T {
	axes, _, n := c.reduced()
	if c.err != nil {
		return nil
	}
	mean := c.take(tensor.Mean(c.x[0], axes, true))
	return c.scale(2/float64(n-c.params.DDof), c.sub(c.x[0], mean))
}

// stdRule is that of the variance divided by 2 std, and 0 where nothing varies.
func stdRule(c *calc, _ int) T {
	y := c.spread(c.y[0])
	slope := c.div(varSlope(c), c.scale(2, y))
	return c.mul(c.spread(c.g[0]), c.zeroWhere(c.two(tensor.Equal, y, c.num(0, y)), slope))
}

// normRule is sign(x) |x|^(p-1) / y^(p-1), 0 where the norm is 0. The largest and smallest magnitude share as max does, and
// the count of what is not 0 is flat.
func normRule(c *calc, _ int) T {
	x, y, g := c.x[0], c.spread(c.y[0]), c.spread(c.g[0])
	axes, _, _ := c.reduced()
	p, err := strconv.ParseFloat(c.params.Order, 64)
	if err != nil { // the forward pass has read it
		c.err = err
		return nil
	}
	switch {
	case p == 0:
		return c.zeros(c.inputs[0])
	case p == 1:
		return c.mul(g, c.one(tensor.Sign, x))
	case math.IsInf(p, 0):
		best := c.two(tensor.Equal, c.one(tensor.Abs, x), y)
		return c.mul(c.mul(best, c.one(tensor.Sign, x)), c.div(g, c.sum(best, axes, true)))
	}
	slope := c.div(x, y)
	if p != 2 {
		ratio := c.div(c.one(tensor.Abs, x), y)
		slope = c.mul(c.one(tensor.Sign, x), c.two(tensor.Pow, ratio, c.num(p-1, x)))
	}
	return c.mul(g, c.zeroWhere(c.two(tensor.Equal, y, c.num(0, y)), slope))
}

// Functions along one axis.
var lineRules = map[string]*rule{
	// y (g - sum(g y))
	"softmax": {needY, func(c *calc, _ int) T {
		gy := c.mul(c.g[0], c.y[0])
		return c.sub(gy, c.mul(c.y[0], c.sum(gy, []int{c.params.Axis}, true)))
	}},
	// g - exp(y) sum(g)
	"log_softmax": {needY, func(c *calc, _ int) T {
		return c.sub(c.g[0], c.mul(c.one(tensor.Exp, c.y[0]), c.sum(c.g[0], []int{c.params.Axis}, true)))
	}},
	// the running sum from the other end
	"cumsum": {0, func(c *calc, _ int) T {
		axis := c.axis(len(c.inputs[0].shape))
		flip := func(x T) (T, error) { return x.Slice(axis, tensor.None, tensor.None, -1) }
		return c.one(flip, c.one(func(x T) (T, error) { return tensor.CumSum(x, axis) }, c.one(flip, c.g[0])))
	}},
}
