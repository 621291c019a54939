//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime/cgo"
	"sync"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// runner is what a Python Model object owns: a model and the engine that runs it.
type runner struct {
	model  *model.Model
	engine *infer.Engine

	training sync.Mutex // held while a call changes the weights; closed changes under it
	closed   bool
}

func newRunner(m *model.Model, kv nn.KVType) C.uintptr_t {
	e := infer.NewEngine(m)
	e.UseKV(kv)
	return C.uintptr_t(cgo.NewHandle(&runner{model: m, engine: e}))
}

// value looks a handle up; the Python object that owns it keeps it valid.
func value[T any](h C.uintptr_t) T { return cgo.Handle(h).Value().(T) }

// parseLoadOptions reads the JSON of the options that loading takes, and how keys and values are to be stored.
func parseLoadOptions(text *C.char) (_ model.LoadOptions, kv nn.KVType, err error) {
	var o struct {
		HeadFormat string  `json:"head_format"`
		Verify     string  `json:"verify"`
		Resident   string  `json:"resident"`
		Trainable  bool    `json:"trainable"`
		Quantize   bool    `json:"quantize"`
		FFNDensity float64 `json:"ffn_density"`
		Packing    string  `json:"packing"`
		KVType     string  `json:"kv_dtype"`
		I2SLayout  string  `json:"i2s_layout"`
		Deferred   bool    `json:"deferred"`
		Lenient    bool    `json:"lenient"`
	}
	if err := json.Unmarshal([]byte(C.GoString(text)), &o); err != nil {
		return model.LoadOptions{}, 0, fmt.Errorf("%w: load options: %w", errArgument, err)
	}
	if o.KVType != "" {
		if kv, err = nn.ParseKVType(o.KVType); err != nil {
			return model.LoadOptions{}, 0, fmt.Errorf("%w: %w", errArgument, err)
		}
	}
	return model.LoadOptions{
		HeadFormat: o.HeadFormat, Verify: o.Verify, Resident: o.Resident, Trainable: o.Trainable, Quantize: o.Quantize, FFNDensity: o.FFNDensity,
		Packing: o.Packing, I2SLayout: o.I2SLayout, Deferred: o.Deferred, Lenient: o.Lenient,
	}, kv, nil
}

//export bn_model_load
func bn_model_load(path, options *C.char, poll C.bn_poll, state unsafe.Pointer, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		o, kv, err := parseLoadOptions(options)
		if err != nil {
			return err
		}
		name, calls := C.GoString(path), newInterrupts(poll, state)
		o.Progress = calls.progress
		return makeModel(calls, kv, out, func(ctx context.Context) (*model.Model, error) { return model.Load(ctx, name, o) })
	})
}

// bn_model_load_stream loads a native file of size bytes that read gives; name stands for it in errors.
//
//export bn_model_load_stream
func bn_model_load_stream(read C.bn_read, source unsafe.Pointer, name *C.char, size C.int64_t, options *C.char, poll C.bn_poll, state unsafe.Pointer,
	out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		o, kv, err := parseLoadOptions(options)
		if err != nil {
			return err
		}
		title, calls := C.GoString(name), newInterrupts(poll, state)
		o.Progress = calls.progress
		return makeModel(calls, kv, out, func(ctx context.Context) (*model.Model, error) {
			return model.LoadReader(ctx, &pythonFile{read: read, state: source}, int64(size), title, o)
		})
	})
}

// pythonFile is a file object of Python as an io.ReaderAt.
type pythonFile struct {
	read  C.bn_read
	state unsafe.Pointer

	mu     sync.Mutex // it has one position
	buffer []byte     // that C may write to, wherever the bytes go
}

// errRead is the error of a read whose exception waits in C.
var errRead = fmt.Errorf("%w: reading a Python file", context.Canceled)

// ReadAt implements io.ReaderAt.
func (f *pythonFile) ReadAt(p []byte, at int64) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.buffer == nil {
		f.buffer = make([]byte, 1<<20)
	}
	for n < len(p) {
		most := min(len(p)-n, len(f.buffer))
		got := int(C.bn_call_read(f.read, f.state, C.int64_t(at)+C.int64_t(n), unsafe.Pointer(unsafe.SliceData(f.buffer)), C.int64_t(most)))
		if got < 0 {
			return n, errRead
		}
		n += copy(p[n:], f.buffer[:got])
		if got < most {
			return n, io.EOF
		}
	}
	return n, nil
}

// makeModel runs a long call that makes a model.
func makeModel(calls *interrupts, kv nn.KVType, out *C.uintptr_t, work func(context.Context) (*model.Model, error)) error {
	var m *model.Model
	err := calls.await(func(ctx context.Context) (err error) {
		m, err = work(ctx)
		return err
	})
	if err != nil {
		if m != nil { // canceled while the work ended
			_ = m.Close()
		}
		return err
	}
	*out = newRunner(m, kv)
	return nil
}

//export bn_model_random
func bn_model_random(config *C.char, seed C.uint64_t, options *C.char, trainable C.int, poll C.bn_poll, state unsafe.Pointer, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		o, kv, err := parseLoadOptions(options)
		if err != nil {
			return err
		}
		c, err := model.ParseConfig([]byte(C.GoString(config)), "")
		if err != nil {
			return err
		}
		return makeModel(newInterrupts(poll, state), kv, out, func(ctx context.Context) (*model.Model, error) {
			if trainable != 0 {
				return model.NewTrainable(c, uint64(seed), o)
			}
			return model.NewRandomContext(ctx, c, uint64(seed), o)
		})
	})
}

// Closing waits for the calls in flight on other threads; later calls fail.
//
//export bn_model_close
func bn_model_close(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error { return value[*runner](h).close() })
}

func (r *runner) close() error {
	r.training.Lock()
	defer r.training.Unlock()
	r.closed = true
	r.engine.Close()
	return r.model.Close()
}

//export bn_model_free
func bn_model_free(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		r := value[*runner](h)
		cgo.Handle(h).Delete()
		return r.close()
	})
}

//export bn_model_info
func bn_model_info(h C.uintptr_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		m := value[*runner](h).model
		return jsonOut(out, map[string]any{"config": config(*m.Config), "info": m.Info})
	})
}

// bn_model_save writes the model and the files that belong to it: format is "native", "hf", "gguf" or "onnx_weights". options is a
// JSON object of model.HFOptions, whose max_shard_size is that of the native format and of GGUF too; gguf_type and onnx_type, the types of ternary layers in
// a GGUF file and among the weights of an ONNX model; compression and metadata of the native format; and dry_run: then nothing is written. out is
// a JSON object of size, what the tensors of a dry run would take, and warnings, sentences about what is otherwise than it was asked for.
//
//export bn_model_save
func bn_model_save(h C.uintptr_t, path, format, options *C.char, poll C.bn_poll, state unsafe.Pointer, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		m, name := value[*runner](h).model, C.GoString(path)
		var o struct {
			model.HFOptions
			GGUFType    string            `json:"gguf_type"`
			ONNXType    string            `json:"onnx_type"`
			Compression string            `json:"compression"`
			Metadata    map[string]string `json:"metadata"`
			DryRun      bool              `json:"dry_run"`
		}
		if err := json.Unmarshal([]byte(C.GoString(options)), &o); err != nil {
			return fmt.Errorf("%w: options: %w", errArgument, err)
		}
		result := struct {
			Size     int64    `json:"size"`
			Warnings []string `json:"warnings"`
		}{Warnings: []string{}}
		var save func(context.Context) error
		switch f := C.GoString(format); f {
		case "native":
			save = func(ctx context.Context) error {
				return m.SaveContext(ctx, name, model.SaveOptions{Compression: o.Compression, MaxShard: o.MaxShard, Metadata: o.Metadata})
			}
		case "hf":
			save = func(ctx context.Context) error { return m.SaveHFContext(ctx, name, o.HFOptions) }
		case "gguf":
			save = func(ctx context.Context) error {
				return m.SaveGGUF(ctx, name, model.GGUFOptions{Type: o.GGUFType, MaxShard: o.MaxShard,
					Warn: func(text string) { result.Warnings = append(result.Warnings, text) }})
			}
		case "onnx_weights":
			save = func(ctx context.Context) error { return m.SaveONNXWeights(ctx, name, o.ONNXType) }
		default:
			return fmt.Errorf("%w: format = %q: expected \"native\", \"hf\", \"gguf\" or \"onnx\"", errArgument, f)
		}
		calls := newInterrupts(poll, state)
		err := calls.await(func(ctx context.Context) error {
			if o.DryRun {
				return save(model.DryRun(ctx, &result.Size))
			}
			return save(model.WithProgress(ctx, calls.progress))
		})
		if errors.Is(err, fs.ErrNotExist) { // the place to write to, not a model
			return fmt.Errorf("%w %s: %v", errWrite, name, err)
		}
		if err != nil {
			return err
		}
		return jsonOut(out, result)
	})
}

// bn_model_diff compares the tensors of two models: a JSON list of model.TensorDiff.
//
//export bn_model_diff
func bn_model_diff(h, other C.uintptr_t, poll C.bn_poll, state unsafe.Pointer, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		a, b := value[*runner](h).model, value[*runner](other).model
		var found []model.TensorDiff
		err := newInterrupts(poll, state).await(func(ctx context.Context) (err error) {
			found, err = model.Diff(ctx, a, b)
			return err
		})
		if err != nil {
			return err
		}
		return jsonOut(out, found)
	})
}

// bn_model_set_assets gives the model the texts of a JSON object {file name: text}, which saving writes.
//
//export bn_model_set_assets
func bn_model_set_assets(h C.uintptr_t, files *C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		var texts map[string]string
		if err := json.Unmarshal([]byte(C.GoString(files)), &texts); err != nil {
			return fmt.Errorf("%w: files: %w", errArgument, err)
		}
		return value[*runner](h).model.SetAssets(texts)
	})
}

// bn_model_own_assets gives the texts that a model has itself, as bn_model_assets does: of one that was read from a stream.
//
//export bn_model_own_assets
func bn_model_own_assets(h C.uintptr_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		return jsonOut(out, value[*runner](h).model.OwnAssets())
	})
}

// bn_model_assets gives the tokenizer and other files of the model at path as a JSON object {name: text}. A tokenizer.model, which is no text, is
// left out, or has in its place why no tokenizer.json could be made of it.
//
//export bn_model_assets
func bn_model_assets(path *C.char, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		files, err := model.Assets(C.GoString(path))
		if err != nil {
			return err
		}
		if _, binary := files["tokenizer.model"]; binary {
			var why error
			if _, made := files["tokenizer.json"]; !made {
				_, why = model.TokenizerOfSentencePiece(files, filepath.Join(C.GoString(path), "tokenizer.model"))
			}
			delete(files, "tokenizer.model")
			if why != nil {
				files["tokenizer.model"] = why.Error()
			}
		}
		return jsonOut(out, files)
	})
}

// batch cuts ids into sequences of the given lengths; it does not copy.
func batch(ids *C.int32_t, total C.int64_t, lengths *C.int64_t, n C.int64_t) ([][]int32, error) {
	all := unsafe.Slice((*int32)(ids), int(total))
	out := make([][]int32, 0, int(n))
	rest := all
	for i, length := range unsafe.Slice((*int64)(lengths), int(n)) {
		if length < 0 || length > int64(len(rest)) {
			return nil, fmt.Errorf("%w: lengths[%d] = %d: the lengths must sum to the %d token ids", errArgument, i, length, len(all))
		}
		out = append(out, rest[:length:length])
		rest = rest[length:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%w: lengths: they sum to %d, there are %d token ids", errArgument, len(all)-len(rest), len(all))
	}
	return out, nil
}

// bn_model_forward writes the logits of all positions, sequence after sequence, to out [total, vocab], or with hidden the hidden states after
// the final norm [total, hidden_size].
//
//export bn_model_forward
func bn_model_forward(h C.uintptr_t, ids *C.int32_t, total C.int64_t, lengths *C.int64_t, n C.int64_t,
	out *C.float, size C.int64_t, hidden C.int, poll C.bn_poll, state unsafe.Pointer, errOut **C.char) C.int {
	return guard(errOut, func() error {
		seqs, err := batch(ids, total, lengths, n)
		if err != nil {
			return err
		}
		e, values := value[*runner](h).engine, unsafe.Slice((*float32)(out), int(size))
		if hidden != 0 {
			return e.Hidden(newInterrupts(poll, state), seqs, values)
		}
		return e.Forward(newInterrupts(poll, state), seqs, values)
	})
}

//export bn_model_likelihood
func bn_model_likelihood(h C.uintptr_t, ids *C.int32_t, total, window, stride C.int64_t, poll C.bn_poll, state unsafe.Pointer,
	sum *C.double, count *C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		s, n, err := value[*runner](h).engine.LogLikelihood(newInterrupts(poll, state), unsafe.Slice((*int32)(ids), int(total)), int(window), int(stride))
		*sum, *count = C.double(s), C.int64_t(n)
		return err
	})
}

// bn_model_settle waits until the weights lie where they will stay. Why they could not be moved is no error: the model works from its file.
//
//export bn_model_settle
func bn_model_settle(h C.uintptr_t, poll C.bn_poll, state unsafe.Pointer, errOut **C.char) C.int {
	return guard(errOut, func() error {
		m := value[*runner](h).model
		return newInterrupts(poll, state).await(func(context.Context) error {
			if err := m.Settled(); !errors.Is(err, pool.ErrOutOfMemory) {
				return err
			}
			return nil
		})
	})
}

// bn_model_check fails when the file turned out to be damaged after it was loaded. It does not wait.
//
//export bn_model_check
func bn_model_check(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error { return value[*runner](h).model.Damage() })
}

//export bn_model_start_profile
func bn_model_start_profile(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error { return value[*runner](h).engine.StartProfile() })
}

//export bn_model_stop_profile
func bn_model_stop_profile(h C.uintptr_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		p := value[*runner](h).engine.StopProfile()
		if p == nil {
			return fmt.Errorf("%w: the model is not being profiled", errArgument)
		}
		return jsonOut(out, p)
	})
}
