package quant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// GGML's ternary types, as GGUF files have them, become panels without a dense
// copy: sixteen columns of a row are sixteen successive bytes, all shifted
// alike, or with one digit in base 3 taken from each. Package
// core/format/gguf describes the types, and its plain decoders are what these
// are tested against.

// The source formats of PackGGML: GGML's types, I2_S in each of its layouts.
const (
	GGMLI2SX86   = "I2_S x86"
	GGMLI2SArm64 = "I2_S arm64"
	GGMLI2SRow4  = "I2_S row4"
	GGMLTQ1      = "TQ1_0"
	GGMLTQ2      = "TQ2_0"
)

// ggmlFormat is how a format packs codes.
type ggmlFormat struct {
	values, bytes int  // of a block; row4 has four rows in each
	tail          int  // bytes behind the codes, the scale first; 0 where each block ends with its scale, a half
	rowwise       bool // a row is whole blocks
	// read gives the codes of sixteen columns, one a byte.
	read func(g *ggmlSource, row, col int) [4]uint32
}

const tqValues, tq1Bytes, tq2Bytes = 256, 54, 66

var ggmlFormats = map[string]ggmlFormat{
	GGMLI2SX86: {values: 128, bytes: 32, tail: 32, read: func(g *ggmlSource, row, col int) [4]uint32 {
		at := row*g.cols + col
		return g.pairs(at/128*32+at%32, 6-at%128/32*2)
	}},
	GGMLI2SArm64: {values: 64, bytes: 16, tail: 32, read: func(g *ggmlSource, row, col int) [4]uint32 {
		at := row*g.cols + col
		return g.pairs(at/64*16, 6-at%64/16*2)
	}},
	GGMLI2SRow4: {values: 4, bytes: 1, tail: 32, read: func(g *ggmlSource, row, col int) [4]uint32 {
		return g.pairs(row/4*g.cols+col, 6-row%4*2)
	}},
	GGMLTQ1: {values: tqValues, bytes: tq1Bytes, rowwise: true, read: (*ggmlSource).trits},
	GGMLTQ2: {values: tqValues, bytes: tq2Bytes, rowwise: true, read: func(g *ggmlSource, row, col int) [4]uint32 {
		b := (row*g.cols + col) / tqValues * tq2Bytes
		if g.half(b+tq2Bytes) == 0 {
			return zeroCodes
		}
		return g.pairs(b+col%256/128*32+col%32, col%128/32*2)
	}},
}

// zeroCodes are the codes of sixteen weights 0.
var zeroCodes = [4]uint32{0x01010101, 0x01010101, 0x01010101, 0x01010101}

// PackGGML turns a rows x cols tensor of one of GGML's ternary types into
// panel16: dst, cpu.TernaryBytes long, gets the codes, and the scale is
// returned. Row r of the matrix is row order(r) of the source; a nil order
// keeps the rows. Code 3 counts as 0, as in GGML.
//
// Errors: ErrShape when sizes do not fit; ErrScale when blocks of TQ1_0 or
// TQ2_0 have several scales.
func PackGGML(dst []byte, format string, src []byte, rows, cols int, order func(row int) int) (scale float32, err error) {
	if err := checkShape(rows, cols); err != nil {
		return 0, err
	}
	if err := checkBytes("panels", len(dst), cpu.TernaryBytes(rows, cols), rows, cols); err != nil {
		return 0, err
	}
	g := ggmlSource{data: src, cols: cols}
	if scale, err = g.open(format, rows); err != nil {
		return 0, err
	}
	stride := cpu.TernaryBytes(cpu.PanelRows, cols)
	cpu.Parallel(len(dst)/stride, task(func(p int) {
		panel := dst[p*stride : (p+1)*stride]
		for r := range cpu.PanelRows {
			row := p*cpu.PanelRows + r
			switch {
			case row >= rows:
				padLane(panel, r)
			case order != nil:
				g.pack(panel[4*r:], order(row))
			default:
				g.pack(panel[4*r:], row)
			}
		}
	}))
	return scale, nil
}

// ggmlSource is the packed tensor.
type ggmlSource struct {
	ggmlFormat
	data []byte
	cols int
}

// open checks the sizes and finds the scale.
func (g *ggmlSource) open(format string, rows int) (scale float32, err error) {
	f, ok := ggmlFormats[format]
	if !ok {
		return 0, fmt.Errorf("%w: found %q, expected a ternary type of GGML", ErrDType, format)
	}
	g.ggmlFormat = f
	n := rows * g.cols
	unit := n
	if f.rowwise {
		unit = g.cols
	}
	if unit%f.values != 0 || g.cols%cpu.BlockCols != 0 || (format == GGMLI2SRow4 && rows%4 != 0) {
		return 0, fmt.Errorf("%w: %s: found [%d, %d], expected whole blocks of %d values and a multiple of %d columns",
			ErrShape, format, rows, g.cols, f.values, cpu.BlockCols)
	}
	codes := n / f.values * f.bytes
	if err := checkBytes(format, len(g.data), codes+f.tail, rows, g.cols); err != nil {
		return 0, err
	}
	if f.tail > 0 {
		return math.Float32frombits(binary.LittleEndian.Uint32(g.data[codes:])), nil
	}
	return g.blockScale()
}

// blockScale is the scale that all blocks with one that is not 0 have.
func (g *ggmlSource) blockScale() (float32, error) {
	var bits uint16
	for end := g.bytes; end <= len(g.data); end += g.bytes {
		switch b := g.half(end); {
		case b == 0 || b == bits:
		case bits == 0:
			bits = b
		default:
			at := (end/g.bytes - 1) * g.values
			return 0, &ValueError{Kind: ErrScale, Row: at / g.cols, Col: at % g.cols, Found: fmt.Sprint(half(b)), Expected: fmt.Sprint(half(bits))}
		}
	}
	return half(bits), nil
}

func half(bits uint16) float32 { return tensor.Float16Bits(bits).Float32() }

// half is the bits of the two bytes before end, with one zero.
func (g *ggmlSource) half(end int) uint16 {
	if b := binary.LittleEndian.Uint16(g.data[end-2:]); b != 0x8000 {
		return b
	}
	return 0
}

// pack writes a row's lanes: lane f of a block holds columns 4f..4f+3 in bits 2f of its four bytes.
func (g *ggmlSource) pack(lanes []byte, row int) {
	for at, col := 0, 0; col < g.cols; at, col = at+cpu.BlockBytes, col+cpu.BlockCols {
		w := g.read(g, row, col)
		lane := w[0] | w[1]<<2 | w[2]<<4 | w[3]<<6
		lane &^= lane & (lane >> 1 & 0x55555555) << 1 // code 3 becomes 1
		binary.LittleEndian.PutUint32(lanes[at:], lane)
	}
}

// pairs takes two bits of each of sixteen bytes.
func (g *ggmlSource) pairs(at, shift int) (w [4]uint32) {
	for f := range w {
		w[f] = binary.LittleEndian.Uint32(g.data[at+4*f:]) >> shift & 0x03030303
	}
	return w
}

// trits takes a digit in base 3 of each of sixteen bytes, or, where a block of TQ1_0 ends, four digits of four bytes.
func (g *ggmlSource) trits(row, col int) (w [4]uint32) {
	b := (row*g.cols + col) / tqValues * tq1Bytes
	v := col % tqValues
	switch {
	case g.half(b+tq1Bytes) == 0:
		return zeroCodes
	case v < 160:
		b, v = b+v%32, v/32
	case v < 240:
		b, v = b+32, (v-160)/16
	default:
		for f := range w {
			w[f] = digits(binary.LittleEndian.Uint32(g.data[b+48:]), f)
		}
		return w
	}
	for f := range w {
		w[f] = digits(binary.LittleEndian.Uint32(g.data[b+4*f:]), v)
	}
	return w
}

// digits is digit n of four bytes that are fractions of 256 in base 3: what 3 times the byte times 3^n, modulo 256, carries over.
func digits(word uint32, n int) uint32 {
	const low = 0x00ff00ff
	power := [...]uint32{1, 3, 9, 27, 81}[n]
	even, odd := word&low*power&low, word>>8&low*power&low
	return even*3>>8&low | odd*3>>8&low<<8
}

// ErrScale is a tensor of blocks that is no ternary matrix: its blocks have
// several scales.
var ErrScale = errors.New("quant: a ternary layer has one scale")
