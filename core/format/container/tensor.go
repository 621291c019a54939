package container

import (
	"fmt"
	"io"
)

// ErrSize is a tensor whose number of bytes does not follow from shape and
// dtype.
var ErrSize = NewKind("byte size does not follow from shape and dtype")

// Tensor is a tensor to be written. Its bytes come from Data, or, when Stream
// is set, from a function that writes exactly the tensor's size: a checkpoint
// larger than memory can be written from pieces.
type Tensor struct {
	Name   string // unique in the file
	DType  string // as the format spells it
	Shape  []int  // slowest dimension first
	Data   []byte
	Stream func(w io.Writer) error
}

// Write writes the tensor's bytes, of which there have to be size; path is the
// file in errors.
func (t Tensor) Write(w io.Writer, path string, size int64) error {
	exact := &exactWriter{w: w, size: size, err: Error{Kind: ErrSize, Path: path, Tensor: t.Name, Field: "data"}}
	stream := t.Stream
	if stream == nil {
		stream = func(w io.Writer) error {
			_, err := w.Write(t.Data)
			return err
		}
	}
	if err := stream(exact); err != nil {
		return fmt.Errorf("tensor %s: %w", Quote(t.Name), err)
	}
	if exact.done != size {
		return exact.wrong(exact.done)
	}
	return nil
}

// Shards cuts a list where the next tensor would not fit into most bytes, of
// which a tensor has size; one that is larger stands alone. total is what all
// have.
func Shards(tensors []Tensor, size func(Tensor) (int64, error), most int64) (shards [][]Tensor, total int64, err error) {
	start, filled := 0, int64(0)
	for i, t := range tensors {
		n, err := size(t)
		if err != nil {
			return nil, 0, err
		}
		if filled > 0 && filled+n > most {
			shards = append(shards, tensors[start:i])
			start, filled = i, 0
		}
		filled += n
		total += n
	}
	return append(shards, tensors[start:]), total, nil
}

// exactWriter refuses to pass on more than the promised number of bytes.
type exactWriter struct {
	w          io.Writer
	done, size int64
	err        Error
}

func (e *exactWriter) Write(p []byte) (int, error) {
	if all := e.done + int64(len(p)); all > e.size {
		return 0, e.wrong(all)
	}
	n, err := e.w.Write(p)
	e.done += int64(n)
	return n, err
}

func (e *exactWriter) wrong(found int64) error {
	err := e.err
	err.Found, err.Expected = fmt.Sprintf("%d bytes", found), fmt.Sprint(e.size)
	return &err
}
