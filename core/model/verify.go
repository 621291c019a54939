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
	Format    string      `json:"format"`    // "safetensors", "native", "gguf", "onnx", "checkpoint"; "" of files that cannot be opened
	Tensors   int         `json:"tensors"`   // that were read
	Bytes     int64       `json:"bytes"`     // of them, as the files have them
	Checksums int         `json:"checksums"` // of tensors that were compared; other formats than the native one have none
	Problems  []Problem   `json:"problems"`  // why the model will not load, or is not what was saved
	Warnings  []Problem   `json:"warnings"`  // what a trained model does not have, and what loading warns of
	Norms     []NormStats `json:"norms"`     // in the order of the files
}

// Problem is something that is wrong.
type Problem struct {
	Check   string `json:"check"`   // "structure": header, config, names, shapes, tokenizer and other files; "checksum"; "values": NaN, infinities, codes, scales
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
// there are no weights, reads the tokenizer and other files that belong to the model as Assets does, compares every checksum, and looks at every
// number, a piece at a time: memory does not grow with the files. Tensors whose structure is wrong are not read, and none are when it is not about
// one of them. Of o, I2SLayout and Quantize count. progress, when not nil, is called with the bytes read and their total.
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
	tensors := f.set.Tensors()
	if err := f.plan(ctx, newLoader(o, tableFormat{})); err != nil && !f.sums(err) {
		if err := r.note("structure", "", err); err != nil {
			return nil, err
		}
		tensors = f.sound(tensors, err)
	}
	if f.doubt != nil && len(r.Problems) == 0 {
		doubt, err := f.doubt(ctx)
		if err != nil {
			return nil, err
		}
		if doubt != "" {
			r.Warnings = append(r.Warnings, Problem{Check: "values", Message: doubt})
		}
	}
	if _, err := Assets(path); err != nil && !f.sums(err) {
		if err := r.note("structure", "", err); err != nil {
			return nil, err
		}
	}
	w := &verifier{ctx: ctx, files: f, reading: reading{tensors: tensors, progress: progress}, found: make([]Verification, len(tensors))}
	w.count()
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

// sums says whether an error is one that comparing checksums finds anyway.
func (f *inspected) sums(err error) bool { return f.sum != nil && errors.Is(err, ErrChecksum) }

// sound are the tensors that are worth reading after loading refused the files: all when it was for a value, none when it was not about one of them.
func (f *inspected) sound(tensors []container.Info, refused error) []container.Info {
	var where *container.Error
	switch {
	case errors.Is(refused, ErrValue):
		return tensors
	case errors.As(refused, &where) && f.set.Has(where.Tensor):
		return slices.DeleteFunc(tensors, func(t container.Info) bool { return t.Name == where.Tensor })
	}
	return nil
}

// verifier looks at the tensors of a model; tensor i is chunk i of a cpu.Task. After the first error the rest is skipped.
type verifier struct {
	reading
	ctx   context.Context
	files *inspected
	found []Verification
}

// reading tells how far the tensors of a file have been read.
type reading struct {
	tensors  []container.Info
	progress func(done, total int64) // may be nil
	total    int64

	mu   sync.Mutex
	done int64
	err  error // after which nobody is told any more
}

// count adds the tensors up.
func (w *reading) count() {
	for _, t := range w.tensors {
		w.total += t.Size
	}
}

// one is how the reader of a tensor tells that so many bytes of it have been read, and at its end that the rest has.
func (w *reading) one(t container.Info) (shown func(bytes int), rest func()) {
	left := t.Size // that progress was not told of
	shown = func(bytes int) {
		n := min(left, int64(bytes))
		left -= n
		w.read(n)
	}
	return shown, func() { w.read(left) }
}

// Run looks at one tensor.
func (w *verifier) Run(i int) {
	if w.ctx.Err() != nil {
		w.failed(w.ctx.Err())
		return
	}
	read, rest := w.one(w.tensors[i])
	if err := w.found[i].tensor(w.ctx, w.files, w.tensors[i], read); err != nil {
		w.failed(err)
		return
	}
	rest()
}

func (w *reading) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = cmp.Or(w.err, err)
}

func (w *reading) read(bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done += bytes
	if w.progress != nil && w.err == nil {
		w.progress(w.done, w.total)
	}
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
func (r *Verification) tensor(ctx context.Context, f *inspected, t container.Info, read func(bytes int)) error {
	if f.sum != nil {
		r.Checksums++
		half := func(bytes int) { read(bytes / 2) } // the other one when it is read again
		if err := f.sum(&scan{ctx: ctx, shown: half}, t.Name); err != nil {
			return r.note("checksum", t.Name, err) // its numbers mean nothing
		}
	}
	info := f.tensor(t)
	if err := f.stats(&scan{ctx: ctx, shown: read}, &info); err != nil {
		return err
	}
	bad := func(format string, arguments ...any) {
		r.Problems = append(r.Problems, Problem{Check: "values", Tensor: t.Name, Message: fmt.Sprintf(format, arguments...)})
	}
	warn := func(message string) {
		r.Warnings = append(r.Warnings, Problem{Check: "values", Tensor: t.Name, Message: message})
	}
	var refused error
	if f.refused != nil {
		refused = f.refused(&info)
	}
	switch s := info.Ternary; {
	case info.Error != "":
		bad("%s", info.Error)
	case refused != nil:
		bad("%v", refused)
	case s != nil && s.Scale <= 0 && s.Minus+s.Plus > 0:
		bad("a scale of %v: expected a positive number", s.Scale)
	case s != nil && s.Minus+s.Plus == 0 && s.Zero > 0:
		warn("every weight is 0")
	}
	if s := info.Float; s != nil {
		if s.NotFinite > 0 {
			bad("%d numbers are NaN or infinite", s.NotFinite)
		}
		if isNorm(t.Name) && !isMoment(t.Name) {
			r.Norms = append(r.Norms, NormStats{t.Name, s.Min, s.Max, s.Mean, s.Std})
			if s.Min == 0 && s.Max == 0 {
				warn("every weight of a norm is 0")
			}
		} else if refused == nil && len(t.Shape) == 2 && s.Zeros > 0 && s.Min == 0 && s.Max == 0 && s.NotFinite == 0 && !isMoment(t.Name) {
			warn("every weight is 0")
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
