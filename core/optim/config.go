package optim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// Hyper holds the hyperparameters of a group under PyTorch's names. Fields of the other algorithm stay zero.
type Hyper struct {
	LR          float64 `json:"lr"`           // learning rate
	WeightDecay float64 `json:"weight_decay"` // SGD and Adam add it to the gradient (L2), AdamW shrinks the weight by lr*weight_decay
	Maximize    bool    `json:"maximize"`     // go up the gradient

	Momentum  float64 `json:"momentum,omitempty"`  // SGD: in [0, 1]
	Dampening float64 `json:"dampening,omitempty"` // SGD: the gradient enters the momentum times 1-dampening
	Nesterov  bool    `json:"nesterov,omitempty"`  // SGD: look ahead; needs momentum and no dampening

	Betas   [2]float64 `json:"betas,omitzero"`    // Adam, AdamW: decay of the first and second moment, each in [0, 1)
	Eps     float64    `json:"eps,omitempty"`     // Adam, AdamW: added to the denominator
	AMSGrad bool       `json:"amsgrad,omitempty"` // Adam, AdamW: divide by the largest second moment so far (Reddi et al. 2018)
}

// Config describes an optimizer: its name ("sgd", "adam" or "adamw") and the hyperparameters of groups that have none of
// their own. It reads from JSON over the defaults of its name, {"name": "adamw", "lr": 1e-3}.
type Config struct {
	Name string `json:"name"` // of the algorithm
	Hyper
}

// DefaultConfig returns PyTorch's defaults for an algorithm; an unknown name gives a Config that [New] refuses.
func DefaultConfig(name string) Config {
	if a, ok := algorithms[name]; ok {
		return Config{name, a.defaults}
	}
	return Config{Name: name}
}

// Names lists the optimizers that [New] knows.
func Names() []string { return sortedKeys(algorithms) }

// UnmarshalJSON reads a configuration over the defaults of its name and refuses fields that it does not know.
func (c *Config) UnmarshalJSON(data []byte) error {
	var named struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(data, &named); err != nil {
		return fmt.Errorf("optimizer: %w: %v", ErrArgument, err)
	}
	type plain Config
	out := plain(DefaultConfig(named.Name))
	if err := strictJSON(data, &out); err != nil {
		return fmt.Errorf("optimizer %q: %w: %v", named.Name, ErrArgument, err)
	}
	*c = Config(out)
	return nil
}

// Validate checks the name and every hyperparameter.
func (c Config) Validate() error {
	a, ok := algorithms[c.Name]
	if !ok {
		return &ArgumentError{"name", fmt.Sprintf("%q", c.Name), fmt.Sprintf("expected one of %q", Names())}
	}
	return a.check(&c.Hyper)
}

// algorithm is what distinguishes one optimizer from another.
type algorithm struct {
	name     string
	defaults Hyper
	fresh    func() updater // state of a new parameter
	adam     bool           // has betas; otherwise momentum
}

var algorithms = map[string]*algorithm{
	"sgd":   {"sgd", Hyper{LR: 1e-3}, func() updater { return &sgd{} }, false},
	"adam":  {"adam", Hyper{LR: 1e-3, Betas: [2]float64{0.9, 0.999}, Eps: 1e-8}, func() updater { return &adam{} }, true},
	"adamw": {"adamw", Hyper{LR: 1e-3, Betas: [2]float64{0.9, 0.999}, Eps: 1e-8, WeightDecay: 1e-2}, func() updater { return &adam{decoupled: true} }, true},
}

// check validates hyperparameters for the algorithm. It allocates nothing when all is well: every step runs it.
func (a *algorithm) check(h *Hyper) error {
	switch {
	case !finiteFrom(h.LR, 0):
		return &ArgumentError{"lr", h.LR, "expected a finite number >= 0"}
	case !finiteFrom(h.WeightDecay, 0):
		return &ArgumentError{"weight_decay", h.WeightDecay, "expected a finite number >= 0"}
	case a.adam:
		return a.checkAdam(h)
	}
	return a.checkSGD(h)
}

func (a *algorithm) checkAdam(h *Hyper) error {
	for i, b := range h.Betas {
		if !(b >= 0 && b < 1) {
			return &ArgumentError{fmt.Sprintf("betas[%d]", i), b, "expected a number in [0, 1)"}
		}
	}
	switch {
	case !finiteFrom(h.Eps, 0):
		return &ArgumentError{"eps", h.Eps, "expected a finite number >= 0"}
	case h.Momentum != 0:
		return &ArgumentError{"momentum", h.Momentum, "expected 0: not used by " + a.name}
	case h.Dampening != 0:
		return &ArgumentError{"dampening", h.Dampening, "expected 0: not used by " + a.name}
	case h.Nesterov:
		return &ArgumentError{"nesterov", true, "expected false: not used by " + a.name}
	}
	return nil
}

func (a *algorithm) checkSGD(h *Hyper) error {
	switch {
	case !(h.Momentum >= 0 && h.Momentum <= 1):
		return &ArgumentError{"momentum", h.Momentum, "expected a number in [0, 1]"}
	case !(h.Dampening >= 0 && h.Dampening <= 1):
		return &ArgumentError{"dampening", h.Dampening, "expected a number in [0, 1]"}
	case h.Nesterov && (h.Momentum == 0 || h.Dampening != 0):
		return &ArgumentError{"nesterov", true, fmt.Sprintf("expected momentum > 0 and dampening 0 with it, found %v and %v", h.Momentum, h.Dampening)}
	case h.Betas != [2]float64{}:
		return &ArgumentError{"betas", h.Betas, "expected none: not used by sgd"}
	case h.Eps != 0:
		return &ArgumentError{"eps", h.Eps, "expected 0: not used by sgd"}
	case h.AMSGrad:
		return &ArgumentError{"amsgrad", true, "expected false: not used by sgd"}
	}
	return nil
}

// finiteFrom says whether x is a finite number of at least low.
func finiteFrom(x, low float64) bool { return x >= low && !math.IsInf(x, 0) }

// strictJSON decodes exactly one value and refuses unknown fields.
func strictJSON(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
