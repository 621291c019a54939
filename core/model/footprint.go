package model

import (
	"strings"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// WeightBytes is the memory that the loaded weights take: panels of two bits a weight for the ternary projections, the
// embedding and the head in the given format, norms and biases in float32. Linears that the config keeps float
// are counted at four bytes a weight, the most they can take.
func (c *Config) WeightBytes(table cpu.DenseFormat) int64 {
	return c.weightBytes(table, table, cpu.DenseF32, &LoadOptions{})
}

// weightBytes is WeightBytes with a format for each kind of dense matrix and the packing of o. A tied table has the head's.
func (c *Config) weightBytes(embedding, head, linear cpu.DenseFormat, o *LoadOptions) int64 {
	total := c.tableBytes(head, c.VocabSize) + 4*c.normWeights()
	if !c.TieWordEmbeddings {
		total += c.tableBytes(embedding, c.VocabSize)
	}
	if c.LearnedPositions() {
		total += c.tableBytes(embedding, c.MaxPositionEmbeddings)
	}
	converts := c.Quantization.converter()
	for i := range c.NumHiddenLayers {
		if i > 0 && len(c.Quantization.ModulesToNotConvert) == 0 {
			total += int64(c.NumHiddenLayers-1) * c.layerBytes(0, converts, linear, o) // all layers are alike
			break
		}
		total += c.layerBytes(i, converts, linear, o)
	}
	return total
}

func (c *Config) tableBytes(f cpu.DenseFormat, rows int) int64 {
	n := int64(cpu.DenseBytes(f, rows, c.HiddenSize))
	if quant.Scaled(f) {
		n += 4 * int64(rows) // row scales
	}
	return n
}

// layout is how the codes of the ternary linear of the given full name lie in a model that is not trained: by neurons where many of these are
// skipped, see nn.Activation.ByLines. converts is the config's converter.
func (c *Config) layout(name string, converts func(string) bool) quant.Layout {
	up, down := activations[c.HiddenAct].ByLines()
	layout := up
	prefix, found := strings.CutSuffix(name, "up_proj")
	if !found {
		layout = down
		prefix, found = strings.CutSuffix(name, "down_proj")
	}
	if !found || !c.Gated() || c.Quantization.UseRMSNorm || c.IntermediateSize > cpu.MaxLines ||
		!converts(prefix+"gate_proj") || !converts(prefix+"up_proj") || !converts(prefix+"down_proj") {
		return quant.Panel16
	}
	return layout
}

func (c *Config) layerBytes(layer int, converts func(string) bool, dense cpu.DenseFormat, o *LoadOptions) int64 {
	total := 4 * c.layerVectors()
	for _, l := range c.linearShapes() {
		if converts(layerName(layer) + l.Name) {
			total += int64(o.packed(c.layout(layerName(layer)+l.Name, converts)).Bytes(l.Out, l.In))
		} else {
			total += int64(cpu.DenseBytes(dense, l.Out, l.In))
		}
	}
	return total
}
