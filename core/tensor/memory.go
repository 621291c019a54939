package tensor

import (
	"fmt"
	"math"
	"sync/atomic"
)

// limitBytes bounds one allocation; 0 means the machine's memory.
var limitBytes atomic.Int64

// SetMemoryLimit bounds the bytes of any one new tensor. Larger requests are
// refused with [ErrMemory] instead of taking the process down. 0 restores the
// default, the physical memory of the machine.
func SetMemoryLimit(bytes int64) { limitBytes.Store(max(bytes, 0)) }

func memoryLimit() int64 {
	if l := limitBytes.Load(); l > 0 {
		return l
	}
	if l := physicalMemory(); l > 0 {
		return l
	}
	return math.MaxInt64
}

func memoryErrorf(dt DType, shape []int, bytes int, limit int64) error {
	return &opError{fmt.Sprintf("%s tensor of shape %s takes %d bytes, the limit is %d", dt, formatShape(shape), bytes, limit), ErrMemory}
}
