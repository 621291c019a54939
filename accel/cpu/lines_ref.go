package cpu

import (
	"encoding/binary"
	"math"
)

// lineDotRef multiplies a run of lines with a vector.
func lineDotRef(dst []int32, src []byte, stride int, ids []int32, x []int8, xsum int32) {
	for i := range dst {
		sum := -xsum
		for at, codes := range src[int(ids[i])*stride:][:stride] {
			b, lane := at/BlockBytes, at%BlockBytes
			for f := range 4 {
				sum += int32(codes>>(2*f)&3) * int32(x[b*lineBlock+64*f+lane])
			}
		}
		dst[i] = sum
	}
}

// lineAddRef adds multiples of a run of lines.
func lineAddRef(acc []int32, src []byte, stride int, ids []int32, q []int8) {
	for i, v := range q {
		for at, codes := range src[int(ids[i])*stride:][:stride] {
			b, c, j := at/BlockBytes, at%BlockBytes/4, at%4
			for f := range 4 {
				acc[b*lineBlock+64*f+c%4*16+c/4*4+j] += int32(codes&(3<<(2*f))) * int32(v)
			}
		}
	}
}

// flipLanesRef transposes 16 lines by 16 lanes of 4 bytes, count times: lane c of line r becomes lane r of the block c. Blocks lie dstStride
// apart, lines stride; for the next 16 by 16, dst moves on by dstStep and src by srcStep.
func flipLanesRef(dst []byte, dstStride, dstStep int, src []byte, stride, srcStep, count int) {
	for i := range count {
		for r := range 16 {
			for c := range 16 {
				lane := binary.LittleEndian.Uint32(src[i*srcStep+r*stride+4*c:])
				binary.LittleEndian.PutUint32(dst[i*dstStep+c*dstStride+4*r:], lane)
			}
		}
	}
}

// flipCodesRef is flipLanesRef with the roles of lines and elements exchanged: the code of element e of lane c of line k becomes that of
// column k in lane e of block c.
func flipCodesRef(dst []byte, dstStride, dstStep int, src []byte, stride, srcStep, count int) {
	for i := range count {
		for c := range 16 {
			var lanes [16]uint32
			for k := range 16 {
				codes := binary.LittleEndian.Uint32(src[i*srcStep+k*stride+4*c:])
				for e := range 16 {
					lanes[e] |= codes >> codeShift(e) & 3 << codeShift(k)
				}
			}
			for e, lane := range lanes {
				binary.LittleEndian.PutUint32(dst[i*dstStep+c*dstStride+4*e:], lane)
			}
		}
	}
}

// codeShift is where element e of a lane's 16 has its bits.
func codeShift(e int) int { return 8*(e%4) + 2*(e/4) }

func lineSumsRef(dst, acc []int32, n int, qsum int32) {
	for k := 0; k < n; k += 4 { // element 64l+16m+4f+j of 256 is sum 64f+16m+4l+j, times 4^f
		b, l, m, f := k&^(lineBlock-1), k/64%4, k/16%4, k/4%4
		from := acc[b+64*f+16*m+4*l:][:4]
		for j := range min(4, n-k) {
			dst[k+j] = from[j]>>(2*f) - qsum
		}
	}
}

func addIntsRef(dst, x []int32) {
	for i, v := range x {
		dst[i] += v
	}
}

// positiveRef and nonzeroRef have no branch that is hard to foresee.
func positiveRef(ids []int32, x []float32, first int) (count int) {
	for i, v := range x {
		ids[count] = int32(first + i)
		count += positiveBit(v)
	}
	return count
}

func positiveBit(x float32) int { return int(uint64(-int64(int32(math.Float32bits(x)))) >> 63) }

func nonzeroRef(ids []int32, x []int8, first int) (count int) {
	for i, v := range x {
		ids[count] = int32(first + i)
		count += int(uint8(v|-v) >> 7)
	}
	return count
}
