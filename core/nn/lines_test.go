package nn

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// byLines is l with its codes in another layout.
func byLines(l *Linear, layout quant.Layout) *Linear {
	w := l.Ternary
	moved := *l
	moved.Ternary = &quant.Ternary{Rows: w.Rows, Cols: w.Cols, Scale: w.Scale, Layout: layout, Data: make([]byte, layout.Bytes(w.Rows, w.Cols))}
	moved.Ternary.FromPanels(w.Panels())
	return &moved
}

func forward(t *testing.T, f *FeedForward, x []float32, rows int) []float32 {
	t.Helper()
	c := testCtx(t)
	c.Begin(context.Background(), 1, positions(rows), nil)
	defer c.End()
	y := f.Forward(c, matrix(t, x, rows, f.Gate.In), &Norm{Weight: randoms(rand.New(rand.NewPCG(9, 9)), f.Gate.In), Eps: 1e-5})
	return append([]float32(nil), y.Float32s()...)
}

// Skipping, not skipping and panels give the same bits: few rows and many, few open gates and many.
func TestSkippedNeuronsChangeNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	active := cpu.Active()
	defer func() {
		cpu.SetSkipZeros(true)
		require.NoError(t, cpu.SetISA(active))
	}()
	for _, shape := range []struct{ hidden, neurons int }{{40, 24}, {256, 688}, {300, 1500}, {24, 7000}} {
		for _, act := range []Activation{ReLU2, ReLU} {
			for _, bias := range []bool{false, true} {
				f := FeedForward{Act: act, SubNorm: &Norm{Weight: randoms(r, shape.neurons), Eps: 1e-5}}
				f.Gate, _ = ternary(r, shape.neurons, shape.hidden, bias)
				f.Up, _ = ternary(r, shape.neurons, shape.hidden, bias)
				f.Down, _ = ternary(r, shape.hidden, shape.neurons, bias)
				if bias { // hardly any gate opens
					for i := range f.Gate.Bias {
						f.Gate.Bias[i] -= 2 * float32(shape.hidden)
					}
					f.Gate.Bias[3] = 1e4
				}
				up, down := act.ByLines()
				lines := f
				lines.Up, lines.Down = byLines(f.Up, up), byLines(f.Down, down)
				require.True(t, lines.skips())
				for _, rows := range []int{1, 2, 3, 9, 17, skipRows, skipRows + 1, 70} {
					x := randoms(r, rows*shape.hidden)
					require.NoError(t, cpu.SetISA(active))
					want := forward(t, &f, x, rows)
					for _, skip := range []bool{true, false} {
						for _, isa := range cpu.Supported() {
							require.NoError(t, cpu.SetISA(isa))
							cpu.SetSkipZeros(skip)
							require.Equal(t, want, forward(t, &lines, x, rows), fmt.Sprint(shape, act, bias, rows, skip, isa))
						}
					}
				}
			}
		}
	}
}

func TestLayersWithNormsOfTheirOwnAreNotSkipped(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	f := FeedForward{Act: ReLU2}
	f.Gate, _ = ternary(r, 64, 32, false)
	f.Up, _ = ternary(r, 64, 32, false)
	f.Down, _ = ternary(r, 32, 64, false)
	f.Down.Norm = &Norm{Weight: randoms(r, 64), Eps: 1e-5}
	want := forward(t, &f, randoms(rand.New(rand.NewPCG(5, 5)), 32), 1)
	lines := f
	lines.Up, lines.Down = byLines(f.Up, quant.RowLines), byLines(f.Down, quant.ColumnLines)
	require.False(t, lines.skips())
	require.Equal(t, want, forward(t, &lines, randoms(rand.New(rand.NewPCG(5, 5)), 32), 1))
}
