package model

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// NewRandom builds a model of the shape of cfg with random weights, the same for the same seed: for benchmarks, whose speed
// depends on shapes alone, and for tests. Fields of cfg left zero take Config.WithDefaults. Ternary codes are uniform, with
// scales that keep the variance of activations near one through every layer; tables are normal with cfg.InitializerRange
// as their standard deviation; norms are one and biases zero. Of the options it uses HeadFormat (auto: what cfg.DType
// says), Packing, Progress and Pool. Errors are those of Load that are not about files.
func NewRandom(cfg *Config, seed uint64, o LoadOptions) (*Model, error) {
	return NewRandomContext(context.Background(), cfg, seed, o)
}

// NewRandomContext is NewRandom until ctx ends; then the error is that of ctx.
func NewRandomContext(ctx context.Context, cfg *Config, seed uint64, o LoadOptions) (*Model, error) {
	if err := cpu.InitError(); err != nil {
		return nil, err
	}
	head, err := parseHeadFormat(o.HeadFormat)
	if err != nil {
		return nil, err
	}
	if err := o.checkPacking(); err != nil {
		return nil, err
	}
	c := cfg.clone().WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if d := o.FFNDensity; d != 0 && (!(d > 0 && d <= 0.5) || c.layout("up_proj", c.Quantization.converter()) == quant.Panel16) {
		return nil, fmt.Errorf("%w: ffn_density %v: must be above 0 and at most 0.5, for a model whose hidden_act is %s (this one's: %s)",
			ErrOption, d, ActReLU2, c.HiddenAct)
	}
	l := newLoader(o, head)
	l.wide = true
	src := &randomSource{loader: l, cfg: &c, seed: seed, converts: c.Quantization.converter()}
	// The plan alone of a model that no machine holds would take gigabytes.
	if err := l.opts.Pool.Check(c.weightBytes(src.natural(), head.or(src.natural()), src.natural(), &o), "weights"); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	m, err := build(&c, src)
	if err != nil {
		return nil, err
	}
	if err := l.finish(ctx, m); err != nil {
		return nil, err
	}
	m.Info.Format = "random"
	return m, nil
}

// randomSource makes weights up. Every job draws from a generator of its own, so that the number of threads does not matter.
type randomSource struct {
	*loader
	cfg  *Config
	seed uint64
	next uint64

	converts func(module string) bool
}

func (s *randomSource) generator() *rand.PCG {
	s.next++
	return rand.NewPCG(s.seed, s.next)
}

func (s *randomSource) linear(name string, out, in int) (*nn.Linear, error) {
	if !s.converts(name) {
		std := 1 / math.Sqrt(float64(in))
		return &nn.Linear{Out: out, In: in, Dense: s.dense(out, in, s.natural(), std), Bias: s.bias(name, out)}, nil
	}
	l := &nn.Linear{Out: out, In: in, Bias: s.bias(name, out)}
	// A uniform ternary weight has variance 2/3, and a sum of `in` of them with inputs of variance one has 2/3 * in.
	l.Ternary = &quant.Ternary{Rows: out, Cols: in, Scale: float32(1 / math.Sqrt(2.0/3*float64(in))), Layout: s.opts.packed(s.cfg.layout(name, s.converts))}
	if s.cfg.Quantization.UseRMSNorm {
		l.Norm = &nn.Norm{Weight: ones(in), Eps: float32(s.cfg.Quantization.RMSNormEps)}
	}
	fill := s.codes(l.Ternary)
	g := s.generator()
	s.add(job{bytes: int64(cpu.TernaryBytes(out, in)), work: func(context.Context) error {
		return fill(func(panels []byte) error {
			fillTernary(panels, out, in, g)
			if d := s.opts.FFNDensity; d > 0 && strings.HasSuffix(name, "gate_proj") {
				clearRows(panels, out, in, 1-2*d, rand.New(g))
			}
			return nil
		})
	}})
	return l, nil
}

func (s *randomSource) bias(name string, out int) []float32 {
	if !s.cfg.hasBias(name) {
		return nil
	}
	return make([]float32, out)
}

func (s *randomSource) norm(_, part string, dim int) ([]float32, error) {
	return freshNorm(part, dim), nil
}

// freshNorm is what a part of a norm begins as: a weight of one, a bias of zero.
func freshNorm(part string, dim int) []float32 {
	if part == "bias" {
		return make([]float32, dim)
	}
	return ones(dim)
}

func ones(n int) []float32 { return slices.Repeat([]float32{1}, n) }

// natural is the dense format of the config's dtype.
func (s *randomSource) natural() cpu.DenseFormat {
	switch s.cfg.DType {
	case "bfloat16":
		return cpu.DenseBF16
	case "float16":
		return cpu.DenseF16
	}
	return cpu.DenseF32
}

func (s *randomSource) table(name string, rows, cols int) (*nn.Linear, error) {
	format := s.natural()
	if s.cfg.isHead(name) {
		format = s.head.or(format)
	}
	return &nn.Linear{Out: rows, In: cols, Dense: s.dense(rows, cols, format, s.cfg.InitializerRange)}, nil
}

// dense plans a matrix of normal numbers, in pieces that several threads fill.
func (s *randomSource) dense(rows, cols int, f cpu.DenseFormat, std float64) *quant.Dense {
	d := &quant.Dense{Rows: rows, Cols: cols, Format: f}
	weights, scale := normalDraw(f, std)
	if quant.Scaled(f) {
		d.RowScale = slices.Repeat([]float32{scale}, rows)
	}
	s.reserve(&d.Panels, cpu.DenseBytes(f, rows, cols))
	step := max(1, (4<<20)/cpu.DenseBytes(f, cpu.PanelRows, cols)) * cpu.PanelRows
	for r := 0; r < rows; r += step {
		end, g := min(r+step, rows), s.generator()
		from, to := cpu.DenseBytes(f, r, cols), cpu.DenseBytes(f, end, cols)
		s.add(job{bytes: int64(to - from), work: func(context.Context) error {
			fillDense(d.Panels[from:to], f, end-r, cols, weights, scale, g)
			return nil
		}})
	}
	return d
}

// draw maps 16 random bits to 16 bits of weights.
type draw [1 << 16]uint16

// fill fills memory, a multiple of 8 bytes, with drawn weights.
func (t *draw) fill(dst []byte, g *rand.PCG) {
	for ; len(dst) >= 8; dst = dst[8:] {
		x := g.Uint64()
		binary.LittleEndian.PutUint64(dst, uint64(t[x&0xffff])|uint64(t[x>>16&0xffff])<<16|uint64(t[x>>32&0xffff])<<32|uint64(t[x>>48])<<48)
	}
}

// ternaryDraw gives eight uniform ternary codes.
var ternaryDraw = sync.OnceValue(func() *draw {
	t := new(draw)
	for i := range t {
		digits := i * 6561 >> 16 // 3^8
		for f := range 8 {
			t[i] |= uint16(digits%3) << (2 * f)
			digits /= 3
		}
	}
	return t
})

// normalDraw gives normal numbers with the standard deviation in a dense format (for float32 their upper halves), and the scale
// that the integer formats need for it.
func normalDraw(f cpu.DenseFormat, std float64) (t *draw, scale float32) {
	t = new(draw)
	if !f.Integer() {
		for i := range t {
			v := float32(normalQuantile(i, 16) * std)
			if t[i] = uint16((math.Float32bits(v) + 0x8000) >> 16); f == cpu.DenseF16 {
				t[i] = uint16(tensor.ToFloat16(v))
			}
		}
		return t, 1
	}
	bits, top, clip := 8, 127.0, 4.0 // of a code; the largest code, and how many deviations it stands for
	if f == cpu.DenseInt4 {
		bits, top, clip = 4, 7, 2.5
	}
	mask := 1<<bits - 1
	zero := 1 << (bits - 1)
	for i := range t {
		for shift := 0; shift < 16; shift += bits {
			code := math.RoundToEven(normalQuantile(i>>shift&mask, bits) * top / clip)
			t[i] |= uint16(zero+int(max(-top, min(top, code)))) << shift
		}
	}
	return t, float32(std * clip / top)
}

// normalQuantile is the middle of the i-th of 2^bits equally likely slices of the standard normal distribution.
func normalQuantile(i, bits int) float64 {
	return math.Sqrt2 * math.Erfinv(float64(float64(2*i+1)/float64(int(1)<<bits))-1)
}

// fillTernary fills panel16 memory with random codes; the padding is weight 0.
func fillTernary(panels []byte, rows, cols int, g *rand.PCG) {
	ternaryDraw().fill(panels, g)
	if last := rows % cpu.PanelRows; last != 0 {
		panel := panels[len(panels)-cpu.TernaryBytes(cpu.PanelRows, cols):]
		for block := 0; block < len(panel); block += cpu.BlockBytes {
			for i := 4 * last; i < cpu.BlockBytes; i++ {
				panel[block+i] = 0x55
			}
		}
	}
	if last := cols % cpu.BlockCols; last != 0 {
		stride := cpu.TernaryBytes(cpu.PanelRows, cols)
		for block := stride - cpu.BlockBytes; block < len(panels); block += stride {
			for c := last; c < cpu.BlockCols; c++ {
				shift := 2 * (c / 4)
				for r := range cpu.PanelRows {
					b := &panels[block+4*r+c%4]
					*b = *b&^(3<<shift) | 1<<shift
				}
			}
		}
	}
}

// clearRows makes a share of the rows zero.
func clearRows(panels []byte, rows, cols int, share float64, r *rand.Rand) {
	stride := cpu.TernaryBytes(cpu.PanelRows, cols)
	for i := range rows {
		if r.Float64() >= share {
			continue
		}
		panel := panels[i/cpu.PanelRows*stride:][:stride]
		for at := 4 * (i % cpu.PanelRows); at < stride; at += cpu.BlockBytes {
			copy(panel[at:at+4], "\x55\x55\x55\x55")
		}
	}
}

// fillDense fills dense16 memory with random numbers; the padding is zero, and scale that of int4.
func fillDense(panels []byte, f cpu.DenseFormat, rows, cols int, weights *draw, scale float32, g *rand.PCG) {
	weights.fill(panels, g)
	if f == cpu.DenseInt4 {
		for r := range (rows + cpu.PanelRows - 1) / cpu.PanelRows * cpu.PanelRows {
			for c := 0; c < cols; c += 2 * cpu.Int4Group {
				both := math.Float32bits(scale) >> 16
				if c+cpu.Int4Group < cols {
					both *= 1<<16 + 1
				}
				if r >= rows {
					both = 0
				}
				binary.LittleEndian.PutUint32(panels[cpu.Int4ScaleOffset(cols, r, c):], both)
			}
		}
	}
	if f == cpu.DenseF32 { // of two drawn upper halves the first makes room
		for i := 0; i < len(panels); i += 4 {
			panels[i], panels[i+1] = 0, 0
		}
	}
	clearPadding(panels, f, rows, cols)
}

// clearPadding zeroes what lies beyond the rows and columns of a dense16 matrix.
func clearPadding(panels []byte, f cpu.DenseFormat, rows, cols int) {
	width, height := cpu.DenseCols(f, cols), (rows+cpu.PanelRows-1)/cpu.PanelRows*cpu.PanelRows
	for r := range height {
		first := cols
		if r >= rows {
			first = 0
		}
		for c := first; c < width; c++ {
			clearWeight(panels[cpu.DenseOffset(f, cols, r, c):], f, c)
		}
	}
}

// clearWeight zeroes the weight of column c at the start of b.
func clearWeight(b []byte, f cpu.DenseFormat, c int) {
	switch f {
	case cpu.DenseF32:
		clear(b[:4])
	case cpu.DenseBF16, cpu.DenseF16:
		clear(b[:2])
	case cpu.DenseInt8:
		b[0] = 0x80
	case cpu.DenseInt4:
		half := byte(15) << (c / 4 % 2 * 4)
		b[0] = b[0]&^half | 0x88&half
	}
}
