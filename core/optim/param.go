package optim

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
)

// Param is a tensor to train. The optimizer keeps the pointer and reads its slices at every call, so the owner may point
// Data and Grad at other memory of the same length between calls. An empty Grad means that the parameter has no gradient in
// this step: it is left alone.
type Param = autograd.Param

// Group is a set of parameters that share hyperparameters.
type Group struct {
	Name     string   // optional, kept in the state: "decay"
	Params   []*Param // that it has
	LRFactor float64  // multiplies every learning rate that is set on the optimizer as a whole; 0 means 1
	Hyper    *Hyper   // nil: those of the optimizer. Its LR is taken as it is, before LRFactor.
}

// DecayGroups sorts parameters into a group "decay" with h as it is and a group "no_decay" without weight decay: all
// with fewer than two dimensions (norms, biases), and those whose name contains one of the exclude strings, such as
// "embed_tokens". The order within a group is that of params; an empty group is left out.
func DecayGroups(params []*Param, h Hyper, exclude ...string) []Group {
	without := h
	without.WeightDecay = 0
	decay, noDecay := Group{Name: "decay", Hyper: &h}, Group{Name: "no_decay", Hyper: &without}
	for _, p := range params {
		named := func(part string) bool { return strings.Contains(p.Name, part) }
		if len(p.Shape) < 2 || slices.ContainsFunc(exclude, named) {
			noDecay.Params = append(noDecay.Params, p)
		} else {
			decay.Params = append(decay.Params, p)
		}
	}
	return slices.DeleteFunc([]Group{decay, noDecay}, func(g Group) bool { return len(g.Params) == 0 })
}

// label is how errors call a parameter.
func label(p *Param, i int) string {
	if p.Name == "" {
		return fmt.Sprintf("params[%d]", i)
	}
	return p.Name
}

// checkParams refuses parameters that cannot be trained or that are given twice.
func checkParams(params []*Param) error {
	if len(params) == 0 {
		return &ArgumentError{"params", 0, "expected at least one parameter"}
	}
	names := make(map[string]int, len(params))
	memory := make(map[*float32]int, len(params))
	for i, p := range params {
		if p == nil {
			return &ArgumentError{fmt.Sprintf("params[%d]", i), nil, "expected a parameter"}
		}
		if err := checkShape(p, i); err != nil {
			return err
		}
		if first, twice := names[p.Name]; twice && p.Name != "" {
			return &ArgumentError{p.Name, i, fmt.Sprintf("the name is already that of params[%d]", first)}
		}
		names[p.Name] = i
		if len(p.Data) == 0 {
			continue
		}
		data := unsafe.SliceData(p.Data)
		if first, twice := memory[data]; twice {
			return &ArgumentError{label(p, i), i, fmt.Sprintf("its memory is already trained as %s", label(params[first], first))}
		}
		memory[data] = i
	}
	return nil
}

func checkShape(p *Param, i int) error {
	n := 1
	for _, d := range p.Shape {
		if d < 0 || (d > 0 && n > maxElements/d) {
			return &ArgumentError{label(p, i) + ".shape", p.Shape, "expected sizes >= 0 with a product that fits"}
		}
		n *= d
	}
	if n != len(p.Data) {
		return &ArgumentError{label(p, i) + ".data", len(p.Data), fmt.Sprintf("expected %d values for shape %v", n, p.Shape)}
	}
	return nil
}

// checkLengths holds the promise that slices keep their length; n is that at construction.
func checkLengths(p *Param, i, n int) error {
	if len(p.Data) != n {
		return &ArgumentError{label(p, i) + ".data", len(p.Data), fmt.Sprintf("expected %d values as at the start", n)}
	}
	if len(p.Grad) != 0 && len(p.Grad) != n {
		return &ArgumentError{label(p, i) + ".grad", len(p.Grad), fmt.Sprintf("expected %d values or none", n)}
	}
	return nil
}
