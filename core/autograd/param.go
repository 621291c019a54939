package autograd

// Param is a trainable weight: float32 values and their gradient, which backward passes add to.
type Param struct {
	Name  string    // name in the checkpoint: "model.layers.0.mlp.up_proj.weight"
	Shape []int     // its product is len(Data)
	Data  []float32 // changed in place by optimizers
	Grad  []float32 // as long as Data
}

// NewParam returns a parameter with a gradient of zeros.
func NewParam(name string, data []float32, shape ...int) *Param {
	return &Param{Name: name, Shape: shape, Data: data, Grad: make([]float32, len(data))}
}
