package autograd

import (
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// rule is the gradient of an operation of core/tensor.
type rule struct {
	needs need
	pull  func(c *calc, i int) T // the gradient of operand i; fit sums it over broadcast axes and casts it
}

// need is what a rule reads of the forward pass.
type need uint8

const (
	needX      need = 1 << iota // the operands
	needY                       // the results
	needOthers                  // for the gradient of one operand, the others
	needFirst                   // operand 0
	needSecond                  // operand 1
)

// rules has every operation with a derivative. Where a function has a kink the gradient is that of PyTorch: 0 at the kink
// of relu and abs, equal shares among equal elements of max, min, maximum and minimum.
var rules map[string]*rule

// notDifferentiable are the operations without one: their results are integers or truth values, or have no operand.
var notDifferentiable = []string{
	"logical_not", "isnan", "isinf", "isfinite",
	"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or", "logical_xor",
	"argmax", "argmin", "any", "all",
	"full", "arange", "eye",
}

func init() {
	rules = map[string]*rule{}
	for _, table := range []map[string]*rule{unaryRules, binaryRules, reduceRules, lineRules, indexRules, shapeRules} {
		for name, r := range table {
			rules[name] = r
		}
	}
}

// ofX is a function of one element with derivative d(x).
func ofX(d func(c *calc, x T) T) *rule {
	return &rule{needX, func(c *calc, _ int) T { return c.mul(c.g[0], d(c, c.x[0])) }}
}

// ofY is a function of one element whose derivative is told by its value.
func ofY(d func(c *calc, y T) T) *rule {
	return &rule{needY, func(c *calc, _ int) T { return c.mul(c.g[0], d(c, c.y[0])) }}
}

// flat is a function of steps: the gradient is zero.
var flat = &rule{0, func(c *calc, i int) T { return c.zeros(c.inputs[i]) }}

var unaryRules = map[string]*rule{
	"neg":        {0, func(c *calc, _ int) T { return c.neg(c.g[0]) }},
	"abs":        ofX(func(c *calc, x T) T { return c.one(tensor.Sign, x) }),
	"square":     ofX(func(c *calc, x T) T { return c.scale(2, x) }),
	"relu":       ofY(func(c *calc, y T) T { return c.two(tensor.Greater, y, c.num(0, y)) }),
	"relu2":      ofX(func(c *calc, x T) T { return c.scale(2, c.one(tensor.Relu, x)) }),
	"exp":        ofY(func(_ *calc, y T) T { return y }),
	"expm1":      ofY(func(c *calc, y T) T { return c.add(y, c.num(1, y)) }),
	"log":        {needX, func(c *calc, _ int) T { return c.div(c.g[0], c.x[0]) }},
	"log2":       {needX, func(c *calc, _ int) T { return c.div(c.g[0], c.scale(math.Ln2, c.x[0])) }},
	"log10":      {needX, func(c *calc, _ int) T { return c.div(c.g[0], c.scale(math.Ln10, c.x[0])) }},
	"log1p":      {needX, func(c *calc, _ int) T { return c.div(c.g[0], c.add(c.x[0], c.num(1, c.x[0]))) }},
	"sqrt":       {needY, func(c *calc, _ int) T { return c.div(c.g[0], c.scale(2, c.y[0])) }},
	"rsqrt":      ofY(func(c *calc, y T) T { return c.scale(-0.5, c.mul(y, c.one(tensor.Square, y))) }),
	"reciprocal": ofY(func(c *calc, y T) T { return c.neg(c.one(tensor.Square, y)) }),
	"sin":        ofX(func(c *calc, x T) T { return c.one(tensor.Cos, x) }),
	"cos":        ofX(func(c *calc, x T) T { return c.neg(c.one(tensor.Sin, x)) }),
	"tanh":       ofY(func(c *calc, y T) T { return c.sub(c.num(1, y), c.one(tensor.Square, y)) }),
	"erf":        ofX(func(c *calc, x T) T { return c.scale(2/math.SqrtPi, c.one(tensor.Exp, c.neg(c.one(tensor.Square, x)))) }),
	"sigmoid":    ofY(func(c *calc, y T) T { return c.mul(y, c.sub(c.num(1, y), y)) }),
	"softplus":   ofX(func(c *calc, x T) T { return c.one(tensor.Sigmoid, x) }),
	"silu":       ofX(siluSlope),
	"gelu":       ofX(geluSlope),
	"gelu_tanh":  ofX(geluTanhSlope),
	"sign":       flat, "floor": flat, "ceil": flat, "trunc": flat, "round": flat,
}

// siluSlope is s (1 + x (1 - s)) with s = sigmoid(x).
func siluSlope(c *calc, x T) T {
	s := c.one(tensor.Sigmoid, x)
	one := c.num(1, x)
	return c.mul(s, c.add(one, c.mul(x, c.sub(one, s))))
}

// geluSlope is Phi(x) + x phi(x).
func geluSlope(c *calc, x T) T {
	phi := c.scale(1/math.Sqrt(2*math.Pi), c.one(tensor.Exp, c.scale(-0.5, c.one(tensor.Square, x))))
	cdf := c.scale(0.5, c.add(c.num(1, x), c.one(tensor.Erf, c.scale(1/math.Sqrt2, x))))
	return c.add(cdf, c.mul(x, phi))
}

// geluTanhSlope is that of x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3).
func geluTanhSlope(c *calc, x T) T {
	k, one := math.Sqrt(2/math.Pi), c.num(1, x)
	square := c.one(tensor.Square, x)
	t := c.one(tensor.Tanh, c.scale(k, c.mul(x, c.add(one, c.scale(0.044715, square)))))
	du := c.scale(k, c.add(one, c.scale(3*0.044715, square)))
	slope := c.mul(c.mul(x, c.sub(one, c.one(tensor.Square, t))), du)
	return c.scale(0.5, c.add(c.add(one, t), slope))
}

var binaryRules = map[string]*rule{
	"add": {0, func(c *calc, _ int) T { return c.g[0] }},
	"sub": {0, func(c *calc, i int) T {
		if i == 1 {
			return c.neg(c.g[0])
		}
		return c.g[0]
	}},
	"mul":       {needOthers, func(c *calc, i int) T { return c.mul(c.g[0], c.x[1-i]) }},
	"div":       {needX, divRule},
	"floor_div": flat,
	"mod":       {needX, modRule},
	"pow":       {needX | needY, powRule},
	"maximum":   {needX, func(c *calc, i int) T { return share(c, tensor.Greater, c.x[i], c.x[1-i]) }},
	"minimum":   {needX, func(c *calc, i int) T { return share(c, tensor.Less, c.x[i], c.x[1-i]) }},
	"where": {needFirst, func(c *calc, i int) T {
		switch i {
		case 1:
			return c.where(c.x[0], c.g[0], c.num(0, c.g[0]))
		case 2:
			return c.where(c.x[0], c.num(0, c.g[0]), c.g[0])
		}
		return c.zeros(c.inputs[0]) // a condition of floats
	}},
	"matmul": {needOthers, matmulRule},
	"dot":    {needOthers, dotRule},
	"outer":  {needOthers, outerRule},
}

// divRule: (a/b)' = a'/b - b' a/b^2.
func divRule(c *calc, i int) T {
	q := c.div(c.g[0], c.x[1])
	if i == 0 {
		return q
	}
	return c.neg(c.mul(q, c.div(c.x[0], c.x[1])))
}

// modRule: a mod b = a - b floor(a/b), and the floor is constant.
func modRule(c *calc, i int) T {
	if i == 0 {
		return c.g[0]
	}
	return c.neg(c.mul(c.g[0], c.two(tensor.FloorDiv, c.x[0], c.x[1])))
}

// powRule: b a^(b-1), 0 for b = 0; and a^b log a, 0 for a = 0 and b >= 0.
func powRule(c *calc, i int) T {
	a, b := c.x[0], c.x[1]
	if i == 0 {
		slope := c.mul(b, c.two(tensor.Pow, a, c.sub(b, c.num(1, a))))
		return c.mul(c.g[0], c.zeroWhere(c.two(tensor.Equal, b, c.num(0, a)), slope))
	}
	zero := c.num(0, a)
	limit := c.two(tensor.LogicalAnd, c.two(tensor.Equal, a, zero), c.two(tensor.GreaterEqual, b, zero))
	return c.mul(c.g[0], c.zeroWhere(limit, c.mul(c.y[0], c.one(tensor.Log, a))))
}

// share gives the gradient to the operand that beats the other, and half of it to equal ones.
func share(c *calc, beats func(a, b T) (T, error), a, b T) T {
	wins := c.where(c.two(tensor.Equal, a, b), c.num(0.5, c.g[0]), c.two(beats, a, b))
	return c.mul(c.g[0], wins)
}

// matmulRule: dA = G B^T, dB = A^T G, summed over broadcast batches by fit. A matrix B that many rows of A share is multiplied once.
func matmulRule(c *calc, i int) T {
	ash, bsh := c.inputs[0].shape, c.inputs[1].shape
	g := c.g[0]
	if len(bsh) == 1 {
		g = c.one(func(x T) (T, error) { return x.Unsqueeze(-1) }, g)
	}
	if len(ash) == 1 {
		g = c.one(func(x T) (T, error) { return x.Unsqueeze(-2) }, g)
	}
	if c.err != nil {
		return nil
	}
	if i == 0 {
		b := c.x[1]
		if len(bsh) == 1 {
			b = c.reshape(b, -1, 1)
		}
		d := c.two(tensor.MatMul, g, c.swap(b))
		if c.err == nil && len(ash) == 1 { // [..., 1, k]
			d = c.one(func(x T) (T, error) { return x.Select(-2, 0) }, d)
		}
		return d
	}
	a := c.x[0]
	if len(ash) == 1 {
		a = c.reshape(a, 1, -1)
	}
	if len(bsh) <= 2 && len(ash) > 2 {
		k, n := ash[len(ash)-1], g.Dim(-1)
		rows := 1
		for _, d := range ash[:len(ash)-1] {
			rows *= d
		}
		a, g = c.reshape(a, rows, k), c.reshape(g, rows, n)
	}
	d := c.two(tensor.MatMul, c.swap(a), g)
	if c.err == nil && len(bsh) == 1 { // [..., k, 1]
		d = c.one(func(x T) (T, error) { return x.Select(-1, 0) }, d)
	}
	return d
}

// dotRule makes matrices of both operands: b's second axis from the end comes first.
func dotRule(c *calc, i int) T {
	ash, bsh := c.inputs[0].shape, c.inputs[1].shape
	if len(ash) == 0 || len(bsh) == 0 {
		return c.mul(c.g[0], c.x[1-i])
	}
	k := ash[len(ash)-1]
	order := make([]int, len(bsh)) // of b's axes
	for j := range order {
		order[j] = j
	}
	if n := len(bsh); n > 1 {
		order = append([]int{n - 2}, slices.Delete(order, n-2, n-1)...)
	}
	moved := make([]int, len(bsh))
	for j, a := range order {
		moved[j] = bsh[a]
	}
	rows, cols := 1, 1
	for _, n := range ash[:len(ash)-1] {
		rows *= n
	}
	for _, n := range moved[1:] {
		cols *= n
	}
	g := c.reshape(c.g[0], rows, cols)
	if i == 0 {
		b := c.one(func(x T) (T, error) { return x.Permute(order...) }, c.x[1])
		return c.reshape(c.two(tensor.MatMul, g, c.swap(c.reshape(b, k, cols))), ash...)
	}
	d := c.reshape(c.two(tensor.MatMul, c.swap(c.reshape(c.x[0], rows, k)), g), moved...)
	back := make([]int, len(order))
	for j, a := range order {
		back[a] = j
	}
	return c.one(func(x T) (T, error) { return x.Permute(back...) }, d)
}

func outerRule(c *calc, i int) T {
	x := c.reshape(c.x[1-i], -1)
	if i == 0 {
		return c.reshape(c.two(tensor.MatMul, c.g[0], x), c.inputs[0].shape...)
	}
	return c.reshape(c.two(tensor.MatMul, x, c.g[0]), c.inputs[1].shape...)
}
