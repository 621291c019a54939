package optim

// tiny keeps divisions by a norm finite; the value is that of torch.nn.utils.clip_grad_norm_.
const tiny = 1e-6

// ClipFactor returns what the gradients have to be multiplied by to have a norm of at most maxNorm, and their norm: min(1,
// maxNorm/(norm+1e-6)), as PyTorch. Give the factor to [Optimizer.StepScaled]. Gradients are not changed.
//
// If a gradient is not finite the error is a *NonFiniteError that names it.
func (g *Gradients) ClipFactor(maxNorm float64) (factor float32, norm float64, err error) {
	if !(maxNorm > 0) {
		return 0, 0, &ArgumentError{"max_norm", maxNorm, "expected a number > 0"}
	}
	if norm, err = g.finiteNorm(); err != nil {
		return 0, norm, err
	}
	return float32(min(1, maxNorm/(norm+tiny))), norm, nil
}

// ClipNorm multiplies the gradients by ClipFactor and returns the norm that they had (torch.nn.utils.clip_grad_norm_). If one is
// not finite it changes nothing and returns a *NonFiniteError.
func (g *Gradients) ClipNorm(maxNorm float64) (norm float64, err error) {
	factor, norm, err := g.ClipFactor(maxNorm)
	if err != nil || factor == 1 {
		return norm, err
	}
	return norm, g.Scale(factor)
}

// ClipValue limits every gradient to [-limit, limit] (torch.nn.utils.clip_grad_value_). A NaN stays one.
func (g *Gradients) ClipValue(limit float32) error {
	if !(limit > 0) {
		return &ArgumentError{"clip_value", limit, "expected a number > 0"}
	}
	g.factor = limit
	return g.run(clampJob)
}

// Normalize divides all gradients by norm+1e-6, so that only their direction counts, and returns the norm. If one is not finite
// it changes nothing and returns a *NonFiniteError.
func (g *Gradients) Normalize() (norm float64, err error) {
	if norm, err = g.finiteNorm(); err != nil {
		return norm, err
	}
	return norm, g.Scale(float32(1 / (norm + tiny)))
}

// NormalizeEach divides each parameter's gradient by its own norm+1e-6, so that all tensors move alike, and returns the norm of all.
// If one is not finite it changes nothing and returns a *NonFiniteError.
func (g *Gradients) NormalizeEach() (norm float64, err error) {
	if norm, err = g.finiteNorm(); err != nil {
		return norm, err
	}
	for i, n := range g.norms {
		g.factors[i] = float32(1 / (n + tiny))
	}
	return norm, g.run(scaleEachJob)
}
