package tests_go

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// Two readings of GGML's ternary types: the plain one of package gguf, a value at a time, and the one that fills the kernels'
// panels. Neither package knows the other.
func TestPanelsOfGGMLTypesHoldTheCodesThatTheFormatDescribes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		format := rapid.SampledFrom([]string{quant.GGMLI2SX86, quant.GGMLI2SArm64, quant.GGMLI2SRow4, quant.GGMLTQ1, quant.GGMLTQ2}).Draw(t, "format")
		dtype, layout, isI2S := strings.Cut(format, " ")
		rows := 4 * rapid.IntRange(1, 9).Draw(t, "rows")
		cols := 256 * rapid.IntRange(1, 3).Draw(t, "cols")
		if isI2S && rapid.Bool().Draw(t, "narrow") {
			cols = 32 * rapid.IntRange(1, 5).Draw(t, "cols of I2_S") // blocks run over the ends of rows
		}
		size, ok := gguf.Bytes(dtype, rows*cols, cols)
		require.True(t, ok)
		src := make([]byte, size)
		for i := range src { // any bytes, code 3 among them
			src[i] = rapid.Byte().Draw(t, "byte")
			if i > 64 {
				src[i] = src[i%61]*3 + byte(i/61*7)
			}
		}
		want := make([]int8, rows*cols)
		var scale float32
		var err error
		if isI2S {
			binary.LittleEndian.PutUint32(src[rows*cols/4:], math.Float32bits(0.25))
			scale, err = gguf.I2S(want, layout, src, rows, cols)
		} else {
			block := size / (rows * cols / 256)
			for i, end := 0, block; end <= size; i, end = i+1, end+block {
				binary.LittleEndian.PutUint16(src[end-2:], []uint16{0x3400, 0, 0x3400, 0x8000}[i%4]) // 0.25, 0, and -0
			}
			scale, err = gguf.Codes(want, dtype, src)
		}
		if err != nil {
			require.ErrorContains(t, err, "whole blocks") // rows that are no whole number of blocks in this layout
			t.Skip("no such tensor")
		}
		require.Equal(t, float32(0.25), scale)

		panels := make([]byte, cpu.TernaryBytes(rows, cols))
		got := make([]int8, rows*cols)
		scale, err = quant.PackGGML(panels, format, src, rows, cols, nil)
		require.NoError(t, err)
		require.Equal(t, float32(0.25), scale)
		cpu.UnpackTernary(got, panels, rows, cols)
		require.Equal(t, want, got)

		_, err = quant.PackGGML(panels, format, src, rows, cols, func(row int) int { return rows - 1 - row })
		require.NoError(t, err)
		cpu.UnpackTernary(got, panels, rows, cols)
		for r, row := range slices.Collect(slices.Chunk(got, cols)) {
			require.Equal(t, want[(rows-1-r)*cols:(rows-r)*cols], row)
		}
	})
}

func TestGGMLTensorsThatAreNoTernaryMatrixAreRefused(t *testing.T) {
	panels := make([]byte, cpu.TernaryBytes(16, 256))
	src := make([]byte, 16*66)
	binary.LittleEndian.PutUint16(src[64:], 0x3c00)
	binary.LittleEndian.PutUint16(src[3*66+64:], 0x3800)
	_, err := quant.PackGGML(panels, quant.GGMLTQ2, src, 16, 256, nil)
	require.ErrorIs(t, err, quant.ErrScale)
	require.ErrorContains(t, err, "row 3, column 0: found 0.5, expected 1")
	_, err = quant.PackGGML(panels, "Q8_0", src, 16, 256, nil)
	require.ErrorIs(t, err, quant.ErrDType)
	for _, bad := range []struct {
		format           string
		size, rows, cols int
	}{{quant.GGMLTQ2, 16 * 66, 16, 255}, {quant.GGMLTQ2, 16*66 - 1, 16, 256}, {quant.GGMLI2SX86, 16 * 64, 16, 256},
		{quant.GGMLI2SRow4, 15*64 + 32, 15, 256}, {quant.GGMLI2SX86, 3*10 + 32, 3, 40}} {
		_, err := quant.PackGGML(make([]byte, cpu.TernaryBytes(bad.rows, bad.cols)), bad.format, make([]byte, bad.size), bad.rows, bad.cols, nil)
		require.ErrorIs(t, err, quant.ErrShape, "%+v", bad)
	}
}
