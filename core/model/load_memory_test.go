package model_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// ternary are the codes and scales of a model's ternary layers by name.
func ternary(m *model.Model) map[string]any {
	all := map[string]any{}
	m.EachTernary(func(name string, l *nn.Linear) { all[name] = []any{l.Ternary.Codes(nil), l.Ternary.Scale} })
	return all
}

func TestWeightsInMemoryMakeTheModelTheyCameFrom(t *testing.T) {
	for _, folder := range []string{"bitnet_offline_packed", "bitnet_online_bf16", "llama_bitlinear_packed"} {
		for _, trainable := range []bool{false, true} {
			path := filepath.Join("..", "..", "tests_go", "testdata", "golden", folder)
			m := load(t, path, model.LoadOptions{Trainable: trainable})
			weights, err := m.Weights()
			require.NoError(t, err)
			var views []container.View
			for _, w := range weights {
				values, err := m.ReadWeight(w.Name)
				require.NoError(t, err)
				require.Len(t, values, w.Len())
				views = append(views, container.View{Name: w.Name, DType: safetensors.F32, Shape: w.Shape, Data: pool.BytesOf(values)})
			}
			config := *m.Config
			config.Quantization.Mode, config.Quantization.LinearClass = model.ModeOnline, model.AutoBitLinear
			text, err := json.Marshal(&config)
			require.NoError(t, err)

			again, err := model.FromTensors(context.Background(), text, container.NewMemory("test", views), model.LoadOptions{Trainable: trainable})
			require.NoError(t, err)
			assert.Equal(t, ternary(m), ternary(again), "%s, trainable %v", folder, trainable)
			for _, w := range weights {
				want, err := m.ReadWeight(w.Name)
				require.NoError(t, err)
				found, err := again.ReadWeight(w.Name)
				require.NoError(t, err)
				assert.True(t, slices.Equal(want, found), "%s of %s", w.Name, folder)
			}
			require.NoError(t, again.Close())

			_, err = model.FromTensors(context.Background(), text, container.NewMemory("test", views[1:]), model.LoadOptions{})
			require.ErrorIs(t, err, container.ErrTensorMissing)
			_, err = model.FromTensors(context.Background(), text, container.NewMemory("test", views), model.LoadOptions{HeadFormat: "int7"})
			require.ErrorIs(t, err, model.ErrOption)
			_, err = m.ReadWeight("nothing.weight")
			require.ErrorIs(t, err, model.ErrWeight)
		}
	}
}
