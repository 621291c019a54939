package model

import (
	"fmt"
	"strconv"
	"strings"
)

// linearShape is one of a layer's projections: y[out] = W[out, in] x[in].
type linearShape struct {
	Name    string // below the layer: "self_attn.q_proj"
	Out, In int
	Bias    bool
}

// linearShapes lists the projections of one layer in the order in which a forward pass uses them.
func (c *Config) linearShapes() []linearShape {
	d, f := c.HiddenSize, c.IntermediateSize
	attn, kv := c.NumAttentionHeads*c.HeadDim, c.NumKeyValueHeads*c.HeadDim
	shapes := []linearShape{
		{"self_attn.q_proj", attn, d, c.AttentionBias},
		{"self_attn.k_proj", kv, d, c.AttentionBias},
		{"self_attn.v_proj", kv, d, c.AttentionBias},
		{"self_attn.o_proj", d, attn, c.AttentionBias},
	}
	if c.Gated() {
		shapes = append(shapes, linearShape{"mlp.gate_proj", f, d, c.MLPBias})
	}
	return append(shapes, linearShape{"mlp.up_proj", f, d, c.MLPBias}, linearShape{"mlp.down_proj", d, f, c.MLPBias})
}

// ParameterCount is the number of weights: embedding, learned positions, head (once when tied), projections, biases and norms. Scales
// are not counted, as they are not in published figures.
func (c *Config) ParameterCount() int64 {
	d := int64(c.HiddenSize)
	total := int64(c.VocabSize)*d + c.normWeights() // embedding and final norm
	if c.LearnedPositions() {
		total += int64(c.MaxPositionEmbeddings) * d
	}
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

// normWeights counts the weights of a norm of the residual stream.
func (c *Config) normWeights() int64 {
	if c.LayerNorm() {
		return 2 * int64(c.HiddenSize)
	}
	return int64(c.HiddenSize)
}

// layerVectors counts one layer's norm weights and biases.
func (c *Config) layerVectors() int64 {
	n := 2 * c.normWeights()
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

// isHead says whether the table of the given name computes logits.
func (c *Config) isHead(module string) bool {
	return module == "lm_head" || module == "model.embed_tokens" && c.TieWordEmbeddings
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
