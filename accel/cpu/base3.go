package cpu

import (
	"encoding/binary"
	"fmt"
)

// Base 3 packs five ternary weights in a byte, 1.6 bits a weight where panel16 has two, for matrices that come from memory: of five blocks
// of a panel it makes four. The codes of the fifth block's field b go to block b. A byte with the four codes n = c0+3*c1+9*c2+27*c3 of its own
// block and the fifth code c is
//
//	64*c + n          for n < 64
//	128 + 17*c + n    for n >= 64
//
// so that its low six bits are an index into a table of 64 bytes, of which AVX-512 VBMI looks up 64 at once, and its upper two are c, or say that
// it is one of the few with other tables. The up to four blocks at the end of a panel that make no five stay as they are. So no matrix is
// larger than in panel16, inputs are read in the same order, and either layout becomes the other block by block.
const (
	base3Group  = 5               // blocks that become base3Packed
	base3Packed = base3Group - 1  // blocks in base 3
	base3Plain  = 64              // four codes that have a value for each fifth code in the upper two bits
	base3Rest   = 81 - base3Plain // four codes that have not
	base3Values = 243             // bytes from here on mean nothing
)

// base3Codes gives the four codes that a byte has of its own block, in their fields, and base3Fifth the fifth.
var base3Codes, base3Fifth = func() (codes, fifth [256]byte) {
	for b := range base3Values {
		n, c := b%base3Plain, b/base3Plain
		if c == 3 {
			n, c = base3Plain+n%base3Rest, n/base3Rest
		}
		codes[b], fifth[b] = byte(n%3|n/3%3<<2|n/9%3<<4|n/27<<6), byte(c)
	}
	return codes, fifth
}()

// base3Bytes is the reverse: by the fifth code and the four in their fields.
var base3Bytes = func() (t [4][256]byte) {
	for b := range base3Values {
		t[base3Fifth[b]][base3Codes[b]] = byte(b)
	}
	return t
}()

// Base3Bytes is the size of a rows x cols ternary matrix in base 3; rows are padded to a multiple of 16.
func Base3Bytes(rows, cols int) int { return ceilDiv(rows, PanelRows) * base3Stride(cols) }

func base3Stride(cols int) int {
	nb := ceilDiv(cols, BlockCols)
	return (nb/base3Group*base3Packed + nb%base3Group) * BlockBytes
}

// PackBase3 packs panels p0 to p1 of a matrix with cols columns, which begin at panels, in base 3. The codes are those of weights: no code 3.
func PackBase3(dst, panels []byte, cols, p0, p1 int) {
	const op = "PackBase3"
	checkBase3(op, cols, p0, p1)
	size, stride, groups := panelBytes(cols), base3Stride(cols), ceilDiv(cols, BlockCols)/base3Group
	need(op, "dst", len(dst), p1*stride)
	need(op, "panels", len(panels), (p1-p0)*size)
	for p := p0; p < p1; p++ {
		to, from := dst[p*stride:][:stride], panels[(p-p0)*size:][:size]
		for range groups {
			last := (*[BlockBytes]byte)(from[base3Packed*BlockBytes:])
			for b := range base3Packed {
				block, out := (*[BlockBytes]byte)(from[b*BlockBytes:]), (*[BlockBytes]byte)(to[b*BlockBytes:])
				for i, codes := range block {
					out[i] = base3Bytes[last[i]>>(2*b)&3][codes]
				}
			}
			to, from = to[base3Packed*BlockBytes:], from[base3Group*BlockBytes:]
		}
		copy(to, from)
	}
}

// UnpackBase3 makes panels p0 to p1 of a matrix in base 3, as [PackTernary] packs them. dst begins with panel p0.
func UnpackBase3(dst, src []byte, cols, p0, p1 int) {
	const op = "UnpackBase3"
	checkBase3(op, cols, p0, p1)
	size, stride, groups := panelBytes(cols), base3Stride(cols), ceilDiv(cols, BlockCols)/base3Group
	need(op, "dst", len(dst), (p1-p0)*size)
	need(op, "src", len(src), p1*stride)
	for p := p0; p < p1; p++ {
		to, from := dst[(p-p0)*size:][:size], src[p*stride:][:stride]
		if groups > 0 {
			base3Unpack(to, from, groups)
		}
		copy(to[groups*base3Group*BlockBytes:], from[groups*base3Packed*BlockBytes:])
	}
}

// Base3MatVec multiplies panels p0 to p1 of a ternary matrix in base 3 with one row of int8 activations, exactly, as [TernaryMatMul] does
// with panel16: dst[r-16*p0] is row r's product, x is padded with zeros to a multiple of 16 columns, and xsum is its sum.
func Base3MatVec(dst []int32, src []byte, cols, p0, p1 int, x []int8, xsum int32) {
	const op = "Base3MatVec"
	checkBase3(op, cols, p0, p1)
	stride := base3Stride(cols)
	need(op, "dst", len(dst), PanelRows*(p1-p0))
	need(op, "src", len(src), p1*stride)
	need(op, "x", len(x), ceilDiv(cols, BlockCols)*BlockCols)
	if p0 == p1 {
		return
	}
	if cols == 0 {
		clear(dst[:PanelRows*(p1-p0)])
		return
	}
	base3MatVec(dst, src[p0*stride:p1*stride], ceilDiv(cols, BlockCols), x, xsum)
}

// Base3Ready says whether the active instruction set has kernels for base 3: without, products take many times longer than with panel16.
func Base3Ready() bool { return base3Ready() }

func checkBase3(op string, cols, p0, p1 int) {
	if cols < 0 || cols > MaxTernaryCols || p0 < 0 || p1 < p0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: panels %d to %d, %d columns (at most %d)", op, p0, p1, cols, MaxTernaryCols))
	}
}

// BadBase3 looks in whole panels of a matrix in base 3 for bytes that PackBase3 does not write: those that mean nothing, and the code 3 in the
// blocks that stayed as they are. at is where in the matrix src begins, a multiple of 64.
func BadBase3(src []byte, cols, at int) bool {
	const high, low = 0x8080808080808080, 0x0101010101010101
	stride := base3Stride(cols)
	packed := ceilDiv(cols, BlockCols) / base3Group * base3Packed * BlockBytes
	var bad uint64
	for len(src) >= BlockBytes {
		place := at % stride
		end := stride
		if place < packed {
			end = packed
		}
		n := min(end-place, len(src)&^(BlockBytes-1))
		for i := 0; i < n; i += 8 {
			v := binary.LittleEndian.Uint64(src[i:])
			if place < packed {
				bad |= v & (v&^high + (256-base3Values)*low) & high
			} else {
				bad |= v & (v >> 1) & 0x5555555555555555
			}
		}
		src, at = src[n:], at+n
	}
	return bad != 0
}
