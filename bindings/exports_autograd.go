//go:build cgo && pyext

package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/functional"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// functions are what Python asks of tensors beside operations, and of the kernels.
var functions = map[string]method{
	// peaks are how many multiplications a second the kernels make of operands in the caches.
	"peaks": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
		return map[string]float64{"float32": cpu.PeakFLOPS() / 2, "ternary": cpu.PeakTernary()}, nil, nil
	},
	"operation": of1(func(t *autograd.GradTensor, _ []byte) (any, *autograd.GradTensor, error) {
		return t.Operation(), nil, nil
	}),
	"require_grad": of1(func(t *autograd.GradTensor, params []byte) (any, *autograd.GradTensor, error) {
		var want bool
		if err := decode(params, &want); err != nil {
			return nil, nil, err
		}
		return nil, nil, t.RequireGrad(want)
	}),
	"grad": of1(func(t *autograd.GradTensor, _ []byte) (any, *autograd.GradTensor, error) {
		return nil, wrap(t.Grad()), nil
	}),
	"set_grad": func(_ context.Context, _ []byte, x []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
		var g *tensor.Tensor
		if len(x) == 2 {
			g = x[1].Data()
		}
		return nil, nil, x[0].SetGrad(g)
	},
	"retain_grad": of1(func(t *autograd.GradTensor, _ []byte) (any, *autograd.GradTensor, error) {
		return nil, nil, t.RetainGrad()
	}),
	"changed": of1(func(t *autograd.GradTensor, _ []byte) (any, *autograd.GradTensor, error) {
		t.Changed()
		return nil, nil, nil
	}),
	"detach": of1(func(t *autograd.GradTensor, _ []byte) (any, *autograd.GradTensor, error) { return nil, t.Detach(), nil }),
	"add_hook": of1(func(t *autograd.GradTensor, _ []byte) (any, *autograd.GradTensor, error) {
		id, err := t.RegisterExternalHook()
		return id, nil, err
	}),
	"remove_hook": of1(func(t *autograd.GradTensor, params []byte) (any, *autograd.GradTensor, error) {
		var id int64
		err := decode(params, &id)
		t.RemoveHook(id)
		return nil, nil, err
	}),
	"dropped_hooks": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
		return autograd.DroppedHooks(), nil, nil
	},
	"clip_norm": func(_ context.Context, params []byte, x []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
		var limit float64
		g, err := gradients(params, &limit, x)
		if err != nil || g == nil {
			return 0.0, nil, err
		}
		norm, err := g.ClipNorm(limit)
		return norm, nil, err
	},
	"clip_value": func(_ context.Context, params []byte, x []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
		var limit float64
		g, err := gradients(params, &limit, x)
		if err != nil || g == nil {
			return nil, nil, err
		}
		return nil, nil, g.ClipValue(float32(limit))
	},
}

func of1(f func(t *autograd.GradTensor, params []byte) (any, *autograd.GradTensor, error)) method {
	return func(_ context.Context, params []byte, x []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
		result, t, err := f(x[0], params)
		return result, []*autograd.GradTensor{t}, err
	}
}

func wrap(t *tensor.Tensor) *autograd.GradTensor {
	if t == nil {
		return nil
	}
	return autograd.New(t)
}

// gradients gives access to the gradients of leaves; nil when there are no leaves.
func gradients(params []byte, limit *float64, x []*autograd.GradTensor) (*optim.Gradients, error) {
	if err := decode(params, limit); err != nil || len(x) == 0 {
		return nil, err
	}
	list := make([]*autograd.Param, len(x))
	for i, t := range x {
		p, err := t.Param()
		if err != nil {
			return nil, fmt.Errorf("parameters[%d]: %w", i, err)
		}
		list[i] = p
	}
	return optim.NewGradients(list)
}

// newBackward prepares a backward pass. Operands are the roots, the gradients of those that have one, and inputs.
func newBackward(params []byte, x []*autograd.GradTensor, _ []any) (*object, error) {
	var p struct {
		Given  []bool `json:"gradients"` // of each root, whether it has a gradient
		Inputs int    `json:"inputs"`    // -1: gradients go to leaves
		Retain bool   `json:"retain"`
	}
	if err := decode(params, &p); err != nil {
		return nil, err
	}
	roots, rest := x[:len(p.Given)], x[len(p.Given):]
	grads := make([]*tensor.Tensor, len(roots))
	for i, given := range p.Given {
		if given {
			grads[i], rest = rest[0].Data(), rest[1:]
		}
	}
	o := autograd.Options{Retain: p.Retain}
	if p.Inputs >= 0 {
		o.Inputs = slices.Clone(rest)
	}
	w, err := autograd.NewWalk(roots, grads, o)
	if err != nil {
		return nil, err
	}
	return &object{close: w.Close, methods: map[string]method{
		// step returns the number of a hook to run, with its gradient, or null at the end.
		"step": func(ctx context.Context, _ []byte, _ []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			call, err := w.Next(ctx)
			if call == nil {
				return nil, nil, err
			}
			return call.ID, []*autograd.GradTensor{autograd.New(call.Grad)}, nil
		},
		"resume": func(_ context.Context, _ []byte, x []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			if len(x) == 0 {
				return nil, nil, w.Resume(nil)
			}
			return nil, nil, w.Resume(x[0].Data())
		},
		"gradients": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			var out []*autograd.GradTensor
			for _, g := range w.Gradients() {
				out = append(out, wrap(g))
			}
			return nil, out, nil
		},
	}}, nil
}

// newModelGrad makes a model's passes nodes of a graph.
func newModelGrad(_ []byte, _ []*autograd.GradTensor, objects []any) (*object, error) {
	r := objects[0].(*runner)
	m, err := functional.NewModel(r.model, &r.training)
	if err != nil {
		return nil, err
	}
	run := func(targets bool, pass func(ctx context.Context, m autograd.Mode, b train.Batch, p functional.Pass) (*autograd.GradTensor, error)) method {
		return func(ctx context.Context, params []byte, x []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			var p struct {
				train.EngineOptions
				Seed    uint64 `json:"seed"`
				Step    int    `json:"step"`
				Lengths []int  `json:"lengths"`
				Record  bool   `json:"record"`
			}
			if err := decode(params, &p); err != nil {
				return nil, nil, err
			}
			b := train.Batch{Lengths: p.Lengths, IDs: x[0].Data().Int32s()}
			if targets {
				b.Targets = x[1].Data().Int32s()
			}
			y, err := pass(ctx, autograd.Mode(p.Record), b, functional.Pass{EngineOptions: p.EngineOptions, Seed: p.Seed, Step: p.Step})
			return nil, []*autograd.GradTensor{y}, err
		}
	}
	// The collector frees the weights when no tensor shows them any more; it is asked as it cannot know how much memory that is.
	free := func() { m.Close(); runtime.GC() }
	return &object{shared: true, close: free, methods: map[string]method{
		"parameters": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			names, leaves := m.Parameters()
			return names, leaves, nil
		},
		"logits": run(false, m.Logits),
		"loss":   run(true, m.Loss),
	}}, nil
}
