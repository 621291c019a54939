package model

import (
	"fmt"
	"strconv"
	"strings"
)

// linearShape is one of a layer's seven projections: y[out] = W[out, in] x[in].
type linearShape struct {
	Name    string // below the layer: "self_attn.q_proj"
	Out, In int
	Bias    bool
}

// linearShapes lists the seven projections of one layer in the order in which a forward pass uses them.
func (c *Config) linearShapes() [7]linearShape {
	d, f := c.HiddenSize, c.IntermediateSize
	attn, kv := c.NumAttentionHeads*c.HeadDim, c.NumKeyValueHeads*c.HeadDim
	return [7]linearShape{
		{"self_attn.q_proj", attn, d, c.AttentionBias},
		{"self_attn.k_proj", kv, d, c.AttentionBias},
		{"self_attn.v_proj", kv, d, c.AttentionBias},
		{"self_attn.o_proj", d, attn, c.AttentionBias},
		{"mlp.gate_proj", f, d, c.MLPBias},
		{"mlp.up_proj", f, d, c.MLPBias},
		{"mlp.down_proj", d, f, c.MLPBias},
	}
}

// ParameterCount is the number of weights: embedding, head (once when tied), projections, biases and norms. Scales
// are not counted, as they are not in published figures.
func (c *Config) ParameterCount() int64 {
	d := int64(c.HiddenSize)
	total := int64(c.VocabSize)*d + d // embedding and final norm
	if !c.TieWordEmbeddings {
		total += int64(c.VocabSize) * d
	}
	return total + int64(c.NumHiddenLayers)*(c.LayerWeights()+c.layerVectors())
}

// LayerWeights counts the weights of one layer's projections: the multiplications of one token.
func (c *Config) LayerWeights() int64 {
	var n int64
	for _, l := range c.linearShapes() {
		n += int64(l.Out) * int64(l.In)
	}
	return n
}

// layerVectors counts one layer's norm weights and biases.
func (c *Config) layerVectors() int64 {
	n := 2 * int64(c.HiddenSize)
	for _, l := range c.linearShapes() {
		if l.Bias {
			n += int64(l.Out)
		}
		if c.Quantization.UseRMSNorm {
			n += int64(l.In)
		}
	}
	if c.SubNorms() {
		n += int64(c.NumAttentionHeads*c.HeadDim) + int64(c.IntermediateSize)
	}
	return n
}

// hasBias says whether the projection of the given full name has a bias.
func (c *Config) hasBias(module string) bool {
	if strings.Contains(module, ".mlp.") {
		return c.MLPBias
	}
	return c.AttentionBias
}

// layerName is the prefix of a layer's modules: "model.layers.3.".
func layerName(layer int) string { return fmt.Sprintf("model.layers.%d.", layer) }

// KVCacheBytes is the memory that the keys and values of one sequence of the given length take, with elementBytes
// for each number (4 for float32).
func (c *Config) KVCacheBytes(tokens, elementBytes int) int64 {
	return 2 * int64(c.NumHiddenLayers) * int64(c.NumKeyValueHeads*c.HeadDim) * int64(tokens) * int64(elementBytes)
}

// LayerOf is the index of the transformer layer that a module or weight of the given name belongs to, -1 for one outside of
// all.
func LayerOf(name string) int {
	rest, ok := strings.CutPrefix(name, "model.layers.")
	digits, _, _ := strings.Cut(rest, ".")
	layer, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return -1
	}
	return layer
}
