package gguf

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// I2SZeros counts the zeros in each row and column of an I2_S tensor [rows,
// cols] under a layout, without decoding it: 32 codes at a time. Rows have to be
// whole blocks, as they are wherever kernels read them.
//
// Errors: as I2S.
func I2SZeros(layout string, src []byte, rows, cols int) (byRow, byCol []int, err error) {
	n := rows * cols
	block, ok := i2sBlock(layout, cols)
	if size, sized := Bytes(I2_S, n, cols); !ok || !sized || len(src) != size || cols%128 != 0 || n%block != 0 {
		return nil, nil, &container.Error{Kind: ErrDecode, Field: "size", Found: fmt.Sprintf("%d bytes in layout %s", len(src), container.Quote(layout)),
			Expected: fmt.Sprintf("those of I2_S [%d, %d] in rows of whole blocks", rows, cols)}
	}
	byRow, byCol = make([]int, rows), make([]int, cols)
	// A line is what shares its bytes: one row, or four of them column by column.
	lines, size := rows, cols/4
	if layout == I2SRow4 {
		lines, size = rows/4, cols
	}
	counts := make([]uint64, 4*size/8) // eight counters a word, of a byte's codes each
	flush := func() {
		for i := range counts {
			code, at := i%4, i/4*8
			for b := range 8 {
				byCol[i2sColumn(layout, block, at+b, code)] += int(counts[i] >> (8 * b) & 0xff)
			}
			counts[i] = 0
		}
	}
	for line := range lines {
		text := src[line*size : (line+1)*size]
		var perCode [4]int
		for at := 0; at < size; at += 8 {
			x := binary.LittleEndian.Uint64(text[at:]) ^ 0x5555555555555555 // code 1, a zero, becomes 0
			zeros := ^(x | x>>1) & 0x5555555555555555
			for code := range 4 {
				ones := zeros >> (6 - 2*code) & 0x0101010101010101
				perCode[code] += bits.OnesCount64(ones)
				counts[at/8*4+code] += ones
			}
		}
		for code, zeros := range perCode {
			if layout == I2SRow4 {
				byRow[4*line+code] += zeros
			} else {
				byRow[line] += zeros
			}
		}
		if line%255 == 254 || line == lines-1 {
			flush()
		}
	}
	return byRow, byCol, nil
}

// i2sColumn is the column of a code, the first in the highest bits, in a byte of a line.
func i2sColumn(layout string, block, at, code int) int {
	if layout == I2SRow4 {
		return at
	}
	quarter := block / 4
	return at/quarter*block + code*quarter + at%quarter
}
