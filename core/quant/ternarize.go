package quant

import (
	"encoding/binary"
	"math"
	"sort"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// TernarizeF32 quantizes a row-major rows x cols matrix of float32 master
// weights by the absmean rule straight into panel16: dst, cpu.TernaryBytes
// long, gets the codes, and the scale is returned. src is read twice, once for
// the mean and once for the codes; nothing of the matrix's size is allocated.
//
// Errors: ErrShape; ErrNotFinite with the position of a NaN or infinity.
func TernarizeF32(dst, src []byte, rows, cols int) (scale float32, err error) {
	return Ternarize(dst, F32, src, rows, cols)
}

// TernarizeF16 is TernarizeF32 for IEEE half precision.
func TernarizeF16(dst, src []byte, rows, cols int) (scale float32, err error) {
	return Ternarize(dst, F16, src, rows, cols)
}

// TernarizeBF16 is TernarizeF32 for bfloat16.
func TernarizeBF16(dst, src []byte, rows, cols int) (scale float32, err error) {
	return Ternarize(dst, BF16, src, rows, cols)
}

// Ternarize is TernarizeF32 for the named source dtype: F32, F16 or BF16.
func Ternarize(dst []byte, dtype string, src []byte, rows, cols int) (scale float32, err error) {
	size, err := checkSource(dtype, src, rows, cols)
	if err != nil {
		return 0, err
	}
	if err := checkBytes("panels", len(dst), cpu.TernaryBytes(rows, cols), rows, cols); err != nil {
		return 0, err
	}
	scale, err = absMean(dtype, src, size, cols)
	if err != nil {
		return 0, err
	}
	packTernary(dst, dtype, src, size, rows, cols, scale)
	return scale, nil
}

// TernarizeScaled is Ternarize with a given scale > 0 in place of the mean: t = clamp(roundHalfEven(w/scale), -1, 1).
func TernarizeScaled(dst []byte, dtype string, src []byte, rows, cols int, scale float32) error {
	size, err := checkSource(dtype, src, rows, cols)
	if err != nil {
		return err
	}
	if err := checkBytes("panels", len(dst), cpu.TernaryBytes(rows, cols), rows, cols); err != nil {
		return err
	}
	if _, err := absMean(dtype, src, size, cols); err != nil { // every weight is finite
		return err
	}
	packTernary(dst, dtype, src, size, rows, cols, scale)
	return nil
}

// packTernary is the second pass: the codes.
func packTernary(dst []byte, dtype string, src []byte, size, rows, cols int, scale float32) {
	pack, step := packRow16, packStep16(dtype, scale/2)
	if dtype == F32 {
		pack, step = packRow32, packStep32(scale/2)
	}
	stride, w := cpu.TernaryBytes(cpu.PanelRows, cols), inPlace(dtype, src)
	cpu.Parallel(len(dst)/stride, task(func(p int) {
		panel := dst[p*stride : (p+1)*stride]
		for r := range cpu.PanelRows {
			row := p*cpu.PanelRows + r
			if row >= rows {
				padLane(panel, r)
				continue
			}
			if w != nil {
				cpu.PackTernaryRow(panel[4*r:], w[row*cols:(row+1)*cols], scale/2)
				continue
			}
			pack(panel[4*r:], src[row*cols*size:(row+1)*cols*size], step)
		}
	}))
}

// absMean is the first pass: the scale of the whole matrix.
func absMean(dtype string, src []byte, size, cols int) (float32, error) {
	n := len(src) / size
	blocks := (n + sumBlock - 1) / sumBlock
	sums := make([]float64, blocks)
	err := inChunks(blocks, func(from, to int) error {
		var buffer [4096]float32
		for b := from; b < to; b++ {
			var s absSum
			last := min((b+1)*sumBlock, n)
			if w := inPlace(dtype, src); w != nil {
				s.add(w[b*sumBlock : last])
				if sums[b] = s.total(); sums[b]-sums[b] != 0 { // finite float32 have a finite sum
					return notFinite(w[b*sumBlock:last], b*sumBlock, cols)
				}
				continue
			}
			for i := b * sumBlock; i < last; i += len(buffer) {
				part := buffer[:min(len(buffer), last-i)]
				if !decode(part, dtype, src[i*size:]) {
					return notFinite(part, i, cols)
				}
				s.add(part)
			}
			sums[b] = s.total()
		}
		return nil
	})
	return meanScale(sums, n), err
}

// inPlace views float32 that lie on a border of their size; nil for all else.
func inPlace(dtype string, src []byte) []float32 {
	p := unsafe.Pointer(unsafe.SliceData(src))
	if dtype != F32 || len(src) < 4 || uintptr(p)%4 != 0 {
		return nil
	}
	return unsafe.Slice((*float32)(p), len(src)/4)
}

// The second pass works on bits. Magnitudes of floats order like their bit
// patterns, so |w| > m/2 is one integer comparison with the largest pattern
// that is not above m/2; adding 0x7fff less that pattern carries into the sign
// bit exactly when the comparison holds, for four 16-bit weights in one 64-bit
// addition. The sign bit of the weight then chooses between codes 2 and 0.
const (
	sign16 = 0x8000800080008000
	sign32 = 0x8000000080000000
)

// packStep16 is the addend of the comparison for 16-bit floats.
func packStep16(dtype string, half float32) uint64 {
	threshold := uint64(math.Float32bits(half) >> 16)
	if dtype == F16 {
		above := sort.Search(0x7c00, func(h int) bool { return cpu.FromHalf(uint16(h)) > half })
		threshold = uint64(above - 1)
	}
	return (0x7fff - threshold) * 0x0001000100010001
}

func packStep32(half float32) uint64 {
	return (0x7fffffff - uint64(math.Float32bits(half))) * 0x0000000100000001
}

// codes16 gives the codes of four 16-bit floats in the low bits of each quarter.
func codes16(x, step uint64) uint64 {
	large := ((x &^ sign16) + step) & sign16
	return (large&^x)>>14 | (large^sign16)>>15
}

// codes32 does the same for two float32.
func codes32(x, step uint64) uint64 {
	large := ((x &^ sign32) + step) & sign32
	return (large&^x)>>30 | (large^sign32)>>31
}

// packRow16 packs one row of 16-bit floats into its lanes of a panel's blocks.
func packRow16(lane, row []byte, step uint64) {
	for ; len(row) >= 32; lane, row = lane[min(cpu.BlockBytes, len(lane)):], row[32:] {
		binary.LittleEndian.PutUint32(lane, lane16(row[:32], step))
	}
	if len(row) > 0 {
		var block [32]byte // zeros: the padding's code is that of weight 0
		copy(block[:], row)
		binary.LittleEndian.PutUint32(lane, lane16(block[:], step))
	}
}

// lane16 makes the lane of 16 columns: field f of its bytes holds columns 4f to 4f+3.
func lane16(block []byte, step uint64) uint32 {
	c := codes16(binary.LittleEndian.Uint64(block[0:]), step) |
		codes16(binary.LittleEndian.Uint64(block[8:]), step)<<2 |
		codes16(binary.LittleEndian.Uint64(block[16:]), step)<<4 |
		codes16(binary.LittleEndian.Uint64(block[24:]), step)<<6
	c = (c | c>>8) & 0x0000ffff0000ffff // bytes 0, 2, 4, 6 to 0, 1, 4, 5
	return uint32(c | c>>16)
}

// packRow32 packs one row of float32.
func packRow32(lane, row []byte, step uint64) {
	for ; len(row) >= 64; lane, row = lane[min(cpu.BlockBytes, len(lane)):], row[64:] {
		binary.LittleEndian.PutUint32(lane, lane32(row[:64], step))
	}
	if len(row) > 0 {
		var block [64]byte
		copy(block[:], row)
		binary.LittleEndian.PutUint32(lane, lane32(block[:], step))
	}
}

// lane32 does for float32 what lane16 does. Columns 0, 1 and 2, 3 of a group of
// four share a 64-bit word each; joined they lie in the order 0, 2, 1, 3.
func lane32(block []byte, step uint64) uint32 {
	var c uint64
	for f := range 4 {
		c |= (codes32(binary.LittleEndian.Uint64(block[16*f:]), step) |
			codes32(binary.LittleEndian.Uint64(block[16*f+8:]), step)<<16) << (2 * f)
	}
	return uint32(c | c>>24)
}

// padLane fills row r of a panel with weight 0.
func padLane(panel []byte, r int) {
	for at := 4 * r; at < len(panel); at += cpu.BlockBytes {
		binary.LittleEndian.PutUint32(panel[at:], 0x55555555)
	}
}
