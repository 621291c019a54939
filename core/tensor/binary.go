package tensor

import "math"

// binaryOp is an element-wise function of two operands as one loop per compute
// type; the operands meet in the dtype that Promote gives.
type binaryOp struct {
	name string
	f32  func(dst, a, b []float32)
	i8   func(dst, a, b []int8)
	u8   func(dst, a, b []uint8)
	i32  func(dst, a, b []int32)
	i64  func(dst, a, b []int64)
	b    func(dst, a, b []bit) // nil: bools are computed as int8
}

func (op *binaryOp) run(a, b *Tensor) (*Tensor, error) {
	dt := Promote(a.dtype, b.dtype)
	switch {
	case op.i8 == nil:
		dt = dt.floating()
	case dt == Bool && op.b == nil:
		dt = Int8
	}
	p, err := pair(op.name, dt, a, b)
	if err != nil {
		return nil, err
	}
	switch dt {
	case Int8:
		zip(p, op.i8)
	case UInt8:
		zip(p, op.u8)
	case Int32:
		zip(p, op.i32)
	case Int64:
		zip(p, op.i64)
	case Bool:
		zip(p, op.b)
	default:
		zip(p, op.f32)
	}
	return p.out, nil
}

// paired is two operands broadcast to the shape of a new result.
type paired struct{ out, a, b *Tensor }

func pair(name string, dt DType, a, b *Tensor) (paired, error) {
	shape, err := BroadcastShapes(a.shape, b.shape)
	if err != nil {
		return paired{}, broadcastError(name, a.shape, b.shape)
	}
	out, err := New(dt, shape...)
	if err != nil {
		return paired{}, err
	}
	return paired{out, broadcastTo(a, shape), broadcastTo(b, shape)}, nil
}

// zip is the binary engine.
func zip[T, U number](p paired, kernel func(dst []U, a, b []T)) {
	parallel(p.out.Len(), grain, func(lo, hi int) {
		ra, rb, w := read[T](p.a), read[T](p.b), write[U](p.out)
		ra.seek(lo)
		rb.seek(lo)
		w.seek(lo)
		for n := range chunks(hi - lo) {
			kernel(w.next(n), ra.next(n), rb.next(n))
			w.done()
		}
	})
}

var (
	opAdd      = binaryOp{"add", add[float32], add[int8], add[uint8], add[int32], add[int64], or}
	opSub      = binaryOp{"sub", sub[float32], sub[int8], sub[uint8], sub[int32], sub[int64], nil}
	opMul      = binaryOp{"mul", mul[float32], mul[int8], mul[uint8], mul[int32], mul[int64], and}
	opDiv      = binaryOp{name: "div", f32: div}
	opFloorDiv = binaryOp{"floor_div", floorDivFloat, floorDivInt[int8], floorDivInt[uint8], floorDivInt[int32], floorDivInt[int64], nil}
	opMod      = binaryOp{"mod", modFloat, modInt[int8], modInt[uint8], modInt[int32], modInt[int64], nil}
	opPow      = binaryOp{"pow", powFloat, powInt[int8], powInt[uint8], powInt[int32], powInt[int64], nil}
	opMaximum  = binaryOp{"maximum", maximum[float32], maximum[int8], maximum[uint8], maximum[int32], maximum[int64], maximum[bit]}
	opMinimum  = binaryOp{"minimum", minimum[float32], minimum[int8], minimum[uint8], minimum[int32], minimum[int64], minimum[bit]}
)

// Add returns a+b, broadcast and promoted; integers wrap, bools are or-ed.
func Add(a, b *Tensor) (*Tensor, error) { return opAdd.run(a, b) }

// Sub returns a-b; two bools are refused, as in NumPy.
func Sub(a, b *Tensor) (*Tensor, error) {
	if a.dtype == Bool && b.dtype == Bool {
		return nil, dtypeErrorf("sub: not defined for two bools (shapes %s and %s); use LogicalXor", formatShape(a.shape), formatShape(b.shape))
	}
	return opSub.run(a, b)
}

// Mul returns a*b; integers wrap, bools are and-ed.
func Mul(a, b *Tensor) (*Tensor, error) { return opMul.run(a, b) }

// Div returns the true quotient, always a float: x/0 is an infinity or NaN.
func Div(a, b *Tensor) (*Tensor, error) { return opDiv.run(a, b) }

// FloorDiv returns floor(a/b) as Python's // does; an integer divided by zero
// gives 0, as in NumPy.
func FloorDiv(a, b *Tensor) (*Tensor, error) { return opFloorDiv.run(a, b) }

// Mod returns the remainder with the sign of b as Python's % does; an integer
// modulo zero gives 0, as in NumPy.
func Mod(a, b *Tensor) (*Tensor, error) { return opMod.run(a, b) }

// Pow returns a^b. Integers wrap; a negative integer exponent of an integer is
// an [ErrValue], as in NumPy.
func Pow(a, b *Tensor) (*Tensor, error) {
	if !Promote(a.dtype, b.dtype).IsFloat() && b.dtype != Bool && b.dtype != UInt8 {
		low, err := Min(b, nil, false)
		if err == nil && elementAt(low) < 0 {
			return nil, valueErrorf("pow: negative integer exponent for %s to the %s (shapes %s and %s); cast to float32 first",
				a.dtype, b.dtype, formatShape(a.shape), formatShape(b.shape))
		}
	}
	return opPow.run(a, b)
}

// Maximum returns the larger element; NaN wins.
func Maximum(a, b *Tensor) (*Tensor, error) { return opMaximum.run(a, b) }

// Minimum returns the smaller element; NaN wins.
func Minimum(a, b *Tensor) (*Tensor, error) { return opMinimum.run(a, b) }

// Clamp limits x to [low, high], which broadcast and promote; either may be
// nil. Where low > high the result is high, as in NumPy.
func Clamp(x, low, high *Tensor) (*Tensor, error) {
	out, err := x, error(nil)
	if low != nil {
		if out, err = Maximum(out, low); err != nil {
			return nil, err
		}
	}
	if high != nil {
		if out, err = Minimum(out, high); err != nil {
			return nil, err
		}
	}
	if out == x {
		return x.Clone()
	}
	return out, nil
}

// Where takes a where cond is true (not zero) and b elsewhere; all three
// broadcast, a and b promote.
func Where(cond, a, b *Tensor) (*Tensor, error) {
	shape, err := BroadcastShapes(cond.shape, a.shape, b.shape)
	if err != nil {
		return nil, broadcastError("where", cond.shape, a.shape, b.shape)
	}
	out, err := New(Promote(a.dtype, b.dtype), shape...)
	if err != nil {
		return nil, err
	}
	cond, a, b = broadcastTo(cond, shape), broadcastTo(a, shape), broadcastTo(b, shape)
	switch out.dtype {
	case Int8:
		choose[int8](out, cond, a, b)
	case UInt8:
		choose[uint8](out, cond, a, b)
	case Int32:
		choose[int32](out, cond, a, b)
	case Int64:
		choose[int64](out, cond, a, b)
	case Bool:
		choose[bit](out, cond, a, b)
	default:
		choose[float32](out, cond, a, b)
	}
	return out, nil
}

func choose[T number](out, cond, a, b *Tensor) {
	parallel(out.Len(), grain, func(lo, hi int) {
		rc, ra, rb, w := read[bit](cond), read[T](a), read[T](b), write[T](out)
		rc.seek(lo)
		ra.seek(lo)
		rb.seek(lo)
		w.seek(lo)
		for n := range chunks(hi - lo) {
			dst, y := w.next(n), rb.next(n)
			copy(dst, ra.next(n))
			for i, c := range rc.next(n) {
				if c == 0 {
					dst[i] = y[i]
				}
			}
			w.done()
		}
	})
}

func add[T number](dst, a, b []T) {
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func sub[T number](dst, a, b []T) {
	for i := range dst {
		dst[i] = a[i] - b[i]
	}
}

func mul[T number](dst, a, b []T) {
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

func div(dst, a, b []float32) {
	for i := range dst {
		dst[i] = a[i] / b[i]
	}
}

func maximum[T number](dst, a, b []T) {
	for i := range dst {
		dst[i] = max(a[i], b[i])
	}
}

func minimum[T number](dst, a, b []T) {
	for i := range dst {
		dst[i] = min(a[i], b[i])
	}
}

func floorDivInt[T number](dst, a, b []T) {
	for i := range dst {
		dst[i], _ = divMod(a[i], b[i])
	}
}

func modInt[T number](dst, a, b []T) {
	for i := range dst {
		_, dst[i] = divMod(a[i], b[i])
	}
}

// divMod is Python's divmod: the quotient rounds down, the remainder has the
// sign of b. Division by zero gives zeros.
func divMod[T number](a, b T) (q, r T) {
	if b == 0 {
		return 0, 0
	}
	q = a / b
	r = a - q*b
	if r != 0 && (r < 0) != (b < 0) {
		q--
		r += b
	}
	return q, r
}

func floorDivFloat(dst, a, b []float32) {
	for i := range dst {
		q, _ := divModFloat(float64(a[i]), float64(b[i]))
		dst[i] = float32(q)
	}
}

func modFloat(dst, a, b []float32) {
	for i := range dst {
		_, r := divModFloat(float64(a[i]), float64(b[i]))
		dst[i] = float32(r)
	}
}

// divModFloat follows Python's float divmod, which NumPy uses: the remainder is
// exact and the quotient is consistent with it.
func divModFloat(a, b float64) (q, r float64) {
	if b == 0 {
		return a / b, math.NaN()
	}
	r = math.Mod(a, b)
	q = (a - r) / b
	if r == 0 {
		r = math.Copysign(0, b)
	} else if (r < 0) != (b < 0) {
		r += b
		q--
	}
	if q == 0 {
		return math.Copysign(0, a/b), r
	}
	floor := math.Floor(q)
	if q-floor > 0.5 {
		floor++
	}
	return floor, r
}

func powFloat(dst, a, b []float32) {
	for i := range dst {
		dst[i] = float32(math.Pow(float64(a[i]), float64(b[i])))
	}
}

// powInt multiplies by squaring; exponents were checked not to be negative.
func powInt[T number](dst, a, b []T) {
	for i := range dst {
		power, base := T(1), a[i]
		for e := uint64(b[i]); e > 0; e >>= 1 {
			if e&1 == 1 {
				power *= base
			}
			base *= base
		}
		dst[i] = power
	}
}

func and(dst, a, b []bit) {
	for i := range dst {
		dst[i] = a[i] & b[i]
	}
}

func or(dst, a, b []bit) {
	for i := range dst {
		dst[i] = a[i] | b[i]
	}
}

// broadcastTo is Expand for a shape that is known to fit.
func broadcastTo(t *Tensor, shape []int) *Tensor {
	strides, ok := broadcastStrides(t, shape)
	if !ok {
		panic("tensor: " + formatShape(t.shape) + " does not broadcast to " + formatShape(shape))
	}
	return t.view(shape, strides, t.offset)
}
