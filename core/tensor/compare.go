package tensor

import "math"

// compareOp answers in bool; the operands meet in the dtype that Promote
// gives, so an integer beyond 2^24 is rounded before it meets a float.
type compareOp struct {
	name string
	f32  func(dst []bit, a, b []float32)
	i8   func(dst []bit, a, b []int8)
	u8   func(dst []bit, a, b []uint8)
	i32  func(dst []bit, a, b []int32)
	i64  func(dst []bit, a, b []int64)
}

func (op *compareOp) run(a, b *Tensor) (*Tensor, error) {
	p, err := pair(op.name, Bool, a, b)
	if err != nil {
		return nil, err
	}
	switch Promote(a.dtype, b.dtype) {
	case Int8:
		zip(p, op.i8)
	case UInt8, Bool:
		zip(p, op.u8)
	case Int32:
		zip(p, op.i32)
	case Int64:
		zip(p, op.i64)
	default:
		zip(p, op.f32)
	}
	return p.out, nil
}

var (
	opEqual     = compareOp{"equal", equal[float32], equal[int8], equal[uint8], equal[int32], equal[int64]}
	opNotEqual  = compareOp{"not_equal", notEqual[float32], notEqual[int8], notEqual[uint8], notEqual[int32], notEqual[int64]}
	opLess      = compareOp{"less", less[float32], less[int8], less[uint8], less[int32], less[int64]}
	opLessEqual = compareOp{"less_equal", lessEqual[float32], lessEqual[int8], lessEqual[uint8], lessEqual[int32], lessEqual[int64]}
)

// Equal returns a == b as bool; NaN equals nothing.
func Equal(a, b *Tensor) (*Tensor, error) { return opEqual.run(a, b) }

// NotEqual returns a != b as bool.
func NotEqual(a, b *Tensor) (*Tensor, error) { return opNotEqual.run(a, b) }

// Less returns a < b as bool; comparisons with NaN are false.
func Less(a, b *Tensor) (*Tensor, error) { return opLess.run(a, b) }

// LessEqual returns a <= b as bool.
func LessEqual(a, b *Tensor) (*Tensor, error) { return opLessEqual.run(a, b) }

// Greater returns a > b as bool.
func Greater(a, b *Tensor) (*Tensor, error) { return opLess.run(b, a) }

// GreaterEqual returns a >= b as bool.
func GreaterEqual(a, b *Tensor) (*Tensor, error) { return opLessEqual.run(b, a) }

// LogicalAnd returns whether both elements are not zero.
func LogicalAnd(a, b *Tensor) (*Tensor, error) { return logical("logical_and", a, b, and) }

// LogicalOr returns whether an element is not zero.
func LogicalOr(a, b *Tensor) (*Tensor, error) { return logical("logical_or", a, b, or) }

// LogicalXor returns whether exactly one element is not zero.
func LogicalXor(a, b *Tensor) (*Tensor, error) { return logical("logical_xor", a, b, notEqual[bit]) }

// LogicalNot returns whether the element is zero.
func LogicalNot(x *Tensor) (*Tensor, error) {
	return predicate(x, func(dst, x []bit) {
		for i, v := range x {
			dst[i] = 1 - v
		}
	})
}

// IsNaN reports which elements are not a number.
func IsNaN(x *Tensor) (*Tensor, error) {
	return predicate(x, test(func(v float32) bool { return v != v }))
}

// IsInf reports which elements are infinite.
func IsInf(x *Tensor) (*Tensor, error) {
	return predicate(x, test(func(v float32) bool { return math.IsInf(float64(v), 0) }))
}

// IsFinite reports which elements are neither infinite nor NaN.
func IsFinite(x *Tensor) (*Tensor, error) {
	return predicate(x, test(func(v float32) bool { return v-v == 0 }))
}

func logical(name string, a, b *Tensor, kernel func(dst, a, b []bit)) (*Tensor, error) {
	p, err := pair(name, Bool, a, b)
	if err != nil {
		return nil, err
	}
	zip(p, kernel)
	return p.out, nil
}

func predicate[T number](x *Tensor, kernel func(dst []bit, x []T)) (*Tensor, error) {
	out, err := New(Bool, x.shape...)
	if err != nil {
		return nil, err
	}
	mapElements(out, x, kernel)
	return out, nil
}

func test(f func(float32) bool) func(dst []bit, x []float32) {
	return func(dst []bit, x []float32) {
		for i, v := range x {
			dst[i] = truth[bit](f(v))
		}
	}
}

func equal[T number](dst []bit, a, b []T) {
	for i := range dst {
		dst[i] = truth[bit](a[i] == b[i])
	}
}

func notEqual[T number](dst []bit, a, b []T) {
	for i := range dst {
		dst[i] = truth[bit](a[i] != b[i])
	}
}

func less[T number](dst []bit, a, b []T) {
	for i := range dst {
		dst[i] = truth[bit](a[i] < b[i])
	}
}

func lessEqual[T number](dst []bit, a, b []T) {
	for i := range dst {
		dst[i] = truth[bit](a[i] <= b[i])
	}
}
