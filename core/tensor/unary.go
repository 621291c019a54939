package tensor

import "math"

// unaryOp is an element-wise function as one loop per compute type. Without
// integer loops an integer argument is computed, and answered, in float32.
type unaryOp struct {
	name string
	f32  func(dst, x []float32)
	i8   func(dst, x []int8)
	u8   func(dst, x []uint8)
	i32  func(dst, x []int32)
	i64  func(dst, x []int64)
	b    func(dst, x []bit) // nil: a bool is computed as int8
}

// run applies the operation to every element of x.
func (op *unaryOp) run(x *Tensor) (*Tensor, error) {
	dt := x.dtype.computed()
	switch {
	case op.i8 == nil:
		dt = dt.floating()
	case dt == Bool && op.b == nil:
		dt = Int8
	}
	out, err := New(dt, x.shape...)
	if err != nil {
		return nil, err
	}
	switch dt {
	case Int8:
		mapElements(out, x, op.i8)
	case UInt8:
		mapElements(out, x, op.u8)
	case Int32:
		mapElements(out, x, op.i32)
	case Int64:
		mapElements(out, x, op.i64)
	case Bool:
		mapElements(out, x, op.b)
	default:
		mapElements(out, x, op.f32)
	}
	return out, nil
}

// mapElements is the unary engine: out and x have one shape.
func mapElements[T, U number](out, x *Tensor, kernel func(dst []U, x []T)) {
	parallel(x.Len(), grain, func(lo, hi int) {
		r, w := read[T](x), write[U](out)
		r.seek(lo)
		w.seek(lo)
		for n := range chunks(hi - lo) {
			kernel(w.next(n), r.next(n))
			w.done()
		}
	})
}

// floatOp is a function that answers in floats, computed in float64 and
// rounded once.
func floatOp(name string, f func(float64) float64) unaryOp {
	return unaryOp{name: name, f32: func(dst, x []float32) {
		for i, v := range x {
			dst[i] = float32(f(float64(v)))
		}
	}}
}

// roundingOp leaves integers as they are.
func roundingOp(name string, f func(float64) float64) unaryOp {
	op := floatOp(name, f)
	op.i8, op.u8, op.i32, op.i64, op.b = same[int8], same[uint8], same[int32], same[int64], same[bit]
	return op
}

var (
	opNeg    = unaryOp{name: "neg", f32: neg[float32], i8: neg[int8], u8: neg[uint8], i32: neg[int32], i64: neg[int64]}
	opAbs    = unaryOp{name: "abs", f32: absFloat, i8: absInt[int8], u8: same[uint8], i32: absInt[int32], i64: absInt[int64], b: same[bit]}
	opSign   = unaryOp{name: "sign", f32: sign[float32], i8: sign[int8], u8: sign[uint8], i32: sign[int32], i64: sign[int64]}
	opSquare = unaryOp{name: "square", f32: square[float32], i8: square[int8], u8: square[uint8], i32: square[int32], i64: square[int64]}
	opRelu   = unaryOp{name: "relu", f32: relu[float32], i8: relu[int8], u8: relu[uint8], i32: relu[int32], i64: relu[int64]}
	opRelu2  = unaryOp{name: "relu2", f32: relu2[float32], i8: relu2[int8], u8: relu2[uint8], i32: relu2[int32], i64: relu2[int64]}

	opExp        = floatOp("exp", math.Exp)
	opExpm1      = floatOp("expm1", math.Expm1)
	opLog        = floatOp("log", math.Log)
	opLog2       = floatOp("log2", math.Log2)
	opLog10      = floatOp("log10", math.Log10)
	opLog1p      = floatOp("log1p", math.Log1p)
	opSqrt       = floatOp("sqrt", math.Sqrt)
	opRsqrt      = floatOp("rsqrt", func(v float64) float64 { return 1 / math.Sqrt(v) })
	opReciprocal = floatOp("reciprocal", func(v float64) float64 { return 1 / v })
	opSin        = floatOp("sin", math.Sin)
	opCos        = floatOp("cos", math.Cos)
	opTanh       = floatOp("tanh", math.Tanh)
	opErf        = floatOp("erf", math.Erf)
	opSigmoid    = floatOp("sigmoid", sigmoid)
	opSilu       = floatOp("silu", func(v float64) float64 { return v * sigmoid(v) })
	opSoftplus   = floatOp("softplus", softplus)
	opGelu       = floatOp("gelu", func(v float64) float64 { return 0.5 * v * math.Erfc(-v/math.Sqrt2) })
	opGeluTanh   = floatOp("gelu_tanh", geluTanh)

	opFloor = roundingOp("floor", math.Floor)
	opCeil  = roundingOp("ceil", math.Ceil)
	opTrunc = roundingOp("trunc", math.Trunc)
	opRound = roundingOp("round", math.RoundToEven)
)

// Neg returns -x; bool is refused, as in NumPy. Unsigned integers wrap.
func Neg(x *Tensor) (*Tensor, error) { return notBool(&opNeg, x) }

// Sign returns -1, 0 or 1, and NaN for NaN; bool is refused.
func Sign(x *Tensor) (*Tensor, error) { return notBool(&opSign, x) }

// Abs returns |x|; the smallest integer of a type stays itself.
func Abs(x *Tensor) (*Tensor, error) { return opAbs.run(x) }

// Square returns x*x.
func Square(x *Tensor) (*Tensor, error) { return opSquare.run(x) }

// Relu returns max(x, 0); NaN stays.
func Relu(x *Tensor) (*Tensor, error) { return opRelu.run(x) }

// Relu2 returns max(x, 0)^2, the activation of the BitNet feed-forward.
func Relu2(x *Tensor) (*Tensor, error) { return opRelu2.run(x) }

// Exp returns e^x. It and the functions below answer in x's float dtype, or in
// float32 when x is not a float, and are computed in float64 before rounding.
func Exp(x *Tensor) (*Tensor, error) { return opExp.run(x) }

// Expm1 returns e^x - 1 without cancellation near 0.
func Expm1(x *Tensor) (*Tensor, error) { return opExpm1.run(x) }

// Log returns the natural logarithm: -Inf at 0, NaN below.
func Log(x *Tensor) (*Tensor, error) { return opLog.run(x) }

// Log2 returns the binary logarithm.
func Log2(x *Tensor) (*Tensor, error) { return opLog2.run(x) }

// Log10 returns the decimal logarithm.
func Log10(x *Tensor) (*Tensor, error) { return opLog10.run(x) }

// Log1p returns log(1+x) without cancellation near 0.
func Log1p(x *Tensor) (*Tensor, error) { return opLog1p.run(x) }

// Sqrt returns the square root, NaN below 0.
func Sqrt(x *Tensor) (*Tensor, error) { return opSqrt.run(x) }

// Rsqrt returns 1/sqrt(x).
func Rsqrt(x *Tensor) (*Tensor, error) { return opRsqrt.run(x) }

// Reciprocal returns 1/x.
func Reciprocal(x *Tensor) (*Tensor, error) { return opReciprocal.run(x) }

// Sin returns the sine of x radians.
func Sin(x *Tensor) (*Tensor, error) { return opSin.run(x) }

// Cos returns the cosine of x radians.
func Cos(x *Tensor) (*Tensor, error) { return opCos.run(x) }

// Tanh returns the hyperbolic tangent.
func Tanh(x *Tensor) (*Tensor, error) { return opTanh.run(x) }

// Erf returns the error function.
func Erf(x *Tensor) (*Tensor, error) { return opErf.run(x) }

// Sigmoid returns 1/(1+e^-x).
func Sigmoid(x *Tensor) (*Tensor, error) { return opSigmoid.run(x) }

// Silu returns x*sigmoid(x), also called swish.
func Silu(x *Tensor) (*Tensor, error) { return opSilu.run(x) }

// Softplus returns log(1+e^x).
func Softplus(x *Tensor) (*Tensor, error) { return opSoftplus.run(x) }

// Gelu returns x*Phi(x) with the exact normal distribution function
// (Hendrycks and Gimpel, arXiv:1606.08415).
func Gelu(x *Tensor) (*Tensor, error) { return opGelu.run(x) }

// GeluTanh returns the tanh approximation of Gelu given in the same paper.
func GeluTanh(x *Tensor) (*Tensor, error) { return opGeluTanh.run(x) }

// Floor rounds down. It, Ceil, Trunc and Round leave integers as they are.
func Floor(x *Tensor) (*Tensor, error) { return opFloor.run(x) }

// Ceil rounds up.
func Ceil(x *Tensor) (*Tensor, error) { return opCeil.run(x) }

// Trunc rounds toward zero.
func Trunc(x *Tensor) (*Tensor, error) { return opTrunc.run(x) }

// Round rounds to the nearest integer, ties to even.
func Round(x *Tensor) (*Tensor, error) { return opRound.run(x) }

func notBool(op *unaryOp, x *Tensor) (*Tensor, error) {
	if x.dtype == Bool {
		return nil, dtypeErrorf("%s: not defined for bool (shape %s); use LogicalNot or cast first", op.name, formatShape(x.shape))
	}
	return op.run(x)
}

func same[T number](dst, x []T) { copy(dst, x) }

func neg[T number](dst, x []T) {
	for i, v := range x {
		dst[i] = -v
	}
}

func absFloat(dst, x []float32) {
	for i, v := range x {
		dst[i] = math.Float32frombits(math.Float32bits(v) &^ (1 << 31))
	}
}

func absInt[T number](dst, x []T) {
	for i, v := range x {
		dst[i] = max(v, -v)
		if v == -v { // 0 and the smallest value
			dst[i] = v
		}
	}
}

func sign[T number](dst, x []T) {
	var zero T
	for i, v := range x {
		switch {
		case v > 0:
			dst[i] = 1
		case v < 0:
			dst[i] = zero - 1
		default:
			dst[i] = v + zero // NaN stays, -0 becomes 0
		}
	}
}

func square[T number](dst, x []T) {
	for i, v := range x {
		dst[i] = v * v
	}
}

func relu[T number](dst, x []T) {
	for i, v := range x {
		dst[i] = max(v, 0)
	}
}

func relu2[T number](dst, x []T) {
	for i, v := range x {
		v = max(v, 0)
		dst[i] = v * v
	}
}

func sigmoid(v float64) float64 { return 1 / (1 + math.Exp(-v)) }

// softplus is log(1+e^v) without overflow.
func softplus(v float64) float64 { return max(v, 0) + math.Log1p(math.Exp(-math.Abs(v))) }

func geluTanh(v float64) float64 {
	return 0.5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+float64(0.044715*v*v*v))))
}
