package cpu

// Kernels of backward passes, row by row.

// ReLU2Grad is the backward pass of y = max(g, 0)^2 * u: with p = max(g[i], 0)
//
//	dg[i] = (dy[i]*u[i]) * (2*p)    du[i] = dy[i] * (p*p)
//
// Outputs may be inputs.
func ReLU2Grad(dg, du, g, u, dy []float32) {
	n := len(g)
	need("ReLU2Grad", "dg", len(dg), n)
	need("ReLU2Grad", "du", len(du), n)
	need("ReLU2Grad", "u", len(u), n)
	need("ReLU2Grad", "dy", len(dy), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		relu2Grad(dg[:body], du[:body], g[:body], u[:body], dy[:body])
	}
	relu2GradRef(dg[body:n], du[body:n], g[body:], u[body:n], dy[body:n])
}

// RMSNormGrad is the backward pass of a row y[i] = x[i]*inv * w[i], inv = 1/sqrt(mean(x^2) + eps). With n = len(x)
//
//	mean = sum_i (dy[i]*w[i])*x[i] * inv / n    in the order of [Lanes]
//	dw[i] += dy[i] * (x[i]*inv)
//	dx[i] = (dy[i]*w[i] - (x[i]*inv)*mean) * inv
//
// or, with add, dx += that. Without, dx may be dy.
func RMSNormGrad(dx, dw, x, w, dy []float32, inv float32, add bool) {
	n := len(x)
	need("RMSNormGrad", "dx", len(dx), n)
	need("RMSNormGrad", "dw", len(dw), n)
	need("RMSNormGrad", "w", len(w), n)
	need("RMSNormGrad", "dy", len(dy), n)
	var lanes [Lanes]float32
	body := n &^ (Lanes - 1)
	if body > 0 {
		rmsNormDot(&lanes, x[:body], w[:body], dy[:body])
	}
	rmsNormDotRef(&lanes, x[body:], w[body:n], dy[body:n])
	mean := float32(sumLanes(&lanes)*inv) / float32(n)
	if body > 0 {
		rmsNormGrad(dx[:body], dw[:body], x[:body], w[:body], dy[:body], inv, mean, add)
	}
	rmsNormGradRef(dx[body:n], dw[body:n], x[body:], w[body:n], dy[body:n], inv, mean, add)
}

// Rotate turns pairs by angles, forward (direction 1) or back (-1): with s = direction*sin[i]
//
//	lo[i], hi[i] = lo[i]*cos[i] - hi[i]*s, hi[i]*cos[i] + lo[i]*s
func Rotate(lo, hi, cos, sin []float32, direction float32) {
	n := len(lo)
	need("Rotate", "hi", len(hi), n)
	need("Rotate", "cos", len(cos), n)
	need("Rotate", "sin", len(sin), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		rotate(lo[:body], hi[:body], cos[:body], sin[:body], direction)
	}
	rotateRef(lo[body:], hi[body:n], cos[body:n], sin[body:n], direction)
}

// AdamStep holds the constants of one update of Adam or AdamW, see [Adam].
type AdamStep struct {
	Scale float32 // of the gradient
	L2    float32 // Adam's weight decay, 0 for AdamW
	Keep  float32 // AdamW's 1 - lr*weight_decay, 1 for Adam
	Mix   float32 // 1 - beta1
	Beta2 float32 // as Adam's
	Mix2  float32 // 1 - beta2
	Root  float32 // sqrt(1 - beta2^t)
	Eps   float32 // added to the root
	Rate  float32 // -lr / (1 - beta1^t)
}

// Adam updates parameters p with gradients g and moments m and v:
//
//	d = scale*g + l2*p
//	m = m + mix*(d-m)
//	v = v*beta2 + (mix2*d)*d
//	p = p*keep + (rate*m) / (sqrt(v)/root + eps)
//
// with every operation rounded to float32.
func Adam(c *AdamStep, p, g, m, v []float32) {
	n := len(p)
	need("Adam", "g", len(g), n)
	need("Adam", "m", len(m), n)
	need("Adam", "v", len(v), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		adam(c, p[:body], g[:body], m[:body], v[:body])
	}
	adamRef(c, p[body:], g[body:n], m[body:n], v[body:n])
}

// SGDStep holds the constants of one update with momentum, see [SGD].
type SGDStep struct {
	Scale    float32 // of the gradient
	L2       float32 // weight decay
	Momentum float32 // what stays of the last step
	Mix      float32 // 1 - dampening
	Rate     float32 // -lr
	Nesterov bool    // look ahead
}

// SGD updates parameters p with gradients g and momentum b:
//
//	d = scale*g + l2*p
//	b = b*momentum + mix*d
//	p = p + rate*b              (nesterov: p + rate*(d + momentum*b))
//
// with every operation rounded to float32.
func SGD(c *SGDStep, p, g, b []float32) {
	n := len(p)
	need("SGD", "g", len(g), n)
	need("SGD", "b", len(b), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		sgd(c, p[:body], g[:body], b[:body])
	}
	sgdRef(c, p[body:], g[body:n], b[body:n])
}

// AddAbs64 is lanes[i mod 4] += |x[i]| in float64, in ascending order.
func AddAbs64(lanes *[4]float64, x []float32) {
	body := len(x) &^ (Lanes - 1)
	if body > 0 {
		addAbs64(lanes, x[:body])
	}
	addAbs64Ref(lanes, x[body:])
}

// AddSquares64 is lanes[i mod 4] += x[i]*x[i] in float64, in ascending order. The squares are exact.
func AddSquares64(lanes *[4]float64, x []float32) {
	body := len(x) &^ (Lanes - 1)
	if body > 0 {
		addSquares64(lanes, x[:body])
	}
	addSquares64Ref(lanes, x[body:])
}
