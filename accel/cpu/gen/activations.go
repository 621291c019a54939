package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

// Quiet comparisons.
const (
	lessThan    = 17
	atLeast     = 29
	moreThan    = 30
	isUnordered = 3
	notLess     = 21
)

func activations(s simd) {
	mapping(s, "sigmoid", "dst, x *float32, n int", "dst[i] = 1 / (1+exp(-x[i]))", func(m mapped) reg.VecVirtual {
		VMOVUPS(m.in("x"), m.v)
		VXORPS(constant(cSign), m.v, m.v)
		e, one := s.exp(m.v), s.vec()
		VMOVUPS(constant(cOne), one)
		VADDPS(one, e, e)
		VDIVPS(e, one, m.v)
		return m.v
	})
	mapping(s, "tanh", "dst, x *float32, n int", "dst[i] = tanh(x[i])", func(m mapped) reg.VecVirtual {
		v, a, y := m.v, s.vec(), s.vec()
		VMOVUPS(m.in("x"), v)
		VANDPS(constant(cAbs), v, a)
		VADDPS(a, a, y)
		e, sign := s.exp(y), s.vec()
		VADDPS(constant(cOne), e, e)
		VMOVUPS(constant(cTwo), y)
		VDIVPS(e, y, e)
		VMOVUPS(constant(cOne), y)
		VSUBPS(e, y, y)
		VANDPS(constant(cSign), v, sign)
		VORPS(sign, y, y)

		z, p := s.vec(), s.vec()
		VMULPS(v, v, z)
		VMULPS(constant(cTanh0), z, p)
		for c := cTanh1; c <= cTanh4; c++ {
			VADDPS(constant(c), p, p)
			VMULPS(z, p, p)
		}
		VMULPS(v, p, p)
		VADDPS(v, p, p)
		s.replace(y, lessThan, a, constant(cTanhSmall), p)
		return y
	})
	mapping(s, "normalCDF", "dst, x *float32, n int", "dst[i] = (1 + erf(x[i]/sqrt 2)) / 2", func(m mapped) reg.VecVirtual {
		v, z, t, one := m.v, s.vec(), s.vec(), s.vec()
		VMOVUPS(m.in("x"), v)
		VMOVUPS(constant(cOne), one)
		VANDPS(constant(cAbs), v, z)
		VMULPS(constant(cSqrtHalf), z, z)
		VMULPS(constant(cErfcP), z, t)
		VADDPS(one, t, t)
		VDIVPS(t, one, t)
		p := s.vec()
		VMULPS(constant(cErfc5), t, p)
		for c := cErfc4; c <= cErfc1; c++ {
			VADDPS(constant(c), p, p)
			VMULPS(t, p, p)
		}
		VMULPS(z, z, z)
		VXORPS(constant(cSign), z, z)
		VMULPS(s.exp(z), p, p)
		VMULPS(constant(cHalf), p, p)
		VSUBPS(p, one, t)
		s.replace(p, atLeast, v, constant(cZero), t)
		return p
	})
}
