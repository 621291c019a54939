package quant

import (
	"fmt"
	"testing"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// The gate projection of bitnet-b1.58-2B-4T; metrics are weights per nanosecond.
const benchRows, benchCols = 6912, 2560

func perWeight(b *testing.B, rows, cols int) {
	b.ReportMetric(float64(rows)*float64(cols)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "weights/ns")
}

func BenchmarkTernarize(b *testing.B) {
	panels := make([]byte, cpu.TernaryBytes(benchRows, benchCols))
	for _, dtype := range []string{F32, F16, BF16} {
		src, _ := encode(dtype, gaussian(benchRows*benchCols, 1))
		b.Run(dtype, func(b *testing.B) {
			for b.Loop() {
				if _, err := Ternarize(panels, dtype, src, benchRows, benchCols); err != nil {
					b.Fatal(err)
				}
			}
			perWeight(b, benchRows, benchCols)
		})
	}
}

func BenchmarkPackHF(b *testing.B) {
	panels := make([]byte, cpu.TernaryBytes(benchRows, benchCols))
	packed := make([]byte, HFBytes(benchRows, benchCols))
	b.Run("pack", func(b *testing.B) {
		for b.Loop() {
			if err := PackHF(panels, packed, benchRows, benchCols); err != nil {
				b.Fatal(err)
			}
		}
		perWeight(b, benchRows, benchCols)
	})
	b.Run("export", func(b *testing.B) {
		for b.Loop() {
			if err := ToHF(packed, panels, benchRows, benchCols); err != nil {
				b.Fatal(err)
			}
		}
		perWeight(b, benchRows, benchCols)
	})
}

func BenchmarkPackGGML(b *testing.B) {
	for format, f := range ggmlFormats {
		src := make([]byte, benchRows*benchCols/cpu.BlockCols/f.lanes*f.bytes+f.tail)
		if f.fourRows {
			src = src[:benchRows*benchCols/4+f.tail]
		}
		for i := f.bytes; f.tail == 0 && i <= len(src); i += f.bytes {
			src[i-1] = 0x3c
		}
		for _, layout := range []Layout{Panel16, RowLines, ColumnLines} {
			m := &Ternary{Rows: benchRows, Cols: benchCols, Layout: layout, Data: make([]byte, layout.Bytes(benchRows, benchCols))}
			b.Run(fmt.Sprint(format, " ", layout), func(b *testing.B) {
				for b.Loop() {
					if err := PackGGML(m, format, src, nil); err != nil {
						b.Fatal(err)
					}
				}
				perWeight(b, benchRows, benchCols)
			})
		}
	}
}

func BenchmarkPackDense(b *testing.B) {
	const rows = 4096
	for _, dtype := range []string{BF16, F16, F32} {
		src, _ := encode(dtype, gaussian(rows*benchCols, 1))
		for _, f := range []cpu.DenseFormat{cpu.DenseF32, cpu.DenseBF16, cpu.DenseF16, cpu.DenseInt8, cpu.DenseInt4} {
			b.Run(fmt.Sprintf("%s-%v", dtype, f), func(b *testing.B) {
				panels, scale := make([]byte, cpu.DenseBytes(f, rows, benchCols)), make([]float32, rows)
				for b.Loop() {
					if err := PackDense(panels, scale, f, dtype, src, rows, benchCols); err != nil {
						b.Fatal(err)
					}
				}
				perWeight(b, rows, benchCols)
			})
		}
	}
}
