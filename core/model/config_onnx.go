package model

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/onnx"
)

// config works out a config from the graph of a model that has none beside it: sizes from the weights' shapes, the rest from
// constants in the graph. What it cannot be sure of is an error that asks for a config.json, as a guess would be another model.
func (g *onnxGraph) config(quantize bool) (*Config, error) {
	r := graphReader{graph: g}
	embed := r.shape("model.embed_tokens")
	layers := r.layers()
	q, kv := r.shape("model.layers.0.self_attn.q_proj"), r.shape("model.layers.0.self_attn.k_proj")
	gate := r.shape("model.layers.0.mlp.gate_proj")
	frequencies := r.frequencies()
	eps, act := r.eps(), r.activation()
	if r.err != nil {
		return nil, r.err
	}
	headDim := 2 * len(frequencies)
	theta := math.Pow(float64(frequencies[1]), -float64(len(frequencies)))
	if nice := math.Round(theta); math.Abs(theta-nice) < 1e-4*theta {
		theta = nice
	}
	for i, f := range frequencies {
		if want := math.Pow(theta, -float64(i)/float64(len(frequencies))); math.Abs(want-float64(f)) > 1e-5*want {
			return nil, r.missing("rope_scaling", "the frequencies of positions are scaled")
		}
	}
	if q[0]%headDim != 0 || kv[0]%headDim != 0 {
		return nil, r.missing("head_dim", fmt.Sprintf("%d frequencies do not go with projections to %d and %d", len(frequencies), q[0], kv[0]))
	}
	arch := ArchLlama
	if _, sub := g.vectors["model.layers.0.self_attn.attn_sub_norm"]; sub {
		arch = ArchBitNet
	}
	_, attentionBias := g.biases["model.layers.0.self_attn.q_proj"]
	_, mlpBias := g.biases["model.layers.0.mlp.gate_proj"]
	text, err := json.Marshal(map[string]any{
		"architectures": []string{arch}, "vocab_size": embed[0], "hidden_size": embed[1], "intermediate_size": gate[0],
		"num_hidden_layers": layers, "num_attention_heads": q[0] / headDim, "num_key_value_heads": kv[0] / headDim, "head_dim": headDim,
		"hidden_act": act, "rms_norm_eps": eps, "rope_theta": theta, "attention_bias": attentionBias, "mlp_bias": mlpBias,
	})
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return parseConfig(text, g.model.Path(), quantize)
}

// graphReader remembers the first thing that a graph does not say.
type graphReader struct {
	graph *onnxGraph
	err   error
}

func (r *graphReader) missing(field, reason string) error {
	return cmp.Or(r.err, error(&ConfigError{File: r.graph.model.Path(), Field: field,
		Reason: "cannot be read off the graph (" + reason + "): put the model's config.json beside the file"}))
}

// shape is [out, in] of a module's matrix.
func (r *graphReader) shape(module string) [2]int {
	m, ok := r.graph.matrices[module]
	if !ok || len(r.graph.shapes[m.tensor]) != 2 {
		r.err = cmp.Or(r.err, error(&container.Error{Kind: ErrGraph, Path: r.graph.model.Path(), Field: module, Found: "no weights of that module",
			Expected: "those of a Llama or BitNet under the names of its checkpoint"}))
		return [2]int{1, 1}
	}
	s := r.graph.shapes[m.tensor]
	if m.turned {
		return [2]int{s[1], s[0]}
	}
	return [2]int{s[0], s[1]}
}

func (r *graphReader) layers() int {
	layers := 0
	for module := range r.graph.matrices {
		layers = max(layers, LayerOf(module)+1)
	}
	return layers
}

// frequencies are the inverse frequencies of RoPE: the floats in its module that begin with 1 and fall.
func (r *graphReader) frequencies() []float32 {
	found := func(tensor string) []float32 {
		values := r.floats(tensor)
		if len(values) < 2 || values[0] != 1 {
			return nil
		}
		for i := range values[1:] {
			if !(values[i+1] < values[i]) || values[i+1] <= 0 {
				return nil
			}
		}
		return values
	}
	for _, t := range r.graph.model.Tensors() {
		if strings.HasPrefix(onnxName(strings.ReplaceAll(strings.TrimPrefix(t.Name, "/"), "/", ".")), "model.rotary_emb") {
			if values := found(t.Name); values != nil {
				return values
			}
		}
	}
	for i := range r.graph.model.Nodes {
		if n := &r.graph.model.Nodes[i]; onnxModule(n) == "model.rotary_emb" {
			for _, input := range n.Inputs {
				if values := found(input); values != nil {
					return values
				}
			}
		}
	}
	r.err = r.missing("rope_theta", "no constant holds the frequencies of positions")
	return nil
}

// eps is what the last norm adds to the mean square.
func (r *graphReader) eps() float64 {
	for i := range r.graph.model.Nodes {
		if n := &r.graph.model.Nodes[i]; n.Op == "Add" && onnxModule(n) == "model.norm" {
			for _, input := range n.Inputs {
				if values := r.floats(input); len(values) == 1 {
					text := strconv.FormatFloat(float64(values[0]), 'g', -1, 32) // 1e-05, not its neighbour in float64
					eps, _ := strconv.ParseFloat(text, 64)
					return eps
				}
			}
		}
	}
	r.err = r.missing("rms_norm_eps", "the last norm adds no constant")
	return 0
}

// activation is what the first feed-forward network computes of its gate.
func (r *graphReader) activation() string {
	const mlp = "model.layers.0.mlp"
	for i := range r.graph.model.Nodes {
		n := &r.graph.model.Nodes[i]
		if module := onnxModule(n); module != mlp && !strings.HasPrefix(module, mlp+".act_fn") {
			continue
		}
		switch n.Op {
		case "Sigmoid":
			return ActSiLU
		case "Relu", "Erf", "Tanh", "Gelu", "HardSigmoid", "Elu":
			r.err = r.missing("hidden_act", "the activation has a "+n.Op)
			return ""
		}
	}
	r.err = r.missing("hidden_act", "no known activation")
	return ""
}

// floats are the numbers of a small float tensor, nil if it is none.
func (r *graphReader) floats(tensor string) []float32 {
	v, err := r.graph.model.Tensor(tensor)
	if err != nil || v.DType != onnx.F32 || v.Elements() > maxHeadDim {
		return nil
	}
	return decodeFloats(v)
}
