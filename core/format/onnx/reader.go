package onnx

import (
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// Bounds far above any model's, so that a small file cannot ask for much memory.
const (
	maxNodes   = 1 << 16
	maxTensors = 1 << 16
	maxValues  = 1 << 13
	maxLinks   = 1 << 20 // inputs and outputs of all nodes
	maxName    = 1 << 12
	maxText    = 1 << 24 // a value of the metadata
	maxEntries = 1 << 10 // of the metadata
	maxDims    = 16
	maxInts    = 64      // of an attribute
	maxAttrs   = 1 << 16 // of all nodes, those that are integers
)

// The field numbers of onnx.proto that are read.
const (
	modelIR, modelProducer, modelProducerVersion, modelGraph, modelOpset, modelMetadata = 1, 2, 3, 7, 8, 14
	graphNode, graphInitializer, graphInput, graphOutput, graphSparse                   = 1, 5, 11, 12, 15
	nodeInput, nodeOutput, nodeName, nodeOp, nodeAttribute, nodeDomain, nodeMetadata    = 1, 2, 3, 4, 5, 7, 9
	attributeName, attributeInt, attributeTensor, attributeGraph                        = 1, 3, 5, 6
	attributeInts, attributeGraphs                                                      = 8, 11
	valueName, valueType, typeTensor, tensorTypeShape, shapeDim, dimValue               = 1, 2, 1, 2, 1, 1
	opsetDomain, opsetVersion, entryKey, entryValue                                     = 1, 2, 1, 2
)

// scopesKey is the entry of a node's metadata with the modules it is in.
const scopesKey = "pkg.torch.onnx.name_scopes"

// parser reads a model from its mapped file.
type parser struct {
	model  *Model
	path   string
	beside string // the model's path, "" where data files cannot be
	links  int
	attrs  int
}

func (p *parser) parse(content []byte) error {
	m, graphs, version := p.model, 0, int64(0)
	producer := [2]string{}
	err := p.fields(content, 0, func(f field) (err error) {
		switch f.Number {
		case modelIR:
			version, err = p.integer(f)
		case modelProducer, modelProducerVersion:
			producer[f.Number-modelProducer], err = p.text(f, maxName)
		case modelOpset:
			err = p.opset(f)
		case modelMetadata:
			err = p.metadata(f)
		case modelGraph:
			if graphs++; graphs > 1 {
				return p.broken(f.At, "one graph")
			}
			err = p.message(f, p.graph)
		}
		return err
	})
	if err != nil {
		return err
	}
	if graphs == 0 || version <= 0 {
		return &container.Error{Kind: ErrMessage, Path: p.path, Field: "graph", Found: "nothing", Expected: "a version and a graph"}
	}
	m.Producer = producer[0]
	if producer[1] != "" {
		m.Producer += " " + producer[1]
	}
	inputs := m.Inputs
	m.Inputs = nil
	for _, v := range inputs { // old files list initializers among the inputs
		if !m.Has(v.Name) {
			m.Inputs = append(m.Inputs, v)
		}
	}
	return nil
}

func (p *parser) opset(f field) error {
	domain, version := "", int64(0)
	err := p.message(f, func(f field) (err error) {
		switch f.Number {
		case opsetDomain:
			domain, err = p.text(f, maxName)
		case opsetVersion:
			version, err = p.integer(f)
		}
		return err
	})
	if domain == "" || domain == "ai.onnx" {
		p.model.Opset = int(version)
	}
	return err
}

func (p *parser) metadata(f field) error {
	key, value, err := p.entry(f, maxText)
	if err != nil {
		return err
	}
	if len(p.model.Metadata) == maxEntries {
		return p.tooMany("metadata_props", maxEntries)
	}
	if _, twice := p.model.Metadata[key]; twice {
		return &container.Error{Kind: ErrDuplicate, Path: p.path, Field: "metadata_props", Found: container.Quote(key), Expected: "it once"}
	}
	p.model.Metadata[key] = value
	return nil
}

// entry reads a pair of texts.
func (p *parser) entry(f field, most int) (key, value string, err error) {
	err = p.message(f, func(f field) (err error) {
		switch f.Number {
		case entryKey:
			key, err = p.text(f, maxName)
		case entryValue:
			value, err = p.text(f, most)
		}
		return err
	})
	return key, value, err
}

// graph reads a field of the graph.
func (p *parser) graph(f field) error {
	m := p.model
	switch f.Number {
	case graphNode:
		return p.node(f)
	case graphInitializer:
		return p.tensor(f, "")
	case graphSparse:
		return &container.Error{Kind: ErrDType, Path: p.path, Field: "sparse_initializer", Found: "one", Expected: "dense tensors"}
	case graphInput, graphOutput:
		list := &m.Inputs
		if f.Number == graphOutput {
			list = &m.Outputs
		}
		if len(*list) == maxValues {
			return p.tooMany("graph inputs or outputs", maxValues)
		}
		v, err := p.value(f)
		*list = append(*list, v)
		return err
	}
	return nil
}

func (p *parser) node(f field) error {
	var n Node
	var constant *field
	err := p.message(f, func(f field) (err error) {
		switch f.Number {
		case nodeInput, nodeOutput:
			if p.links++; p.links > maxLinks {
				return p.tooMany("inputs and outputs of nodes", maxLinks)
			}
			name, err := p.text(f, maxName)
			if f.Number == nodeInput {
				n.Inputs = append(n.Inputs, name)
			} else {
				n.Outputs = append(n.Outputs, name)
			}
			return err
		case nodeName:
			n.Name, err = p.text(f, maxName)
		case nodeOp:
			n.Op, err = p.text(f, maxName)
		case nodeDomain:
			n.Domain, err = p.text(f, maxName)
		case nodeAttribute:
			tensor, err := p.attribute(f, &n)
			if tensor != nil {
				constant = tensor
			}
			return err
		case nodeMetadata:
			key, value, err := p.entry(f, maxText)
			if key == scopesKey {
				n.Scopes = value
			}
			return err
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(p.model.Nodes) == maxNodes {
		return p.tooMany("nodes", maxNodes)
	}
	if n.Op == "Constant" && constant != nil && len(n.Outputs) == 1 && n.Outputs[0] != "" {
		return p.tensor(*constant, n.Outputs[0])
	}
	p.model.Nodes = append(p.model.Nodes, n)
	return nil
}

// attribute notes integers and graphs of a node, and returns the tensor of
// what may be a Constant.
func (p *parser) attribute(f field, n *Node) (tensor *field, err error) {
	name, ints := "", []int64(nil)
	err = p.message(f, func(f field) (err error) {
		switch f.Number {
		case attributeName:
			name, err = p.text(f, maxName)
		case attributeInt, attributeInts:
			if n.Op == "Constant" { // shapes and such, of any length
				return nil
			}
			ints, err = p.integers(f, ints, maxInts)
		case attributeTensor:
			tensor = &f
		case attributeGraph, attributeGraphs:
			n.Subgraph = true
		}
		return err
	})
	if err != nil || len(ints) == 0 {
		return tensor, err
	}
	if p.attrs++; p.attrs > maxAttrs {
		return nil, p.tooMany("attributes of nodes", maxAttrs)
	}
	n.Ints = append(n.Ints, Ints{name, ints})
	return tensor, nil
}

// value reads an input or output of the graph.
func (p *parser) value(f field) (v Value, err error) {
	dim := func(f field) error {
		if f.Number != shapeDim {
			return nil
		}
		if len(v.Shape) == maxDims {
			return p.tooMany("dimensions", maxDims)
		}
		size := int64(0)
		err := p.message(f, func(f field) (err error) {
			if f.Number == dimValue {
				size, err = p.integer(f)
			}
			return err
		})
		if err == nil && (size < 0 || size > maxBytes) {
			return &container.Error{Kind: ErrShape, Path: p.path, Field: "shape of " + container.Quote(v.Name), Found: fmt.Sprint(size), Expected: "a size"}
		}
		v.Shape = append(v.Shape, int(size))
		return err
	}
	within := func(number int, each func(field) error) func(field) error {
		return func(f field) error {
			if f.Number != number {
				return nil
			}
			return p.message(f, each)
		}
	}
	err = p.message(f, func(f field) (err error) {
		switch f.Number {
		case valueName:
			v.Name, err = p.text(f, maxName)
		case valueType:
			err = p.message(f, within(typeTensor, within(tensorTypeShape, dim)))
		}
		return err
	})
	return v, err
}
