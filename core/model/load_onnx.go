package model

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/onnx"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// ONNXExt is how the names of ONNX files end, and ONNXName the file in a directory that is a model.
const (
	ONNXExt  = ".onnx"
	ONNXName = "model.onnx"
)

// onnxConfigKey is the entry of an ONNX model's metadata with the content of a config.json. The Python package writes it.
const onnxConfigKey = "bitnet_rust.config"

// loadONNX loads the ONNX model of a decoder: one that save_pretrained wrote, with ternary codes, or one that PyTorch or Optimum
// exported of a Llama or BitNet, with float weights.
func loadONNX(ctx context.Context, path string, l *loader) (*Model, error) {
	file, err := onnx.Open(path)
	if err != nil {
		return nil, err
	}
	return buildONNX(ctx, file, l)
}

// buildONNX is loadONNX of an open file, which it closes unless the model still needs it.
func buildONNX(ctx context.Context, file *onnx.Model, l *loader) (*Model, error) {
	m, err := l.copyOut(ctx, file, func() (*Model, findMasters, error) {
		m, src, err := planONNX(ctx, file, l)
		return m, src.masterRows, err
	})
	if err != nil {
		return nil, err
	}
	m.Info.Path, m.Info.Format = file.Path(), "onnx"
	return m, nil
}

// planONNX goes as far as there are no weights: config, names and shapes.
func planONNX(ctx context.Context, file *onnx.Model, l *loader) (*Model, *onnxSource, error) {
	graph, err := newONNXGraph(file)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := onnxConfig(file, graph, l.opts.Quantize)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Architecture == ArchGPT2 {
		return nil, nil, &container.Error{Kind: ErrGraph, Path: file.Path(), Field: "config", Found: ArchGPT2, Expected: "the graph of a Llama or BitNet"}
	}
	src := &onnxSource{newTensorSource(l, file, cfg), graph}
	if err := src.resolveTie(ctx); err != nil {
		return nil, nil, err
	}
	m, err := build(cfg, src)
	if err != nil {
		return nil, nil, err
	}
	if name := graph.leftOver(src.used); name != "" {
		return nil, nil, &container.Error{Kind: ErrUnexpected, Path: file.Path(), Tensor: name, Found: "a weight of shape " + graph.describe(name),
			Expected: "no such weight in a " + cfg.Architecture}
	}
	return m, src, l.checkUse(file, "onnx", cfg.quantized)
}

// onnxConfig is the config in the model's metadata, or that of the config.json beside it, or what the graph itself says.
func onnxConfig(file *onnx.Model, graph *onnxGraph, quantize bool) (*Config, error) {
	if text, ok := file.Metadata[onnxConfigKey]; ok {
		name := file.Path() + ": metadata_props " + onnxConfigKey
		if len(text) > maxConfigBytes {
			return nil, &ConfigError{File: name, Reason: fmt.Sprintf("longer than %d bytes", maxConfigBytes)}
		}
		return parseConfig([]byte(text), name, quantize)
	}
	cfg, err := hfConfigOf(filepath.Dir(file.Path()), quantize)
	if errors.Is(err, fs.ErrNotExist) {
		return graph.config(quantize)
	}
	return cfg, err
}

// onnxSource is an ONNX model as a source.
type onnxSource struct {
	tensorSource
	graph *onnxGraph
}

// resolveTie settles whether embedding and head are one table, as hfSource does. Exporters turn a tied table around for the head, and
// have two then.
func (s *onnxSource) resolveTie(ctx context.Context) error {
	head, stored := s.graph.matrices["lm_head"]
	embed := s.graph.matrices["model.embed_tokens"]
	same := !stored || head.tensor == embed.tensor
	if !same && (s.cfg.TieWordEmbeddings || s.cfg.tieUnstated) {
		a, err := s.matrix("model.embed_tokens", s.cfg.VocabSize, s.cfg.HiddenSize)
		if err != nil {
			return err
		}
		b, err := s.matrix("lm_head", s.cfg.VocabSize, s.cfg.HiddenSize)
		if err != nil {
			return err
		}
		if same, err = sameTable(ctx, a.View, b.View, b.turned); err != nil {
			return err
		}
		s.used[head.tensor] = same
		if err := errors.Join(a.ReleasePages(), b.ReleasePages()); err != nil {
			return err
		}
	}
	s.cfg.TieWordEmbeddings, s.cfg.tieUnstated = same, false
	return nil
}

// sameTable compares a [rows, cols] with b, which is [cols, rows] when turned, and gives pages of both back as it goes.
func sameTable(ctx context.Context, a, b container.View, turned bool) (same bool, err error) {
	if a.DType != b.DType || len(a.Data) != len(b.Data) {
		return false, nil
	}
	one, other := scan{ctx: ctx}, scan{ctx: ctx}
	if !turned {
		err := one.pieces(a, 1, func(at int, piece []byte) error {
			if !bytes.Equal(piece, b.Data[at:at+len(piece)]) {
				return errOther
			}
			return other.passed(b, at+len(piece))
		})
		if errors.Is(err, errOther) {
			return false, nil
		}
		return err == nil, err
	}
	rows, cols := a.Shape[0], a.Shape[1]
	size := len(a.Data) / (rows * cols)
	for first := 0; first < rows; first += turnedRows { // so that pieces of both are in the cache
		last := min(first+turnedRows, rows)
		for c := range cols {
			for r := first; r < last; r++ {
				if string(a.Data[(r*cols+c)*size:][:size]) != string(b.Data[(c*rows+r)*size:][:size]) {
					return false, nil
				}
			}
		}
		given := one.read
		if err := one.passed(a, last*cols*size); err != nil {
			return false, err
		}
		if one.read > given { // of b, pieces of every row were read
			if err := b.ReleasePages(); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

var errOther = errors.New("another table")

// matrix returns the weights of a module.
func (s *onnxSource) matrix(module string, out, in int) (fileMatrix, error) {
	m, ok := s.graph.matrices[module]
	if !ok {
		return fileMatrix{}, &container.Error{Kind: container.ErrTensorMissing, Path: s.set.Path(), Tensor: module + ".weight",
			Found: "neither an initializer of that name nor a MatMul of that module", Expected: fmt.Sprintf("a matrix of shape %v", []int{out, in})}
	}
	shape := []int{out, in}
	if m.turned {
		shape = []int{in, out}
	}
	v, err := s.view(m.tensor, shape...)
	if err != nil {
		return fileMatrix{}, err
	}
	return fileMatrix{View: v, turned: m.turned, width: out}, v.Check(shape, append([]string{onnx.I8, onnx.I2}, floats...)...)
}

func (s *onnxSource) linear(name string, out, in int) (*nn.Linear, error) {
	w, err := s.matrix(name, out, in)
	if err != nil {
		return nil, err
	}
	l := &nn.Linear{Out: out, In: in}
	switch {
	case !s.converts(name):
		l.Dense, err = s.float(w, out, in, natural(w.DType))
	case slices.Contains(floats, w.DType):
		s.ternarize(l, name, w)
	default:
		err = s.integers(l, name, w)
	}
	if err != nil {
		return nil, err
	}
	if s.cfg.hasBias(name) {
		if l.Bias, err = s.vector(s.stored(s.graph.biases, name, ".bias"), out); err != nil {
			return nil, err
		}
	}
	return l, s.cfg.ownNorm(l, func() ([]float32, error) { return s.norm(name+".rms_norm", "weight", in) })
}

// integers plans a linear whose codes are stored as integers.
func (s *onnxSource) integers(l *nn.Linear, name string, w fileMatrix) error {
	tensor := s.graph.matrices[name].scale
	if tensor == "" {
		tensor = name + ".weight_scale"
	}
	v, scale, err := s.number(tensor)
	if err != nil {
		return err
	}
	if err := checkScale(v, scale, scale); err != nil {
		return err
	}
	l.Ternary = s.ternary(name, l.Out, l.In)
	l.Ternary.Scale = scale
	fill := s.codes(l.Ternary)
	s.plan(w.View, 0, func() error {
		return fill(func(panels []byte) error {
			errs := make([]error, l.Out)
			eachRows(l.Out, func(first, rows int) {
				codes, err := onnxCodes(w.View, w.turned, l.Out, l.In, first, rows)
				if errs[first] = err; err == nil {
					cpu.PackTernary(panels[cpu.TernaryBytes(first, l.In):], codes, rows, l.In)
				}
			})
			return cmp.Or(errs...)
		})
	})
	return nil
}

// onnxCodes reads some rows, from first on, of the codes of a ternary matrix [out, in].
func onnxCodes(w container.View, turned bool, out, in, first, rows int) ([]int8, error) {
	codes := make([]int8, rows*in)
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(codes))), len(codes))
	var room []byte
	numbers := func(at, n int) []byte { // good until the next ones
		if w.DType != onnx.I2 {
			return w.Data[at : at+n]
		}
		room = appendInt2(room[:0], w.Data[at/4:(at+n+3)/4])
		return room[at%4:][:n]
	}
	switch {
	case !turned:
		copy(raw, numbers(first*in, len(raw)))
	case w.DType != onnx.I2:
		turn(raw, in, w.Data[first:], out, in, rows)
	default:
		columns := make([]byte, 0, len(raw)) // [in, rows]
		for k := range in {
			columns = append(columns, numbers(k*out+first, rows)...)
		}
		turn(raw, in, columns, rows, in, rows)
	}
	return codes, checkCodes(codes, first*in, in)
}

// checkCodes refuses numbers that are no weights in a matrix with so many columns, of which they are those from the first on.
func checkCodes(codes []int8, first, cols int) error {
	for i, code := range codes {
		if code < -1 || code > 1 {
			return &quant.ValueError{Kind: quant.ErrCode, Row: (first + i) / cols, Col: (first + i) % cols, Found: fmt.Sprint(code), Expected: "-1, 0 or 1"}
		}
	}
	return nil
}

// int2s are the four numbers of two bits in a byte.
var int2s = func() (table [256][4]byte) {
	for b := range table {
		for i := range 4 {
			table[b][i] = byte(int8(b<<(6-2*i)) >> 6)
		}
	}
	return table
}()

// appendInt2 makes bytes of numbers of two bits, four of them in a byte.
func appendInt2(numbers, data []byte) []byte {
	for _, b := range data {
		numbers = append(numbers, int2s[b][:]...)
	}
	return numbers
}

// masterRows reads the master weights of a layer, nil where it has codes.
func (s *onnxSource) masterRows(name string, out, in int) (masterRows, error) {
	w, err := s.matrix(name, out, in)
	if err != nil || !slices.Contains(floats, w.DType) {
		return nil, err
	}
	return rowsOnce(w.View, w.upright(out, in), out, in), nil
}

func (s *onnxSource) norm(name, part string, dim int) ([]float32, error) {
	return s.vector(s.stored(s.graph.vectors, name, "."+part), dim)
}

// stored is the tensor of a module's vector, or the name that it should have.
func (s *onnxSource) stored(names map[string]string, module, part string) string {
	if name, ok := names[module]; ok {
		return name
	}
	return module + part
}

func (s *onnxSource) table(name string, rows, cols int) (*nn.Linear, error) {
	w, err := s.matrix(name, rows, cols)
	if err != nil {
		return nil, err
	}
	format := natural(w.DType)
	if s.cfg.isHead(name) {
		format = s.head.or(format)
	}
	d, err := s.float(w, rows, cols, format)
	if err != nil {
		return nil, err
	}
	return &nn.Linear{Out: rows, In: cols, Dense: d}, nil
}
