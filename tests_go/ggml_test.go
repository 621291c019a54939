package tests_go

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// Two readings of GGML's ternary types: the plain one of package gguf, a value at a time, and the one that fills the kernels'
// panels. Neither package knows the other.
func TestPanelsOfGGMLTypesHoldTheCodesThatTheFormatDescribes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		format := rapid.SampledFrom([]string{quant.GGMLI2SX86, quant.GGMLI2SArm64, quant.GGMLI2SRow4, quant.GGMLTQ1, quant.GGMLTQ2, quant.GGMLIQ1BN, quant.GGMLIQ2BN}).Draw(t, "format")
		dtype, layout, isI2S := strings.Cut(format, " ")
		rows := 4 * rapid.IntRange(1, 9).Draw(t, "rows")
		cols := 256 * rapid.IntRange(1, 3).Draw(t, "cols")
		if isI2S && rapid.Bool().Draw(t, "narrow") {
			cols = 32 * rapid.IntRange(1, 5).Draw(t, "cols of I2_S") // blocks run over the ends of rows
		}
		size, ok := gguf.Bytes(dtype, rows*cols, cols)
		require.True(t, ok)
		src := make([]byte, size)
		for i := range src {
			src[i] = rapid.Byte().Draw(t, "byte")
			if i > 64 {
				src[i] = src[i%61]*3 + byte(i/61*7)
			}
			if dtype != quant.GGMLTQ1 {
				src[i] &^= src[i] & (src[i] >> 1 & 0x55) << 1 // code 3 becomes 1
			}
		}
		want := make([]int8, rows*cols)
		var scale float32
		var err error
		switch stride := size / rows; {
		case isI2S:
			binary.LittleEndian.PutUint32(src[rows*cols/4:], math.Float32bits(0.25))
			scale, err = gguf.I2S(want, layout, src, rows, cols)
		case dtype == gguf.IQ1_BN:
			for row := 0; row < size; row += stride {
				binary.LittleEndian.PutUint16(src[row:], 0x3400)
			}
			scale, err = gguf.RowCodes(want, dtype, src, cols)
		case dtype == gguf.IQ2_BN:
			for row := 0; row < size; row += stride {
				binary.LittleEndian.PutUint32(src[row:], math.Float32bits(0.25))
			}
			scale, err = gguf.RowCodes(want, dtype, src, cols)
		default:
			block := size / (rows * cols / 256)
			for i, end := 0, block; end <= size; i, end = i+1, end+block {
				binary.LittleEndian.PutUint16(src[end-2:], []uint16{0x3400, 0, 0x3400, 0x8000}[i%4]) // 0.25, 0, and -0
				if i%2 == 1 {
					src[end-block] = 0xff // any codes are zeros in a block of scale 0
				}
			}
			scale, err = gguf.Codes(want, dtype, src)
		}
		if err != nil {
			require.ErrorContains(t, err, "whole blocks") // rows that are no whole number of blocks in this layout
			t.Skip("no such tensor")
		}
		require.Equal(t, float32(0.25), scale)

		for _, layout := range []quant.Layout{quant.Panel16, quant.RowLines, quant.ColumnLines, quant.Base3} {
			m := ternaryOf(layout, rows, cols)
			require.NoError(t, quant.PackGGML(m, format, src, nil))
			require.Equal(t, float32(0.25), m.Scale)
			require.Equal(t, want, m.Codes(nil), layout)
			whole := ternaryOf(layout, rows, cols)
			plain, err := quant.NewTernary(want, 0.25, rows, cols)
			require.NoError(t, err)
			whole.FromPanels(plain.Data)
			require.Equal(t, whole.Data, m.Data, layout) // the padding too

			require.NoError(t, quant.PackGGML(m, format, src, func(row int) int { return rows - 1 - row }))
			for r, row := range slices.Collect(slices.Chunk(m.Codes(nil), cols)) {
				require.Equal(t, want[(rows-1-r)*cols:(rows-r)*cols], row)
			}
		}
	})
}

func ternaryOf(layout quant.Layout, rows, cols int) *quant.Ternary {
	return &quant.Ternary{Rows: rows, Cols: cols, Layout: layout, Data: make([]byte, layout.Bytes(rows, cols))}
}

// Codes 3 are refused where they lie: the plain reading counts them by their number, the other one says row and column of the file.
func TestCode3OfGGMLTypesIsRefusedWithItsPlace(t *testing.T) {
	const rows, cols, row, col = 32, 512, 21, 300
	for _, format := range []string{quant.GGMLI2SX86, quant.GGMLI2SArm64, quant.GGMLI2SRow4, quant.GGMLTQ2} {
		dtype, layout, isI2S := strings.Cut(format, " ")
		size, _ := gguf.Bytes(dtype, rows*cols, cols)
		src := make([]byte, size) // weights -1
		for end := 66; !isI2S && end <= size; end += 66 {
			binary.LittleEndian.PutUint16(src[end-2:], 0x3c00)
		}
		at, shift := (row*cols+col)/128*32+col%32, 6-col%128/32*2
		switch format {
		case quant.GGMLI2SArm64:
			at, shift = (row*cols+col)/64*16+col%16, 6-col%64/16*2
		case quant.GGMLI2SRow4:
			at, shift = row/4*cols+col, 6-row%4*2
		case quant.GGMLTQ2:
			at, shift = (row*cols+col)/256*66+col%256/128*32+col%32, col%128/32*2
		}
		src[at] |= 3 << shift

		for _, to := range []quant.Layout{quant.Panel16, quant.ColumnLines} {
			err := quant.PackGGML(ternaryOf(to, rows, cols), format, src, func(row int) int { return rows - 1 - row })
			require.ErrorIs(t, err, quant.ErrCode)
			require.ErrorContains(t, err, "row 21, column 300: found code 3, expected 0, 1 or 2", format)
		}
		codes, err := make([]int8, rows*cols), error(nil)
		if isI2S {
			_, err = gguf.I2S(codes, layout, src, rows, cols)
		} else {
			_, err = gguf.Codes(codes, dtype, src)
		}
		require.ErrorIs(t, err, gguf.ErrDecode)
		require.ErrorContains(t, err, fmt.Sprintf("code %d: found 3", row*cols+col), format)
	}
}

func TestGGMLTensorsThatAreNoTernaryMatrixAreRefused(t *testing.T) {
	src := make([]byte, 16*66)
	binary.LittleEndian.PutUint16(src[64:], 0x3c00)
	binary.LittleEndian.PutUint16(src[3*66+64:], 0x3800)
	err := quant.PackGGML(ternaryOf(quant.Panel16, 16, 256), quant.GGMLTQ2, src, nil)
	require.ErrorIs(t, err, quant.ErrScale)
	require.ErrorContains(t, err, "row 3, column 0: found 0.5, expected 1")
	rows := make([]byte, 16*68)
	for row := range 16 {
		binary.LittleEndian.PutUint32(rows[68*row:], math.Float32bits(0.25))
	}
	binary.LittleEndian.PutUint32(rows[68*5:], math.Float32bits(0.5))
	err = quant.PackGGML(ternaryOf(quant.Panel16, 16, 256), quant.GGMLIQ2BN, rows, nil)
	require.ErrorIs(t, err, quant.ErrScale)
	require.ErrorContains(t, err, "row 5, column 0: found 0.5, expected 0.25, the scale of the first row")
	_, err = gguf.RowCodes(make([]int8, 16*256), gguf.IQ2_BN, rows, 256)
	require.ErrorContains(t, err, "scale of row 5")
	err = quant.PackGGML(ternaryOf(quant.Panel16, 16, 256), "Q8_0", src, nil)
	require.ErrorIs(t, err, quant.ErrDType)
	for _, bad := range []struct {
		format           string
		size, rows, cols int
	}{{quant.GGMLTQ2, 16 * 66, 16, 255}, {quant.GGMLTQ2, 16*66 - 1, 16, 256}, {quant.GGMLI2SX86, 16 * 64, 16, 256},
		{quant.GGMLIQ2BN, 16 * 64, 16, 256}, {quant.GGMLIQ1BN, 16 * 54, 16, 208}, {quant.GGMLI2SRow4, 15*64 + 32, 15, 256}, {quant.GGMLI2SX86, 3*10 + 32, 3, 40}} {
		err := quant.PackGGML(ternaryOf(quant.Panel16, bad.rows, bad.cols), bad.format, make([]byte, bad.size), nil)
		require.ErrorIs(t, err, quant.ErrShape, "%+v", bad)
	}
}
