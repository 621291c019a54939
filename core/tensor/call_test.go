package tensor

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCallReachesEveryOperation(t *testing.T) {
	params := map[string]string{
		"cast": `{"dtype": "float16"}`, "full": `{"dtype": "int64", "value": "9007199254740993", "shape": [2]}`,
		"arange": `{"dtype": "int32", "stop": 3}`, "eye": `{"dtype": "bool", "n": 2}`, "split": `{"sizes": [1, 1], "axis": 0}`,
		"chunk": `{"n": 2}`, "reshape": `{"shape": [-1]}`, "expand": `{"shape": [3, 2, 2]}`, "topk": `{"k": 1}`,
		"permute": `{"axes": [1, 0]}`, "index": `{"index": [null, "...", 1, [null, null, -1]]}`,
		"norm": `{"order": "-inf"}`, "argmax": `{"axes": [1], "keepdims": true}`, "squeeze": `{"axes": []}`,
	}
	x := floats(t, []float32{1, 2, 3, 4}, 2, 2)
	ids := zerosOf(t, Int64, 2, 2)
	for _, name := range Operations() {
		operands := []*Tensor{x, x, x}[:max(calls[name].operands, 0)]
		switch name {
		case "concat", "stack":
			operands = []*Tensor{x, x, x, x}
		case "gather", "embedding":
			operands[1] = ids
		case "scatter_add":
			operands[1] = ids
		case "index":
			operands[0] = zerosOf(t, Float32, 2, 3, 4)
		}
		out, err := Call(name, operands, []byte(params[name]))
		require.NoError(t, err, name)
		require.Equal(t, name == "copy", len(out) == 0, name)
	}
	out, err := Call("index", []*Tensor{zerosOf(t, Float32, 2, 3, 4)}, []byte(params["index"]))
	require.NoError(t, err)
	require.Equal(t, []int{1, 2, 4}, out[0].Shape())
	out, err = Call("full", nil, []byte(params["full"]))
	require.NoError(t, err)
	require.Equal(t, []int64{9007199254740993, 9007199254740993}, out[0].Int64s(), "past 2^53")
	out, err = Call("permute", []*Tensor{zerosOf(t, Bool, 2, 3)}, nil)
	require.NoError(t, err)
	require.Equal(t, []int{3, 2}, out[0].Shape())
}

func TestCallRefusesWhatItDoesNotKnow(t *testing.T) {
	x := zerosOf(t, Float32, 2)
	for _, c := range []struct {
		name     string
		operands []*Tensor
		params   string
		is       error
	}{
		{"florp", nil, "", ErrValue},
		{"add", []*Tensor{x}, "", ErrValue},
		{"neg", []*Tensor{x}, `{"axle": 1}`, ErrValue},
		{"neg", []*Tensor{x}, `{`, ErrValue},
		{"index", []*Tensor{x}, `{"index": [true]}`, ErrValue},
		{"index", []*Tensor{x}, `{"index": [5]}`, ErrIndex},
		{"cast", []*Tensor{x}, `{"dtype": "float64"}`, ErrDType},
		{"full", nil, `{"dtype": "float64"}`, ErrDType},
		{"full", nil, `{"dtype": "int8", "value": "128"}`, ErrValue},
		{"full", nil, `{"dtype": "int8", "value": "many"}`, ErrValue},
		{"norm", []*Tensor{x}, `{"order": "two"}`, ErrValue},
		{"copy", []*Tensor{x, x}, `{"index": [7]}`, ErrIndex},
		{"copy", []*Tensor{x, zerosOf(t, Float32, 3)}, "", ErrShape},
	} {
		_, err := Call(c.name, c.operands, []byte(c.params))
		require.ErrorIs(t, err, c.is, "%s %s", c.name, c.params)
	}
}
