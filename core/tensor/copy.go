package tensor

// Clone returns a contiguous copy of t on the Go heap. It fails only when a
// tensor of this shape would not fit in memory, as an expanded view may not.
func (t *Tensor) Clone() (*Tensor, error) {
	out, err := New(t.dtype, t.shape...)
	if err != nil {
		return nil, err
	}
	copyAs(out, t)
	return out, nil
}

// Contiguous returns t itself when it is contiguous and a Clone otherwise.
func (t *Tensor) Contiguous() (*Tensor, error) {
	if t.IsContiguous() {
		return t, nil
	}
	return t.Clone()
}

// Cast converts t to another dtype. Floats round to nearest even; floats to
// integers truncate toward zero, saturate, and NaN becomes 0; integers to
// narrower integers wrap; anything but zero is true. Casting to Ternary accepts
// only -1, 0 and 1. A tensor of that dtype already is returned as it is.
func (t *Tensor) Cast(dt DType) (*Tensor, error) {
	if dt == t.dtype {
		return t, nil
	}
	out, err := New(dt, t.shape...)
	if err != nil {
		return nil, err
	}
	if dt == Ternary {
		if err := checkTernary(t); err != nil {
			return nil, err
		}
	}
	copyAs(out, t)
	return out, nil
}

// Copy writes src, broadcast and converted to dst's dtype as Cast does, into
// dst, which may be any view. Overlapping views are copied as if src had been
// cloned first.
func Copy(dst, src *Tensor) error {
	strides, ok := broadcastStrides(src, dst.shape)
	if !ok {
		return shapeErrorf("copy: shape %s does not broadcast to %s", formatShape(src.shape), formatShape(dst.shape))
	}
	if dst.dtype == Ternary && src.dtype != Ternary {
		if err := checkTernary(src); err != nil {
			return err
		}
	}
	if sharesMemory(dst, src) {
		clone, err := src.Clone()
		if err != nil {
			return err
		}
		src = clone
		strides, _ = broadcastStrides(src, dst.shape)
	}
	copyAs(dst, src.view(dst.shape, strides, src.offset))
	return nil
}

// copyAs copies src to dst of the same shape, converting to dst's dtype.
func copyAs(dst, src *Tensor) {
	if dst.dtype == src.dtype && dst.dtype.Size() == 2 { // no way through float32: NaN payloads stay
		copyHalves(dst, src)
		return
	}
	switch dst.dtype {
	case Float32, Float16, BFloat16:
		copyElements[float32](dst, src)
	case Int8, Ternary:
		copyElements[int8](dst, src)
	case UInt8:
		copyElements[uint8](dst, src)
	case Int32:
		copyElements[int32](dst, src)
	case Int64:
		copyElements[int64](dst, src)
	case Bool:
		copyElements[bit](dst, src)
	}
}

// copyElements copies src to dst of the same shape through T.
func copyElements[T number](dst, src *Tensor) {
	r, w := read[T](src), write[T](dst)
	for n := range chunks(dst.Len()) {
		copy(w.next(n), r.next(n))
		w.done()
	}
}

// copyHalves moves 16-bit elements as they are.
func copyHalves(dst, src *Tensor) {
	from, to := elems[uint16](src), elems[uint16](dst)
	r, w := newCursor(src.shape, src.strides, src.offset), newCursor(dst.shape, dst.strides, dst.offset)
	var buf [chunk]uint16
	for n := range chunks(dst.Len()) {
		for done := 0; done < n; {
			pos, stride, m := r.next(n - done)
			gather(buf[done:done+m], from, pos, stride)
			done += m
		}
		for done := 0; done < n; {
			pos, stride, m := w.next(n - done)
			for _, v := range buf[done : done+m] {
				to[pos] = v
				pos += stride
			}
			done += m
		}
	}
}

// chunks yields chunk sizes that add up to n.
func chunks(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for ; n > 0; n -= chunk {
			if !yield(min(n, chunk)) {
				return
			}
		}
	}
}

func checkTernary(t *Tensor) error {
	r := read[float32](t)
	for n := range chunks(t.Len()) {
		for _, v := range r.next(n) {
			if v != -1 && v != 0 && v != 1 {
				return valueErrorf("cast: %v in the %s tensor of shape %s is not ternary, expected -1, 0 or 1", v, t.dtype, formatShape(t.shape))
			}
		}
	}
	return nil
}

// SharesMemory reports whether two tensors lie over the same storage, as views of
// each other do.
func SharesMemory(a, b *Tensor) bool { return sharesMemory(a, b) }

func sharesMemory(a, b *Tensor) bool {
	return len(a.data) > 0 && len(b.data) > 0 && &a.data[0] == &b.data[0]
}
