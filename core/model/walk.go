package model

import (
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// eachWeight visits the model's weights under their checkpoint names, in the order of a forward pass: linear for every matrix
// (the embedding as a linear without bias, the head only when it is a table of its own), norm for every norm of the model
// itself. A linear's own bias and norm are the visitor's to look at. The first error ends the visit.
func (m *Model) eachWeight(linear func(name string, l *nn.Linear) error, norm func(name string, n *nn.Norm) error) error {
	v := visit{linear: linear, norm: norm}
	table := m.Embed.Table
	v.matrix("model.embed_tokens", &nn.Linear{Out: table.Rows, In: table.Cols, Dense: table, Weight: m.Embed.Param})
	if m.Positions != nil {
		v.matrix("model.embed_positions", &nn.Linear{Out: m.Positions.Table.Rows, In: m.Positions.Table.Cols, Dense: m.Positions.Table, Weight: m.Positions.Param})
	}
	for i := range m.Blocks {
		b, p := &m.Blocks[i], layerName(i)
		v.vector(p+"input_layernorm", b.InputNorm)
		v.matrix(p+"self_attn.q_proj", b.Attn.Q)
		v.matrix(p+"self_attn.k_proj", b.Attn.K)
		v.matrix(p+"self_attn.v_proj", b.Attn.V)
		v.vector(p+"self_attn.attn_sub_norm", b.Attn.SubNorm)
		v.matrix(p+"self_attn.o_proj", b.Attn.O)
		v.vector(p+"post_attention_layernorm", b.PostNorm)
		if b.FFN.Gate != nil {
			v.matrix(p+"mlp.gate_proj", b.FFN.Gate)
		}
		v.matrix(p+"mlp.up_proj", b.FFN.Up)
		v.vector(p+"mlp.ffn_sub_norm", b.FFN.SubNorm)
		v.matrix(p+"mlp.down_proj", b.FFN.Down)
	}
	v.vector("model.norm", m.Head.Norm)
	if !m.tied() {
		v.matrix("lm_head", m.Head.Proj)
	}
	return v.err
}

// eachLinear is eachWeight of the matrices alone.
func (m *Model) eachLinear(visit func(name string, l *nn.Linear) error) error {
	return m.eachWeight(visit, func(string, *nn.Norm) error { return nil })
}

// tied reports whether embedding and head share one table.
func (m *Model) tied() bool { return m.Head.Proj.Dense == m.Embed.Table }

// visit remembers the first error of its visitors.
type visit struct {
	linear func(string, *nn.Linear) error
	norm   func(string, *nn.Norm) error
	err    error
}

func (v *visit) matrix(name string, l *nn.Linear) {
	if v.err == nil {
		v.err = v.linear(name, l)
	}
}

func (v *visit) vector(name string, n *nn.Norm) {
	if v.err == nil && n != nil {
		v.err = v.norm(name, n)
	}
}

// Checksum is the CRC-32C of the weights as they lie in memory: equal for models that compute the same.
func (m *Model) Checksum() uint32 {
	var sum checksum
	add := sum.update
	norm := func(_ string, n *nn.Norm) error {
		add(pool.BytesOf(n.Weight))
		add(pool.BytesOf(n.Bias))
		return nil
	}
	_ = m.eachWeight(func(name string, l *nn.Linear) error {
		if l.Ternary != nil {
			add(l.Ternary.Panels())
			add(pool.BytesOf([]float32{l.Ternary.Scale}))
		} else {
			add(l.Dense.Panels)
			add(pool.BytesOf(l.Dense.RowScale))
		}
		add(pool.BytesOf(l.Bias))
		if l.Norm != nil {
			return norm(name, l.Norm)
		}
		return nil
	}, norm)
	return uint32(sum)
}

// packing is PackingBase3 when a ternary matrix is in base 3.
func (m *Model) packing() string {
	name := Packing2Bit
	_ = m.eachLinear(func(_ string, l *nn.Linear) error {
		if l.Ternary != nil && l.Ternary.Layout == quant.Base3 {
			name = PackingBase3
		}
		return nil
	})
	return name
}

// weightBytes adds up what the weights occupy, wherever they lie.
func (m *Model) weightBytes() int64 {
	total := 0
	if s := m.Head.Scores; s != nil {
		total = s.Bytes()
	}
	norm := func(_ string, n *nn.Norm) error {
		total += 4 * (len(n.Weight) + len(n.Bias))
		return nil
	}
	_ = m.eachWeight(func(name string, l *nn.Linear) error {
		if l.Ternary != nil {
			total += l.Ternary.Bytes()
		} else {
			total += l.Dense.Bytes()
		}
		total += 4 * len(l.Bias)
		if l.Norm != nil {
			return norm(name, l.Norm)
		}
		return nil
	}, norm)
	return int64(total)
}
