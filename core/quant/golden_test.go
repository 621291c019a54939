package quant

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
)

// linear_cases.npz holds three ternary linear layers computed by the public
// PyTorch implementation: weights W, their codes, Hugging Face's packed bytes,
// activations X (with a zero row and exact ties), their int8 codes, and the
// outputs of each of its linear classes.
const goldenCases = "../../tests_go/testdata/golden/linear_cases.npz"

type goldenCase struct {
	rows, cols, tokens int
	arrays             map[string]npz.Array
	name               string
}

func loadGolden(t *testing.T) []goldenCase {
	t.Helper()
	arrays, err := npz.Load(goldenCases)
	require.NoError(t, err)
	var out []goldenCase
	for _, name := range []string{"a", "b", "c"} {
		w, x := arrays[name+"_W"].Shape, arrays[name+"_X"].Shape
		out = append(out, goldenCase{w[0], w[1], x[0], arrays, name})
	}
	return out
}

func values[T npz.Element](t *testing.T, c goldenCase, key string) []T {
	t.Helper()
	out, err := npz.Values[T](c.arrays[c.name+"_"+key])
	require.NoError(t, err, key)
	return out
}

// onEveryISA runs a test with each set of kernels the machine has.
func onEveryISA(t *testing.T, fn func(t *testing.T)) {
	before := cpu.Active()
	defer func() { require.NoError(t, cpu.SetISA(before)) }()
	for _, isa := range cpu.Supported() {
		require.NoError(t, cpu.SetISA(isa))
		t.Run(isa.String(), fn)
	}
}

func TestGoldenTernaryWeightsAreReproducedExactly(t *testing.T) {
	onEveryISA(t, func(t *testing.T) {
		for _, c := range loadGolden(t) {
			w, want := values[float32](t, c, "W"), values[int8](t, c, "ternary")
			codes := make([]int8, len(w))
			scale := AbsMeanTernary(codes, w)
			require.Equal(t, want, codes)
			require.InEpsilon(t, values[float32](t, c, "scale_mul")[0], scale, 1e-6)
			require.InEpsilon(t, values[float32](t, c, "scale_div")[0], 1/scale, 1e-6)

			panels := make([]byte, cpu.TernaryBytes(c.rows, c.cols))
			streamed, err := TernarizeF32(panels, c.arrays[c.name+"_W"].Bytes(), c.rows, c.cols)
			require.NoError(t, err)
			require.Equal(t, scale, streamed)
			ternary := &Ternary{Rows: c.rows, Cols: c.cols, Scale: scale, Data: panels}
			require.Equal(t, want, ternary.Codes(nil))
		}
	})
}

func TestGoldenPackedBytesGiveTheSamePanelsAndComeBack(t *testing.T) {
	for _, c := range loadGolden(t) {
		packed, want := values[uint8](t, c, "packed"), values[int8](t, c, "ternary")
		panels := make([]byte, cpu.TernaryBytes(c.rows, c.cols))
		require.NoError(t, PackHF(panels, packed, c.rows, c.cols))
		direct, err := NewTernary(want, 1, c.rows, c.cols)
		require.NoError(t, err)
		require.Equal(t, direct.Data, panels)

		back := make([]byte, HFBytes(c.rows, c.cols))
		require.NoError(t, ToHF(back, panels, c.rows, c.cols))
		require.Equal(t, packed, back)
		codes := make([]int8, len(want))
		require.NoError(t, UnpackHF(codes, packed, c.rows, c.cols))
		require.Equal(t, want, codes)
	}
}

func TestGoldenLayersGiveExactIntegersAndCloseOutputs(t *testing.T) {
	onEveryISA(t, func(t *testing.T) {
		for _, c := range loadGolden(t) {
			stride := ActivationStride(c.cols)
			q, scale, sum := make([]int8, c.tokens*stride), make([]float32, c.tokens), make([]int32, c.tokens)
			QuantizeActivations(q, scale, sum, values[float32](t, c, "X"), c.tokens, c.cols)
			require.Equal(t, values[float32](t, c, "xscale"), scale)
			want := values[int8](t, c, "xq")
			for i := range c.tokens {
				require.Equal(t, want[i*c.cols:(i+1)*c.cols], q[i*stride:i*stride+c.cols])
			}

			w := make([]int8, c.rows*c.cols)
			m := AbsMeanTernary(w, values[float32](t, c, "W"))
			layer, err := NewTernary(w, m, c.rows, c.cols)
			require.NoError(t, err)
			panels := (c.rows + cpu.PanelRows - 1) / cpu.PanelRows
			ldd := panels * cpu.PanelRows
			acc := make([]int32, c.tokens*ldd)
			cpu.TernaryMatMul(acc, ldd, layer.Data, c.cols, 0, panels, q, stride, sum, c.tokens)
			y := make([]float32, c.rows)
			for _, key := range []string{"y_bitlinear", "y_auto_online", "y_auto_offline"} {
				want := values[float32](t, c, key)
				for i := range c.tokens {
					// The auto classes multiply dequantized activations, so where terms
					// cancel their error is relative to the terms, not to the sum.
					terms := 0.0
					if key != "y_bitlinear" {
						terms = float64(cpu.AbsMax(want[i*c.rows : (i+1)*c.rows]))
					}
					cpu.DequantRow(y, acc[i*ldd:i*ldd+c.rows], layer.Scale/scale[i])
					for r, v := range y {
						expected := float64(want[i*c.rows+r])
						require.LessOrEqual(t, math.Abs(float64(v)-expected), 1e-5*max(math.Abs(expected), terms), "case %s, %s, token %d, row %d", c.name, key, i, r)
					}
				}
			}
		}
	})
}
