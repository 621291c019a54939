// Package tensor holds strided N-dimensional arrays with NumPy semantics.
//
// A [Tensor] is a header (dtype, shape, strides, offset) over a run of bytes.
// Slicing, transposing, expanding and, where the strides allow it, reshaping
// only write a new header over the same bytes: such a result is a view, and a
// write through one is seen through the other. Every operation that computes
// something returns a new contiguous tensor and leaves its operands alone.
//
// # How an operation runs
//
// Four small engines carry all operations, so that a new one is a loop over
// slices and nothing else:
//
//   - a reader hands out a tensor's elements in row-major order as slices of
//     the compute type, whatever the strides and the stored dtype are; a
//     contiguous tensor of the compute type is handed out without a copy;
//   - the unary and binary engines feed those slices to a kernel such as
//     "dst[i] = a[i] + b[i]";
//   - the reduce engine folds them, one output element at a time;
//   - matmul packs panels and runs them over the worker pool.
//
// # Numbers
//
// float16 and bfloat16 are storage types: they are computed in float32 and
// rounded to nearest even once, at the end. Sums accumulate in float64 (or
// int64) in index order. Each output element of a reduction or a matmul is
// summed in one fixed order that depends neither on the number of threads nor
// on the other elements, so results are reproducible bit for bit.
//
// There is no float64 dtype. Where NumPy would produce one (true division of
// integers, the mean of integers, functions such as exp of integers) the
// result is float32. [Promote] documents how two dtypes meet.
//
// # Errors
//
// What a user can cause is reported as an error that wraps [ErrShape],
// [ErrDType], [ErrIndex], [ErrValue] or [ErrMemory] and names the shapes
// involved. Panics are kept for broken contracts between packages, such as
// asking [Tensor.Float32s] of an int8 tensor.
package tensor
