package functional

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Call runs an operation by name: one of core/nn (a key of layers) or of core/tensor. Operands are followed by parameters as
// a JSON object. In mode Grad it is recorded when an operand requires a gradient.
func Call(ctx context.Context, m autograd.Mode, name string, operands []*autograd.GradTensor, params []byte) ([]*autograd.GradTensor, error) {
	l, ok := layers[name]
	if !ok {
		return m.Call(name, operands, params)
	}
	if len(operands) != l.operands {
		return nil, argumentError("%s takes %d operands, got %d", name, l.operands, len(operands))
	}
	p := Params{Eps: 1e-5, Theta: 10000, Reduction: "mean", Ignore: nn.IgnoreTarget, Causal: true,
		STE: "identity", Clip: nn.DefaultClip, Temperature: nn.DefaultTemperature}
	if len(params) > 0 {
		d := json.NewDecoder(bytes.NewReader(params))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			return nil, argumentError("parameters of %s: %v", name, err)
		}
	}
	operands, casts, err := widen(m, operands)
	if err != nil {
		return nil, err
	}
	out, err := l.run(ctx, m, operands, &p)
	for _, t := range casts {
		t.Release() // the graph holds what it needs
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return []*autograd.GradTensor{out}, nil
}

// Params are the parameters of all operations; each reads its own.
type Params struct {
	Eps         float64         `json:"eps"`          // norms, 1e-5 when left out
	Theta       float64         `json:"theta"`        // rope, 10000 when left out
	Scaling     *nn.RopeScaling `json:"scaling"`      // rope: of the frequencies, none when left out
	Offset      int             `json:"offset"`       // rope: position of the first row of each sequence
	Lengths     []int           `json:"lengths"`      // attention: of each sequence of the batch; null: all whole
	Causal      bool            `json:"causal"`       // attention: a row sees itself and those before it; false: all of its sequence
	STE         string          `json:"ste"`          // bit_linear: "identity" (when left out), "clipped" or "soft"
	Clip        float64         `json:"clip"`         // bit_linear, clipped
	Temperature float64         `json:"temperature"`  // bit_linear, soft
	P           float64         `json:"p"`            // dropout: share of the elements
	Seed        uint64          `json:"seed"`         // dropout, and attention's
	Act         string          `json:"activation"`   // gated and activate: a name of nn.Activations
	Reduction   string          `json:"reduction"`    // cross_entropy: "mean", "sum" or "none"
	Ignore      int64           `json:"ignore_index"` // cross_entropy: target that does not count, -100 when left out
}

type layer struct {
	operands int
	run      func(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error)
}

var layers = map[string]layer{
	"rms_norm":      {2, rmsNorm},
	"layer_norm":    {3, layerNorm},
	"linear":        {2, linear},
	"bit_linear":    {2, bitLinear},
	"rope":          {1, rope},
	"attention":     {3, attention},
	"gated":         {2, gated},
	"activate":      {1, activate},
	"dropout":       {1, dropout},
	"cross_entropy": {2, crossEntropy},
	"head_loss":     {4, headLoss},
}

// widen casts the operands of 16 bits to float32, and the casts are recorded.
func widen(m autograd.Mode, x []*autograd.GradTensor) (wide, casts []*autograd.GradTensor, err error) {
	wide = slices.Clone(x)
	for i, t := range x {
		if dt := t.Data().DType(); !dt.IsFloat() || dt == tensor.Float32 {
			continue
		}
		cast, err := m.Run("cast", []*autograd.GradTensor{t}, &tensor.Params{DType: "float32"})
		if err != nil {
			return nil, nil, err
		}
		wide[i], casts = cast[0], append(casts, cast[0])
	}
	return wide, casts, nil
}

// floats gives the operands, which must be float32, contiguous.
func floats(x []*autograd.GradTensor) (data []*tensor.Tensor, err error) {
	data = make([]*tensor.Tensor, len(x))
	for i, t := range x {
		if dt := t.Data().DType(); dt != tensor.Float32 {
			return nil, &callError{fmt.Sprintf("operand %d: found %s, expected a float", i, dt), tensor.ErrDType}
		}
		if data[i], err = t.Data().Contiguous(); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// planKey names the memory plan of an operation by its name and the operands' shapes.
func planKey(name string, x []*tensor.Tensor, more ...int) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, name, more)
	for _, t := range x {
		fmt.Fprint(h, t.Shape())
	}
	return h.Sum64()
}
