//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime/cgo"
	"slices"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/format/tokenfile"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// dataset is what a Python Dataset object owns.
type dataset struct {
	train.Dataset
	facts map[string]any  // of Dataset.info
	file  *tokenfile.File // nil: in memory
}

// datasetOptions is the JSON that Python writes.
type datasetOptions struct {
	Kind      string `json:"kind"`   // "stream", "file" (a stream in a file) or "examples"
	Name      string `json:"name"`   // in errors
	Length    int    `json:"length"` // most tokens of an example
	VocabSize int    `json:"vocab_size"`
	Separator *int32 `json:"separator"` // of a stream: ends a document that others are not to see; null: none
	Pack      bool   `json:"pack"`      // examples

	File fileOptions `json:"file"`
}

// fileOptions say which ids of which file are a dataset.
type fileOptions struct {
	Path    string `json:"path"`
	DType   string `json:"dtype"` // of a file without a header
	Offset  int64  `json:"offset"`
	First   int    `json:"first"`
	Tokens  int    `json:"tokens"`  // 0: all
	Verify  bool   `json:"verify"`  // read it once, now
	Isolate bool   `json:"isolate"` // by the separator in its header, if options have none
}

func parseDatasetOptions(text []byte) (o datasetOptions, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return o, fmt.Errorf("%w: dataset options: %w", errArgument, err)
	}
	return o, nil
}

// bn_dataset_new makes a dataset of copies of ids [n], targets [n] or NULL, and lengths [sequences] of the examples.
//
//export bn_dataset_new
func bn_dataset_new(options *C.char, ids, targets *C.int32_t, n C.int64_t, lengths *C.int64_t, sequences C.int64_t, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		o, err := parseDatasetOptions([]byte(C.GoString(options)))
		if err != nil {
			return err
		}
		if o.Kind == "file" {
			d, err := newFile(o)
			if err != nil {
				return fmt.Errorf("%s: %w", o.Name, err)
			}
			*out = C.uintptr_t(cgo.NewHandle(d))
			return nil
		}
		own := slices.Clone(unsafe.Slice((*int32)(ids), int(n)))
		if err := checkIDs(o.Name, own, o.VocabSize, false); err != nil {
			return err
		}
		var d *dataset
		switch o.Kind {
		case "stream":
			d, err = newStream(train.IDs(own), o)
		case "examples":
			c := train.ExamplesConfig{IDs: own, Length: o.Length, Pack: o.Pack}
			if targets != nil {
				c.Targets = slices.Clone(unsafe.Slice((*int32)(targets), int(n)))
				if err := checkIDs(o.Name+" targets", c.Targets, o.VocabSize, true); err != nil {
					return err
				}
			}
			for _, length := range unsafe.Slice((*int64)(lengths), int(sequences)) {
				c.Lengths = append(c.Lengths, int(length))
			}
			d, err = newExamples(c)
		default:
			return fmt.Errorf("%w: kind = %q: expected \"stream\" or \"examples\"", errArgument, o.Kind)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
		*out = C.uintptr_t(cgo.NewHandle(d))
		return nil
	})
}

func checkIDs(name string, ids []int32, vocab int, ignored bool) error {
	for i, id := range ids {
		if (id < 0 || int(id) >= vocab) && !(ignored && id == nn.IgnoreTarget) {
			return fmt.Errorf("%w: %s[%d] = %d: expected 0 <= id < vocab_size = %d", errArgument, name, i, id, vocab)
		}
	}
	return nil
}

func newStream(source train.TokenSource, o datasetOptions) (*dataset, error) {
	t, err := train.NewStream(source, o.Length, o.Separator)
	if err != nil {
		return nil, err
	}
	return &dataset{Dataset: t, facts: map[string]any{"kind": "stream", "examples": t.Len(), "tokens": source.Len(), "order": t.Order()}}, nil
}

// newFile makes a stream of a file, which stays open.
func newFile(o datasetOptions) (d *dataset, err error) {
	f, err := tokenfile.Open(o.File.Path, tokenfile.Options{DType: o.File.DType, Offset: o.File.Offset, First: o.File.First, Tokens: o.File.Tokens, Vocab: o.VocabSize})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error says more
		}
	}()
	if o.File.Verify {
		if err := f.Verify(); err != nil {
			return nil, err
		}
	}
	if o.File.Isolate && o.Separator == nil {
		if f.Separator < 0 {
			return nil, fmt.Errorf("%w: %s does not say which id ends a document", errArgument, o.File.Path)
		}
		o.Separator = &f.Separator
	}
	if d, err = newStream(f, o); err != nil {
		return nil, err
	}
	d.file = f
	return d, nil
}

func newExamples(c train.ExamplesConfig) (*dataset, error) {
	e, err := train.NewExamples(c)
	if err != nil {
		return nil, err
	}
	return &dataset{Dataset: e, facts: map[string]any{"kind": "examples", "examples": e.Len(), "tokens": len(c.IDs), "order": e.Order(),
		"truncated": e.Truncated, "skipped": e.Skipped}}, nil
}

// predictor lets the inference engine score batches.
type predictor struct{ *infer.Engine }

// Score implements train.Scorer.
func (p predictor) Score(ctx context.Context, b train.Batch, s *train.Score) error {
	at := 0
	for _, n := range b.Lengths {
		q, err := p.Predict(ctx, b.IDs[at:at+n], b.Targets[at:at+n])
		if err != nil {
			return err
		}
		s.Nats -= q.LogLikelihood
		s.Targets += q.Targets
		s.Correct += q.Correct
		at += n
	}
	return nil
}

// bn_evaluate scores all examples of a dataset by the inference engine; progress is in examples.
//
//export bn_evaluate
func bn_evaluate(model, data C.uintptr_t, poll C.bn_poll, state unsafe.Pointer, nats *C.double, targets, correct *C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		calls, d := newInterrupts(poll, state), value[*dataset](data)
		s, err := train.Evaluate(calls, predictor{value[*runner](model).engine}, watched{d.Dataset, calls}, 1)
		*nats, *targets, *correct = C.double(s.Nats), C.int64_t(s.Targets), C.int64_t(s.Correct)
		return err
	})
}

// watched reports which example is read.
type watched struct {
	train.Dataset
	calls *interrupts
}

// Example implements train.Dataset.
func (w watched) Example(b *train.Batch, i int) error {
	w.calls.progress(int64(i), int64(w.Len()))
	return w.Dataset.Example(b, i)
}

//export bn_dataset_info
func bn_dataset_info(h C.uintptr_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error { return jsonOut(out, value[*dataset](h).facts) })
}

//export bn_dataset_free
func bn_dataset_free(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		d := value[*dataset](h)
		cgo.Handle(h).Delete()
		if d.file != nil {
			return d.file.Close()
		}
		return nil
	})
}
