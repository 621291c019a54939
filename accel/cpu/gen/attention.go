package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func attention(s simd) {
	for _, t := range productTiles(s) {
		addProduct(s, float32s, t.rows, t.width)
		addProduct(s, halves, t.rows, t.width)
		addProduct(s, bfloats, t.rows, t.width)
		addPairs(s, t.rows, t.width)
		if t.rows <= streamedRows && t.width == streamedColumns && s.wide() {
			softmaxPairs(s, t.rows)
			softmaxHalf(s, halves, t.rows)
			softmaxHalf(s, bfloats, t.rows)
		}
	}
	quantizeRows(s)
	toHalves(s)
	toBFloats(s)
	dot(s)
	expSum(s)
	maxLanes(s)
	expRows(s)
}

// productTile is a tile of a product: its sums are in registers.
type productTile struct{ rows, width int }

// productTiles lists what tiles in the package takes. A processor has two sums under way in each of the four cycles that one takes, so that
// fewer than eight registers of them wait for each other; many rows share what is loaded, and converted, for a column.
// Loads count, too, most of all beside a busy hardware thread: 6 x 64 sums take ten of them for 24 multiplications, 8 x 32 would for 16 (measured
// in cache: 45 against 41 billion terms a second).
func productTiles(s simd) []productTile {
	if s.wide() {
		return []productTile{{6, 64}, {6, 32}, {6, 16}, {4, 64}, {4, 16}, {2, 64}, {2, 16}, {1, 64}, {1, 16}}
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
	bfloats  = rightFactor{"BF16", "uint16", 2}
	pairs    = rightFactor{"Pairs", "int8", 2}
)

// read loads part p of a row of the right factor, as float32 or pairs of int16.
func (k rightFactor) read(s simd, b reg.Register, p int, to reg.VecVirtual) {
	from := at(b, s.bytes/4*k.size*p)
	switch k {
	case float32s:
		VMOVUPS(from, to)
	case halves:
		VCVTPH2PS(from, to)
	case bfloats:
		VPMOVZXWD(from, to)
		VPSLLD(u8(16), to, to)
	case pairs:
		VPMOVSXBW(from, to)
	}
}

// rightParts is the registers that hold a row of the right factor: all its parts, read once for all rows of a tile. A tile of one row reads each
// part where it multiplies it, in four registers by turns: with eight sums AVX2 has none for eight parts.
type rightParts struct {
	s      simd
	kind   rightFactor
	b      reg.Register
	to     []reg.VecVirtual
	shared bool
}

func (s simd) rightParts(kind rightFactor, b reg.Register, tall, parts int) rightParts {
	return rightParts{s, kind, b, s.regs(min(parts, 4)), tall > 1}
}

func (r rightParts) readShared() {
	if r.shared {
		for p, to := range r.to {
			r.kind.read(r.s, r.b, p, to)
		}
	}
}

func (r rightParts) part(p int) reg.VecVirtual {
	to := r.to[p%len(r.to)]
	if !r.shared {
		r.kind.read(r.s, r.b, p, to)
	}
	return to
}

// ask has a line of the next page fetched, to the second-level cache: a page and the next one fill the first.
func (k rightFactor) ask(line operand.Mem) { PREFETCHT1(line) }

// A product with a few rows waits for its right factor when that comes from memory: the keys and values of a sequence that decodes. These lie
// in pages, too small for the hardware's own prefetchers. While a kernel goes over a line of one page it asks for one of the next page, in
// eight places in turn: memory gives more that way. With AVX2, whose narrow tiles go over a page four times, asking gains nothing.
const (
	streamedRows    = 4  // cpu.streamedRows
	streamedColumns = 64 // cpu.streamedColumns
	streams         = 8  // cpu.AheadPlaces
)

// streamed says whether a tile asks for the next page, and gives the parameters and the documentation that this adds.
func (k rightFactor) streamed(s simd, tall, width int, doc []string) (bool, string, []string) {
	if !s.wide() || tall > streamedRows || width != streamedColumns {
		return false, "", doc
	}
	return true, ", times int, ahead *byte, apart int",
		append(doc, fmt.Sprintf("Then the same for the %d columns that follow, times > 0 times in all.", width),
			fmt.Sprintf("Meanwhile it asks for %d*n*times bytes, in turn at ahead and %d places that lie apart bytes behind each other.", 64*k.lines(width), streams-1))
}

// lines is how many lines of a cache a row has, and a product asks for meanwhile.
func (k rightFactor) lines(width int) int { return width * k.size / 64 }

// asking is the state of a kernel that asks for the next page.
type asking struct {
	kind                            rightFactor
	lines, places                   int // of a cache that it asks for at a time, and in how many places
	ahead, apart, forth, back, turn reg.Register
}

func (k rightFactor) asking(lines int) *asking {
	a := &asking{kind: k, lines: lines, places: min(lines, 2), ahead: load("ahead"), apart: load("apart"), forth: GP64(), back: GP64(), turn: GP64()}
	MOVQ(a.apart, a.forth)
	SHLQ(u8(a.places/2), a.forth)
	MOVQ(u32(64*lines/a.places), a.back)
	MOVQ(a.apart, a.turn)
	SHLQ(u8(3), a.turn)
	SUBQ(a.turn, a.back)
	MOVQ(u32(streams/a.places), a.turn)
	return a
}

// next asks for as many lines as a row of the tile has.
func (a *asking) next() {
	for off := 0; off < 64*a.lines/a.places; off += 64 {
		a.kind.ask(at(a.ahead, off))
		if a.places > 1 {
			a.kind.ask(operand.Mem{Base: a.ahead, Index: a.apart, Scale: 1, Disp: off})
		}
	}
	ADDQ(a.forth, a.ahead)
	DECQ(a.turn)
	JNZ(label("asked"))
	ADDQ(a.back, a.ahead)
	MOVQ(u32(streams/a.places), a.turn)
	Label("asked")
}

// addProduct keeps a tile of sums in registers while it goes over k.
func addProduct(s simd, kind rightFactor, tall, width int) {
	name := fmt.Sprintf("addProduct%s%sr%dx%d", kind.name, s.suffix, tall, width)
	doc := []string{fmt.Sprintf("%s: c[i*ldc+j] += a[i*row+k*step]*b[k*ldb+j], fused, for k = 0..n-1 in this order, i < %d and j < %d; n > 0.", name, tall, width)}
	streamed, params, doc := kind.streamed(s, tall, width, doc)
	TEXT(name, NOSPLIT, "func(c *float32, ldc int, a *float32, row, step int, b *"+kind.dtype+", ldb, n int"+params+")")
	Doc(doc...)
	Pragma("noescape")
	s.eachTile(kind, streamed, width, func(ahead *asking) {
		to, sum := s.sums(tall), s.tile(tall, width)
		for i := range sum {
			for p := range sum[i] {
				VMOVUPS(to.at(i, s.bytes*p), sum[i][p])
			}
		}
		s.addTerms(kind, sum, ahead)
		to = s.sums(tall)
		for i := range sum {
			for p := range sum[i] {
				VMOVUPS(sum[i][p], to.at(i, s.bytes*p))
			}
		}
	})
	done()
}

// eachTile computes a tile or, where that is one that asks for the next page, as many as there are, one behind the other.
func (s simd) eachTile(kind rightFactor, streamed bool, width int, compute func(ahead *asking)) {
	if !streamed {
		compute(nil)
		return
	}
	ahead := kind.asking(kind.lines(width))
	Label("tile")
	compute(ahead)
	ADDQ(u32(4*width), param("c"))
	ADDQ(u32(kind.size*width), param("b"))
	DECQ(param("times"))
	JNZ(label("tile"))
}

// param is a parameter where it lies.
func param(name string) operand.Mem {
	c, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return c.Addr
}

// sums addresses a tile of c.
func (s simd) sums(tall int) rows {
	c, ldc := load("c"), load("ldc")
	SHLQ(u8(2), ldc)
	return newRows(c, ldc, tall)
}

// tile is registers for sums.
func (s simd) tile(tall, width int) [][]reg.VecVirtual {
	sum := make([][]reg.VecVirtual, tall)
	for i := range sum {
		sum[i] = s.regs(width / 16 * s.parts)
	}
	return sum
}

// addTerms adds a product to a tile of sums, and asks for what comes next meanwhile, or not.
func (s simd) addTerms(kind rightFactor, sum [][]reg.VecVirtual, ahead *asking) {
	a, step, b, ldb, n := load("a"), load("step"), load("b"), load("ldb"), load("n")
	row := load("row")
	for _, r := range []reg.Register{row, step} {
		SHLQ(u8(2), r)
	}
	if kind.size > 1 {
		SHLQ(u8(kind.size/2), ldb)
	}
	from, right, x := newRows(a, row, len(sum)), s.rightParts(kind, b, len(sum), len(sum[0])), s.vec()
	Label("loop")
	if ahead != nil {
		ahead.next()
	}
	right.readShared()
	for i := range sum {
		VBROADCASTSS(from.at(i, 0), x)
		for p := range sum[i] {
			VFMADD231PS(right.part(p), x, sum[i][p])
		}
	}
	for _, base := range from.bases {
		ADDQ(step, base)
	}
	ADDQ(ldb, b)
	DECQ(n)
	JNZ(label("loop"))
}

// addPairs is a product of int16 and int8 whose sums are exact: there is no order to keep, and two terms take one multiplication.
func addPairs(s simd, tall, width int) {
	name := fmt.Sprintf("addPairs%sr%dx%d", s.suffix, tall, width)
	doc := []string{name + ": c[i*ldc+j] += scale[i] * (sum of a[i*lda+2*k]*b[k*ldb+2*j] + a[i*lda+2*k+1]*b[k*ldb+2*j+1] for k < n), fused,",
		fmt.Sprintf("the sum an int32 that becomes a float32, for i < %d and j < %d; n > 0.", tall, width)}
	streamed, params, doc := pairs.streamed(s, tall, width, doc)
	TEXT(name, NOSPLIT, "func(c *float32, ldc int, a *int16, lda int, scale *float32, b *int8, ldb, n int"+params+")")
	Doc(doc...)
	Pragma("noescape")
	s.eachTile(pairs, streamed, width, func(ahead *asking) {
		sum := s.sumPairs(tall, width, ahead)
		to, scale, x := s.sums(tall), load("scale"), s.vec()
		for i := range sum {
			VBROADCASTSS(at(scale, 4*i), x)
			for p := range sum[i] {
				VCVTDQ2PS(sum[i][p], sum[i][p])
				VFMADD213PS(to.at(i, s.bytes*p), x, sum[i][p])
				VMOVUPS(sum[i][p], to.at(i, s.bytes*p))
			}
		}
	})
	done()
}

// sumPairs gives a tile of sums, integers, and asks for what comes next meanwhile, or not.
func (s simd) sumPairs(tall, width int, ahead *asking) [][]reg.VecVirtual {
	a, lda, b, ldb, n := load("a"), load("lda"), load("b"), load("ldb"), load("n")
	SHLQ(u8(1), lda)
	from, sum := newRows(a, lda, tall), s.tile(tall, width)
	for i := range sum {
		s.zero(sum[i]...)
	}
	right, x := s.rightParts(pairs, b, tall, len(sum[0])), s.vec()
	Label("loop")
	if ahead != nil {
		ahead.next()
	}
	right.readShared()
	for i := range sum {
		VPBROADCASTD(from.at(i, 0), x)
		for p := range sum[i] {
			if s.wide() {
				VPDPWSSD(right.part(p), x, sum[i][p])
			} else {
				t := s.vec()
				VPMADDWD(right.part(p), x, t)
				VPADDD(t, sum[i][p], sum[i][p])
			}
		}
	}
	from.advance(4)
	ADDQ(ldb, b)
	DECQ(n)
	JNZ(label("loop"))
	return sum
}

// softmaxPairs is what addPairs, expRows and quantizeRows do to the scores of a page, which stay in registers.
func softmaxPairs(s simd, tall int) {
	name := fmt.Sprintf("softmaxPairs%sr%d", s.suffix, tall)
	TEXT(name, NOSPLIT, "func(dst *int16, ldd int, a *int16, lda int, scale *float32, b *int8, ldb, n int, keyScale, weight, top, sum, worth *float32, limit float32, ahead *byte, apart int)")
	Doc(fmt.Sprintf("%s: for i < %d and j < %d: x[i,j] = addPairs to 0, then expRows of x with keyScale as its scale, and quantizeRows with worth as its scale;", name, tall, streamedColumns),
		"n > 0. Meanwhile it asks for 64*n bytes as addPairs does, then for the next 512 of each place, and for the line that lies 32*n bytes behind the first one.")
	Pragma("noescape")
	x := s.sumPairs(tall, streamedColumns, pairs.asking(pairs.lines(streamedColumns)/2))
	more := asksMore(pairs, 8)
	last := GP64()
	LEAQ(operand.Mem{Base: more.read, Index: more.read, Scale: 2}, last)
	more.beside = func() { pairs.ask(operand.Mem{Base: more.ahead, Index: last, Scale: 1}) }
	scale, keyScale, weight := load("scale"), load("keyScale"), load("weight")
	factor, zero := s.vec(), s.vec()
	s.zero(zero)
	for i := range x {
		VBROADCASTSS(at(scale, 4*i), factor)
		for p := range x[i] {
			VCVTDQ2PS(x[i][p], x[i][p])
			VFMADD213PS(zero, factor, x[i][p])
			VMULPS(at(keyScale, 64*p), x[i][p], x[i][p])
		}
	}
	s.softmax(x, more, func(i, p int, e reg.VecVirtual) { VMULPS(at(weight, 64*p), e, x[i][p]) })
	worth, dst, ldd, most, least := load("worth"), load("dst"), load("ldd"), s.splatParam("limit"), s.vec()
	VXORPS(constant(cSign), most, least)
	SHLQ(u8(1), ldd)
	to := newRows(dst, ldd, tall)
	for i := range x {
		acc := s.regs(1)
		VANDPS(constant(cAbs), x[i][0], acc[0])
		for _, v := range x[i][1:] {
			VANDPS(constant(cAbs), v, factor)
			VPMAXUD(factor, acc[0], acc[0])
		}
		largest := s.fold(acc, func(upper, lower, to reg.Register) { VPMAXUD(lower, upper, to) })
		f := s.stepsOf(largest, most, at(worth, 4*i))
		for p, v := range x[i] {
			VMULPS(v, f, v)
			s.limit(v, least, most)
			VPMOVDW(v, to.at(i, 32*p))
		}
	}
	done()
}

// softmaxHalf is what addProduct and expRows do to the scores of a page, which stay in registers.
func softmaxHalf(s simd, kind rightFactor, tall int) {
	name := fmt.Sprintf("softmax%s%sr%d", kind.name, s.suffix, tall)
	TEXT(name, NOSPLIT, "func(x *float32, ldx int, a *float32, row, step int, b *"+kind.dtype+", ldb, n int, top, sum *float32, ahead *byte, apart int)")
	Doc(fmt.Sprintf("%s: for i < %d and j < %d: x[i*ldx+j] = addProduct%s to 0, then expRows of x; n > 0.", name, tall, streamedColumns, kind.name),
		"Meanwhile it asks for 64*n bytes as addProduct does, then for the next 1024 of each place.")
	Pragma("noescape")
	x := s.tile(tall, streamedColumns)
	for i := range x {
		s.zero(x[i]...)
	}
	s.addTerms(kind, x, kind.asking(kind.lines(streamedColumns)/2))
	more := asksMore(kind, 16)
	to, ldx := load("x"), load("ldx")
	SHLQ(u8(2), ldx)
	dst := newRows(to, ldx, tall)
	s.softmax(x, more, func(i, p int, e reg.VecVirtual) { VMOVUPS(e, dst.at(i, 64*p)) })
	done()
}

// softmax makes exponentials of a tile of scores, relative to top, which it raises, and stores their sums. Meanwhile it asks for more.
func (s simd) softmax(x [][]reg.VecVirtual, more *askingMore, then func(i, p int, e reg.VecVirtual)) {
	top, sum, none, acc, shift := load("top"), load("sum"), s.splat(0xff800000), s.regs(1), s.vec()
	for i := range x {
		VMAXPS(none, x[i][0], acc[0]) // v > top ? v : top, NaN gives top
		for _, v := range x[i][1:] {
			VMAXPS(acc[0], v, acc[0])
		}
		m := s.fold(acc, func(upper, lower, to reg.Register) { VMAXPS(lower, upper, to) })
		VMAXSS(at(top, 4*i), m, m)
		VMOVSS(m, at(top, 4*i))
		VBROADCASTSS(m, shift)
		s.zero(acc...)
		for p, v := range x[i] {
			more.share(len(x) * len(x[0]))
			VSUBPS(shift, v, v)
			e := s.expOfNegative(v)
			VADDPS(e, acc[0], acc[0])
			then(i, p, e)
		}
		VMOVSS(s.fold(acc, func(upper, lower, to reg.Register) { VADDPS(upper, lower, to) }), at(sum, 4*i))
	}
}

// askingMore goes on where a product that asked for a line at a time has ended: for so many lines of each place.
type askingMore struct {
	kind               rightFactor
	each, asked        int
	ahead, apart, read reg.Register // read is how much of each place has been asked for before
	beside             func()       // of each place, or nil
}

func asksMore(kind rightFactor, each int) *askingMore {
	m := &askingMore{kind: kind, each: each, ahead: load("ahead"), apart: load("apart"), read: load("n")}
	SHLQ(u8(3), m.read)
	ADDQ(m.read, m.ahead)
	return m
}

// share asks for one of so many shares.
func (m *askingMore) share(of int) {
	for range streams * m.each / of {
		m.kind.ask(at(m.ahead, m.asked%m.each*64))
		if m.asked++; m.asked%m.each == 0 {
			if m.beside != nil {
				m.beside()
			}
			ADDQ(m.apart, m.ahead)
		}
	}
}

// stepsOf stores what one step is worth where limit of them are top, and gives how many steps one is: none where that is not finite.
func (s simd) stepsOf(top, limit reg.VecVirtual, scale operand.Mem) reg.VecVirtual {
	worth, steps, f := XMM(), XMM(), s.vec()
	VDIVSS(limit.AsX(), top, worth)
	VMOVSS(worth, scale)
	VDIVSS(top, limit.AsX(), steps)
	if s.wide() {
		finite := K()
		VCMPSS(u8(lessThan), constant(cInf), steps, finite)
		VMOVAPS_Z(steps, finite, steps)
	} else {
		finite := XMM()
		VCMPSS(u8(lessThan), constant(cInf), steps, finite)
		VANDPS(finite, steps, steps)
	}
	VBROADCASTSS(steps, f)
	return f
}

// limit makes an integer of v, least to most.
func (s simd) limit(v, least, most reg.VecVirtual) {
	VMAXPS(least, v, v) // v > least ? v : least, NaN gives least
	VMINPS(most, v, v)
	VCVTPS2DQ(v, v) // rounds half to even
}

// quantizeRows goes over a row twice: for its largest magnitude, and to round it.
func quantizeRows(s simd) {
	name := "quantizeRows" + s.suffix
	TEXT(name, NOSPLIT, "func(dst *int16, ldd int, x *float32, ldx, rows, cols int, scale *float32, limit float32)")
	Doc(name+": for rows i: top = the largest |x[i*ldx+j]|, NaN before all, scale[i] = top/limit, s = limit/top or 0 if that is not finite,",
		"dst[i*ldd+j] = clamp(roundHalfEven(x[i*ldx+j]*s), -limit, limit), for j < cols, a multiple of 16 > 0; rows > 0.")
	Pragma("noescape")
	dst, ldd, x, ldx, rows, n, scale := load("dst"), load("ldd"), load("x"), load("ldx"), load("rows"), load("cols"), load("scale")
	most, least := s.splatParam("limit"), s.vec()
	VXORPS(constant(cSign), most, least)
	SHLQ(u8(1), ldd)
	SHLQ(u8(2), ldx)
	SHLQ(u8(2), n)
	i, to := GP64(), GP64()
	Label("row")
	acc := s.regs(s.parts)
	s.zero(acc...)
	XORQ(i, i)
	elements := func(p int) operand.Mem {
		return operand.Mem{Base: x, Index: i, Scale: 1, Disp: s.bytes * p}
	}
	Label("largest")
	for p := range acc {
		v := s.vec()
		VMOVUPS(elements(p), v)
		VANDPS(constant(cAbs), v, v)
		VPMAXUD(v, acc[p], acc[p])
	}
	ADDQ(u8(64), i)
	CMPQ(i, n)
	JNE(label("largest"))
	top := s.fold(acc, func(upper, lower, to reg.Register) { VPMAXUD(lower, upper, to) })
	f := s.stepsOf(top, most, at(scale, 0))
	XORQ(i, i)
	MOVQ(dst, to)
	Label("round")
	v := s.regs(s.parts)
	for p := range v {
		VMULPS(elements(p), f, v[p])
		s.limit(v[p], least, most)
	}
	if s.wide() {
		VPMOVDW(v[0], at(to, 0))
	} else {
		VPACKSSDW(v[1], v[0], v[0]) // 0..3 8..11 | 4..7 12..15
		VPERMQ(u8(0xd8), v[0], v[0])
		VMOVDQU(v[0], at(to, 0))
	}
	ADDQ(u8(32), to)
	ADDQ(u8(64), i)
	CMPQ(i, n)
	JNE(label("round"))
	ADDQ(ldx, x)
	ADDQ(ldd, dst)
	ADDQ(u8(4), scale)
	DECQ(rows)
	JNZ(label("row"))
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

// toBFloats adds to 32 bits just less than half of what the upper sixteen count in, or half of that where these are odd, and keeps them.
func toBFloats(s simd) {
	TEXT("toBF16"+s.suffix, NOSPLIT, "func(dst *uint16, x *float32, n int)")
	Doc("toBF16" + s.suffix + ": dst[i] = x[i] as bfloat16, rounded half to even, NaN quiet; n > 0 and a multiple of 16.")
	Pragma("noescape")
	dst, x, n := load("dst"), load("x"), load("n")
	one, nearly := s.splat(1), s.splat(0x7fff)
	Label("loop")
	v := s.regs(s.parts)
	for p := range v {
		bits, t := s.vec(), s.vec()
		VMOVUPS(at(x, s.bytes*p), bits)
		VPSRLD(u8(16), bits, t)
		s.and(one, t)
		VPADDD(nearly, t, t)
		VPADDD(bits, t, v[p])
		VADDPS(bits, bits, t) // of NaN the same, but quiet
		s.replace(v[p], isUnordered, bits, bits, t)
		VPSRLD(u8(16), v[p], v[p])
	}
	if s.wide() {
		VPMOVDW(v[0], at(dst, 0))
	} else {
		VPACKUSDW(v[1], v[0], v[0]) // 0..3 8..11 | 4..7 12..15
		VPERMQ(u8(0xd8), v[0], v[0])
		VMOVDQU(v[0], at(dst, 0))
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
	p, t, _ := s.expParts(x)
	s.raise(p, t)
	s.replace(p, lessThan, x, constant(cExpLow), constant(cZero))
	s.replace(p, moreThan, x, constant(cExpHigh), constant(cInf))
	s.replace(p, isUnordered, x, x, x)
	return p
}

// expOfNegative is exp of numbers up to 0 and NaN.
func (s simd) expOfNegative(x reg.VecVirtual) reg.VecVirtual {
	p, t, n := s.expParts(x)
	if s.wide() {
		k := K()
		VCMPPS(u8(notLess), constant(cExpLow), x, k)
		VSCALEFPS_Z(n, p, k, p) // NaN stays
		return p
	}
	s.raise(p, t)
	s.replace(p, lessThan, x, constant(cExpLow), constant(cZero))
	s.replace(p, isUnordered, x, x, x)
	return p
}

// raise multiplies p with the power of two that is in the lowest bits of t.
func (s simd) raise(p, t reg.VecVirtual) {
	VPSLLD(u8(23), t, t)
	VPADDD(t, p, p)
}

// expParts gives exp(x) = p * 2^n, and n in the lowest bits of t.
func (s simd) expParts(x reg.VecVirtual) (p, t, n reg.VecVirtual) {
	t, n, p = s.vec(), s.vec(), s.vec()
	r, square := s.vec(), s.vec()
	VMOVUPS(constant(cMagic), t)
	VFMADD231PS(constant(cLog2e), x, t)
	VSUBPS(constant(cMagic), t, n)
	s.move(x, r)
	VFNMADD231PS(constant(cLn2Hi), n, r)
	VFNMADD231PS(constant(cLn2Lo), n, r)
	VMOVUPS(constant(cC0), p)
	for c := cC1; c <= cC5; c++ {
		VFMADD213PS(constant(c), r, p)
	}
	VMULPS(r, r, square)
	VFMADD213PS(r, square, p)
	VADDPS(constant(cOne), p, p)
	return p, t, n
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
	if s.wide() { // any of 32 registers
		VEXTRACTF32X4(u8(1), y, x)
	} else {
		VEXTRACTF128(u8(1), y, x)
	}
	op(x, y.AsX(), x)
	VUNPCKHPD(x, x, t)
	op(t, x, x)
	VMOVSHDUP(x, t)
	op(t, x, x)
	return x
}
