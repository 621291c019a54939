package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Preset is a registered model: a name for a shape, and where published weights of that shape lie.
type Preset struct {
	Name       string   // by which Lookup finds it
	Aliases    []string // other names
	HubID      string   // Hugging Face repository; empty when there are no published weights
	Config     Config   // the shape
	Parameters int64    // Config.ParameterCount()
}

// ErrPreset is what the errors of Find and Register match with errors.Is.
var ErrPreset = errors.New("model registry")

// mostClose is how many names an unknown one brings to mind.
const mostClose = 4

// UnknownPresetError says that no preset has the name, and which names come close.
type UnknownPresetError struct {
	Name  string   // that was looked for
	Close []string // nearest registered names, at most four
}

// Error has the name and the names that come close.
func (e *UnknownPresetError) Error() string {
	if len(e.Close) == 0 {
		return fmt.Sprintf("model registry: no model named %q; `bitnet models` lists the names", e.Name)
	}
	return fmt.Sprintf("model registry: no model named %q; did you mean %s?", e.Name, strings.Join(e.Close, ", "))
}

// Is makes errors.Is(err, ErrPreset) true.
func (e *UnknownPresetError) Is(target error) bool { return target == ErrPreset }

// registry holds the presets in order of registration, and finds them by every normalized name they answer to.
type registry struct {
	mu     sync.RWMutex
	list   []Preset
	byName map[string]int
}

var presets = newRegistry()

func newRegistry() *registry {
	r := &registry{byName: map[string]int{}}
	for _, p := range builtin() {
		if err := r.add(p); err != nil {
			panic(err) // the built-in list contradicts itself
		}
	}
	return r
}

// normalizeName makes lookups indifferent to case, to _ or - and to surrounding space.
func normalizeName(name string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(name)), "_", "-")
}

func (r *registry) add(p Preset) error {
	p.Config = p.Config.WithDefaults().clone()
	if err := p.Config.Validate(); err != nil {
		return fmt.Errorf("model registry: %q: %w", p.Name, err)
	}
	p.Parameters = p.Config.ParameterCount()
	p.Aliases = slices.Clone(p.Aliases)
	names := append([]string{p.Name}, p.Aliases...)
	if p.HubID != "" {
		names = append(names, p.HubID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		key := normalizeName(n)
		if key == "" {
			return fmt.Errorf("%w: a model needs a name", ErrPreset)
		}
		if i, taken := r.byName[key]; taken {
			return fmt.Errorf("%w: the name %q is taken by %q", ErrPreset, n, r.list[i].Name)
		}
	}
	r.list = append(r.list, p)
	for _, n := range names {
		r.byName[normalizeName(n)] = len(r.list) - 1
	}
	return nil
}

// Register adds a model shape under a name. Fields left zero take Config.WithDefaults. A config that does not
// validate (ErrConfig) or a name that is taken (ErrPreset) is refused.
func Register(name string, c Config) error { return presets.add(Preset{Name: name, Config: c}) }

// RegisterPreset is Register for a model with aliases or published weights. Parameters is computed.
func RegisterPreset(p Preset) error { return presets.add(p) }

// Lookup finds a preset by its name, an alias or its hub id; upper and lower case, _ and - count as the same.
func Lookup(name string) (Preset, bool) {
	presets.mu.RLock()
	defer presets.mu.RUnlock()
	i, ok := presets.byName[normalizeName(name)]
	if !ok {
		return Preset{}, false
	}
	return presets.list[i].copy(), true
}

// Find is Lookup with an *UnknownPresetError that proposes close names.
func Find(name string) (Preset, error) {
	if p, ok := Lookup(name); ok {
		return p, nil
	}
	presets.mu.RLock()
	defer presets.mu.RUnlock()
	known := sortedKeys(presets.byName)
	return Preset{}, &UnknownPresetError{Name: name, Close: closest(normalizeName(name), known, mostClose)}
}

// Presets lists every registered model, the built-in ones first, in order of registration.
func Presets() []Preset {
	presets.mu.RLock()
	defer presets.mu.RUnlock()
	out := make([]Preset, len(presets.list))
	for i := range out {
		out[i] = presets.list[i].copy()
	}
	return out
}

// copy detaches what a caller gets from what the registry keeps.
func (p Preset) copy() Preset {
	p.Aliases = slices.Clone(p.Aliases)
	p.Config = p.Config.clone()
	return p
}

// clone is a deep copy.
func (c Config) clone() Config {
	c.BOSTokenID, c.PadTokenID = cloneInt(c.BOSTokenID), cloneInt(c.PadTokenID)
	c.EOSTokenIDs = slices.Clone(c.EOSTokenIDs)
	c.Quantization.ModulesToNotConvert = slices.Clone(c.Quantization.ModulesToNotConvert)
	if c.RopeScaling != nil {
		s := *c.RopeScaling
		c.RopeScaling = &s
	}
	return c
}

func cloneInt(p *int) *int {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
