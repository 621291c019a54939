//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime/cgo"
	"slices"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// dataset is what a Python Dataset object owns.
type dataset struct {
	train.Dataset
	facts map[string]any // of Dataset.info
}

// datasetOptions is the JSON that Python writes.
type datasetOptions struct {
	Kind      string `json:"kind"`   // "stream" or "examples"
	Name      string `json:"name"`   // in errors
	Length    int    `json:"length"` // most tokens of an example
	VocabSize int    `json:"vocab_size"`
	Separator *int32 `json:"separator"` // kind stream: ends a document that others are not to see; null: none
	Pack      bool   `json:"pack"`      // kind examples
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
	return &dataset{t, map[string]any{"kind": o.Kind, "examples": t.Len(), "tokens": source.Len(), "order": t.Order()}}, nil
}

func newExamples(c train.ExamplesConfig) (*dataset, error) {
	e, err := train.NewExamples(c)
	if err != nil {
		return nil, err
	}
	return &dataset{e, map[string]any{"kind": "examples", "examples": e.Len(), "tokens": len(c.IDs), "order": e.Order(),
		"truncated": e.Truncated, "skipped": e.Skipped}}, nil
}

//export bn_dataset_info
func bn_dataset_info(h C.uintptr_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error { return jsonOut(out, value[*dataset](h).facts) })
}

//export bn_dataset_free
func bn_dataset_free(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		cgo.Handle(h).Delete()
		return nil
	})
}
