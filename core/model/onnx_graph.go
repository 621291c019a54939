package model

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/onnx"
)

// onnxGraph knows which initializers of an ONNX model hold which weights of a Llama or BitNet.
//
// Exporters keep the names of weights that a graph uses as they are, such as norms and tables. The matrices of linears they turn
// around for MatMul and call them anew, onnx::MatMul_656 or val_77. The node that multiplies by one still says which module it
// belongs to: by its name, /model/layers.0/self_attn/q_proj/MatMul, or in its metadata.
type onnxGraph struct {
	model    *onnx.Model
	shapes   map[string][]int
	matrices map[string]onnxMatrix // by module
	vectors  map[string]string     // weights of norms, by module
	biases   map[string]string
	turned   map[string]bool // of initializers that are multiplied by: whether they are [in, out]
	claimed  map[string]bool // initializers that some node uses as weights: what they are called does not matter then
}

// onnxMatrix is the matrix of a module.
type onnxMatrix struct {
	tensor string
	turned bool   // it is [in, out]
	scale  string // the tensor by which its integers are multiplied; "" when they are not, or by one with the module's name
}

// ErrGraph is a graph that is not that of a Llama or BitNet as exporters write it.
var ErrGraph = container.NewKind("unsupported graph")

func newONNXGraph(m *onnx.Model) (*onnxGraph, error) {
	g := &onnxGraph{model: m, shapes: map[string][]int{}, matrices: map[string]onnxMatrix{}, vectors: map[string]string{},
		biases: map[string]string{}, turned: map[string]bool{}, claimed: map[string]bool{}}
	for _, t := range m.Tensors() {
		g.shapes[t.Name] = t.Shape
	}
	makers := map[string]*onnx.Node{}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if n.Subgraph {
			return nil, &container.Error{Kind: ErrGraph, Path: m.Path(), Field: "node " + container.Quote(n.Name),
				Found: n.Op + " with a graph of its own", Expected: "a decoder without branches (not a merged one)"}
		}
		if passesOn(n) {
			makers[n.Outputs[0]] = n
		}
	}
	for i := range m.Nodes {
		if err := g.note(&m.Nodes[i], makers); err != nil {
			return nil, err
		}
	}
	for name := range g.shapes {
		if err := g.name(name); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// passesOn says whether a node gives the numbers of its first input on, perhaps in another type, order or unit.
func passesOn(n *onnx.Node) bool {
	return len(n.Inputs) > 0 && len(n.Outputs) == 1 && slices.Contains([]string{"Cast", "Transpose", "Identity", "DequantizeLinear"}, n.Op)
}

// longestChain bounds the nodes between a weight and its use; a graph may be a circle.
const longestChain = 8

// origin follows a value back to an initializer.
func (g *onnxGraph) origin(value string, makers map[string]*onnx.Node) (m onnxMatrix, ok bool) {
	for range longestChain {
		if _, stored := g.shapes[value]; stored {
			m.tensor = value
			return m, true
		}
		n := makers[value]
		if n == nil {
			return m, false
		}
		switch {
		case n.Op == "Transpose":
			m.turned = !m.turned
		case n.Op == "DequantizeLinear" && len(n.Inputs) > 1:
			m.scale = n.Inputs[1]
		}
		value = n.Inputs[0]
	}
	return m, false
}

// note looks at a node that may use a weight.
func (g *onnxGraph) note(n *onnx.Node, makers map[string]*onnx.Node) error {
	module := onnxModule(n)
	switch n.Op {
	case "MatMul", "MatMulInteger", "Gemm":
		if len(n.Inputs) < 2 {
			return nil
		}
		m, ok := g.origin(n.Inputs[1], makers)
		if !ok || len(g.shapes[m.tensor]) != 2 {
			return nil
		}
		m.turned = !m.turned // MatMul itself wants [in, out]
		if n.Op == "Gemm" && n.Int("transB") == 1 {
			m.turned = !m.turned
		}
		g.turned[m.tensor] = m.turned
		if module == "" {
			return nil
		}
		g.claimed[m.tensor] = true
		if n.Op == "Gemm" && len(n.Inputs) > 2 {
			g.vector(g.biases, module, n.Inputs[2], makers)
		}
		if old, twice := g.matrices[module]; twice && old != m {
			return g.twice(module, old.tensor, m.tensor)
		}
		g.matrices[module] = m
	case "Gather":
		if len(n.Inputs) == 0 || module == "" {
			return nil
		}
		if m, ok := g.origin(n.Inputs[0], makers); ok && len(g.shapes[m.tensor]) == 2 {
			g.claimed[m.tensor] = true
			g.matrices[module] = m
		}
	case "Mul", "Add":
		into := g.vectors
		if n.Op == "Add" {
			into = g.biases
		}
		for _, input := range n.Inputs {
			g.vector(into, module, input, makers)
		}
	}
	return nil
}

// vector notes an input that is a vector of weights.
func (g *onnxGraph) vector(into map[string]string, module, input string, makers map[string]*onnx.Node) {
	if v, ok := g.origin(input, makers); ok && module != "" && len(g.shapes[v.tensor]) == 1 && g.shapes[v.tensor][0] > 1 {
		g.claimed[v.tensor] = true
		into[module] = v.tensor
	}
}

// name takes an initializer for what its name says, unless a node did.
func (g *onnxGraph) name(tensor string) error {
	if g.claimed[tensor] {
		return nil
	}
	name := onnxName(tensor)
	if module, ok := strings.CutSuffix(name, ".bias"); ok {
		return g.settle(g.biases, module, tensor)
	}
	module, ok := strings.CutSuffix(name, ".weight")
	if !ok {
		return nil
	}
	if len(g.shapes[tensor]) < 2 {
		return g.settle(g.vectors, module, tensor)
	}
	if old, twice := g.matrices[module]; twice {
		return g.twice(module, old.tensor, tensor)
	}
	g.matrices[module] = onnxMatrix{tensor: tensor, turned: g.turned[tensor]}
	return nil
}

func (g *onnxGraph) settle(names map[string]string, module, tensor string) error {
	if old, twice := names[module]; twice {
		return g.twice(module, old, tensor)
	}
	names[module] = tensor
	return nil
}

func (g *onnxGraph) twice(module, a, b string) error {
	return &container.Error{Kind: ErrGraph, Path: g.model.Path(), Field: "weights of " + container.Quote(module),
		Found: container.Quote(a) + " and " + container.Quote(b), Expected: "one"}
}

// onnxModule is the module that a node belongs to, "" when it does not say.
func onnxModule(n *onnx.Node) string {
	path, _, ok := cutLast(strings.TrimPrefix(n.Name, "/"), "/")
	if scopes := strings.Split(n.Scopes, "'"); len(scopes) > 4 { // ['', 'model', 'model.norm', 'mul_184']
		return onnxName(scopes[len(scopes)-4])
	}
	if !ok {
		return ""
	}
	return onnxName(strings.ReplaceAll(path, "/", "."))
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// onnxNames finds what the name of a module or weight is in a checkpoint, behind whatever wraps the model.
var onnxNames = regexp.MustCompile(`(?:^|\.)(layers\.\d{1,4}\..+|embed_tokens(?:\.weight)?|rotary_emb(?:\..+)?|norm(?:\.weight)?)$|(?:^|\.)(lm_head(?:\..+)?)$`)

// onnxName is the name in a checkpoint, or name itself where that is none of a Llama's.
func onnxName(name string) string {
	switch found := onnxNames.FindStringSubmatch(name); {
	case found == nil:
		return name
	case found[1] != "":
		return "model." + found[1]
	default:
		return found[2]
	}
}

// leftOver names a weight that the model has no place for, "" when there is none. What is called a weight or multiplied by is one.
func (g *onnxGraph) leftOver(used map[string]bool) string {
	var names []string
	for tensor := range g.shapes {
		name := onnxName(tensor)
		_, multiplied := g.turned[tensor]
		weight := strings.HasPrefix(name, "model.") || strings.HasPrefix(name, "lm_head")
		weight = weight && (strings.HasSuffix(name, ".weight") || strings.HasSuffix(name, ".bias"))
		if !used[tensor] && (multiplied || weight) {
			names = append(names, tensor)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}

// describe says of a tensor in an error what it is.
func (g *onnxGraph) describe(tensor string) string { return fmt.Sprint(g.shapes[tensor]) }
