package tensor

// chunk is the number of elements an engine moves at a time: buffers of a few
// operands stay in the first-level cache.
const chunk = 1024

// reader hands out the elements of a tensor in row-major order as slices of T.
// A contiguous tensor stored as T is aliased; anything else is converted into
// a buffer.
type reader[T number] struct {
	cursor
	direct []T // the storage, when it already is of type T
	fill   func(dst []T, pos, stride int)
	buf    []T
	full   bool // buf holds chunk copies of the one value of a broadcast scalar
}

// newReader reads t as if it had the given shape and strides.
func newReader[T number](t *Tensor, shape, strides []int) *reader[T] {
	r := &reader[T]{cursor: newCursor(shape, strides, t.offset), fill: fillFrom[T](t)}
	if isNative[T](t.dtype) {
		r.direct = elems[T](t)
	}
	return r
}

func read[T number](t *Tensor) *reader[T] { return newReader[T](t, t.shape, t.strides) }

// next returns the next n elements; the slice is valid until the next call and
// must not be written to.
func (r *reader[T]) next(n int) []T {
	if r.oneRun() {
		if r.direct != nil && r.strides[0] == 1 {
			pos, _, _ := r.cursor.next(n)
			return r.direct[pos : pos+n]
		}
		if r.strides[0] == 0 {
			if !r.full || len(r.buf) < n {
				r.buf = make([]T, max(n, min(chunk, r.shape[0])))
				r.fill(r.buf, r.pos, 0)
				r.full = true
			}
			return r.buf[:n]
		}
	}
	if cap(r.buf) < n {
		r.buf = make([]T, n)
	}
	buf := r.buf[:n]
	for done := 0; done < n; {
		pos, stride, m := r.cursor.next(n - done)
		if r.direct != nil {
			if m == n && stride == 1 {
				return r.direct[pos : pos+n]
			}
			gather(buf[done:done+m], r.direct, pos, stride)
		} else {
			r.fill(buf[done:done+m], pos, stride)
		}
		done += m
	}
	return buf
}

func gather[T any](dst, src []T, pos, stride int) {
	switch stride {
	case 1:
		copy(dst, src[pos:])
	case 0:
		v := src[pos]
		for i := range dst {
			dst[i] = v
		}
	default:
		for i := range dst {
			dst[i] = src[pos]
			pos += stride
		}
	}
}

// writer takes values of T in row-major order and stores them in a tensor,
// which may be strided.
type writer[T number] struct {
	cursor
	store func(src []T, pos, stride int)
	out   []T // the storage, when it is one run of T with stride 1
	buf   []T
	dst   []T
}

func write[T number](t *Tensor) *writer[T] {
	w := &writer[T]{cursor: newCursor(t.shape, t.strides, t.offset), store: storeInto[T](t)}
	if isNative[T](t.dtype) && w.oneRun() && w.strides[0] == 1 {
		w.out = elems[T](t)
	}
	return w
}

// next returns room for the next n values; done stores them.
func (w *writer[T]) next(n int) []T {
	if w.out != nil {
		pos, _, _ := w.cursor.next(n)
		w.dst = w.out[pos : pos+n]
		return w.dst
	}
	if cap(w.buf) < n {
		w.buf = make([]T, n)
	}
	w.dst = w.buf[:n]
	return w.dst
}

func (w *writer[T]) done() {
	if w.out != nil {
		return
	}
	for i := 0; i < len(w.dst); {
		pos, stride, n := w.cursor.next(len(w.dst) - i)
		w.store(w.dst[i:i+n], pos, stride)
		i += n
	}
}

// storeInto returns the function that stores values of T at pos, pos+stride,
// ... of t. Floats round to the stored dtype; other compute types must be the
// stored one, since engines choose them so.
func storeInto[T number](t *Tensor) func(src []T, pos, stride int) {
	switch t.dtype {
	case Float16:
		return scatter[T](elems[Float16Bits](t), func(v T) Float16Bits { return ToFloat16(float32(v)) })
	case BFloat16:
		return scatter[T](elems[BFloat16Bits](t), func(v T) BFloat16Bits { return ToBFloat16(float32(v)) })
	case Ternary:
		return func(src []T, pos, stride int) {
			for _, v := range src {
				shift := pos & 3 * 2
				t.data[pos>>2] = t.data[pos>>2]&^(3<<shift) | byte(int8(v)+1)<<shift
				pos += stride
			}
		}
	}
	return scatter(elems[T](t), func(v T) T { return v })
}

func scatter[T, D any](dst []D, convert func(T) D) func(src []T, pos, stride int) {
	return func(src []T, pos, stride int) {
		for _, v := range src {
			dst[pos] = convert(v)
			pos += stride
		}
	}
}
