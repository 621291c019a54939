package model

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// loadTrainable is Load for training: the checkpoint as it is loaded for inference, with float32 master weights of its ternary layers.
//
// Where the checkpoint has master weights (quantization_mode "online", or float weights with LoadOptions.Quantize), these are it. Of
// packed weights only the codes and a scale are left; their masters are the codes times one magnitude, chosen so that quantizing them
// gives the same codes and scale: training starts at the function that was loaded, but how near each weight was to another code is lost.
// Embedding, head and layers that are not ternary are widened to float32.
func loadTrainable(ctx context.Context, path string, o LoadOptions) (_ *Model, err error) {
	o.Trainable, o.Packing = false, Packing2Bit
	plain, err := Load(ctx, path, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	o.Progress = nil
	m, err := newMasters(ctx, plain.Config, o, func(float64) func([]float32) { return func([]float32) {} })
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = m.Close() // the first error says more
		}
	}()
	c := masterCopy{ctx: ctx, from: map[string]*nn.Linear{}, norms: map[string]*nn.RMSNorm{}}
	if err := plain.eachWeight(c.noteLinear, c.noteNorm); err != nil {
		return nil, err
	}
	if plain.Info.Format == "hf" {
		set, err := safetensors.OpenSet(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = set.Close() }() // everything is copied out
		c.file = &hfSource{tensorSource: newTensorSource(nil, set), cfg: plain.Config}
	}
	if err := m.eachWeight(func(name string, l *nn.Linear) error {
		if name == "model.embed_tokens" {
			l.Weight = m.Embed.Param
		}
		return c.linear(name, l)
	}, c.norm); err != nil {
		return nil, err
	}
	m.Info.Path = plain.Info.Path
	return m, m.Refresh()
}

// masterCopy fills master weights from a model that was loaded for inference, and from the file it came from.
type masterCopy struct {
	ctx   context.Context
	from  map[string]*nn.Linear
	norms map[string]*nn.RMSNorm
	file  *hfSource // nil: a native file, which has no master weights
}

func (c *masterCopy) noteLinear(name string, l *nn.Linear) error {
	c.from[name] = l
	return nil
}

func (c *masterCopy) noteNorm(name string, n *nn.RMSNorm) error {
	c.norms[name] = n
	return nil
}

func (c *masterCopy) norm(name string, n *nn.RMSNorm) error {
	copy(n.Weight, c.norms[name].Weight)
	return nil
}

func (c *masterCopy) linear(name string, l *nn.Linear) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	from := c.from[name]
	copy(l.Bias, from.Bias)
	if l.Norm != nil {
		copy(l.Norm.Weight, from.Norm.Weight)
	}
	w := l.Weight.Data
	if from.Ternary == nil {
		for r := range l.Out {
			from.Dense.Row(w[r*l.In:(r+1)*l.In], r)
		}
		return nil
	}
	if found, err := c.stored(name, w); found || err != nil {
		return err
	}
	mastersOf(w, from.Ternary)
	return nil
}

// stored reads master weights where the file has them.
func (c *masterCopy) stored(name string, w []float32) (bool, error) {
	if c.file == nil {
		return false, nil
	}
	v, err := c.file.set.Tensor(name + ".weight")
	if err != nil {
		return false, err
	}
	if !slices.Contains(floats, v.DType) || c.file.storesCodes(name, v.DType) {
		return false, nil
	}
	size := len(v.Data) / len(w)
	for i := range w {
		w[i] = decodeFloat(v.DType, v.Data[i*size:])
	}
	return true, v.ReleasePages()
}

// mastersOf fills w with the codes of t times a magnitude such that their mean absolute value rounds to the scale of t. Multiples of one
// float32 miss it by up to a unit in the last place, so as many of the first weights as needed get the next larger magnitude.
func mastersOf(w []float32, t *quant.Ternary) {
	codes := t.Codes(nil)
	nonzero := 0
	for _, code := range codes {
		nonzero += int(code * code)
	}
	if nonzero == 0 {
		clear(w)
		return
	}
	total := float64(float64(t.Scale) * float64(len(w))) // the sum of magnitudes
	small := float32(total / float64(nonzero))
	if float64(small)*float64(nonzero) > total {
		small = math.Nextafter32(small, 0)
	}
	large := math.Nextafter32(small, math.MaxFloat32)
	more := int(math.RoundToEven((total - float64(float64(small)*float64(nonzero))) / (float64(large) - float64(small))))
	for i, code := range codes {
		magnitude := small
		if code != 0 && more > 0 {
			magnitude = large
			more--
		}
		w[i] = float32(code) * magnitude
	}
}

// checkMasters says why a model has no master weights to save, or nil.
func (m *Model) checkMasters() error {
	if len(m.Params()) == 0 {
		return fmt.Errorf("%w: it has no master weights: it was not made or loaded for training", ErrExport)
	}
	if m.LearnsScales() {
		return fmt.Errorf("%w: its scales were learned, and whoever reads master weights takes their mean instead: save packed weights", ErrExport)
	}
	return nil
}
