package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// Verification says what was found in the files of a model.
type Verification struct {
	Path      string      `json:"path"`      // of the file or directory
	Format    string      `json:"format"`    // "safetensors", "native", "gguf", "onnx"; "" of files that cannot be opened
	Tensors   int         `json:"tensors"`   // that were read
	Bytes     int64       `json:"bytes"`     // of them, as the files have them
	Checksums int         `json:"checksums"` // of tensors that were compared; other formats than the native one have none
	Problems  []Problem   `json:"problems"`  // why the model will not load, or is not what was saved
	Warnings  []Problem   `json:"warnings"`  // what a trained model does not have, and what loading warns of
	Norms     []NormStats `json:"norms"`     // in the order of the files
}

// Problem is something that is wrong.
type Problem struct {
	Check   string `json:"check"`   // "structure": header, config, names and shapes; "checksum"; "values": NaN, infinities, codes, scales
	Tensor  string `json:"tensor"`  // "" when it is about the files as a whole
	Message string `json:"message"` // a sentence
}

// NormStats are the weights of one norm.
type NormStats struct {
	Name string  `json:"name"` // of the tensor
	Min  float64 `json:"min"`  // the smallest
	Max  float64 `json:"max"`  // the largest
	Mean float64 `json:"mean"` // of all
	Std  float64 `json:"std"`  // standard deviation
}

// Verify reads all files of a model, of any format that Load takes, and says what is wrong with them: it goes the way of Load as far as
// there are no weights, compares every checksum, and looks at every number. Of o, I2SLayout and Quantize count. progress, when not nil, is
// called with the bytes read and their total.
//
// Errors are those of paths, options and ctx; whatever is wrong with the content is a Problem.
func Verify(ctx context.Context, path string, o LoadOptions, progress func(done, total int64)) (_ *Verification, err error) {
	if _, err := o.check(); err != nil {
		return nil, err
	}
	r := &Verification{Path: path, Problems: []Problem{}, Warnings: []Problem{}, Norms: []NormStats{}}
	f, err := openInspected(path, o.I2SLayout)
	if err != nil {
		return r, r.note("structure", "", err)
	}
	defer func() { _ = f.set.Close() }() // nothing of it is kept
	defer container.CatchFault(&err)
	r.Format = f.info.Format
	if err := f.plan(ctx, newLoader(o, tableFormat{})); err != nil && (f.sum == nil || !errors.Is(err, ErrChecksum)) { // those are found below
		if err := r.note("structure", "", err); err != nil {
			return nil, err
		}
	}
	if f.doubt != nil && len(r.Problems) == 0 {
		doubt, err := f.doubt()
		if err != nil {
			return nil, err
		}
		if doubt != "" {
			r.Warnings = append(r.Warnings, Problem{Check: "values", Message: doubt})
		}
	}
	w := &verifier{ctx: ctx, files: &f, tensors: f.set.Tensors(), progress: progress}
	w.found = make([]Verification, len(w.tensors))
	for _, t := range w.tensors {
		w.total += t.Size
	}
	cpu.Parallel(len(w.tensors), w)
	if w.err != nil {
		return nil, w.err
	}
	for i, t := range w.tensors {
		r.Tensors++
		r.Bytes += t.Size
		r.Checksums += w.found[i].Checksums
		r.Problems = append(r.Problems, w.found[i].Problems...)
		r.Warnings = append(r.Warnings, w.found[i].Warnings...)
		r.Norms = append(r.Norms, w.found[i].Norms...)
	}
	return r, nil
}

// verifier looks at the tensors of a model; tensor i is chunk i of a cpu.Task. After the first error the rest is skipped.
type verifier struct {
	ctx      context.Context
	files    *inspected
	tensors  []container.Info
	found    []Verification
	progress func(done, total int64)
	total    int64

	mu   sync.Mutex
	done int64
	err  error
}

// Run looks at one tensor.
func (w *verifier) Run(i int) {
	if w.ctx.Err() == nil {
		err := w.found[i].tensor(w.ctx, w.files, w.tensors[i])
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err = cmp.Or(w.err, err)
		w.done += w.tensors[i].Size
		if w.progress != nil && w.err == nil {
			w.progress(w.done, w.total)
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = cmp.Or(w.err, w.ctx.Err())
}

// note makes what is wrong with files a problem; other errors remain errors.
func (r *Verification) note(check, tensor string, err error) error {
	var where *container.Error
	if !errors.Is(err, container.ErrFormat) && !errors.Is(err, ErrConfig) {
		return err
	}
	if tensor == "" && errors.As(err, &where) {
		tensor = where.Tensor
	}
	r.Problems = append(r.Problems, Problem{Check: check, Tensor: tensor, Message: err.Error()})
	return nil
}

// tensor looks at one tensor.
func (r *Verification) tensor(ctx context.Context, f *inspected, t container.Info) error {
	if f.sum != nil {
		r.Checksums++
		if err := f.sum(ctx, t.Name); err != nil {
			return r.note("checksum", t.Name, err) // its numbers mean nothing
		}
	}
	info := f.tensor(t)
	if err := f.stats(ctx, &info); err != nil {
		return err
	}
	bad := func(format string, arguments ...any) {
		r.Problems = append(r.Problems, Problem{Check: "values", Tensor: t.Name, Message: fmt.Sprintf(format, arguments...)})
	}
	warn := func(message string) {
		r.Warnings = append(r.Warnings, Problem{Check: "values", Tensor: t.Name, Message: message})
	}
	switch s := info.Ternary; {
	case info.Error != "":
		bad("%s", info.Error)
	case s != nil && s.Scale <= 0 && s.Minus+s.Plus > 0:
		bad("a scale of %v: expected a positive number", s.Scale)
	case s != nil && s.Minus+s.Plus == 0 && s.Zero > 0:
		warn("every weight is 0")
	}
	if s := info.Float; s != nil {
		if s.NotFinite > 0 {
			bad("%d numbers are NaN or infinite", s.NotFinite)
		}
		if isNorm(t.Name) {
			r.Norms = append(r.Norms, NormStats{t.Name, s.Min, s.Max, s.Mean, s.Std})
			if s.Min == 0 && s.Max == 0 {
				warn("every weight of a norm is 0")
			}
		}
	}
	return nil
}

// isNorm says whether a tensor is the weight of a norm, by the names of Hugging Face's models, of GPT-2 and of GGUF.
func isNorm(name string) bool {
	module, ok := strings.CutSuffix(name, ".weight")
	last := module[strings.LastIndexByte(module, '.')+1:]
	return ok && (strings.HasSuffix(last, "norm") || strings.HasSuffix(last, "_ln") || slices.Contains([]string{"ln_1", "ln_2", "ln_f"}, last))
}
