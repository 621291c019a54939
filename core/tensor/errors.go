package tensor

import (
	"errors"
	"fmt"
	"strings"
)

// Sentinels for errors.Is. Messages carry the operation, the shapes or dtypes
// found, and what was expected.
var (
	ErrShape  = errors.New("shape error")  // shapes do not fit each other or the operation
	ErrDType  = errors.New("dtype error")  // the operation is not defined for the dtype
	ErrIndex  = errors.New("index error")  // an axis or an element index is out of range
	ErrValue  = errors.New("value error")  // a value is outside what the operation accepts
	ErrMemory = errors.New("memory error") // the result would not fit in memory
)

func shapeErrorf(format string, args ...any) error {
	return fmt.Errorf("tensor: "+format+": %w", append(args, ErrShape)...)
}

func dtypeErrorf(format string, args ...any) error {
	return fmt.Errorf("tensor: "+format+": %w", append(args, ErrDType)...)
}

func indexErrorf(format string, args ...any) error {
	return fmt.Errorf("tensor: "+format+": %w", append(args, ErrIndex)...)
}

func valueErrorf(format string, args ...any) error {
	return fmt.Errorf("tensor: "+format+": %w", append(args, ErrValue)...)
}

// formatShape writes a shape as Python does: (2, 3), (4,), ().
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
