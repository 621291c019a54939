//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// newWeights is an object that reads the weights of a model one by one: in full precision (list, read), or as the model computes with them
// (tensors, tensor, error).
func newWeights(_ []byte, _ []*autograd.GradTensor, objects []any) (*object, error) {
	m := objects[0].(*runner).model
	return &object{shared: true, methods: map[string]method{
		// list gives name, shape and whether the layer is ternary of each.
		"list": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			if err := m.Acquire(); err != nil {
				return nil, nil, err
			}
			defer m.Release()
			weights, err := m.Weights()
			var all [][3]any
			for _, w := range weights {
				all = append(all, [3]any{w.Name, w.Shape, w.Ternary})
			}
			return all, nil, err
		},
		// read gives the one of a name, in float32.
		"read": ofName(m, func(name string) (any, *tensor.Tensor, error) {
			values, err := m.ReadWeight(name)
			if err != nil {
				return nil, nil, err
			}
			t, err := tensor.FromFloat32(values, len(values))
			return nil, t, err
		}),
		// tensors gives a model.LoadedTensor of each.
		"tensors": func(context.Context, []byte, []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
			if err := m.Acquire(); err != nil {
				return nil, nil, err
			}
			defer m.Release()
			return m.Tensors(), nil, nil
		},
		// tensor gives the one of a name: codes as int8, floats as float32, in one row.
		"tensor": ofName(m, func(name string) (any, *tensor.Tensor, error) {
			codes, values, err := m.ReadTensor(name)
			if err != nil {
				return nil, nil, err
			}
			t, err := tensor.FromFloat32(values, len(values))
			if codes != nil {
				t, err = tensor.FromInt8(codes, len(codes))
			}
			return nil, t, err
		}),
		// error says how far the ternary weight of a name is from its master weights; sqnr is null without an error.
		"error": ofName(m, func(name string) (any, *tensor.Tensor, error) {
			e, err := m.QuantizationError(name)
			if err != nil {
				return nil, nil, err
			}
			out := map[string]any{"mse": e.MSE, "cosine": e.Cosine, "max": e.MaxAbs}
			if !math.IsInf(e.SQNR, 0) {
				out["sqnr"] = e.SQNR
			}
			return out, nil, nil
		}),
	}}, nil
}

// ofName is a method that takes the name of a tensor of the model and gives what read finds there: a result, a tensor, or both.
func ofName(m *model.Model, read func(name string) (any, *tensor.Tensor, error)) method {
	return func(_ context.Context, params []byte, _ []*autograd.GradTensor) (any, []*autograd.GradTensor, error) {
		var name string
		if err := decode(params, &name); err != nil {
			return nil, nil, err
		}
		if err := m.Acquire(); err != nil {
			return nil, nil, err
		}
		defer m.Release()
		result, t, err := read(name)
		if err != nil || t == nil {
			return result, nil, err
		}
		return result, []*autograd.GradTensor{autograd.New(t)}, nil
	}
}

// storedTypes are the dtypes of weights as checkpoints spell them.
var storedTypes = map[tensor.DType]string{
	tensor.Float32: safetensors.F32, tensor.Float16: safetensors.F16, tensor.BFloat16: safetensors.BF16, tensor.UInt8: safetensors.U8,
}

// bn_model_from_tensors makes a model of n tensors whose names are a JSON list, and of the text of a config.json.
//
//export bn_model_from_tensors
func bn_model_from_tensors(config, names *C.char, operands *C.uintptr_t, n C.int64_t, options *C.char, poll C.bn_poll, state unsafe.Pointer, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		o, kv, err := parseLoadOptions(options)
		if err != nil {
			return err
		}
		var called []string
		if err := json.Unmarshal([]byte(C.GoString(names)), &called); err != nil || len(called) != int(n) {
			return fmt.Errorf("%w: %d names for %d tensors: %v", errArgument, len(called), int(n), err)
		}
		views := make([]container.View, len(called))
		for i, t := range tensors(operands, n) {
			dtype, ok := storedTypes[t.Data().DType()]
			if !ok {
				return fmt.Errorf("%w: %s is %s: expected float32, float16, bfloat16, or uint8 for packed weights", tensor.ErrDType, called[i], t.Data().DType())
			}
			data, err := t.Data().Contiguous()
			if err != nil {
				return err
			}
			views[i] = container.View{Name: called[i], DType: dtype, Shape: data.Shape(), Data: data.Bytes()}
		}
		text := []byte(C.GoString(config))
		return makeModel(newInterrupts(poll, state), kv, out, func(ctx context.Context) (*model.Model, error) {
			return model.FromTensors(ctx, text, container.NewMemory("state_dict", views), o)
		})
	})
}
