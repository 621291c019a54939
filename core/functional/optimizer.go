package functional

import (
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
)

// ParamGroup is leaves that share hyperparameters. Names, when there are any, are those of the state.
type ParamGroup struct {
	Name    string                 // of the group, for the state; optional
	Hyper   optim.Hyper            // that they share
	Tensors []*autograd.GradTensor // the leaves
	Names   []string
}

// Optimizer is an optimizer of core/optim over leaves. A leaf without a gradient is left alone in a step; a step counts as a
// change in place of the others, so that graphs that need the old values are found out.
type Optimizer struct {
	*optim.Optimizer
	leaves []*autograd.GradTensor
	params []*autograd.Param
}

// NewOptimizer makes an optimizer. Leaves must be contiguous float32.
func NewOptimizer(c optim.Config, groups []ParamGroup) (*Optimizer, error) {
	o := &Optimizer{}
	list := make([]optim.Group, len(groups))
	for i, g := range groups {
		list[i] = optim.Group{Name: g.Name, Hyper: &g.Hyper}
		for j, t := range g.Tensors {
			p, err := t.Param()
			if err != nil {
				return nil, fmt.Errorf("groups[%d].params[%d]: %w", i, j, err)
			}
			if j < len(g.Names) && g.Names[j] != "" {
				p.Name = g.Names[j]
			}
			list[i].Params = append(list[i].Params, p)
			o.leaves, o.params = append(o.leaves, t), append(o.params, p)
		}
	}
	var err error
	o.Optimizer, err = optim.New(nil, c, list...)
	return o, err
}

// SetGroups replaces the hyperparameters of all groups; the next step validates them.
func (o *Optimizer) SetGroups(hyper []optim.Hyper) error {
	if len(hyper) != o.NumGroups() {
		return argumentError("%d groups of hyperparameters for %d groups", len(hyper), o.NumGroups())
	}
	for i, h := range hyper {
		*o.Group(i) = h
	}
	return nil
}

// Step updates the leaves that have a gradient.
func (o *Optimizer) Step() error {
	if err := o.Optimizer.Step(); err != nil {
		return err
	}
	o.changed()
	return nil
}

// StepWith is Step through a scaler, which may skip it.
func (o *Optimizer) StepWith(s *optim.GradScaler) (stepped bool, err error) {
	if stepped, err = s.Step(o.Optimizer); stepped {
		o.changed()
	}
	return stepped, err
}

func (o *Optimizer) changed() {
	for i, p := range o.params {
		if len(p.Grad) != 0 {
			o.leaves[i].Changed()
		}
	}
}
