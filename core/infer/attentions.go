package infer

import (
	"context"
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Attentions writes how much each token of a sequence attends to those before it into out, [len(layers), heads, len(ids), len(ids)]: in a row,
// which belongs to the token that attends, the weights add up to one and are zero behind the token itself. Layers are counted from 0. Keys and
// values are kept as float32, whatever UseKV says.
func (e *Engine) Attentions(ctx context.Context, ids []int32, layers []int, out []float32) error {
	if err := e.checkTokens(ids, 0); err != nil {
		return err
	}
	cfg := e.model.Config
	for _, layer := range layers {
		if layer < 0 || layer >= cfg.NumHiddenLayers {
			return &ArgumentError{Field: "layers", Value: layer, Reason: fmt.Sprintf("expected 0 to %d", cfg.NumHiddenLayers-1)}
		}
	}
	n := len(ids)
	each := cfg.NumAttentionHeads * n * n
	if len(out) != len(layers)*each {
		return &ArgumentError{Field: "out", Value: len(out), Reason: fmt.Sprintf("expected room for %d x %d values", len(layers), each)}
	}
	seq := &Sequence{cache: nn.NewKVCache(e.mem, nn.KVFloat32, cfg.NumHiddenLayers, cfg.NumKeyValueHeads, cfg.HeadDim)}
	defer seq.Close()
	attended := func(c *nn.Ctx, a *nn.Attention, q *tensor.Tensor) {
		for i, layer := range layers {
			if layer == a.Layer {
				c.AttentionWeights(a, q, out[i*each:(i+1)*each], n)
			}
		}
	}
	for len(ids) > 0 {
		some := ids[:min(len(ids), e.rows)]
		if err := e.step(ctx, []Chunk{{Seq: seq, IDs: some}}, nil, view{attended: attended}); err != nil {
			return err
		}
		ids = ids[len(some):]
	}
	return nil
}
