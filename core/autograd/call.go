package autograd

import (
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Mode says whether operations are recorded. It is a value that is handed down, as a context is, and no state of the
// process: goroutines have modes of their own.
type Mode bool

// The modes. NoGrad is for code that needs no gradients, such as an evaluation: results have no history.
const (
	NoGrad Mode = false
	Grad   Mode = true
)

// Call runs an operation of core/tensor by name (see [tensor.Call]) and, in mode Grad, records it when an operand requires a
// gradient. Results of operations that have no derivative, such as argmax and comparisons, have no history. "copy" changes
// its first operand in place, see [GradTensor.Assign].
func (m Mode) Call(name string, operands []*GradTensor, params []byte) ([]*GradTensor, error) {
	p, err := tensor.ParseParams(name, params)
	if err != nil {
		return nil, err
	}
	return m.Run(name, operands, p)
}

// Run is Call with parameters that were read before.
func (m Mode) Run(name string, operands []*GradTensor, p *tensor.Params) ([]*GradTensor, error) {
	if name == "copy" && len(operands) == 2 {
		return nil, m.assign(operands[0], operands[1], p)
	}
	x := make([]*tensor.Tensor, len(operands))
	for i, t := range operands {
		x[i] = t.data
	}
	y, err := tensor.Run(name, x, p)
	if err != nil {
		return nil, err
	}
	out := make([]*GradTensor, len(y))
	shared := -1 // the operand that the results are views of
	for i, t := range y {
		out[i] = New(t)
		if shared = slices.IndexFunc(x, func(x *tensor.Tensor) bool { return tensor.SharesMemory(x, t) }); shared >= 0 {
			out[i].storage, out[i].view = operands[shared].storage, true
		}
	}
	rule, differentiable := rules[name]
	if !differentiable || !m.Wanted(operands...) {
		return out, nil
	}
	f := &ruleFunction{name: name, rule: rule, params: p, x: make([]*tensor.Tensor, len(x)), inputs: make([]meta, len(x))}
	saved := f.save(operands, out)
	Record(f, operands, out, saved...)
	if shared >= 0 {
		operands[shared].storage.viewed.Store(true)
	}
	return out, nil
}

// Wanted says whether a result of these operands is to be recorded.
func (m Mode) Wanted(operands ...*GradTensor) bool {
	return m == Grad && slices.ContainsFunc(operands, func(t *GradTensor) bool { return t.edge().wanted() })
}

// ruleFunction is an operation of core/tensor in the graph.
type ruleFunction struct {
	name   string
	rule   *rule
	params *tensor.Params
	inputs []meta
	x, y   []*tensor.Tensor // what the rule needs of operands and results; nil otherwise
	shapes []meta           // of the results
}

// save keeps what the rule needs, and lists it for the check of changes.
func (f *ruleFunction) save(operands, results []*GradTensor) (saved []*GradTensor) {
	want := make([]bool, len(operands))
	for i, t := range operands {
		f.inputs[i] = metaOf(t.data)
		want[i] = t.edge().wanted()
	}
	for i, t := range operands {
		others := false
		for j, w := range want {
			others = others || w && j != i
		}
		needs := f.rule.needs
		if needs&needX != 0 || needs&needOthers != 0 && others || needs&needFirst != 0 && i == 0 || needs&needSecond != 0 && i == 1 {
			f.x[i] = t.data
			saved = append(saved, t)
		}
	}
	for _, t := range results {
		f.shapes = append(f.shapes, metaOf(t.data))
		if f.rule.needs&needY != 0 {
			f.y = append(f.y, t.data)
			saved = append(saved, t)
		}
	}
	return saved
}

func (f *ruleFunction) Name() string { return f.name }

func (f *ruleFunction) Release() { f.x, f.y = nil, nil }

func (f *ruleFunction) Backward(b *Backward) ([]*tensor.Tensor, error) {
	out := make([]*tensor.Tensor, len(f.inputs))
	for i, want := range b.Want {
		if !want {
			continue
		}
		c := &calc{ruleFunction: f, g: b.Grads}
		out[i] = f.rule.pull(c, i)
		if c.err != nil {
			return nil, c.err
		}
	}
	return out, nil
}

// Assign writes src, broadcast and converted, into the part of t that index names, in place. In mode Grad the change is
// recorded when one of the two requires a gradient. It is refused, with ErrInPlace, for a leaf that requires a gradient,
// for a view and for a tensor of which recorded views exist: their history could not follow.
func (m Mode) Assign(t, src *GradTensor, index ...tensor.Item) error {
	return m.assign(t, src, &tensor.Params{Index: index})
}

func (m Mode) assign(t, src *GradTensor, p *tensor.Params) error {
	part, err := t.data.Index(p.Index...)
	if err != nil {
		return err
	}
	record := m.Wanted(t, src)
	var before *GradTensor
	if record {
		t.mu.Lock()
		leaf := t.node == nil && t.leaf != nil && t.leaf.wanted.Load()
		t.mu.Unlock()
		switch {
		case leaf:
			return errorf(ErrInPlace, "a leaf that requires a gradient cannot be changed in place: use no_grad(), or change a result of it")
		case t.view || t.storage.viewed.Load():
			return errorf(ErrInPlace, "a view, or a tensor with recorded views, cannot be changed in place while gradients are recorded: clone it first")
		case !t.data.DType().IsFloat():
			return errorf(ErrInPlace, "a value that requires a gradient cannot be written into a %s tensor", t.data.DType())
		}
		before = &GradTensor{data: t.data, storage: t.storage}
		t.mu.Lock()
		before.node, before.output, before.leaf = t.node, t.output, t.leaf
		t.mu.Unlock()
	}
	if err := tensor.Copy(part, src.data); err != nil {
		return err
	}
	t.Changed()
	if !record {
		return nil
	}
	f := &ruleFunction{name: "copy", rule: rules["copy"], params: p, x: make([]*tensor.Tensor, 2), inputs: []meta{metaOf(t.data), metaOf(src.data)}, shapes: []meta{metaOf(t.data)}}
	old := before.node
	Record(f, []*GradTensor{before, src}, []*GradTensor{t})
	if old != nil {
		old.unref() // t's own hold; the new node has one
	}
	return nil
}
