package model

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// WeightBytes is the memory that the loaded weights take: panels of two bits a weight for the ternary projections, the
// embedding and the head in the given format, norms and biases in float32. Linears that the config keeps float
// are counted at four bytes a weight, the most they can take.
func (c *Config) WeightBytes(table cpu.DenseFormat) int64 {
	return c.weightBytes(table, table, cpu.DenseF32)
}

// weightBytes is WeightBytes with a format for each kind of dense matrix. A tied table has the head's.
func (c *Config) weightBytes(embedding, head, linear cpu.DenseFormat) int64 {
	total := c.tableBytes(head) + 4*int64(c.HiddenSize)
	if !c.TieWordEmbeddings {
		total += c.tableBytes(embedding)
	}
	converts := c.Quantization.converter()
	for i := range c.NumHiddenLayers {
		if i > 0 && len(c.Quantization.ModulesToNotConvert) == 0 {
			total += int64(c.NumHiddenLayers-1) * c.layerBytes(0, converts, linear) // all layers are alike
			break
		}
		total += c.layerBytes(i, converts, linear)
	}
	return total
}

func (c *Config) tableBytes(f cpu.DenseFormat) int64 {
	n := int64(cpu.DenseBytes(f, c.VocabSize, c.HiddenSize))
	if quant.Scaled(f) {
		n += 4 * int64(c.VocabSize) // row scales
	}
	return n
}

func (c *Config) layerBytes(layer int, converts func(string) bool, dense cpu.DenseFormat) int64 {
	total := 4 * c.layerVectors()
	for _, l := range c.linearShapes() {
		if converts(layerName(layer) + l.Name) {
			total += int64(cpu.TernaryBytes(l.Out, l.In))
		} else {
			total += int64(cpu.DenseBytes(dense, l.Out, l.In))
		}
	}
	return total
}
