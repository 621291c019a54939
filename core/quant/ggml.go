package quant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// GGML's ternary types, as GGUF files have them, become the kernels' layouts
// without a dense copy. All of them have codes that lie far apart in a row in
// one byte, and the kernels have neighbours there: so four words, a byte with
// four codes each, are turned as 4 x 4 codes, for eight bytes at once. Package
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
	lanes, bytes int  // of a block; a lane is the codes of 16 columns
	tail         int  // bytes behind the codes, the scale first; 0 where each block ends with its scale, a half
	rowwise      bool // a row is whole blocks
	fourRows     bool // a block is 16 columns of four rows
	// lanesOf decodes a block: of fourRows the lane of one of the rows.
	lanesOf func(lanes *ggmlLanes, block []byte, row int)
}

// ggmlLanes are the lanes of a block: field f of byte j is the code of column 4f+j, see cpu.PackTernary.
type ggmlLanes [16]uint32

const tq1Bytes, tq2Bytes = 54, 66

var ggmlFormats = map[string]ggmlFormat{
	GGMLI2SX86:   {lanes: 8, bytes: 32, tail: 32, lanesOf: i2sX86Lanes},
	GGMLI2SArm64: {lanes: 4, bytes: 16, tail: 32, lanesOf: i2sArm64Lanes},
	GGMLI2SRow4:  {lanes: 1, bytes: 16, tail: 32, lanesOf: i2sRow4Lane, fourRows: true},
	GGMLTQ1:      {lanes: 16, bytes: tq1Bytes, rowwise: true, lanesOf: tq1Lanes},
	GGMLTQ2:      {lanes: 16, bytes: tq2Bytes, rowwise: true, lanesOf: tq2Lanes},
}

// PackGGML fills t, whose shape, layout and memory are given, with the codes
// and the scale of a tensor of one of GGML's ternary types. Row r of the matrix
// is row order(r) of the source; a nil order keeps the rows.
//
// Errors: ErrShape when sizes do not fit; ErrScale when blocks of TQ1_0 or
// TQ2_0 have several scales; ErrCode with the position, in the source, of a
// code 3.
func PackGGML(t *Ternary, format string, src []byte, order func(row int) int) error {
	if err := checkShape(t.Rows, t.Cols); err != nil {
		return err
	}
	if err := checkBytes("codes", len(t.Data), t.Layout.Bytes(t.Rows, t.Cols), t.Rows, t.Cols); err != nil {
		return err
	}
	g := ggmlSource{data: src, cols: t.Cols}
	scale, err := g.open(format, t.Rows)
	if err != nil {
		return err
	}
	t.Scale = scale
	size := cpu.TernaryBytes(cpu.PanelRows, t.Cols)
	return t.fill(func(panels []byte, p0, p1 int) error {
		for p := p0; p < p1; p++ {
			panel := panels[(p-p0)*size:][:size]
			for r := range cpu.PanelRows {
				row := p*cpu.PanelRows + r
				if row >= t.Rows {
					padLane(panel, r)
					continue
				}
				if order != nil {
					row = order(row)
				}
				if err := g.pack(panel[4*r:], row); err != nil {
					return err
				}
			}
		}
		return nil
	})
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
	unit, values := rows*g.cols, f.lanes*cpu.BlockCols
	switch {
	case f.rowwise:
		unit = g.cols
	case f.fourRows:
		values *= 4
	}
	if unit%values != 0 || g.cols%cpu.BlockCols != 0 || (f.fourRows && rows%4 != 0) {
		return 0, fmt.Errorf("%w: %s: found [%d, %d], expected whole blocks of %d values and a multiple of %d columns",
			ErrShape, format, rows, g.cols, values, cpu.BlockCols)
	}
	codes := rows * g.cols / values * f.bytes
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
		switch b := scaleBits(g.data[end-2:]); {
		case b == 0 || b == bits:
		case bits == 0:
			bits = b
		default:
			at := (end/g.bytes - 1) * g.lanes * cpu.BlockCols
			return 0, &ValueError{Kind: ErrScale, Row: at / g.cols, Col: at % g.cols, Found: fmt.Sprint(half(b)), Expected: fmt.Sprint(half(bits))}
		}
	}
	return half(bits), nil
}

func half(bits uint16) float32 { return tensor.Float16Bits(bits).Float32() }

// scaleBits is the half at b, with one zero.
func scaleBits(b []byte) uint16 {
	if bits := binary.LittleEndian.Uint16(b); bits != 0x8000 {
		return bits
	}
	return 0
}

// pack writes the lanes of a row of the source into those of a panel's row.
func (g *ggmlSource) pack(panel []byte, row int) error {
	count := g.cols / cpu.BlockCols
	first := row * count
	if g.fourRows {
		first = row / 4 * count
	}
	var lanes ggmlLanes
	bad := uint32(0)
	for n := 0; n < count; {
		g.lanesOf(&lanes, g.data[(first+n)/g.lanes*g.bytes:][:g.bytes], row)
		for i := (first + n) % g.lanes; i < g.lanes && n < count; i, n = i+1, n+1 {
			bad |= lanes[i] & (lanes[i] >> 1)
			binary.LittleEndian.PutUint32(panel[n*cpu.BlockBytes:], lanes[i])
		}
	}
	if bad&0x55555555 != 0 {
		return laneCode3(panel, row, g.cols)
	}
	return nil
}

// laneCode3 names the first bad weight of a row that is known to have one.
func laneCode3(panel []byte, row, cols int) error {
	e := &ValueError{Kind: ErrCode, Row: row, Found: "code 3", Expected: "0, 1 or 2"}
	for c := range cols {
		if panel[c/cpu.BlockCols*cpu.BlockBytes+c%4]>>(c/4%4*2)&3 == 3 {
			e.Col = c
			break
		}
	}
	return e
}

// i2sX86Lanes: byte i has the values i, 32+i, 64+i and 96+i, the first in the highest bits.
func i2sX86Lanes(lanes *ggmlLanes, b []byte, _ int) {
	t := turn32(b)
	for k, x := range t {
		lanes[6-2*k], lanes[7-2*k] = uint32(x), uint32(x>>32)
	}
}

// i2sArm64Lanes: byte i has the values i, 16+i, 32+i and 48+i, the first in the highest bits.
func i2sArm64Lanes(lanes *ggmlLanes, b []byte, _ int) {
	t := turn16(b)
	for k, x := range t {
		lanes[3-k] = uint32(x)
	}
}

// i2sRow4Lane: byte i has column i of four rows, the first in the highest bits.
func i2sRow4Lane(lanes *ggmlLanes, b []byte, row int) {
	t := turn16(b)
	lanes[0] = uint32(t[3-row%4])
}

// tq2Lanes: byte i of each half has the values i, 32+i, 64+i and 96+i of it, the first in the lowest bits.
func tq2Lanes(lanes *ggmlLanes, b []byte, _ int) {
	if scaleBits(b[64:]) == 0 {
		*lanes = zeroLanes
		return
	}
	for half := range 2 {
		t := turn32(b[32*half:])
		for k, x := range t {
			lanes[8*half+2*k], lanes[8*half+2*k+1] = uint32(x), uint32(x>>32)
		}
	}
}

// tq1Lanes: of 32 bytes digit n in base 3 of byte i is value 32n+i, of the next 16 value 160+16n+i, and of the last four, which have four digits,
// value 240+4n+i.
func tq1Lanes(lanes *ggmlLanes, b []byte, _ int) {
	if scaleBits(b[52:]) == 0 {
		*lanes = zeroLanes
		return
	}
	var four, fifth [52]byte
	for i, x := range b[:52] {
		four[i], fifth[i] = trits[x][0], trits[x][1]
	}
	t := turn32(four[:])
	for k, x := range t {
		lanes[2*k], lanes[2*k+1] = uint32(x), uint32(x>>32)
	}
	lanes[8], lanes[9] = join(fifth[:]), join(fifth[16:])
	t = turn16(four[32:])
	for k, x := range t {
		lanes[10+k] = uint32(x)
	}
	lanes[14] = join(fifth[32:])
	lanes[15] = binary.LittleEndian.Uint32(four[48:])
}

// trits are the first four digits of a byte of TQ1_0, two bits each, and the fifth: what 3 times the byte times 3^n, modulo 256, carries over.
var trits = func() (t [256][2]byte) {
	for b := range t {
		rest := uint16(b)
		for n := range 5 {
			t[b][n/4] |= byte(rest*3>>8) << (n % 4 * 2)
			rest = rest * 3 & 0xff
		}
	}
	return t
}()

// zeroLanes are lanes of weight 0.
var zeroLanes = func() (l ggmlLanes) {
	for i := range l {
		l[i] = 0x55555555
	}
	return l
}()

// join makes a lane of sixteen codes, one a byte.
func join(b []byte) uint32 {
	return binary.LittleEndian.Uint32(b) | binary.LittleEndian.Uint32(b[4:])<<2 | binary.LittleEndian.Uint32(b[8:])<<4 | binary.LittleEndian.Uint32(b[12:])<<6
}

// turn16 makes four lanes of sixteen bytes: lane k has the codes in bits 2k of these.
func turn16(b []byte) [4]uint64 {
	b = b[:16]
	return turn(uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:])),
		uint64(binary.LittleEndian.Uint32(b[8:])), uint64(binary.LittleEndian.Uint32(b[12:])))
}

// turn32 is turn16 for twice sixteen bytes, of which the second have the upper halves.
func turn32(b []byte) [4]uint64 {
	b = b[:32]
	at := func(i int) uint64 {
		return uint64(binary.LittleEndian.Uint32(b[i:])) | uint64(binary.LittleEndian.Uint32(b[16+i:]))<<32
	}
	return turn(at(0), at(4), at(8), at(12))
}

// turn swaps field i of word k with field k of word i, in every byte.
func turn(w0, w1, w2, w3 uint64) [4]uint64 {
	const odd, high = 0x3333333333333333, 0x0f0f0f0f0f0f0f0f
	t := (w0>>2 ^ w1) & odd
	w0, w1 = w0^t<<2, w1^t
	t = (w2>>2 ^ w3) & odd
	w2, w3 = w2^t<<2, w3^t
	t = (w0>>4 ^ w2) & high
	w0, w2 = w0^t<<4, w2^t
	t = (w1>>4 ^ w3) & high
	w1, w3 = w1^t<<4, w3^t
	return [4]uint64{w0, w1, w2, w3}
}

// ErrScale is a tensor of blocks that is no ternary matrix: its blocks have
// several scales.
var ErrScale = errors.New("quant: a ternary layer has one scale")
