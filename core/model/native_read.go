package model

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
)

// CompressionZstd is SaveOptions.Compression for Zstandard (RFC 8878).
const CompressionZstd = "zstd"

// How a compressed tensor is written and what is read. A reader of weights never has more of it in memory than a window and a piece. Weights
// shrink by a fifth, unless most of them are 0, and a text to a fifth: what would grow much more is a few bytes that mean to fill the memory.
const (
	zstdFrame     = 1 << 20 // bytes in a frame, and its window
	zstdWindow    = 8 << 20 // largest window that is read: what every decoder should take
	zstdGrowth    = 200     // a tensor's bytes for each compressed one, at most
	fileGrowth    = 20      // those of a file inside, which is in memory as a whole
	zstdAnyGrowth = 4 << 10 // a tensor so small may grow as it likes
)

// readPiece is how many bytes of a tensor are looked at together: a multiple of the alignment of panels.
const readPiece = 1 << 20

// releaseEvery is how many bytes of a mapped file are resident while they are decompressed.
const releaseEvery = 4 << 20

// growth is how many bytes a compressed one of a tensor may become.
func (t nativeTensor) growth() int {
	if t.Layout == layoutFile {
		return fileGrowth
	}
	return zstdGrowth
}

func (t nativeTensor) growsTooMuch(size, compressed int) bool {
	return size > zstdAnyGrowth && size/t.growth() > compressed
}

// checkCompressed compares what is known of a compressed tensor before anything of it is read.
func (v nativeView) checkCompressed() error {
	if err := v.Check([]int{-1}, safetensors.U8); err != nil {
		return err
	}
	e := &container.Error{Kind: ErrCompression, Path: v.Path(), Tensor: v.Name, Field: "size", Found: fmt.Sprintf("%d bytes for %d", v.Size(), v.size)}
	switch {
	case v.entry.growsTooMuch(v.size, v.Size()):
		e.Expected = fmt.Sprintf("at least a byte for every %d", v.entry.growth())
	case v.Size() >= v.size:
		e.Expected = "fewer"
	default:
		return nil
	}
	return e
}

// read shows the tensor's bytes to each, unless that is nil, piece by piece and in order. Afterwards, if sum, they are compared with their checksum.
func (v nativeView) read(ctx context.Context, sum bool, each func(at int, piece []byte) error) error {
	next, end, err := v.pieces()
	if err != nil {
		return err
	}
	defer end()
	var have checksum
	for at := 0; at < v.size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := next(min(readPiece, v.size-at))
		if err != nil {
			return err
		}
		if sum {
			have.update(b)
		}
		if each != nil {
			if err := each(at, b); err != nil {
				return err
			}
		}
		at += len(b)
	}
	if _, err := next(0); err != nil {
		return err
	}
	if sum {
		return have.compare(v.entry.CRC32C, v.Path(), v.Name)
	}
	return nil
}

// pieces gives the next n bytes at every call of next, good until the one after it, and looks for more than there should be when n is 0.
func (v nativeView) pieces() (next func(n int) ([]byte, error), end func(), err error) {
	if v.plain() {
		rest := v.Data
		return func(n int) ([]byte, error) {
			b := rest[:n:n]
			rest = rest[n:]
			return b, nil
		}, func() {}, nil
	}
	source := &noted{r: v.Open()}
	var r io.Reader = source
	var buffer []byte
	end = func() {}
	if v.entry.Compression == "" {
		buffer = make([]byte, max(1, min(readPiece, v.size)))
	} else {
		i, err := newInflater()
		if err != nil {
			return nil, nil, err
		}
		end = func() {
			i.put()
			if v.File.Mapped() {
				_ = v.ReleasePages() // only costs memory if it fails
			}
		}
		i.in.Reset(source)
		if err := i.decoder.Reset(i.in); err != nil {
			end()
			return nil, nil, v.unreadable(source, 0, err)
		}
		r, buffer = i.decoder, i.buffer
	}
	at := 0
	given := 0 // bytes of the file that were given back
	return func(n int) ([]byte, error) {
		if v.File.Mapped() && source.n-given >= releaseEvery {
			if err := release(v.View, v.Data[given:source.n]); err != nil {
				return nil, err
			}
			given = source.n
		}
		if n == 0 {
			k, err := r.Read(buffer[:1])
			if k > 0 {
				err = fmt.Errorf("more than %d bytes", v.size)
			} else if err == nil || errors.Is(err, io.EOF) {
				return nil, nil
			}
			return nil, v.unreadable(source, at, err)
		}
		if _, err := io.ReadFull(r, buffer[:n]); err != nil {
			return nil, v.unreadable(source, at, err)
		}
		at += n
		return buffer[:n], nil
	}, end, nil
}

// inflater is what decompressing needs, for one tensor after another.
type inflater struct {
	in      *bufio.Reader // the decoder reads byte by byte
	decoder *zstd.Decoder
	buffer  []byte
}

// inflaters are those that are not in use.
var inflaters sync.Pool

func newInflater() (*inflater, error) {
	if i, ok := inflaters.Get().(*inflater); ok {
		return i, nil
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return &inflater{in: bufio.NewReaderSize(nil, 256<<10), decoder: d, buffer: make([]byte, readPiece)}, nil
}

// put lets go of the file.
func (i *inflater) put() {
	i.in.Reset(nil)
	_ = i.decoder.Reset(nil) // fails only once it is closed
	inflaters.Put(i)
}

// unreadable is the error of a tensor that ended early, or went on, or cannot be decompressed: that of its source if there was one.
func (v nativeView) unreadable(source *noted, at int, err error) error {
	if source.err != nil {
		return source.err
	}
	return &container.Error{Kind: ErrCompression, Path: v.Path(), Tensor: v.Name, Field: fmt.Sprintf("byte %d", at), Found: err.Error(),
		Expected: fmt.Sprintf("%s of %d bytes", v.entry.Compression, v.size)}
}

// noted counts what its reader gave, and remembers why it failed.
type noted struct {
	r   io.Reader
	n   int
	err error
}

func (n *noted) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	n.n += k
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return k, err
}

// bytes is the whole tensor, after its checksum was compared if sum: small ones, and matrices that are looked at one by one.
func (v nativeView) bytes(ctx context.Context, sum bool) ([]byte, error) {
	if v.plain() {
		if !sum {
			return v.Data, nil
		}
		return v.Data, v.read(ctx, true, nil)
	}
	first := v.size
	if v.entry.Compression != "" { // the file need not have what it says
		first = max(v.size/16, min(v.size, readPiece))
	}
	out := make([]byte, 0, first)
	err := v.read(ctx, sum, func(_ int, piece []byte) error {
		if len(out)+len(piece) > cap(out) {
			out = append(make([]byte, 0, v.size), out...)
		}
		out = append(out, piece...)
		return nil
	})
	return out, err
}

// listed returns a tensor as its entry in the metadata describes it. It may be no tensor of a model.
func (f *nativeFile) listed(name string) (nativeView, error) {
	t := f.tensors[name]
	switch t.Layout {
	case layoutFile, layoutVector:
		if file, ok := strings.CutPrefix(name, filePrefix); t.Layout == layoutFile && (!ok || !plainFileName(file)) {
			return nativeView{}, &container.Error{Kind: safetensors.ErrName, Path: f.Path(), Tensor: name, Found: abbreviate([]byte(name)),
				Expected: filePrefix + " and a plain file name"}
		}
		if len(t.Shape) != 1 || t.Shape[0] < 0 || t.Shape[0] > maxAssetBytes {
			return nativeView{}, f.shapeError(name, fmt.Sprintf("one number of at most %d", maxAssetBytes))
		}
		dtype := safetensors.U8
		if t.Layout == layoutVector {
			dtype = safetensors.F32
		}
		return f.tensor(name, t.Layout, t.Shape, dtype, t.Shape[0])
	}
	size, err := f.matrixSize(name)
	if err != nil {
		return nativeView{}, err
	}
	return f.tensor(name, t.Layout, t.Shape, safetensors.U8, stored(size))
}

// matrixSize is the number of bytes of a matrix in kernel layout, without padding.
func (f *nativeFile) matrixSize(name string) (int, error) {
	t := f.tensors[name]
	if len(t.Shape) != 2 || min(t.Shape[0], t.Shape[1]) < 1 || t.Shape[0] > maxVocab || t.Shape[1] > cpu.MaxTernaryCols {
		return 0, f.shapeError(name, fmt.Sprintf("1 to %d rows and 1 to %d columns", maxVocab, cpu.MaxTernaryCols))
	}
	if layout, ok := ternaryLayouts[t.Layout]; ok {
		return layout.Bytes(t.Shape[0], t.Shape[1]), nil
	}
	if format, ok := denseLayouts[t.Layout]; ok {
		return cpu.DenseBytes(format, t.Shape[0], t.Shape[1]), nil
	}
	return 0, f.layoutError(name, append(matrixLayouts(), layoutVector, layoutFile))
}

func (f *nativeFile) shapeError(name, expected string) error {
	return &container.Error{Kind: container.ErrMismatch, Path: f.Path(), Tensor: name, Field: "shape", Found: container.Clip(fmt.Sprint(f.tensors[name].Shape)), Expected: expected}
}

func (f *nativeFile) layoutError(name string, expected []string) error {
	e := &container.Error{Kind: container.ErrMismatch, Path: f.Path(), Tensor: name, Field: "layout",
		Found: abbreviate([]byte(f.tensors[name].Layout)), Expected: "one of " + strings.Join(expected, ", ")}
	if slices.Contains(formerLayouts, e.Found) {
		e.Expected += " (an earlier bitnet_rust wrote the file: save the model again from the checkpoint it was made of)"
	}
	return e
}
