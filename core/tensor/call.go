package tensor

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
)

// Call runs an operation by name, for callers that cross a language border:
// the operands, then its parameters as a JSON object (see [Params]); an empty
// text stands for no parameters. Unknown names and parameters are errors.
func Call(name string, operands []*Tensor, params []byte) ([]*Tensor, error) {
	p, err := ParseParams(name, params)
	if err != nil {
		return nil, err
	}
	return Run(name, operands, p)
}

// ParseParams reads the parameters of an operation over their defaults.
func ParseParams(name string, params []byte) (*Params, error) {
	p := &Params{Axis: -1, Step: 1, Largest: true, Order: "2"}
	if len(params) > 0 {
		d := json.NewDecoder(bytes.NewReader(params))
		d.DisallowUnknownFields()
		if err := d.Decode(p); err != nil {
			return nil, valueErrorf("call: parameters of %s: %v", name, err)
		}
	}
	return p, nil
}

// Run is Call with parameters that were read before.
func Run(name string, operands []*Tensor, p *Params) ([]*Tensor, error) {
	op, ok := calls[name]
	if !ok {
		return nil, valueErrorf("call: there is no operation %q", name)
	}
	if op.operands >= 0 && len(operands) != op.operands {
		return nil, valueErrorf("call: %s takes %d operands, got %d", name, op.operands, len(operands))
	}
	return op.run(operands, p)
}

// Operations lists the names that Call knows, sorted.
func Operations() []string { return slices.Sorted(maps.Keys(calls)) }

// Params are the parameters of all operations; each reads its own. Numbers
// that may be infinite or NaN travel as text.
type Params struct {
	Axis     int     `json:"axis"`     // -1 when left out
	Axes     []int   `json:"axes"`     // null: all
	KeepDims bool    `json:"keepdims"` // reductions
	Shape    []int   `json:"shape"`    // constructors, reshape, expand
	Sizes    []int   `json:"sizes"`    // split
	DType    string  `json:"dtype"`    // constructors, cast
	Value    string  `json:"value"`    // full
	Order    string  `json:"order"`    // norm, 2 when left out
	Start    float64 `json:"start"`    // arange
	Stop     float64 `json:"stop"`     // arange
	Step     float64 `json:"step"`     // arange
	N        int     `json:"n"`        // eye, chunk
	K        int     `json:"k"`        // topk, triu, tril
	DDof     int     `json:"ddof"`     // var, std
	Largest  bool    `json:"largest"`  // topk, true when left out
	Index    []Item  `json:"index"`    // index, copy
}

// call is an operation as Call sees it; operands is -1 when any number will do.
type call struct {
	operands int
	run      func(x []*Tensor, p *Params) ([]*Tensor, error)
}

var calls = map[string]call{
	"neg":         unaryCall(Neg),
	"abs":         unaryCall(Abs),
	"sign":        unaryCall(Sign),
	"square":      unaryCall(Square),
	"relu":        unaryCall(Relu),
	"relu2":       unaryCall(Relu2),
	"exp":         unaryCall(Exp),
	"expm1":       unaryCall(Expm1),
	"log":         unaryCall(Log),
	"log2":        unaryCall(Log2),
	"log10":       unaryCall(Log10),
	"log1p":       unaryCall(Log1p),
	"sqrt":        unaryCall(Sqrt),
	"rsqrt":       unaryCall(Rsqrt),
	"reciprocal":  unaryCall(Reciprocal),
	"sin":         unaryCall(Sin),
	"cos":         unaryCall(Cos),
	"tanh":        unaryCall(Tanh),
	"erf":         unaryCall(Erf),
	"sigmoid":     unaryCall(Sigmoid),
	"silu":        unaryCall(Silu),
	"softplus":    unaryCall(Softplus),
	"gelu":        unaryCall(Gelu),
	"gelu_tanh":   unaryCall(GeluTanh),
	"floor":       unaryCall(Floor),
	"ceil":        unaryCall(Ceil),
	"trunc":       unaryCall(Trunc),
	"round":       unaryCall(Round),
	"logical_not": unaryCall(LogicalNot),
	"isnan":       unaryCall(IsNaN),
	"isinf":       unaryCall(IsInf),
	"isfinite":    unaryCall(IsFinite),

	"add":           binaryCall(Add),
	"sub":           binaryCall(Sub),
	"mul":           binaryCall(Mul),
	"div":           binaryCall(Div),
	"floor_div":     binaryCall(FloorDiv),
	"mod":           binaryCall(Mod),
	"pow":           binaryCall(Pow),
	"maximum":       binaryCall(Maximum),
	"minimum":       binaryCall(Minimum),
	"equal":         binaryCall(Equal),
	"not_equal":     binaryCall(NotEqual),
	"less":          binaryCall(Less),
	"less_equal":    binaryCall(LessEqual),
	"greater":       binaryCall(Greater),
	"greater_equal": binaryCall(GreaterEqual),
	"logical_and":   binaryCall(LogicalAnd),
	"logical_or":    binaryCall(LogicalOr),
	"logical_xor":   binaryCall(LogicalXor),
	"matmul":        binaryCall(MatMul),
	"dot":           binaryCall(Dot),
	"outer":         binaryCall(Outer),
	"embedding":     binaryCall(Embedding),

	"sum":    reduceCall(Sum),
	"prod":   reduceCall(Prod),
	"mean":   reduceCall(Mean),
	"max":    reduceCall(Max),
	"min":    reduceCall(Min),
	"argmax": reduceCall(ArgMax),
	"argmin": reduceCall(ArgMin),
	"any":    reduceCall(Any),
	"all":    reduceCall(All),

	"var": one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return Var(x[0], p.Axes, p.DDof, p.KeepDims) }),
	"std": one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return Std(x[0], p.Axes, p.DDof, p.KeepDims) }),
	"norm": one(1, func(x []*Tensor, p *Params) (*Tensor, error) {
		order, err := strconv.ParseFloat(p.Order, 64)
		if err != nil {
			return nil, valueErrorf("norm: order %q is not a number", p.Order)
		}
		return Norm(x[0], order, p.Axes, p.KeepDims)
	}),
	"softmax":     one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return Softmax(x[0], p.Axis) }),
	"log_softmax": one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return LogSoftmax(x[0], p.Axis) }),
	"cumsum":      one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return CumSum(x[0], p.Axis) }),

	"where":       one(3, func(x []*Tensor, _ *Params) (*Tensor, error) { return Where(x[0], x[1], x[2]) }),
	"gather":      one(2, func(x []*Tensor, p *Params) (*Tensor, error) { return Gather(x[0], x[1], p.Axis) }),
	"scatter_add": one(3, func(x []*Tensor, p *Params) (*Tensor, error) { return ScatterAdd(x[0], x[1], x[2], p.Axis) }),
	"triu":        one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return Triu(x[0], p.K) }),
	"tril":        one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return Tril(x[0], p.K) }),
	"topk": {1, func(x []*Tensor, p *Params) ([]*Tensor, error) {
		values, indices, err := TopK(x[0], p.K, p.Axis, p.Largest)
		return []*Tensor{values, indices}, err
	}},

	"concat": one(-1, func(x []*Tensor, p *Params) (*Tensor, error) { return Concat(p.Axis, x...) }),
	"stack":  one(-1, func(x []*Tensor, p *Params) (*Tensor, error) { return Stack(p.Axis, x...) }),
	"split":  {1, func(x []*Tensor, p *Params) ([]*Tensor, error) { return x[0].Split(p.Axis, p.Sizes...) }},
	"chunk":  {1, func(x []*Tensor, p *Params) ([]*Tensor, error) { return x[0].Chunk(p.Axis, p.N) }},

	"reshape": one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return x[0].Reshape(p.Shape...) }),
	"expand":  one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return x[0].Expand(p.Shape...) }),
	"permute": one(1, func(x []*Tensor, p *Params) (*Tensor, error) {
		if p.Axes == nil {
			return x[0].T(), nil
		}
		return x[0].Permute(p.Axes...)
	}),
	"squeeze":    one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return x[0].Squeeze(p.Axes...) }),
	"unsqueeze":  one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return x[0].Unsqueeze(p.Axis) }),
	"index":      one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return x[0].Index(p.Index...) }),
	"clone":      one(1, func(x []*Tensor, _ *Params) (*Tensor, error) { return x[0].Clone() }),
	"contiguous": one(1, func(x []*Tensor, _ *Params) (*Tensor, error) { return x[0].Contiguous() }),
	"cast": one(1, func(x []*Tensor, p *Params) (*Tensor, error) {
		dt, err := ParseDType(p.DType)
		if err != nil {
			return nil, err
		}
		return x[0].Cast(dt)
	}),
	// copy writes the second operand into the part of the first that index names.
	"copy": {2, func(x []*Tensor, p *Params) ([]*Tensor, error) {
		part, err := x[0].Index(p.Index...)
		if err != nil {
			return nil, err
		}
		return nil, Copy(part, x[1])
	}},

	"full":   create(fullText),
	"arange": create(func(dt DType, p *Params) (*Tensor, error) { return Arange(dt, p.Start, p.Stop, p.Step) }),
	"eye":    create(func(dt DType, p *Params) (*Tensor, error) { return Eye(dt, p.N) }),
}

func one(operands int, f func(x []*Tensor, p *Params) (*Tensor, error)) call {
	return call{operands, func(x []*Tensor, p *Params) ([]*Tensor, error) {
		out, err := f(x, p)
		return []*Tensor{out}, err
	}}
}

func unaryCall(f func(*Tensor) (*Tensor, error)) call {
	return one(1, func(x []*Tensor, _ *Params) (*Tensor, error) { return f(x[0]) })
}

func binaryCall(f func(a, b *Tensor) (*Tensor, error)) call {
	return one(2, func(x []*Tensor, _ *Params) (*Tensor, error) { return f(x[0], x[1]) })
}

func reduceCall(f func(x *Tensor, axes []int, keepDims bool) (*Tensor, error)) call {
	return one(1, func(x []*Tensor, p *Params) (*Tensor, error) { return f(x[0], p.Axes, p.KeepDims) })
}

func create(f func(dt DType, p *Params) (*Tensor, error)) call {
	return one(0, func(_ []*Tensor, p *Params) (*Tensor, error) {
		dt, err := ParseDType(p.DType)
		if err != nil {
			return nil, err
		}
		return f(dt, p)
	})
}

// fullText is Full with the value as text, so that int64 stays exact.
func fullText(dt DType, p *Params) (*Tensor, error) {
	if i, err := strconv.ParseInt(p.Value, 10, 64); err == nil {
		return Full(dt, i, p.Shape...)
	}
	f, err := strconv.ParseFloat(p.Value, 64)
	if err != nil && !math.IsInf(f, 0) {
		return nil, valueErrorf("full: value %q is not a number", p.Value)
	}
	return Full(dt, f, p.Shape...)
}

// UnmarshalJSON reads an item: 3 is an index, [start, stop, step] with nulls
// for bounds left out a span, null a new axis and "..." the ellipsis.
func (it *Item) UnmarshalJSON(text []byte) error {
	var index int
	var span [3]*int
	switch {
	case string(text) == "null":
		*it = NewAxis
	case string(text) == `"..."`:
		*it = Ellipsis
	case json.Unmarshal(text, &index) == nil:
		*it = At(index)
	case json.Unmarshal(text, &span) == nil:
		bound := func(p *int, missing int) int {
			if p == nil {
				return missing
			}
			return *p
		}
		*it = Span(bound(span[0], None), bound(span[1], None), bound(span[2], 1))
	default:
		return indexErrorf("index item %s, expected an integer, [start, stop, step], null or \"...\"", text)
	}
	return nil
}
