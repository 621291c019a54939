//go:build cgo && pyext

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/functional"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// newOptimizer makes an optimizer of leaves, group after group.
func newOptimizer(params []byte, x []*autograd.GradTensor, _ []any) (*object, error) {
	var p struct {
		Optimizer optim.Config `json:"optimizer"`
		Groups    []struct {
			Hyper optim.Hyper `json:"hyper"`
			Name  string      `json:"name"`
			Names []string    `json:"names"` // of the parameters, as many as there are
		} `json:"groups"`
	}
	if err := decode(params, &p); err != nil {
		return nil, err
	}
	groups := make([]functional.ParamGroup, len(p.Groups))
	for i, g := range p.Groups {
		n := len(g.Names)
		groups[i] = functional.ParamGroup{Name: g.Name, Hyper: g.Hyper, Tensors: x[:n], Names: g.Names}
		x = x[n:]
	}
	o, err := functional.NewOptimizer(p.Optimizer, groups)
	if err != nil {
		return nil, err
	}
	return &object{value: o, close: o.Close, methods: map[string]method{
		"step": plain(func(context.Context) error { return o.Step() }),
		"groups": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			out := make([]optim.Hyper, o.NumGroups())
			for i := range out {
				out[i] = *o.Group(i)
			}
			return out, nil, nil
		},
		"set_groups": func(_ context.Context, params []byte, _ []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			var hyper []optim.Hyper
			if err := decode(params, &hyper); err != nil {
				return nil, nil, err
			}
			return nil, nil, o.SetGroups(hyper)
		},
		"state": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			return stateOut(o)
		},
		"load_state": func(_ context.Context, params []byte, x []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			return nil, nil, stateIn(o, params, x)
		},
	}}, nil
}

func plain(f func(context.Context) error) method {
	return func(ctx context.Context, _ []byte, _ []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
		return nil, nil, f(ctx)
	}
}

// stateOut gives an optimizer's state: JSON of PyTorch's structure, and tensors by name.
func stateOut(o *functional.Optimizer) (any, []*autograd.GradTensor, error) {
	d := o.StateDict()
	names, list := []string{}, []*autograd.GradTensor{}
	for _, t := range d.Tensors() {
		view, err := tensor.FromFloat32(t.Data, t.Shape...)
		if err != nil {
			return nil, nil, err
		}
		own, err := view.Clone()
		if err != nil {
			return nil, nil, err
		}
		names, list = append(names, t.Name), append(list, autograd.New(own))
	}
	return map[string]any{"state": d, "tensors": names}, list, nil
}

func stateIn(o *functional.Optimizer, params []byte, x []*autograd.GradTensor) error {
	var p struct {
		State   json.RawMessage `json:"state"`
		Tensors []string        `json:"tensors"`
	}
	if err := decode(params, &p); err != nil {
		return err
	}
	named := make([]optim.NamedTensor, len(x))
	for i, t := range x {
		c, err := t.Data().Contiguous()
		if err != nil {
			return err
		}
		if c.DType() != tensor.Float32 {
			return fmt.Errorf("%w: state tensor %s: found %s, expected float32", errArgument, p.Tensors[i], c.DType())
		}
		named[i] = optim.NamedTensor{Name: p.Tensors[i], Tensor: optim.Tensor{Shape: c.Shape(), Data: c.Float32s()}}
	}
	d, err := optim.ParseStateDict(p.State, named)
	if err != nil {
		return err
	}
	return o.LoadStateDict(d)
}

func newScheduler(params []byte, _ []*autograd.GradTensor, objects []any) (*object, error) {
	var c optim.ScheduleConfig
	if err := decode(params, &c); err != nil {
		return nil, err
	}
	s, err := optim.NewScheduler(objects[0].(*functional.Optimizer).Optimizer, c)
	if err != nil {
		return nil, err
	}
	return &object{methods: map[string]method{
		"step": plain(func(context.Context) error { s.Step(); return nil }),
		"observe": func(_ context.Context, params []byte, _ []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			var metric float64
			if err := decode(params, &metric); err != nil {
				return nil, nil, err
			}
			s.Observe(metric)
			return nil, nil, nil
		},
		"state": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			return s.StateDict(), nil, nil
		},
		"load_state": func(_ context.Context, params []byte, _ []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			var state optim.SchedulerState
			if err := decode(params, &state); err != nil {
				return nil, nil, err
			}
			return nil, nil, s.LoadStateDict(state)
		},
	}}, nil
}

func newScaler(params []byte, _ []*autograd.GradTensor, optimizers []any) (*object, error) {
	var c optim.ScalerConfig
	if err := decode(params, &c); err != nil {
		return nil, err
	}
	s, err := optim.NewGradScaler(c)
	if err != nil {
		return nil, err
	}
	o := optimizers[0].(*functional.Optimizer)
	return &object{methods: map[string]method{
		"scale": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			return s.Scale(), nil, nil
		},
		"unscale": plain(func(context.Context) error { return s.Unscale(o.Grads()) }),
		"step": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			done, err := o.StepWith(s)
			return done, nil, err
		},
		"update": plain(func(context.Context) error { return s.Update() }),
		"state": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			return s.StateDict(), nil, nil
		},
		"load_state": func(_ context.Context, params []byte, _ []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			var state optim.ScalerState
			if err := decode(params, &state); err != nil {
				return nil, nil, err
			}
			return nil, nil, s.LoadStateDict(state)
		},
	}}, nil
}
