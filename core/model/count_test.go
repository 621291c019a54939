package model

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// However codes lie in a native file, wherever its rows and columns end, and whether it is mapped or read.
func TestCodesOfAnyShapeAreCountedWhereverTheyLie(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 70).Draw(t, "rows"), rapid.IntRange(1, 600).Draw(t, "cols")
		layout := rapid.SampledFrom([]quant.Layout{quant.Panel16, quant.RowLines, quant.ColumnLines, quant.Base3}).Draw(t, "layout")
		codes := rapid.SliceOfN(rapid.Int8Range(-1, 1), rows*cols, rows*cols).Draw(t, "codes")
		panels, err := quant.NewTernary(codes, 1, rows, cols)
		require.NoError(t, err)
		w := quant.Ternary{Rows: rows, Cols: cols, Layout: layout, Data: make([]byte, layout.Bytes(rows, cols))}
		w.FromPanels(panels.Data)
		var want codeCount
		for _, c := range codes {
			want[c+1]++
		}
		size := int64(len(w.Data))
		read, err := container.OpenReader("m", bytes.NewReader(w.Data), size)
		require.NoError(t, err)
		for _, file := range []*container.File{container.OpenBytes("m", w.Data), read} {
			set := container.Index(file, []container.Info{{Name: "w", DType: "U8", Shape: []int{len(w.Data)}, Size: size}}, 0)
			v, err := set.Tensor("w")
			require.NoError(t, err)
			var n codeCount
			require.NoError(t, nativeView{v, nativeTensor{}, len(w.Data)}.countCodes(&scan{ctx: context.Background()}, &n, layout, rows, cols))
			require.Equal(t, want, n)
		}
	})
}
