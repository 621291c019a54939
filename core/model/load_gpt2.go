package model

import (
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// gpt2Modules are GPT-2's names for the modules of a layer, and for those outside of layers. Its c_attn is q, k and v below each other.
var gpt2Modules = map[string]string{
	"model.embed_tokens": "wte", "model.embed_positions": "wpe", "model.norm": "ln_f",
	"input_layernorm": "ln_1", "post_attention_layernorm": "ln_2",
	"self_attn.q_proj": "attn.c_attn", "self_attn.k_proj": "attn.c_attn", "self_attn.v_proj": "attn.c_attn", "self_attn.o_proj": "attn.c_proj",
	"mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj",
}

// gpt2Fused are the layers that are one in GPT-2, in their order.
var gpt2Fused = []string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}

// gpt2Name is GPT-2's name for a module, without "transformer.", and which part of it the module is; part is -1 where it is all of it.
func gpt2Name(module string) (name string, part int) {
	rest, inside := strings.CutPrefix(module, "model.layers.")
	if !inside {
		return gpt2Modules[module], -1
	}
	layer, module, _ := strings.Cut(rest, ".")
	return "h." + layer + "." + gpt2Modules[module], slices.Index(gpt2Fused, module)
}

// gpt2Source is a checkpoint with GPT-2's names as a source: that of transformers, whose matrices are [in, out] (Conv1D), or one with
// those of nn.Linear, [out, in], which may do without biases: these are zero then.
type gpt2Source struct {
	*hfSource
	prefix string // "transformer.", or "" in files of the bare decoder
	turned bool   // matrices are [in, out]
	biased bool
}

func newGPT2Source(s *hfSource) *gpt2Source {
	g := &gpt2Source{hfSource: s, prefix: "transformer.", turned: true, biased: true}
	if s.set.Has("wte.weight") {
		g.prefix = ""
	}
	d := s.cfg.HiddenSize
	if v, err := s.set.Tensor(g.prefix + "h.0.attn.c_attn.weight"); err == nil && slices.Equal(v.Shape, []int{3 * d, d}) {
		g.turned = false
		g.biased = s.set.Has(g.prefix + "ln_f.bias")
	}
	return g
}

// name is what the checkpoint calls a module, and which part of it that is.
func (s *gpt2Source) name(module string) (name string, part int) {
	if module == "lm_head" {
		return module, -1
	}
	name, part = gpt2Name(module)
	return s.prefix + name, part
}

// ignored are the masks that older files have among their weights.
func (s *gpt2Source) ignored(tensor string) bool {
	return strings.HasSuffix(tensor, ".attn.bias") || strings.HasSuffix(tensor, ".attn.masked_bias")
}

// matrix returns the weights of a linear [out, in].
func (s *gpt2Source) matrix(module string, out, in int) (fileMatrix, error) {
	name, part := s.name(module)
	m := fileMatrix{turned: s.turned, width: out}
	if part >= 0 {
		m.width, m.first = len(gpt2Fused)*out, part*out
	}
	shape := []int{m.width, in}
	if m.turned {
		shape = []int{in, m.width}
	}
	var err error
	if m.View, err = s.view(name+".weight", shape...); err != nil {
		return m, err
	}
	return m, m.Check(shape, floats...)
}

func (s *gpt2Source) linear(module string, out, in int) (*nn.Linear, error) {
	w, err := s.matrix(module, out, in)
	if err != nil {
		return nil, err
	}
	l := &nn.Linear{Out: out, In: in}
	if s.converts(module) {
		s.ternarize(l, module, w)
	} else {
		if l.Dense, err = s.float(w, out, in, natural(w.DType)); err != nil {
			return nil, err
		}
	}
	name, part := s.name(module)
	if !s.biased {
		l.Bias = make([]float32, out)
		return l, nil
	}
	if l.Bias, err = s.vector(name+".bias", w.width); err != nil {
		return nil, err
	}
	if part >= 0 {
		l.Bias = l.Bias[w.first : w.first+out : w.first+out]
	}
	return l, nil
}

func (s *gpt2Source) masterRows(module string, out, in int) (masterRows, error) {
	w, err := s.matrix(module, out, in)
	if err != nil {
		return nil, err
	}
	return rowsOnce(w.View, w.upright(out, in), out, in), nil
}

func (s *gpt2Source) norm(module, part string, dim int) ([]float32, error) {
	if part == "bias" && !s.biased {
		return make([]float32, dim), nil
	}
	name, _ := s.name(module)
	return s.vector(name+"."+part, dim)
}

func (s *gpt2Source) table(module string, rows, cols int) (*nn.Linear, error) {
	name, _ := s.name(module)
	return s.tableAt(name+".weight", module, rows, cols)
}
