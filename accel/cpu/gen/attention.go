package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func attention(s simd) {
	for _, kind := range []rightFactor{float32s, halves, int8s} {
		for _, t := range productTiles(s) {
			addProduct(s, kind, t.rows, t.width)
		}
	}
	toHalves(s)
	dot(s)
	expSum(s)
	maxLanes(s)
	expRows(s)
}

// productTile is a tile of a product: its sums are in registers.
type productTile struct{ rows, width int }

// productTiles lists what tiles in the package takes. A processor has two sums under way in each of the four cycles that one takes, so that
// fewer than eight registers of them wait for each other; many rows share what is loaded, and converted, for a column.
func productTiles(s simd) []productTile {
	if s.wide() {
		return []productTile{{8, 32}, {8, 16}, {4, 64}, {4, 16}, {2, 64}, {2, 16}, {1, 64}, {1, 16}}
	}
	return []productTile{{6, 16}, {4, 16}, {2, 32}, {2, 16}, {1, 64}, {1, 16}}
}

// rightFactor is how the elements of a product's right factor are stored.
type rightFactor struct {
	name, dtype string
	size        int // bytes of an element
}

var (
	float32s = rightFactor{"", "float32", 4}
	halves   = rightFactor{"Half", "uint16", 2}
	int8s    = rightFactor{"Int8", "int8", 1}
)

// read loads part p of a row of the right factor as float32.
func (k rightFactor) read(s simd, b reg.Register, p int, to reg.VecVirtual) {
	from := at(b, s.bytes/4*k.size*p)
	switch k {
	case float32s:
		VMOVUPS(from, to)
	case halves:
		VCVTPH2PS(from, to)
	case int8s:
		VPMOVSXBD(from, to)
		VCVTDQ2PS(to, to)
	}
}

// ask has a line of the next page fetched, to the first-level cache if that has room for two pages of 64 keys and values of 128 elements.
func (k rightFactor) ask(line operand.Mem) {
	if k == int8s {
		PREFETCHT0(line)
	} else {
		PREFETCHT1(line)
	}
}

// A product with a few rows waits for its right factor when that comes from memory: the keys and values of a sequence that decodes. These lie
// in pages, too small for the hardware's own prefetchers. While a kernel goes over a line of one page it asks for one of the next page, in
// eight places in turn: memory gives more that way. With AVX2, whose narrow tiles go over a page four times, asking gains nothing.
const (
	streamedRows    = 4
	streamedColumns = 64
	streams         = 8 // cpu.AheadPlaces
)

// addProduct keeps a tile of sums in registers while it goes over k.
func addProduct(s simd, kind rightFactor, tall, width int) {
	name := fmt.Sprintf("addProduct%s%sr%dx%d", kind.name, s.suffix, tall, width)
	streamed, params := s.wide() && tall <= streamedRows && width == streamedColumns, ""
	doc := []string{fmt.Sprintf("%s: c[i*ldc+j] += a[i*row+k*step]*b[k*ldb+j], fused, for k = 0..n-1 in this order, i < %d and j < %d; n > 0.", name, tall, width)}
	if streamed {
		params = ", ahead *byte, apart int"
		doc = append(doc, fmt.Sprintf("Meanwhile it asks for %d*n bytes, in turn at ahead and %d places that lie apart bytes behind each other.", width*kind.size, streams-1))
	}
	TEXT(name, NOSPLIT, "func(c *float32, ldc int, a *float32, row, step int, b *"+kind.dtype+", ldb, n int"+params+")")
	Doc(doc...)
	Pragma("noescape")
	a, step, b, ldb, n := load("a"), load("step"), load("b"), load("ldb"), load("n")
	row := load("row")
	for _, r := range []reg.Register{row, step} {
		SHLQ(u8(2), r)
	}
	if kind.size > 1 {
		SHLQ(u8(kind.size/2), ldb)
	}
	c, ldc := load("c"), load("ldc")
	SHLQ(u8(2), ldc)
	from, to := newRows(a, row, tall), newRows(c, ldc, tall)
	parts := width / 16 * s.parts
	sum := make([][]reg.VecVirtual, tall)
	for i := range sum {
		sum[i] = s.regs(parts)
		for p := range sum[i] {
			VMOVUPS(to.at(i, s.bytes*p), sum[i][p])
		}
	}
	right, x := s.regs(parts), s.vec()
	lines := width * kind.size / 64 // of a cache, that are asked for at a time
	places := min(lines, 2)
	var ahead, apart, forth, back, turn reg.Register
	if streamed {
		ahead, apart, forth, back, turn = load("ahead"), load("apart"), GP64(), GP64(), GP64()
		MOVQ(apart, forth)
		SHLQ(u8(places/2), forth)
		MOVQ(u32(64*lines/places), back)
		MOVQ(apart, turn)
		SHLQ(u8(3), turn)
		SUBQ(turn, back)
		MOVQ(u32(streams/places), turn)
	}
	Label("loop")
	if streamed {
		for off := 0; off < 64*lines/places; off += 64 {
			kind.ask(at(ahead, off))
			if places > 1 {
				kind.ask(operand.Mem{Base: ahead, Index: apart, Scale: 1, Disp: off})
			}
		}
		ADDQ(forth, ahead)
		DECQ(turn)
		JNZ(label("asked"))
		ADDQ(back, ahead)
		MOVQ(u32(streams/places), turn)
		Label("asked")
	}
	for p := range right {
		kind.read(s, b, p, right[p])
	}
	for i := range sum {
		VBROADCASTSS(from.at(i, 0), x)
		for p := range right {
			VFMADD231PS(right[p], x, sum[i][p])
		}
	}
	for _, base := range from.bases {
		ADDQ(step, base)
	}
	ADDQ(ldb, b)
	DECQ(n)
	JNZ(label("loop"))
	for i := range sum {
		for p := range sum[i] {
			VMOVUPS(sum[i][p], to.at(i, s.bytes*p))
		}
	}
	done()
}

// toHalves rounds to half precision.
func toHalves(s simd) {
	TEXT("toHalves"+s.suffix, NOSPLIT, "func(dst *uint16, x *float32, n int)")
	Doc("toHalves" + s.suffix + ": dst[i] = x[i] as IEEE half precision, rounded half to even; n > 0 and a multiple of 16.")
	Pragma("noescape")
	dst, x, n := load("dst"), load("x"), load("n")
	Label("loop")
	for p := range s.parts {
		v := s.vec()
		VMOVUPS(at(x, s.bytes*p), v)
		VCVTPS2PH(u8(0), v, at(dst, s.bytes/2*p))
	}
	ADDQ(u8(64), x)
	ADDQ(u8(32), dst)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	done()
}

func dot(s simd) {
	var sum []reg.VecVirtual
	var to reg.Register
	loop16(s, "dot", "lanes *float32, a, b *float32, n int",
		[]string{"lanes[i mod 16] += a[i]*b[i], fused, for i < n in ascending order; n > 0 and a multiple of 16."},
		func() {
			to = load("lanes")
			sum = s.regs(s.parts)
			for p := range sum {
				VMOVUPS(at(to, s.bytes*p), sum[p])
			}
		}, func(l lanes) {
			t := s.vec()
			VMOVUPS(l.at("a"), t)
			VFMADD231PS(l.at("b"), t, sum[l.part])
		}, func() {
			for p := range sum {
				VMOVUPS(sum[p], at(to, s.bytes*p))
			}
		})
}

func expSum(s simd) {
	name := "expSum" + s.suffix
	TEXT(name, NOSPLIT, "func(lanes, x *float32, n int, shift float32)")
	Doc(name+": x[j] = exp(x[j]-shift), lanes[j mod 16] += x[j] for j < n in ascending order;", "n > 0 and a multiple of 16.")
	Pragma("noescape")
	lanes, x, n, shift := load("lanes"), load("x"), load("n"), s.splatParam("shift")
	sum := s.regs(s.parts)
	for p := range sum {
		VMOVUPS(at(lanes, s.bytes*p), sum[p])
	}
	Label("loop")
	for p := range sum {
		v := s.vec()
		VMOVUPS(at(x, s.bytes*p), v)
		VSUBPS(shift, v, v)
		e := s.exp(v)
		VMOVUPS(e, at(x, s.bytes*p))
		VADDPS(e, sum[p], sum[p])
	}
	ADDQ(u8(64), x)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	for p := range sum {
		VMOVUPS(sum[p], at(lanes, s.bytes*p))
	}
	done()
}

// exp is expRef step by step; it keeps x.
func (s simd) exp(x reg.VecVirtual) reg.VecVirtual {
	p, t := s.expParts(x)
	VPADDD(t, p, p)
	s.replace(p, lessThan, x, constant(cExpLow), constant(cZero))
	s.replace(p, moreThan, x, constant(cExpHigh), constant(cInf))
	s.replace(p, isUnordered, x, x, x)
	return p
}

// expOfNegative is exp of numbers up to 0 and NaN.
func (s simd) expOfNegative(x reg.VecVirtual) reg.VecVirtual {
	p, t := s.expParts(x)
	if s.wide() {
		k := K()
		VCMPPS(u8(notLess), constant(cExpLow), x, k)
		VPADDD_Z(t, p, k, p)
	} else {
		VPADDD(t, p, p)
		s.replace(p, lessThan, x, constant(cExpLow), constant(cZero))
	}
	s.replace(p, isUnordered, x, x, x)
	return p
}

// expParts gives exp(x) as a number and what to add to its exponent.
func (s simd) expParts(x reg.VecVirtual) (p, t reg.VecVirtual) {
	t, n, r, p := s.vec(), s.vec(), s.vec(), s.vec()
	VMULPS(constant(cLog2e), x, t)
	VADDPS(constant(cMagic), t, t)
	VSUBPS(constant(cMagic), t, n)
	VMULPS(constant(cLn2Hi), n, p)
	VSUBPS(p, x, r)
	VMULPS(constant(cLn2Lo), n, p)
	VSUBPS(p, r, r)
	VMULPS(constant(cC0), r, p)
	for c := cC1; c < cC5; c++ {
		VADDPS(constant(c), p, p)
		VMULPS(r, p, p)
	}
	VADDPS(constant(cC5), p, p)
	VMULPS(r, r, n)
	VMULPS(n, p, p)
	VADDPS(r, p, p)
	VADDPS(constant(cOne), p, p)
	VPSLLD(u8(23), t, t)
	return p, t
}

// replace puts value into p where the comparison of x with y holds.
func (s simd) replace(p reg.VecVirtual, comparison int, x reg.VecVirtual, y, value operand.Op) {
	if s.wide() {
		k := K()
		VCMPPS(u8(comparison), y, x, k)
		VBLENDMPS(value, p, k, p)
		return
	}
	mask := s.vec()
	VCMPPS(u8(comparison), y, x, mask)
	VBLENDVPS(mask, value, p, p)
}

func maxLanes(s simd) {
	name := "maxLanes" + s.suffix
	TEXT(name, NOSPLIT, "func(lanes, x *float32, n int)")
	Doc(name + ": lanes[j mod 16] = x[j] if that is larger, for j < n; n > 0 and a multiple of 16.")
	Pragma("noescape")
	lanes, x, n := load("lanes"), load("x"), load("n")
	top := s.regs(s.parts)
	for p := range top {
		VMOVUPS(at(lanes, s.bytes*p), top[p])
	}
	Label("loop")
	for p := range top {
		v := s.vec()
		VMOVUPS(at(x, s.bytes*p), v)
		VMAXPS(top[p], v, top[p]) // v > top ? v : top, NaN gives top
	}
	ADDQ(u8(64), x)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	for p := range top {
		VMOVUPS(top[p], at(lanes, s.bytes*p))
	}
	done()
}

// expRows goes over a row twice: for its largest element, and for the exponentials.
func expRows(s simd) {
	name := "expRows" + s.suffix
	TEXT(name, NOSPLIT, "func(x *float32, ldx, rows, cols int, scale, weight, top, sum *float32)")
	Doc(name+": for rows i: x[i*ldx+j] *= scale[j], top[i] = the largest x[i*ldx+j] if that is larger, x[i*ldx+j] = exp(x[i*ldx+j]-top[i]),",
		"sum[i] = their sum in the order of lanes, x[i*ldx+j] *= weight[j], for j < cols, a multiple of 16 > 0; rows > 0; scale and weight may be nil.")
	Pragma("noescape")
	x, ldx, rows, n, scale, weight, top, sum := load("x"), load("ldx"), load("rows"), load("cols"), load("scale"), load("weight"), load("top"), load("sum")
	SHLQ(u8(2), ldx)
	SHLQ(u8(2), n)
	none, i := s.splat(0xff800000), GP64()
	Label("row")
	acc := s.regs(s.parts)
	for p := range acc {
		s.move(none, acc[p])
	}
	XORQ(i, i)
	elements := func(base reg.Register, p int) operand.Mem {
		return operand.Mem{Base: base, Index: i, Scale: 1, Disp: s.bytes * p}
	}
	each := func(loop string, do func(p int)) {
		Label(loop)
		for p := range s.parts {
			do(p)
		}
		ADDQ(u8(64), i)
		CMPQ(i, n)
		JNE(label(loop))
	}
	v := s.vec()
	largest := func(p int) {
		VMAXPS(acc[p], v, acc[p]) // v > top ? v : top, NaN gives top
	}
	TESTQ(scale, scale)
	JZ(label("unscaled"))
	each("scaled", func(p int) {
		VMOVUPS(elements(x, p), v)
		VMULPS(elements(scale, p), v, v)
		VMOVUPS(v, elements(x, p))
		largest(p)
	})
	JMP(label("found"))
	each("unscaled", func(p int) {
		VMOVUPS(elements(x, p), v)
		largest(p)
	})
	Label("found")
	m := s.fold(acc, func(upper, lower, to reg.Register) { VMAXPS(lower, upper, to) })
	VMAXSS(at(top, 0), m, m)
	VMOVSS(m, at(top, 0))
	shift := s.vec()
	VBROADCASTSS(m, shift)
	s.zero(acc...)
	XORQ(i, i)
	each("exp", func(p int) {
		VMOVUPS(elements(x, p), v)
		VSUBPS(shift, v, v)
		e := s.expOfNegative(v)
		VADDPS(e, acc[p], acc[p])
		VMOVUPS(e, elements(x, p))
	})
	VMOVSS(s.fold(acc, func(upper, lower, to reg.Register) { VADDPS(upper, lower, to) }), at(sum, 0))
	TESTQ(weight, weight)
	JZ(label("next"))
	XORQ(i, i)
	each("weigh", func(p int) {
		VMOVUPS(elements(x, p), v)
		VMULPS(elements(weight, p), v, v)
		VMOVUPS(v, elements(x, p))
	})
	Label("next")
	ADDQ(ldx, x)
	ADDQ(u8(4), top)
	ADDQ(u8(4), sum)
	DECQ(rows)
	JNZ(label("row"))
	done()
}

// fold makes one of sixteen lanes, which it changes, by halves.
func (s simd) fold(l []reg.VecVirtual, op func(upper, lower, to reg.Register)) reg.VecVirtual {
	y, x, t := YMM(), XMM(), XMM()
	if s.wide() {
		VEXTRACTF64X4(u8(1), l[0], y)
		op(y, l[0].AsY(), y)
	} else {
		op(l[1], l[0], y)
	}
	VEXTRACTF128(u8(1), y, x)
	op(x, y.AsX(), x)
	VUNPCKHPD(x, x, t)
	op(t, x, x)
	VMOVSHDUP(x, t)
	op(t, x, x)
	return x
}
