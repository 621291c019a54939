package tensor

import (
	"errors"
	"fmt"
	"strings"
)

// Sentinels for errors.Is. The messages of the errors that wrap them carry the
// operation, the shapes or dtypes found, and what was expected.
var (
	ErrShape  = errors.New("tensor: shapes do not fit")
	ErrDType  = errors.New("tensor: operation not defined for the dtype")
	ErrIndex  = errors.New("tensor: axis or index out of range")
	ErrValue  = errors.New("tensor: value out of range")
	ErrMemory = errors.New("tensor: not enough memory")
)

// opError is a message of a kind; the kind is found by errors.Is and not
// repeated in the text.
type opError struct {
	text string
	kind error
}

func (e *opError) Error() string { return "tensor: " + e.text }
func (e *opError) Unwrap() error { return e.kind }

func shapeErrorf(format string, args ...any) error {
	return &opError{fmt.Sprintf(format, args...), ErrShape}
}

func dtypeErrorf(format string, args ...any) error {
	return &opError{fmt.Sprintf(format, args...), ErrDType}
}

func indexErrorf(format string, args ...any) error {
	return &opError{fmt.Sprintf(format, args...), ErrIndex}
}

func valueErrorf(format string, args ...any) error {
	return &opError{fmt.Sprintf(format, args...), ErrValue}
}

// ShapeText writes a shape as Python does: (2, 3), (4,), ().
func ShapeText(shape []int) string { return formatShape(shape) }

func formatShape(shape []int) string {
	parts := make([]string, len(shape))
	for i, n := range shape {
		parts[i] = fmt.Sprint(n)
	}
	if len(parts) == 1 {
		return "(" + parts[0] + ",)"
	}
	return "(" + strings.Join(parts, ", ") + ")"
}
