//go:build cgo && pyext

package main

import (
	"context"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// newAttention is an object that shows what a model attends to.
func newAttention(_ []byte, _ []*autograd.GradTensor, objects []any) (*object, error) {
	r := objects[0].(*runner)
	return &object{shared: true, methods: map[string]method{
		// weights gives those of a sequence of tokens, int32 [n], in the layers that params list: [layers, heads, n, n].
		"weights": func(ctx context.Context, params []byte, operands []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			var layers []int
			if err := decode(params, &layers); err != nil {
				return nil, nil, err
			}
			ids := operands[0].Data().Int32s()
			t, err := tensor.New(tensor.Float32, len(layers), r.model.Config.NumAttentionHeads, len(ids), len(ids))
			if err != nil {
				return nil, nil, err
			}
			if err := r.engine.Attentions(ctx, ids, layers, t.Float32s()); err != nil {
				return nil, nil, err
			}
			return nil, []*autograd.GradTensor{autograd.New(t)}, nil
		},
	}}, nil
}
