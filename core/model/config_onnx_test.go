package model

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/onnx"
)

// An exporter may write anything: what a graph does not say is asked for by name, and never guessed.
func TestGraphsThatAreNotThatOfAModelAreRefusedByName(t *testing.T) {
	named := func(f *onnx.Model, name string) *onnx.Node {
		i := slices.IndexFunc(f.Nodes, func(n onnx.Node) bool { return n.Name == name })
		require.GreaterOrEqual(t, i, 0, name)
		return &f.Nodes[i]
	}
	without := func(prefix string) func(f *onnx.Model) {
		return func(f *onnx.Model) {
			f.Nodes = slices.DeleteFunc(f.Nodes, func(n onnx.Node) bool { return strings.HasPrefix(n.Name, prefix) })
		}
	}
	const gate, key, q = "/model/layers.0/mlp/gate_proj/MatMul", "/model/layers.0/self_attn/k_proj/MatMul", "/model/layers.0/self_attn/q_proj/MatMul"
	for name, c := range map[string]struct {
		change func(f *onnx.Model)
		kind   error
		says   string
	}{
		"a branch":          {func(f *onnx.Model) { f.Nodes[3].Subgraph = true }, ErrGraph, "expected a decoder without branches"},
		"another gate":      {func(f *onnx.Model) { named(f, "/model/layers.0/mlp/act_fn/Sigmoid").Op = "Tanh" }, ErrConfig, "the activation has a Tanh"},
		"no gate":           {without("/model/layers.0/mlp/act_fn"), ErrConfig, "no known activation"},
		"no eps":            {without("/model/norm/Add"), ErrConfig, "the last norm adds no constant"},
		"a lost projection": {without(gate), ErrGraph, "model.layers.0.mlp.gate_proj: found no weights of that module"},
		"two matrices": {func(f *onnx.Model) {
			named(f, key).Name = q
		}, ErrGraph, `weights of "model.layers.0.self_attn.q_proj": found "onnx::MatMul_672" and "onnx::MatMul_679", expected one`},
		"a name and a node": {func(f *onnx.Model) {
			f.Nodes = append(f.Nodes, onnx.Node{Name: "/model/embed_tokens/MatMul", Op: "MatMul", Inputs: []string{"x", "onnx::MatMul_728"}})
		}, ErrGraph, "weights of \"model.embed_tokens\""},
		"a weight too much": {func(f *onnx.Model) {
			named(f, "/model/layers.1/mlp/up_proj/MatMul").Name = "/model/layers.1/mlp/more/MatMul"
		}, container.ErrTensorMissing, "up_proj"},
		"a stray weight": {func(f *onnx.Model) {
			f.Nodes = append(f.Nodes, onnx.Node{Name: "/extra/MatMul", Op: "MatMul", Inputs: []string{"x", "model.embed_tokens.weight"}},
				onnx.Node{Name: "/short/MatMul", Op: "MatMul"}, onnx.Node{Name: "/short/Gather", Op: "Gather"})
		}, nil, ""},
		"a long config": {func(f *onnx.Model) { f.Metadata[onnxConfigKey] = strings.Repeat(" ", maxConfigBytes+1) }, ErrConfig, "longer than"},
		"another model": {func(f *onnx.Model) {
			f.Metadata[onnxConfigKey] = `{"architectures": ["GPT2LMHeadModel"], "vocab_size": 24, "n_embd": 16, "n_layer": 1, "n_head": 2}`
		}, ErrGraph, "expected the graph of a Llama or BitNet"},
		"a broken config":  {func(f *onnx.Model) { f.Metadata[onnxConfigKey] = "{" }, ErrConfig, "metadata_props " + onnxConfigKey},
		"nothing at all":   {func(f *onnx.Model) { f.Nodes = nil }, ErrGraph, "found no weights of that module"},
		"everything right": {func(*onnx.Model) {}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := onnx.Open(filepath.Join(onnxDir, "torchscript.onnx"))
			require.NoError(t, err)
			if file.Metadata == nil {
				file.Metadata = map[string]string{}
			}
			c.change(file)
			head, err := parseHeadFormat("")
			require.NoError(t, err)
			m, err := buildONNX(context.Background(), file, newLoader(LoadOptions{Quantize: true, Lenient: true}, head))
			if c.kind == nil {
				require.NoError(t, err)
				require.NoError(t, m.Close())
				return
			}
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "torchscript.onnx")
		})
	}
}
