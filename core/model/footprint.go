package model

import "github.com/bitnet-rust/bitnet_rust/accel/cpu"

// WeightBytes is the memory that the loaded weights take: panels of two bits a weight for the ternary projections, the
// embedding and the head in the given format, norms and biases in float32. Linears that the config keeps float
// are counted at four bytes a weight, the most they can take.
func (c *Config) WeightBytes(table cpu.DenseFormat) int64 {
	tableBytes := int64(cpu.DenseBytes(table, c.VocabSize, c.HiddenSize))
	if table == cpu.DenseInt8 || table == cpu.DenseInt4 {
		tableBytes += 4 * int64(c.VocabSize) // row scales
	}
	total := tableBytes + 4*int64(c.HiddenSize)
	if !c.TieWordEmbeddings {
		total += tableBytes
	}
	converts := c.Quantization.converter()
	for i := range c.NumHiddenLayers {
		if i > 0 && len(c.Quantization.ModulesToNotConvert) == 0 {
			total += int64(c.NumHiddenLayers-1) * c.layerBytes(0, converts) // all layers are alike
			break
		}
		total += c.layerBytes(i, converts)
	}
	return total
}

func (c *Config) layerBytes(layer int, converts func(string) bool) int64 {
	total := 4 * c.layerVectors()
	for _, l := range c.linearShapes() {
		if converts(layerName(layer) + l.Name) {
			total += int64(cpu.TernaryBytes(l.Out, l.In))
		} else {
			total += int64(cpu.DenseBytes(cpu.DenseF32, l.Out, l.In))
		}
	}
	return total
}
