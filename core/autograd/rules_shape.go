package autograd

import (
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Operations that move elements: their gradients move them back.

var indexRules = map[string]*rule{
	"gather": {needSecond, func(c *calc, _ int) T {
		axis := c.axis(len(c.inputs[0].shape))
		to := meta{slices.Clone(c.g[0].Shape()), c.inputs[0].dtype}
		to.shape[axis] = c.inputs[0].shape[axis]
		return c.scatter(to, c.x[1], c.g[0], axis)
	}},
	"scatter_add": {needSecond, func(c *calc, i int) T {
		if i == 0 {
			return c.g[0]
		}
		return c.two(func(g, index T) (T, error) { return tensor.Gather(g, index, c.params.Axis) }, c.g[0], c.x[1])
	}},
	"embedding": {needSecond, embeddingRule},
	"topk": {needY, func(c *calc, _ int) T {
		return c.scatter(c.inputs[0], c.y[1], c.g[0], c.params.Axis)
	}},
	"index": {0, func(c *calc, _ int) T {
		d := c.zeros(c.inputs[0])
		c.put(c.part(d), c.g[0])
		return d
	}},
	"copy": {0, func(c *calc, i int) T {
		if i == 1 {
			return c.part(c.g[0])
		}
		d := c.one(func(x T) (T, error) { return x.Clone() }, c.g[0])
		if c.err != nil {
			return nil
		}
		c.put(c.part(d), c.num(0, d))
		return d
	}},
}

// part is what the index expression names.
func (c *calc) part(x T) T {
	if c.err != nil {
		return nil
	}
	return c.take(x.Index(c.params.Index...))
}

// scatter adds g at the indices of zeros.
func (c *calc) scatter(to meta, index, g T, axis int) T {
	return c.one(func(zeros T) (T, error) { return tensor.ScatterAdd(zeros, index, g, axis) }, c.zeros(to))
}

// embeddingRule adds the gradients of rows in the order of the ids.
func embeddingRule(c *calc, _ int) T {
	table := c.inputs[0]
	width := 1
	for _, n := range table.shape[1:] {
		width *= n
	}
	rows := c.x[1].Len()
	g := c.reshape(c.g[0], rows, width)
	index := c.expand(c.reshape(c.x[1], rows, 1), []int{rows, width})
	return c.reshape(c.scatter(meta{[]int{table.shape[0], width}, table.dtype}, index, g, 0), table.shape...)
}

// back gives the gradient the shape of the operand.
var back = &rule{0, func(c *calc, _ int) T { return c.reshape(c.g[0], c.inputs[0].shape...) }}

// through hands the gradient on: fit does what broadcasting and casting ask for.
var through = &rule{0, func(c *calc, _ int) T { return c.g[0] }}

var shapeRules = map[string]*rule{
	"reshape": back, "squeeze": back, "unsqueeze": back,
	"expand": through, "clone": through, "contiguous": through, "cast": through,
	"permute": {0, permuteRule},
	"triu": {0, func(c *calc, _ int) T {
		return c.one(func(g T) (T, error) { return tensor.Triu(g, c.params.K) }, c.g[0])
	}},
	"tril": {0, func(c *calc, _ int) T {
		return c.one(func(g T) (T, error) { return tensor.Tril(g, c.params.K) }, c.g[0])
	}},
	"concat": {0, concatRule},
	"stack": {0, func(c *calc, i int) T {
		return c.one(func(g T) (T, error) { return g.Select(c.params.Axis, i) }, c.g[0])
	}},
	"split": {0, splitRule},
	"chunk": {0, splitRule},
}

func permuteRule(c *calc, _ int) T {
	if c.params.Axes == nil {
		return c.one(func(g T) (T, error) { return g.T(), nil }, c.g[0])
	}
	order := make([]int, len(c.params.Axes))
	for i, a := range c.params.Axes {
		if a < 0 {
			a += len(order)
		}
		order[a] = i
	}
	return c.one(func(g T) (T, error) { return g.Permute(order...) }, c.g[0])
}

func concatRule(c *calc, i int) T {
	axis := c.axis(len(c.inputs[i].shape))
	first := 0
	for _, m := range c.inputs[:i] {
		first += m.shape[axis]
	}
	return c.one(func(g T) (T, error) { return g.Slice(axis, first, first+c.inputs[i].shape[axis], 1) }, c.g[0])
}

// splitRule puts the gradients of the pieces one after the other; pieces that nothing depends on have zeros.
func splitRule(c *calc, _ int) T {
	d := c.zeros(c.inputs[0])
	axis := c.axis(len(c.inputs[0].shape))
	first := 0
	for i, m := range c.shapes {
		n := m.shape[axis]
		if c.g[i] != nil && c.err == nil {
			c.put(c.take(d.Slice(axis, first, first+n, 1)), c.g[i])
		}
		first += n
	}
	return d
}
