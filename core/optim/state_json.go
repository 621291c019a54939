package optim

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MarshalJSON writes everything but the tensors: {"state": {"0": {"step": 10}}, "param_groups": [...]}. Groups have the keys of
// torch.optim's state dict for the algorithm, and those of this package that PyTorch carries along unread.
func (d *StateDict) MarshalJSON() ([]byte, error) {
	state := make(map[string]map[string]any, len(d.State))
	for i, s := range d.State {
		entry := map[string]any{}
		if s.Step != nil {
			entry["step"] = *s.Step
		}
		state[strconv.Itoa(i)] = entry
	}
	groups := make([]map[string]any, len(d.ParamGroups))
	for i := range d.ParamGroups {
		groups[i] = d.ParamGroups[i].keys()
	}
	return json.Marshal(map[string]any{"state": state, "param_groups": groups})
}

// keys is the group as PyTorch's dictionary.
func (s *GroupState) keys() map[string]any {
	keys := map[string]any{
		"lr": s.LR, "weight_decay": s.WeightDecay, "maximize": s.Maximize, "params": s.Params,
		"foreach": nil, "differentiable": false, "fused": nil, // how PyTorch computes, not what
	}
	if s.Algorithm == "sgd" {
		keys["momentum"], keys["dampening"], keys["nesterov"] = s.Momentum, s.Dampening, s.Nesterov
	} else {
		keys["betas"], keys["eps"], keys["amsgrad"], keys["capturable"] = s.Betas, s.Eps, s.AMSGrad, false
		if s.Algorithm != "" {
			keys["decoupled_weight_decay"] = s.Algorithm == "adamw"
		}
	}
	if s.Name != "" {
		keys["name"] = s.Name
	}
	if s.ParamNames != nil {
		keys["param_names"] = s.ParamNames
	}
	if s.LRFactor != 0 {
		keys["lr_factor"] = s.LRFactor
	}
	if s.InitialLR != nil {
		keys["initial_lr"] = *s.InitialLR
	}
	if s.InitialWeightDecay != nil {
		keys["initial_weight_decay"] = *s.InitialWeightDecay
	}
	return keys
}

// groupJSON is what is read of a group; keys that it does not have do not change the numbers and are ignored.
type groupJSON struct {
	LR          *float64   `json:"lr"`
	WeightDecay *float64   `json:"weight_decay"`
	Maximize    bool       `json:"maximize"`
	Momentum    *float64   `json:"momentum"`
	Dampening   float64    `json:"dampening"`
	Nesterov    bool       `json:"nesterov"`
	Betas       *[]float64 `json:"betas"`
	Eps         *float64   `json:"eps"`
	AMSGrad     bool       `json:"amsgrad"`
	Decoupled   *bool      `json:"decoupled_weight_decay"`

	Name               string   `json:"name"`
	LRFactor           float64  `json:"lr_factor"`
	InitialLR          *float64 `json:"initial_lr"`
	InitialWeightDecay *float64 `json:"initial_weight_decay"`
	Params             []int    `json:"params"`
	ParamNames         []string `json:"param_names"`
}

// ParseStateDict reads what [StateDict.MarshalJSON] writes, or a PyTorch optimizer's state_dict with the tensors taken out, and puts
// the tensors back by name. The tensors are not copied. Whether they fit a model is for [Optimizer.LoadStateDict] to say; the
// errors here are *StateError, or match ErrState when the text is no such JSON.
func ParseStateDict(data []byte, tensors []NamedTensor) (*StateDict, error) {
	var read struct {
		State  map[string]map[string]json.RawMessage `json:"state"`
		Groups []groupJSON                           `json:"param_groups"`
	}
	if err := json.Unmarshal(data, &read); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrState, err)
	}
	d := &StateDict{State: map[int]ParamState{}}
	for i := range read.Groups {
		g, err := read.Groups[i].group(func(field string) string { return fmt.Sprintf("param_groups[%d].%s", i, field) })
		if err != nil {
			return nil, err
		}
		d.ParamGroups = append(d.ParamGroups, g)
	}
	for _, key := range sortedKeys(read.State) {
		i, err := strconv.Atoi(key)
		if err != nil || i < 0 {
			return nil, &StateError{"state", fmt.Sprintf("%q", key), "the index of a parameter"}
		}
		if d.State[i], err = paramState(i, read.State[key]); err != nil {
			return nil, err
		}
	}
	return d, d.attach(tensors)
}

func paramState(i int, entries map[string]json.RawMessage) (ParamState, error) {
	s := ParamState{Tensors: map[string]Tensor{}}
	for _, name := range sortedKeys(entries) {
		raw := string(entries[name])
		switch {
		case raw == "null": // a tensor that PyTorch has not made yet
		case name != "step":
			return s, &StateError{fmt.Sprintf("state[%d].%s", i, name), raw, "no value in the JSON: tensors are given beside it"}
		default:
			step := 0.0
			if err := json.Unmarshal(entries[name], &step); err != nil {
				return s, &StateError{fmt.Sprintf("state[%d].step", i), raw, "a number"}
			}
			s.Step = &step
		}
	}
	return s, nil
}

// attach files each tensor under its parameter.
func (d *StateDict) attach(tensors []NamedTensor) error {
	for _, t := range tensors {
		parts := strings.SplitN(t.Name, ".", 3)
		if len(parts) != 3 || parts[0] != "state" {
			return &StateError{"tensors", fmt.Sprintf("%q", t.Name), `a name such as "state.0.exp_avg"`}
		}
		i, err := strconv.Atoi(parts[1])
		if err != nil || i < 0 {
			return &StateError{"tensors", fmt.Sprintf("%q", t.Name), `a name such as "state.0.exp_avg"`}
		}
		s, ok := d.State[i]
		if !ok {
			s = ParamState{Tensors: map[string]Tensor{}}
			d.State[i] = s
		}
		if _, twice := s.Tensors[parts[2]]; twice {
			return &StateError{"tensors", fmt.Sprintf("%q", t.Name), "every name once"}
		}
		s.Tensors[parts[2]] = t.Tensor
	}
	return nil
}

// group checks that the keys of one algorithm are there.
func (g *groupJSON) group(at func(string) string) (GroupState, error) {
	missing := func(field, expected string) (GroupState, error) {
		return GroupState{}, &StateError{at(field), "none", expected}
	}
	out := GroupState{
		Hyper: Hyper{Maximize: g.Maximize}, Name: g.Name, LRFactor: g.LRFactor, InitialLR: g.InitialLR,
		InitialWeightDecay: g.InitialWeightDecay, Params: g.Params, ParamNames: g.ParamNames,
	}
	switch {
	case g.LR == nil:
		return missing("lr", "a number")
	case g.WeightDecay == nil:
		return missing("weight_decay", "a number")
	case g.Betas != nil && len(*g.Betas) != 2:
		return GroupState{}, &StateError{at("betas"), *g.Betas, "two numbers"}
	case g.Betas != nil && g.Eps == nil:
		return missing("eps", "a number")
	case g.Betas != nil:
		out.Betas, out.Eps, out.AMSGrad = [2]float64(*g.Betas), *g.Eps, g.AMSGrad
		if g.Decoupled != nil {
			out.Algorithm = map[bool]string{false: "adam", true: "adamw"}[*g.Decoupled]
		}
	case g.Momentum != nil:
		out.Algorithm, out.Momentum, out.Dampening, out.Nesterov = "sgd", *g.Momentum, g.Dampening, g.Nesterov
	default:
		return missing("betas", "Adam's betas or SGD's momentum")
	}
	out.LR, out.WeightDecay = *g.LR, *g.WeightDecay
	return out, nil
}

// asState turns a refused hyperparameter into an error of the saved state.
func asState(err error, at func(string) string) error {
	var bad *ArgumentError
	if errors.As(err, &bad) {
		return &StateError{at(bad.Field), bad.Value, strings.TrimPrefix(bad.Reason, "expected ")}
	}
	return err
}
