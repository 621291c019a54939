package model

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// NewTrainable builds a model of the shape of cfg with float32 master weights, from which Refresh derives the weights
// that forward passes use. Matrices are normal with standard deviation cfg.InitializerRange, those that lead back into
// the residual stream (o_proj, down_proj) divided by sqrt(2 layers) as in GPT-2; norms are one, biases zero. The same seed
// gives the same weights. Of the options it uses Pool.
func NewTrainable(cfg *Config, seed uint64, o LoadOptions) (*Model, error) {
	o.Trainable = true
	if err := o.checkPacking(); err != nil {
		return nil, err
	}
	next := uint64(0)
	m, err := newMasters(context.Background(), cfg, o, func(std float64) func([]float32) {
		next++ // a generator for every matrix
		r := rand.New(rand.NewPCG(seed, next))
		return func(w []float32) {
			for i := range w {
				w[i] = float32(std * r.NormFloat64())
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return m, m.Refresh()
}

// newMasters builds a model of master weights. fill gives what fills a matrix whose numbers should have the standard deviation std;
// it is called in the order of a forward pass.
func newMasters(ctx context.Context, cfg *Config, o LoadOptions, fill func(std float64) func(w []float32)) (*Model, error) {
	if err := cpu.InitError(); err != nil {
		return nil, err
	}
	c := cfg.clone().WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	l := newLoader(o, tableFormat{format: cpu.DenseF32, fixed: true})
	l.wide = true
	m, err := build(&c, &masterSource{loader: l, cfg: &c, fill: fill})
	if err != nil {
		return nil, err
	}
	if err := l.finish(ctx, m); err != nil {
		return nil, err
	}
	m.Info.Format = "trainable"
	norm := func(name string, n *nn.Norm) error {
		n.Param = autograd.NewParam(name+".weight", n.Weight, len(n.Weight))
		if n.Bias != nil {
			n.BiasParam = autograd.NewParam(name+".bias", n.Bias, len(n.Bias))
		}
		return nil
	}
	_ = m.eachWeight(func(name string, l *nn.Linear) error {
		if l.Bias != nil {
			l.BiasParam = autograd.NewParam(name+".bias", l.Bias, l.Out)
		}
		if l.Norm != nil {
			return norm(name+".rms_norm", l.Norm)
		}
		return nil
	}, norm)
	return m, nil
}

// Params lists the master weights in the order of a forward pass; empty for a model that cannot be trained. A tied
// table is one parameter.
func (m *Model) Params() []*autograd.Param {
	var all []*autograd.Param
	add := func(params ...*autograd.Param) error {
		for _, p := range params {
			if p != nil {
				all = append(all, p)
			}
		}
		return nil
	}
	_ = m.eachWeight(func(_ string, l *nn.Linear) error {
		if l.Norm != nil {
			return add(l.Norm.Param, l.Weight, l.Scale, l.BiasParam)
		}
		return add(l.Weight, l.Scale, l.BiasParam)
	}, func(_ string, n *nn.Norm) error { return add(n.Param, n.BiasParam) })
	return all
}

// LearnScales makes the scale of every ternary layer of a trainable model a parameter, "<linear>.weight_scale", that begins as the
// mean absolute weight. From then on Refresh uses it in place of the mean, and so does whatever is saved: packed weights as
// they are. A checkpoint of master weights cannot say it, as whoever reads one takes the mean.
func (m *Model) LearnScales() {
	_ = m.eachLinear(func(name string, l *nn.Linear) error {
		if l.Ternary != nil && l.Weight != nil {
			l.LearnScale(name + ".weight_scale")
		}
		return nil
	})
}

// LearnsScales says whether LearnScales was called.
func (m *Model) LearnsScales() bool {
	found := false
	_ = m.eachLinear(func(_ string, l *nn.Linear) error {
		found = found || l.Scale != nil
		return nil
	})
	return found
}

// Refresh derives the weights of forward passes from the master weights after these have changed. No step may run.
func (m *Model) Refresh() error {
	m.version.Add(1)
	return m.eachLinear(func(_ string, l *nn.Linear) error { return l.Refresh() })
}

// EachTernary visits the ternary matrices under their checkpoint names, in the order of a forward pass.
func (m *Model) EachTernary(visit func(name string, l *nn.Linear)) {
	_ = m.eachLinear(func(name string, l *nn.Linear) error {
		if l.Ternary != nil {
			visit(name, l)
		}
		return nil
	})
}

// masterSource makes float32 master weights.
type masterSource struct {
	*loader
	cfg  *Config
	fill func(std float64) func(w []float32)
}

func (s *masterSource) linear(name string, out, in int) (*nn.Linear, error) {
	std := s.cfg.InitializerRange
	if strings.HasSuffix(name, ".o_proj") || strings.HasSuffix(name, ".down_proj") {
		std /= math.Sqrt(2 * float64(s.cfg.NumHiddenLayers))
	}
	l := s.master(name, out, in, std)
	if s.cfg.hasBias(name) {
		l.Bias = make([]float32, out)
	}
	if s.cfg.Quantization.Converts(name) {
		if s.cfg.Quantization.UseRMSNorm {
			l.Norm = &nn.Norm{Weight: ones(in), Eps: float32(s.cfg.Quantization.RMSNormEps)}
		}
		l.Ternary = &quant.Ternary{Rows: out, Cols: in}
		s.reserve(&l.Ternary.Data, cpu.TernaryBytes(out, in))
	} else {
		s.dense(l)
	}
	return l, nil
}

func (s *masterSource) table(name string, rows, cols int) (*nn.Linear, error) {
	l := s.master(name, rows, cols, s.cfg.InitializerRange)
	s.dense(l)
	return l, nil
}

func (s *masterSource) norm(_, part string, dim int) ([]float32, error) {
	return freshNorm(part, dim), nil
}

func (s *masterSource) dense(l *nn.Linear) {
	l.Dense = &quant.Dense{Rows: l.Out, Cols: l.In, Format: cpu.DenseF32}
	s.reserve(&l.Dense.Panels, cpu.DenseBytes(cpu.DenseF32, l.Out, l.In))
}

// master plans a parameter and its gradient.
func (s *masterSource) master(name string, out, in int, std float64) *nn.Linear {
	p := &autograd.Param{Name: name + ".weight", Shape: []int{out, in}}
	mem := new([2][]byte)
	size := 4 * out * in
	s.reserve(&mem[0], size)
	s.reserve(&mem[1], size)
	fill := s.fill(std)
	s.add(job{bytes: int64(size), work: func(context.Context) error {
		p.Data, p.Grad = pool.View[float32](mem[0]), pool.View[float32](mem[1])
		fill(p.Data)
		clear(p.Grad)
		return nil
	}})
	return &nn.Linear{In: in, Out: out, Weight: p}
}

// SetWeights replaces master weights by name, as from a checkpoint, and refreshes the model.
func (m *Model) SetWeights(weights map[string][]float32) error {
	for _, p := range m.Params() {
		w, ok := weights[p.Name]
		if !ok || len(w) != len(p.Data) {
			return fmt.Errorf("model: weights of %s: found %d values, expected %d", p.Name, len(w), len(p.Data))
		}
		copy(p.Data, w)
	}
	return m.Refresh()
}
