package gguf

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// Zeros are the numbers of zeros in the rows and columns of a matrix: ByRow[i] of row i, ByCol[j] of column j.
type Zeros struct{ ByRow, ByCol []int }

// I2SZeros counts the zeros of an I2_S tensor [rows, cols] under each of
// I2SLayouts, in one pass that does not decode it: 32 codes at a time. Rows are
// a multiple of 4, and columns one of 128, as kernels have them.
//
// Each is told now and then how many bytes have been read, and may end it.
//
// Errors: as I2S; that of each.
func I2SZeros(src []byte, rows, cols int, each func(read int) error) (map[string]Zeros, error) {
	if size, ok := Bytes(I2_S, rows*cols, cols); !ok || len(src) != size || cols%128 != 0 || rows%4 != 0 {
		return nil, &container.Error{Kind: ErrDecode, Field: "size", Found: fmt.Sprintf("%d bytes", len(src)),
			Expected: fmt.Sprintf("those of I2_S [%d, %d] in rows of whole blocks", rows, cols)}
	}
	out := map[string]Zeros{}
	for _, layout := range I2SLayouts() {
		out[layout] = Zeros{make([]int, rows), make([]int, cols)}
	}
	// The bytes of a row of blocks are, row by column, a quarter of four rows: the first, second, third or last quarter of their columns.
	size := cols / 4
	words := size / 8
	x86, arm64, row4 := out[I2SX86].ByRow, out[I2SArm64].ByRow, out[I2SRow4].ByRow
	counts := make([]uint64, 4*words*4) // eight counters a word, of a byte's codes each, for each quarter
	for line := range rows {
		text, counters := src[line*size:][:size], counts[line%4*words*4:][:words*4]
		var perCode [4]int
		for at := 0; at < words; at++ {
			x := binary.LittleEndian.Uint64(text[8*at:]) ^ 0x5555555555555555 // code 1, a zero, becomes 0
			zeros := ^(x | x>>1) & 0x5555555555555555
			four := counters[4*at:][:4]
			for code := range four {
				ones := zeros >> (6 - 2*code) & 0x0101010101010101
				perCode[code] += bits.OnesCount64(ones)
				four[code] += ones
			}
		}
		for code, n := range perCode {
			x86[line] += n
			arm64[line] += n
			row4[line/4*4+code] += n
		}
		if line%(4*255) == 4*255-1 || line == rows-1 {
			flushZeros(out, counts, size)
			if err := each((line + 1) * size); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// flushZeros adds the counters of four quarters, size bytes each, to the columns and clears them.
func flushZeros(out map[string]Zeros, counts []uint64, size int) {
	x86, arm64, row4 := out[I2SX86].ByCol, out[I2SArm64].ByCol, out[I2SRow4].ByCol
	for i, word := range counts {
		quarter, at, code := i*2/size, i/4*8%size, i%4
		for b := range 8 {
			n := int(word >> (8 * b) & 0xff)
			x86[i2sColumn(128, at+b, code)] += n
			arm64[i2sColumn(64, at+b, code)] += n
			row4[quarter*size+at+b] += n
		}
	}
	clear(counts)
}

// i2sColumn is the column of a code, the first in the highest bits, in a byte of a row of blocks.
func i2sColumn(block, at, code int) int {
	quarter := block / 4
	return at/quarter*block + code*quarter + at%quarter
}
