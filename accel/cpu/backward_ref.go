package cpu

import "math"

// The loops below define the kernels of backward passes; they also finish the last elements for every ISA. Conversions keep the
// compiler from fusing a product with the sum behind it.

func relu2GradRef(dg, du, g, u, dy []float32) {
	for i, p := range g {
		if p < 0 {
			p = 0
		}
		d := dy[i]
		dg[i], du[i] = float32(d*u[i])*(p+p), d*(p*p)
	}
}

func rmsNormDotRef(lanes *[Lanes]float32, x, w, dy []float32) {
	for i, v := range x {
		lanes[i%Lanes] += float32(float32(dy[i]*w[i]) * v)
	}
}

func rmsNormGradRef(dx, dw, x, w, dy []float32, inv, mean float32, add bool) {
	for i, v := range x {
		h, d := float32(v*inv), dy[i]
		dw[i] += float32(d * h)
		v = float32((float32(d*w[i]) - float32(h*mean)) * inv)
		if add {
			v += dx[i]
		}
		dx[i] = v
	}
}

func rotateRef(lo, hi, cos, sin []float32, direction float32) {
	for i, a := range lo {
		b, c, s := hi[i], cos[i], float32(direction*sin[i])
		lo[i] = float32(a*c) - float32(b*s)
		hi[i] = float32(b*c) + float32(a*s)
	}
}

func adamRef(c *AdamStep, p, g, m, v []float32) {
	for i, w := range p {
		d := float32(c.Scale*g[i]) + float32(c.L2*w)
		m[i] += float32(c.Mix * (d - m[i]))
		v[i] = float32(v[i]*c.Beta2) + float32(float32(c.Mix2*d)*d)
		denominator := float32(math.Sqrt(float64(v[i])))/c.Root + c.Eps
		p[i] = float32(w*c.Keep) + float32(c.Rate*m[i])/denominator
	}
}

func sgdRef(c *SGDStep, p, g, b []float32) {
	for i, w := range p {
		d := float32(c.Scale*g[i]) + float32(c.L2*w)
		move := float32(b[i]*c.Momentum) + float32(c.Mix*d)
		b[i] = move
		if c.Nesterov {
			move = d + float32(c.Momentum*move)
		}
		p[i] = w + float32(c.Rate*move)
	}
}

func addAbs64Ref(lanes *[4]float64, x []float32) {
	for i, v := range x {
		lanes[i%4] += math.Abs(float64(v))
	}
}

func addSquares64Ref(lanes *[4]float64, x []float32) {
	for i, v := range x {
		lanes[i%4] += float64(float64(v) * float64(v))
	}
}
