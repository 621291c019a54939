package pool

import (
	"sync/atomic"
	"unsafe"
)

// Block is a reference-counted piece of off-heap memory, 64-byte aligned.
//
// A Block is born with one reference. Retain adds one, Release drops one; when the last is dropped the memory goes back to the pool
// and no slice taken from the block may be used any more. Retain and Release may be called from any goroutine.
type Block struct {
	pool *HybridMemoryPool
	data []byte
	tag  string
	refs atomic.Int32
}

// Bytes returns the block's memory.
func (b *Block) Bytes() []byte { return b.data }

// Float32 returns the memory as float32 values; a ragged tail is left out.
func (b *Block) Float32() []float32 { return View[float32](b.Bytes()) }

// Int8 returns the memory as int8 values.
func (b *Block) Int8() []int8 { return View[int8](b.Bytes()) }

// Int32 returns the memory as int32 values; a ragged tail is left out.
func (b *Block) Int32() []int32 { return View[int32](b.Bytes()) }

// Len is the number of bytes that were asked for.
func (b *Block) Len() int { return len(b.data) }

// Tag is the name given to Alloc.
func (b *Block) Tag() string { return b.tag }

// Retain adds a reference and returns b.
func (b *Block) Retain() *Block {
	if b.refs.Add(1) <= 1 {
		panic("pool: Retain of a released block")
	}
	return b
}

// Release drops a reference.
func (b *Block) Release() {
	switch n := b.refs.Add(-1); {
	case n < 0:
		panic("pool: block released twice")
	case n == 0:
		b.pool.free(b)
	}
}

// Number is an element type that View can lay over bytes.
type Number interface {
	~int8 | ~uint8 | ~int16 | ~uint16 | ~int32 | ~uint32 | ~int64 | ~uint64 | ~float32 | ~float64
}

// View lays elements of type T over b without copying; len(b) mod sizeof(T) bytes at the end are left out.
// b must be aligned to T, which pool memory always is.
func View[T Number](b []byte) []T {
	var zero T
	n := len(b) / int(unsafe.Sizeof(zero))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}
