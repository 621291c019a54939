package main

func activations() {
	mapping("sigmoid", "dst, x *float32, n int", "dst[i] = 1 / (1+exp(-x[i]))", func(m mapped) lanes {
		x := m.in["x"]
		two16(fneg, x, x)
		e := exp(x, m.table)
		one := constant(m.table, cOne)
		with(fadd, e, e, one)
		for i := range x {
			fdiv(x[i], one, e[i])
		}
		return x
	})
	mapping("tanh", "dst, x *float32, n int", "dst[i] = tanh(x[i])", func(m mapped) lanes {
		x, y := m.in["x"], newLanes()
		two16(fabs, y, x)
		three16(fadd, y, y, y)
		e := exp(y, m.table)
		m.by(fadd, e, e, cOne)
		c := constant(m.table, cTwo)
		for i := range y {
			fdiv(y[i], c, e[i])
		}
		ldr(c, m.table, 16*cOne)
		for i := range y {
			fsub(y[i], c, y[i])
		}
		ldr(c, m.table, 16*cSign)
		with(and, e, x, c)
		three16(orr, y, y, e)

		z, p := e, newLanes()
		three16(fmul, z, x, x)
		m.by(fmul, p, z, cTanh0)
		for c := cTanh1; c <= cTanh4; c++ {
			m.by(fadd, p, p, c)
			three16(fmul, p, p, z)
		}
		three16(fmul, p, p, x)
		three16(fadd, p, p, x)
		two16(fabs, x, x)
		ldr(c, m.table, 16*cTanhSmall)
		for i := range x {
			fcmgt(x[i], c, x[i])
		}
		three16(bit, y, p, x)
		return y
	})
	mapping("normalCDF", "dst, x *float32, n int", "dst[i] = (1 + erf(x[i]/sqrt 2)) / 2", func(m mapped) lanes {
		x, z, t, p := m.in["x"], newLanes(), newLanes(), newLanes()
		two16(fabs, z, x)
		m.by(fmul, z, z, cSqrtHalf)
		m.by(fmul, t, z, cErfcP)
		one := constant(m.table, cOne)
		with(fadd, t, t, one)
		for i := range t {
			fdiv(t[i], one, t[i])
		}
		release(one)
		m.by(fmul, p, t, cErfc5)
		for c := cErfc4; c <= cErfc1; c++ {
			m.by(fadd, p, p, c)
			three16(fmul, p, p, t)
		}
		t.free()
		three16(fmul, z, z, z)
		two16(fneg, z, z)
		e := exp(z, m.table)
		three16(fmul, p, p, e)
		m.by(fmul, p, p, cHalf)
		one = constant(m.table, cOne)
		for i := range e {
			fsub(e[i], one, p[i])
		}
		zero(one)
		with(fcmge, x, x, one)
		three16(bit, p, e, x)
		return p
	})
}
