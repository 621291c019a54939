package autograd

// Param is a trainable weight: float32 values and their gradient, which backward passes add to until ZeroGrad.
type Param struct {
	Name  string // name in the checkpoint: "model.layers.0.mlp.up_proj.weight"
	Shape []int
	Data  []float32
	Grad  []float32 // as long as Data
}

// ZeroGrad sets the gradient to zero.
func (p *Param) ZeroGrad() { clear(p.Grad) }
