package autograd

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

func TestEveryOperationHasARuleOrIsStatedToHaveNone(t *testing.T) {
	var known []string
	for name := range rules {
		known = append(known, name)
	}
	known = append(known, notDifferentiable...)
	slices.Sort(known)
	require.Equal(t, tensor.Operations(), known)
}

// leafOf makes a leaf of drawn numbers.
func leafOf(t *rapid.T, name string, draw *rapid.Generator[float32], shape ...int) *GradTensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = draw.Draw(t, fmt.Sprint(name, i))
	}
	x, err := tensor.FromFloat32(values, shape...)
	require.NoError(t, err)
	g := New(x)
	require.NoError(t, g.RequireGrad(true))
	return g
}

func ints(values []int64, shape ...int) *GradTensor {
	x, err := tensor.FromInt64(values, shape...)
	if err != nil {
		panic(err)
	}
	return New(x)
}

// Numbers that keep away from where functions have kinks, poles or steep slopes.
var (
	anyNumber = rapid.Custom(func(t *rapid.T) float32 { return float32(rapid.IntRange(-30, 30).Draw(t, "n")) / 16 })
	awayFrom0 = rapid.Custom(func(t *rapid.T) float32 {
		return float32(rapid.IntRange(8, 32).Draw(t, "n")*rapid.SampledFrom([]int{-1, 1}).Draw(t, "sign")) / 16
	})
	positive = rapid.Custom(func(t *rapid.T) float32 { return float32(rapid.IntRange(12, 40).Draw(t, "n")) / 16 })
	betweenN = rapid.Custom(func(t *rapid.T) float32 { // not near a whole number or a half
		return float32(rapid.IntRange(-3, 3).Draw(t, "n")) + rapid.SampledFrom([]float32{0.2, 0.3, 0.7, 0.8}).Draw(t, "part")
	})
)

// ofShape draws 1 to 3 axes.
func ofShape(t *rapid.T) []int {
	return rapid.SliceOfN(rapid.IntRange(1, 3), 1, 3).Draw(t, "shape")
}

// checkCall holds a named operation to differences.
func checkCall(t require.TestingT, name string, inputs []*GradTensor, params map[string]any) {
	text := []byte{}
	if params != nil {
		var err error
		text, err = json.Marshal(params)
		require.NoError(t, err)
	}
	err := GradCheck(func(x []*GradTensor) ([]*GradTensor, error) { return Grad.Call(name, x, text) }, inputs, CheckOptions{})
	require.NoError(t, err, "%s %s", name, text)
}

func TestGradientsOfFunctionsOfOneElement(t *testing.T) {
	draws := map[string]*rapid.Generator[float32]{
		"neg": anyNumber, "abs": awayFrom0, "square": anyNumber, "relu": awayFrom0, "relu2": awayFrom0, "exp": anyNumber, "expm1": anyNumber,
		"log": positive, "log2": positive, "log10": positive, "log1p": positive, "sqrt": positive, "rsqrt": positive, "reciprocal": positive,
		"sin": anyNumber, "cos": anyNumber, "tanh": anyNumber, "erf": anyNumber, "sigmoid": anyNumber, "silu": anyNumber, "softplus": anyNumber,
		"gelu": anyNumber, "gelu_tanh": anyNumber, "sign": awayFrom0, "floor": betweenN, "ceil": betweenN, "trunc": betweenN, "round": betweenN,
	}
	require.Len(t, draws, len(unaryRules))
	for name, draw := range draws {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				checkCall(t, name, []*GradTensor{leafOf(t, "x", draw, ofShape(t)...)}, nil)
			})
		})
	}
}

// broadcastPair draws two shapes that broadcast.
func broadcastPair(t *rapid.T) (a, b []int) {
	full := ofShape(t)
	shrink := func(name string) []int {
		s := slices.Clone(full)
		for i := range s {
			if rapid.Bool().Draw(t, fmt.Sprint(name, "one", i)) {
				s[i] = 1
			}
		}
		return s[rapid.IntRange(0, len(s)-1).Draw(t, name+"lead"):]
	}
	return shrink("a"), shrink("b")
}

func TestGradientsOfFunctionsOfTwoElementsSumOverBroadcasts(t *testing.T) {
	draws := map[string][2]*rapid.Generator[float32]{
		"add": {anyNumber, anyNumber}, "sub": {anyNumber, anyNumber}, "mul": {anyNumber, anyNumber}, "div": {anyNumber, awayFrom0}, "pow": {positive, anyNumber},
	}
	for name, draw := range draws {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				a, b := broadcastPair(t)
				checkCall(t, name, []*GradTensor{leafOf(t, "a", draw[0], a...), leafOf(t, "b", draw[1], b...)}, nil)
			})
		})
	}
	// Those with kinks: operands lie on grids that do not meet.
	for _, name := range []string{"maximum", "minimum", "mod", "floor_div"} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				a, b := broadcastPair(t)
				divisor := rapid.Just(float32(1))
				if name[0] == 'm' && name != "mod" {
					divisor = rapid.Custom(func(t *rapid.T) float32 { return float32(rapid.IntRange(-3, 3).Draw(t, "whole")) })
				}
				checkCall(t, name, []*GradTensor{leafOf(t, "a", betweenN, a...), leafOf(t, "b", divisor, b...)}, nil)
			})
		})
	}
	t.Run("where", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			a, b := broadcastPair(t)
			shape, err := tensor.BroadcastShapes(a, b)
			require.NoError(t, err)
			n := 1
			for _, d := range shape {
				n *= d
			}
			cond := ints(rapid.SliceOfN(rapid.Int64Range(0, 1), n, n).Draw(t, "cond"), shape...)
			checkCall(t, "where", []*GradTensor{cond, leafOf(t, "a", anyNumber, a...), leafOf(t, "b", anyNumber, b...)}, nil)
		})
	})
}

func TestGradientsOfProducts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 3)
		m, k, p := n.Draw(t, "m"), n.Draw(t, "k"), n.Draw(t, "p")
		batch := rapid.SampledFrom([][2][]int{{{}, {}}, {{2}, {}}, {{2}, {2}}, {{1}, {3}}, {{2, 3}, {3}}, {{}, {2}}}).Draw(t, "batch")
		a, b := append(slices.Clone(batch[0]), m, k), append(slices.Clone(batch[1]), k, p)
		if rapid.Bool().Draw(t, "vector a") {
			a = []int{k}
		}
		if rapid.Bool().Draw(t, "vector b") {
			b = []int{k}
		}
		checkCall(t, "matmul", []*GradTensor{leafOf(t, "a", anyNumber, a...), leafOf(t, "b", anyNumber, b...)}, nil)
		checkCall(t, "dot", []*GradTensor{leafOf(t, "a", anyNumber, a...), leafOf(t, "b", anyNumber, b...)}, nil)
		checkCall(t, "dot", []*GradTensor{leafOf(t, "a", anyNumber), leafOf(t, "b", anyNumber, b...)}, nil)
		checkCall(t, "outer", []*GradTensor{leafOf(t, "a", anyNumber, m), leafOf(t, "b", anyNumber, p)}, nil)
	})
}

func TestGradientsOfReductions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := ofShape(t)
		params := map[string]any{"keepdims": rapid.Bool().Draw(t, "keep")}
		axis := rapid.IntRange(0, len(shape)-1).Draw(t, "axis")
		axes := rapid.SampledFrom([][]int{nil, {axis}, {axis - len(shape)}}).Draw(t, "axes")
		if axes != nil {
			params["axes"] = axes
		}
		x := leafOf(t, "x", anyNumber, shape...)
		for _, name := range []string{"sum", "mean", "prod"} {
			checkCall(t, name, []*GradTensor{x}, params)
		}
		checkCall(t, "var", []*GradTensor{x}, params)
		for _, order := range []string{"1", "2", "3"} {
			params["order"] = order
			checkCall(t, "norm", []*GradTensor{leafOf(t, "nx"+order, awayFrom0, shape...)}, params)
		}
		params["order"] = "0"
		checkCall(t, "norm", []*GradTensor{leafOf(t, "n0", awayFrom0, shape...)}, params)
		delete(params, "order")

		// Distinct elements, so that the largest is one.
		distinct := leafOf(t, "d", rapid.Just(float32(0)), shape...)
		values := distinct.data.Float32s()
		order := rapid.Permutation(seq(len(values))).Draw(t, "order")
		for i, o := range order {
			values[i] = float32(o)/8 + 0.5
		}
		checkCall(t, "max", []*GradTensor{distinct}, params)
		checkCall(t, "min", []*GradTensor{distinct}, params)
		params["order"] = "inf"
		checkCall(t, "norm", []*GradTensor{distinct}, params)
		params["order"] = "-inf"
		checkCall(t, "norm", []*GradTensor{distinct}, params)
		delete(params, "order")
		if len(values) > 1 && axes == nil {
			params["ddof"] = 1
			checkCall(t, "std", []*GradTensor{distinct}, params)
			checkCall(t, "var", []*GradTensor{distinct}, params)
		}
	})
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func TestGradientsAlongAnAxis(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := ofShape(t)
		params := map[string]any{"axis": rapid.IntRange(-len(shape), len(shape)-1).Draw(t, "axis")}
		x := leafOf(t, "x", anyNumber, shape...)
		for _, name := range []string{"softmax", "log_softmax", "cumsum"} {
			checkCall(t, name, []*GradTensor{x}, params)
		}
	})
}

func TestGradientsOfWhatMovesElements(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := []int{rapid.IntRange(1, 3).Draw(t, "r"), rapid.IntRange(2, 4).Draw(t, "c")}
		x := leafOf(t, "x", anyNumber, shape...)
		one := []*GradTensor{x}
		n := shape[0] * shape[1]
		checkCall(t, "reshape", one, map[string]any{"shape": []int{shape[1], shape[0]}})
		checkCall(t, "expand", one, map[string]any{"shape": []int{2, shape[0], shape[1]}})
		checkCall(t, "permute", one, nil)
		checkCall(t, "permute", one, map[string]any{"axes": []int{-1, 0}})
		checkCall(t, "unsqueeze", one, map[string]any{"axis": 1})
		checkCall(t, "squeeze", []*GradTensor{leafOf(t, "sq", anyNumber, 1, 3, 1)}, nil)
		checkCall(t, "clone", one, nil)
		checkCall(t, "contiguous", one, nil)
		checkCall(t, "cast", one, map[string]any{"dtype": "float32"})
		k := rapid.IntRange(-2, 2).Draw(t, "k")
		checkCall(t, "triu", one, map[string]any{"k": k})
		checkCall(t, "tril", one, map[string]any{"k": k})
		y := leafOf(t, "y", anyNumber, shape...)
		axis := rapid.IntRange(-2, 1).Draw(t, "axis")
		checkCall(t, "concat", []*GradTensor{x, y, x}, map[string]any{"axis": axis})
		checkCall(t, "stack", []*GradTensor{x, y}, map[string]any{"axis": rapid.IntRange(-3, 2).Draw(t, "new axis")})
		checkCall(t, "split", one, map[string]any{"axis": 1, "sizes": []int{1, shape[1] - 1}})
		checkCall(t, "chunk", one, map[string]any{"axis": -1, "n": 2})
		row := rapid.IntRange(-shape[0], shape[0]-1).Draw(t, "row")
		checkCall(t, "index", one, map[string]any{"index": []any{row, []any{nil, nil, -1}}})
		checkCall(t, "index", one, map[string]any{"index": []any{"...", nil, 1}})

		m := rapid.IntRange(1, 4).Draw(t, "indices")
		index := func(rows int) *GradTensor {
			return ints(rapid.SliceOfN(rapid.Int64Range(-int64(shape[1]), int64(shape[1])-1), rows*m, rows*m).Draw(t, "index"), rows, m)
		}
		checkCall(t, "gather", []*GradTensor{x, index(shape[0])}, map[string]any{"axis": 1})
		checkCall(t, "gather", []*GradTensor{x, index(1)}, map[string]any{"axis": 1})
		checkCall(t, "gather", []*GradTensor{leafOf(t, "g1", anyNumber, 1, shape[1]), index(3)}, map[string]any{"axis": -1})
		checkCall(t, "scatter_add", []*GradTensor{x, index(shape[0]), leafOf(t, "src", anyNumber, shape[0], m)}, map[string]any{"axis": 1})
		checkCall(t, "scatter_add", []*GradTensor{x, index(1), leafOf(t, "src1", anyNumber, 1, m)}, map[string]any{"axis": 1})
		ids := ints(rapid.SliceOfN(rapid.Int64Range(0, int64(shape[0])-1), 4, 4).Draw(t, "ids"), 2, 2)
		checkCall(t, "embedding", []*GradTensor{x, ids}, nil)

		distinct := leafOf(t, "d", rapid.Just(float32(0)), shape...)
		for i, o := range rapid.Permutation(seq(n)).Draw(t, "order") {
			distinct.data.Float32s()[i] = float32(o) / 8
		}
		checkCall(t, "topk", []*GradTensor{distinct}, map[string]any{"axis": 1, "k": 2, "largest": rapid.Bool().Draw(t, "largest")})
	})
}

func TestAnAssignmentIsDifferentiated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, v := leafOf(t, "x", anyNumber, 3, 2), leafOf(t, "v", anyNumber, 2)
		row := rapid.IntRange(0, 2).Draw(t, "row")
		err := GradCheck(func(in []*GradTensor) ([]*GradTensor, error) {
			y, err := Grad.Call("clone", in[:1], nil)
			if err != nil {
				return nil, err
			}
			if err := Grad.Assign(y[0], in[1], tensor.At(row)); err != nil {
				return nil, err
			}
			return Grad.Call("square", y, nil)
		}, []*GradTensor{x, v}, CheckOptions{})
		require.NoError(t, err)
	})
}

// Any program of smooth operations, in which values are used again, seen as views and broadcast, has the gradients that
// differences tell.
func TestGradientsOfRandomPrograms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inputs := []*GradTensor{leafOf(t, "a", anyNumber, 2, 3), leafOf(t, "b", anyNumber, 3), leafOf(t, "c", anyNumber, 2, 1)}
		type instruction struct {
			name, params string
			a, b         int
		}
		one := []string{"tanh", "sigmoid", "sin", "gelu", "neg", "softmax", "clone"}
		var program []instruction
		for i := range rapid.IntRange(2, 8).Draw(t, "length") {
			n := len(inputs) + i
			pick := rapid.IntRange(0, n-1)
			in := instruction{a: pick.Draw(t, "a"), b: pick.Draw(t, "b")}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				in.name, in.b = rapid.SampledFrom(one).Draw(t, "one"), -1
			case 1:
				in.name, in.params, in.b = "sum", `{"axes":[-1],"keepdims":true}`, -1
			case 2:
				in.name, in.params, in.b = "index", `{"index":["...",[null,null,-1]]}`, -1
			default:
				in.name = rapid.SampledFrom([]string{"add", "mul", "sub"}).Draw(t, "two")
			}
			program = append(program, in)
		}
		err := GradCheck(func(x []*GradTensor) ([]*GradTensor, error) {
			values := slices.Clone(x)
			for _, in := range program {
				operands := []*GradTensor{values[in.a]}
				if in.b >= 0 {
					operands = append(operands, values[in.b])
				}
				y, err := Grad.Call(in.name, operands, []byte(in.params))
				if err != nil {
					return nil, err
				}
				if y, err = Grad.Call("tanh", y, nil); err != nil { // keeps numbers small
					return nil, err
				}
				values = append(values, y[0])
			}
			return values[len(x):], nil
		}, inputs, CheckOptions{Atol: 3e-3, Rtol: 2e-2})
		require.NoError(t, err, "%v", program)
	})
}

// Where differences say nothing, PyTorch's choice is the specification.
func TestGradientsAtKinks(t *testing.T) {
	for _, c := range []struct {
		name, params string
		x, want      []float32
	}{
		{"relu", "", []float32{0, 1}, []float32{0, 1}},
		{"abs", "", []float32{0, -2}, []float32{0, -1}},
		{"relu2", "", []float32{0, 3}, []float32{0, 6}},
		{"max", "", []float32{2, 1, 2}, []float32{0.5, 0, 0.5}},
		{"min", "", []float32{1, 1, 2}, []float32{0.5, 0.5, 0}},
		{"prod", "", []float32{0, 3, 2}, []float32{6, 0, 0}},
		{"prod", "", []float32{0, 3, 0}, []float32{0, 0, 0}},
		{"norm", "", []float32{0, 0}, []float32{0, 0}},
		{"norm", `{"order":"inf"}`, []float32{-2, 2, 1}, []float32{-0.5, 0.5, 0}},
		{"std", "", []float32{1, 1}, []float32{0, 0}},
	} {
		x := New(must(tensor.FromFloat32(c.x, len(c.x))))
		require.NoError(t, x.RequireGrad(true))
		y, err := Grad.Call(c.name, []*GradTensor{x}, []byte(c.params))
		require.NoError(t, err)
		g := must(tensor.Ones(tensor.Float32, y[0].data.Shape()...))
		require.NoError(t, y[0].Backward(t.Context(), g, Options{}))
		require.Equal(t, c.want, x.Grad().Float32s(), "%s%v", c.name, c.x)
	}
	// x^0 has no slope, and 0^y is flat for y > 0.
	x, y := New(must(tensor.FromFloat32([]float32{0, 0, 2}, 3))), New(must(tensor.FromFloat32([]float32{0, 2, 0}, 3)))
	require.NoError(t, x.RequireGrad(true))
	require.NoError(t, y.RequireGrad(true))
	p, err := Grad.Call("pow", []*GradTensor{x, y}, nil)
	require.NoError(t, err)
	require.NoError(t, p[0].Backward(t.Context(), must(tensor.Ones(tensor.Float32, 3)), Options{}))
	require.Equal(t, []float32{0, 0, 0}, x.Grad().Float32s())
	require.Equal(t, []float32{0, 0, float32(math.Log(2))}, y.Grad().Float32s())
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}
