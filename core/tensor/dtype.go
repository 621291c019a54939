package tensor

// DType is the type of a tensor's elements as they are stored.
type DType uint8

// The element types. The zero value is Float32.
const (
	Float32  DType = iota // IEEE 754 binary32
	Float16               // IEEE 754 binary16, computed in float32
	BFloat16              // upper half of a float32, computed in float32
	Int8
	UInt8
	Int32
	Int64
	Bool    // one byte, 0 or 1
	Ternary // -1, 0, 1 as 2-bit codes (value+1), four to a byte along the last axis, low bits first
)

var dtypeNames = [...]string{"float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool", "ternary"}

// String returns the NumPy name of the dtype.
func (d DType) String() string {
	if !d.Valid() {
		return "invalid"
	}
	return dtypeNames[d]
}

// ParseDType is the inverse of String.
func ParseDType(name string) (DType, error) {
	for d, n := range dtypeNames {
		if n == name {
			return DType(d), nil
		}
	}
	return 0, dtypeErrorf("unknown dtype %q, expected one of %v", name, dtypeNames)
}

// Valid reports whether d is one of the declared dtypes.
func (d DType) Valid() bool { return int(d) < len(dtypeNames) }

// Size is the number of bytes of one element; 0 for Ternary, whose elements
// share bytes.
func (d DType) Size() int {
	switch d {
	case Float32, Int32:
		return 4
	case Float16, BFloat16:
		return 2
	case Int64:
		return 8
	case Ternary:
		return 0
	}
	return 1
}

// IsFloat reports whether d is float32, float16 or bfloat16.
func (d DType) IsFloat() bool { return d == Float32 || d == Float16 || d == BFloat16 }

// IsInteger reports whether d is an integer type; Ternary counts as one, Bool
// does not.
func (d DType) IsInteger() bool { return d >= Int8 && d <= Int64 || d == Ternary }

// Promote gives the dtype in which two operands meet.
//
//	                 bool   ternary int8  uint8 int32 int64 float16  bfloat16 float32
//	bool             bool   int8    int8  uint8 int32 int64 float16  bfloat16 float32
//	ternary, int8    int8   int8    int8  int32 int32 int64 float32  float32  float32
//	uint8            uint8  int32   int32 uint8 int32 int64 float32  float32  float32
//	int32            int32  int32   int32 int32 int32 int64 float32  float32  float32
//	int64            int64  int64   int64 int64 int64 int64 float32  float32  float32
//	float16                                                 float16  float32  float32
//	bfloat16                                                float32  bfloat16 float32
//
// It is NumPy's table without the types that are absent here: int8 with uint8
// goes to int32 (NumPy: int16), and an integer with a float always to float32.
// Ternary never is a result; it computes as int8.
func Promote(a, b DType) DType {
	a, b = a.computed(), b.computed()
	switch {
	case a == b:
		return a
	case a == Bool:
		return b
	case b == Bool:
		return a
	case a.IsFloat() || b.IsFloat():
		return Float32
	case a == Int64 || b == Int64:
		return Int64
	}
	return Int32
}

// computed is the dtype an operand of dtype d takes part as.
func (d DType) computed() DType {
	if d == Ternary {
		return Int8
	}
	return d
}

// floating is the float dtype in which functions such as exp answer.
func (d DType) floating() DType {
	if d.IsFloat() {
		return d
	}
	return Float32
}
