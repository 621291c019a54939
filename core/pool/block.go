package pool

import (
	"sync/atomic"
	"unsafe"
)

// Align is the alignment of every block and of every Scratch allocation, in bytes.
const Align = 64

// Block is a reference-counted piece of off-heap memory that starts on a multiple of Align.
//
// A Block is born with one reference. Retain adds one, Release drops one; when the last is dropped the memory goes back to the pool
// and no slice taken from the block may be used any more. All methods may be called from any goroutine; the memory itself is the
// holders' to share.
type Block struct {
	pool     *HybridMemoryPool
	data     []byte // what was asked for; never changes
	tag      string
	capacity int // bytes taken from the pool: data rounded up to a slot or to pages
	refs     atomic.Int32

	// Where the memory lives: slot of slab, or run when slab is nil.
	slab *slab
	slot int
	run  *run

	sites *sites // debug mode only
}

// Bytes returns the block's memory. It panics with a *UseError after the last Release.
func (b *Block) Bytes() []byte {
	if b.refs.Load() <= 0 {
		b.misuse("used after its last Release")
	}
	return b.data
}

// Float32 is Bytes as float32 values; up to three bytes that do not make a value are left out.
func (b *Block) Float32() []float32 { return View[float32](b.Bytes()) }

// Int8 is Bytes as int8 values.
func (b *Block) Int8() []int8 { return View[int8](b.Bytes()) }

// Int32 is Bytes as int32 values; up to three bytes that do not make a value are left out.
func (b *Block) Int32() []int32 { return View[int32](b.Bytes()) }

// Len is the number of bytes that were asked for.
func (b *Block) Len() int { return len(b.data) }

// Tag is the name given to Alloc.
func (b *Block) Tag() string { return b.tag }

// Retain adds a reference and returns b. It panics with a *UseError after the last Release.
func (b *Block) Retain() *Block {
	if b.refs.Add(1) <= 1 {
		b.refs.Add(-1)
		b.misuse("retained after its last Release")
	}
	return b
}

// Release drops a reference; with the last one the memory goes back to the pool. One Release too many panics with a *UseError, which
// in debug mode names the places of the allocation and of the last Release.
func (b *Block) Release() {
	switch n := b.refs.Add(-1); {
	case n == 0:
		b.pool.free(b)
	case n < 0:
		b.refs.Add(1)
		b.misuse("released twice")
	}
}

// Number is an element type that View can lay over bytes.
type Number interface {
	~int8 | ~uint8 | ~int16 | ~uint16 | ~int32 | ~uint32 | ~int64 | ~uint64 | ~float32 | ~float64
}

// View lays elements of type T over b without a copy. Bytes at the end that do not make an element are left out. b must be aligned
// for T, as everything from this package is.
func View[T Number](b []byte) []T {
	var element T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(element)))
}

// BytesOf is the reverse of View: the memory of s as bytes, which Scratch.Free takes.
func BytesOf[T Number](s []T) []byte {
	var element T
	size := int(unsafe.Sizeof(element))
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), cap(s)*size)[:len(s)*size]
}
