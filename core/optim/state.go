package optim

import (
	"fmt"
	"slices"
)

// StateDict is an optimizer's saved state in PyTorch's structure: {"state": {index: {...}}, "param_groups": [{...}]}.
//
// Everything but the tensors is JSON ([StateDict.MarshalJSON]); the tensors have names of their own ([StateDict.Tensors]).
// [ParseStateDict] puts both together again, from this package's files or from a PyTorch optimizer's.
type StateDict struct {
	State       map[int]ParamState // by the index that a group's Params lists; parameters that were never updated are absent
	ParamGroups []GroupState       // hyperparameters and parameters of each group
}

// ParamState is what an optimizer remembers of one parameter.
type ParamState struct {
	Step    *float64          // "step", the number of updates; nil for SGD
	Tensors map[string]Tensor // "exp_avg", "exp_avg_sq", "max_exp_avg_sq" (Adam, AdamW), "momentum_buffer" (SGD)
}

// Tensor is a state tensor, of its parameter's shape.
type Tensor struct {
	Shape []int     // slowest dimension first
	Data  []float32 // the elements, row-major
}

// NamedTensor is a tensor and its name in files: "state.3.exp_avg".
type NamedTensor struct {
	Name string // in files
	Tensor
}

// GroupState is one entry of "param_groups".
type GroupState struct {
	Hyper
	Algorithm          string   // "sgd", "adam", "adamw", told by the keys; "" is Adam's moments of either kind (PyTorch before 2.7)
	Name               string   // "name"
	LRFactor           float64  // "lr_factor", 0 if absent
	InitialLR          *float64 // "initial_lr", which schedules multiply; absent: the current one
	InitialWeightDecay *float64 // "initial_weight_decay", likewise
	Params             []int    // "params": indices into State
	ParamNames         []string // "param_names", absent if no parameter has a name
}

// StateDict returns the state. Its tensors are views of the optimizer's memory: write or [StateDict.Clone] them before the next step.
func (o *Optimizer) StateDict() *StateDict {
	d := &StateDict{State: map[int]ParamState{}}
	for _, g := range o.groups {
		initialLR, initialDecay := g.initialLR, g.initialDecay
		s := GroupState{
			Hyper: g.hyper, Algorithm: o.algorithm.name, Name: g.name, LRFactor: g.factor,
			InitialLR: &initialLR, InitialWeightDecay: &initialDecay, Params: []int{},
		}
		named := false
		for i := g.first; i < g.last; i++ {
			p := o.slots[i].param
			s.Params = append(s.Params, i)
			s.ParamNames = append(s.ParamNames, p.Name)
			named = named || p.Name != ""
			if state, ok := o.slots[i].state.save(slices.Clone(p.Shape)); ok {
				d.State[i] = state
			}
		}
		if !named {
			s.ParamNames = nil
		}
		d.ParamGroups = append(d.ParamGroups, s)
	}
	return d
}

// Clone returns a copy that later steps do not change.
func (d *StateDict) Clone() *StateDict {
	c := &StateDict{State: make(map[int]ParamState, len(d.State)), ParamGroups: slices.Clone(d.ParamGroups)}
	for i, s := range d.State {
		tensors := make(map[string]Tensor, len(s.Tensors))
		for name, t := range s.Tensors {
			tensors[name] = Tensor{slices.Clone(t.Shape), slices.Clone(t.Data)}
		}
		c.State[i] = ParamState{s.Step, tensors}
	}
	return c
}

// Tensors lists all tensors by index, then by name.
func (d *StateDict) Tensors() []NamedTensor {
	var out []NamedTensor
	for _, i := range sortedKeys(d.State) {
		s := d.State[i]
		for _, name := range sortedKeys(s.Tensors) {
			out = append(out, NamedTensor{tensorName(i, name), s.Tensors[name]})
		}
	}
	return out
}

func tensorName(i int, name string) string { return fmt.Sprintf("state.%d.%s", i, name) }

// LoadStateDict replaces the optimizer's state and its groups' hyperparameters by copies of d's. As in PyTorch, groups and parameters
// correspond by position: there must be as many, of the same shapes. What does not fit is a *StateError that names field, value and
// expectation; names of parameters, where both sides have them, must agree too. On an error nothing has changed.
func (o *Optimizer) LoadStateDict(d *StateDict) error {
	if o.closed {
		return ErrClosed
	}
	ids, err := o.match(d)
	if err != nil {
		return err
	}
	for key := range d.State {
		if _, ok := ids[key]; !ok {
			return &StateError{fmt.Sprintf("state[%d]", key), key, "an index that param_groups lists"}
		}
	}
	states, err := o.restore(d, ids)
	if err != nil {
		return err
	}
	for i := range o.slots {
		o.slots[i].state.release()
		o.slots[i].state = states[i]
	}
	for i, g := range o.groups {
		g.adopt(&d.ParamGroups[i])
	}
	return nil
}

// match checks the groups and returns the slot of each of d's indices.
func (o *Optimizer) match(d *StateDict) (map[int]int, error) {
	if len(d.ParamGroups) != len(o.groups) {
		return nil, &StateError{"param_groups", len(d.ParamGroups), fmt.Sprintf("%d groups", len(o.groups))}
	}
	ids := make(map[int]int, len(o.slots))
	for i, g := range o.groups {
		s := &d.ParamGroups[i]
		at := func(field string) string { return fmt.Sprintf("param_groups[%d].%s", i, field) }
		if s.Algorithm != "" && s.Algorithm != o.algorithm.name {
			return nil, &StateError{at("algorithm"), s.Algorithm, o.algorithm.name}
		}
		if err := o.algorithm.check(&s.Hyper); err != nil {
			return nil, asState(err, at)
		}
		if err := s.checkExtras(at); err != nil {
			return nil, err
		}
		if len(s.Params) != g.last-g.first {
			return nil, &StateError{at("params"), len(s.Params), fmt.Sprintf("%d parameters", g.last-g.first)}
		}
		if s.ParamNames != nil && len(s.ParamNames) != len(s.Params) {
			return nil, &StateError{at("param_names"), len(s.ParamNames), fmt.Sprintf("%d names", len(s.Params))}
		}
		for j, id := range s.Params {
			if _, twice := ids[id]; twice {
				return nil, &StateError{at(fmt.Sprintf("params[%d]", j)), id, "an index that was not listed before"}
			}
			ids[id] = g.first + j
			ours := o.slots[g.first+j].param.Name
			if s.ParamNames != nil && s.ParamNames[j] != "" && ours != "" && s.ParamNames[j] != ours {
				return nil, &StateError{at(fmt.Sprintf("param_names[%d]", j)), s.ParamNames[j], ours}
			}
		}
	}
	return ids, nil
}

// restore makes the state of every slot from d.
func (o *Optimizer) restore(d *StateDict, ids map[int]int) (states []updater, err error) {
	states = make([]updater, len(o.slots))
	defer func() {
		if err != nil {
			for _, s := range states {
				if s != nil {
					s.release()
				}
			}
		}
	}()
	for i := range states {
		states[i] = o.algorithm.fresh()
	}
	for gi, g := range d.ParamGroups {
		for _, id := range g.Params {
			saved, ok := d.State[id]
			if !ok || saved.empty() {
				continue
			}
			i := ids[id]
			p := o.slots[i].param
			at := func(field string) string { return fmt.Sprintf("state[%d].%s", id, field) }
			if err := states[i].check(at, saved, p.Shape, len(p.Data)); err != nil {
				return states, err
			}
			if _, has := saved.Tensors["max_exp_avg_sq"]; g.AMSGrad && !has {
				return states, &StateError{at("max_exp_avg_sq"), "none", fmt.Sprintf("a tensor, as param_groups[%d].amsgrad is true", gi)}
			}
			if err := states[i].prepare(len(p.Data), &g.Hyper, o.pool); err != nil {
				return states, fmt.Errorf("optim: state of %s: %w", label(p, i), err)
			}
			states[i].load(saved)
		}
	}
	return states, nil
}

// adopt takes over a checked group.
func (g *group) adopt(s *GroupState) {
	g.hyper, g.initialLR, g.initialDecay = s.Hyper, s.LR, s.WeightDecay
	if s.LRFactor != 0 {
		g.factor = s.LRFactor
	}
	if s.InitialLR != nil {
		g.initialLR = *s.InitialLR
	}
	if s.InitialWeightDecay != nil {
		g.initialDecay = *s.InitialWeightDecay
	}
}

func (s *GroupState) checkExtras(at func(string) string) error {
	switch {
	case !finiteFrom(s.LRFactor, 0):
		return &StateError{at("lr_factor"), s.LRFactor, "a finite number > 0"}
	case s.InitialLR != nil && !finiteFrom(*s.InitialLR, 0):
		return &StateError{at("initial_lr"), *s.InitialLR, "a finite number >= 0"}
	case s.InitialWeightDecay != nil && !finiteFrom(*s.InitialWeightDecay, 0):
		return &StateError{at("initial_weight_decay"), *s.InitialWeightDecay, "a finite number >= 0"}
	}
	return nil
}

func (s ParamState) empty() bool { return s.Step == nil && len(s.Tensors) == 0 }

// checkTensors holds each tensor to the parameter's shape and refuses names that the algorithm does not have.
func checkTensors(at func(string) string, s ParamState, shape []int, n int, known ...string) error {
	for _, name := range sortedKeys(s.Tensors) {
		t := s.Tensors[name]
		switch {
		case !slices.Contains(known, name):
			return &StateError{at(name), "a tensor", fmt.Sprintf("one of %q", known)}
		case !slices.Equal(t.Shape, shape):
			return &StateError{at(name) + ".shape", t.Shape, fmt.Sprint(shape)}
		case len(t.Data) != n:
			return &StateError{at(name) + ".data", len(t.Data), fmt.Sprintf("%d values", n)}
		}
	}
	return nil
}
