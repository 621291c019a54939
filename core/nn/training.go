package nn

// Training is what a step does that inference does not. Its zero value is nothing: the step computes what inference does.
type Training struct {
	Dropout          float32       // share of the elements of the embedding and of each residual branch that is dropped, [0, 1)
	AttentionDropout float32       // share of the attention probabilities that is dropped, [0, 1)
	Seed             uint64        // of the step's random numbers
	STE              STE           // how gradients pass the quantizer of weights
	Clip             float32       // of STEClipped, > 0
	Temperature      float32       // of STESoft, > 0
	Float            float32       // share of the unquantized weights and activations in what ternary layers compute with, [0, 1]
	Distill          *Distillation // what the loss learns from a teacher, or nil
	Recompute        bool          // the backward pass computes activations again, block by block (see Recompute)
}

// Train makes the step that has begun one of training.
func (c *Ctx) Train(t Training) { c.training, c.site = t, 0 }

// Learn gives the step that has begun a teacher.
func (c *Ctx) Learn(d *Distillation) { c.training.Distill = d }

// StepSeed is the Seed of a forward pass: equal for equal arguments, and else unrelated.
func StepSeed(seed, step, micro uint64) uint64 {
	return mix(mix(mix(seed+weyl)+step*weyl) + micro*weyl)
}
