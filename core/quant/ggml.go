package quant

import (
	"bytes"
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
	GGMLIQ1BN    = "IQ1_BN"
	GGMLIQ2BN    = "IQ2_BN"
)

// ggmlFormat is how a format packs codes.
type ggmlFormat struct {
	lanes, bytes int  // of a block; a lane is the codes of 16 columns, see cpu.PackTernary
	tail         int  // bytes behind the codes, the scale first
	front        int  // bytes of the scale with which a row begins; 0 too where each block ends with its scale, a half, and a row is whole blocks
	fourRows     bool // a block is 16 columns of four rows
	// unpack writes the lanes of a block, of fourRows the lane of a row, to the places that they have in a panel's row; bad has a bit for
	// each code 3.
	unpack func(panel, block []byte, row int) (bad uint64)
}

const tq1Bytes, tq2Bytes = 54, 66

var ggmlFormats = map[string]ggmlFormat{
	GGMLI2SX86:   {lanes: 8, bytes: 32, tail: 32, unpack: unpackI2SX86},
	GGMLI2SArm64: {lanes: 4, bytes: 16, tail: 32, unpack: unpackI2SArm64},
	GGMLI2SRow4:  {lanes: 1, bytes: 16, tail: 32, unpack: unpackI2SRow4, fourRows: true},
	GGMLTQ1:      {lanes: 16, bytes: tq1Bytes, unpack: unpackTQ1},
	GGMLTQ2:      {lanes: 16, bytes: tq2Bytes, unpack: unpackTQ2},
	GGMLIQ1BN:    {lanes: 4, bytes: 13, front: 2, unpack: unpackIQ1BN},
	GGMLIQ2BN:    {lanes: 4, bytes: 16, front: 4, unpack: unpackIQ2BN},
}

// PackGGML fills t, whose shape, layout and memory are given, with the codes
// and the scale of a tensor of one of GGML's ternary types. Row r of the matrix
// is row order(r) of the source; a nil order keeps the rows.
//
// Errors: ErrShape when sizes do not fit; ErrScale when blocks of TQ1_0 or
// TQ2_0, or rows of IQ1_BN or IQ2_BN, have several scales; ErrCode with the
// position, in the source, of a code 3.
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
	data  []byte
	cols  int
	scale uint16 // of the blocks that have one
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
	case f.tail == 0:
		unit = g.cols
	case f.fourRows:
		values *= 4
	}
	if unit%values != 0 || g.cols%cpu.BlockCols != 0 || (f.fourRows && rows%4 != 0) {
		return 0, fmt.Errorf("%w: %s: found [%d, %d], expected whole blocks of %d values and a multiple of %d columns",
			ErrShape, format, rows, g.cols, values, cpu.BlockCols)
	}
	codes := rows*g.cols/values*f.bytes + rows*f.front
	if err := checkBytes(format, len(g.data), codes+f.tail, rows, g.cols); err != nil {
		return 0, err
	}
	if f.tail > 0 {
		return math.Float32frombits(binary.LittleEndian.Uint32(g.data[codes:])), nil
	}
	if f.front > 0 {
		return frontScale(g.data[:f.front]), nil
	}
	for end := f.bytes; g.scale == 0 && end <= len(g.data); end += f.bytes {
		g.scale = scaleBits(g.data[:end])
	}
	return half(g.scale), nil
}

// frontScale is the scale before a row, float16 or float32.
func frontScale(b []byte) float32 {
	if len(b) == 2 {
		return half(binary.LittleEndian.Uint16(b))
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(b))
}

func half(bits uint16) float32 { return tensor.Float16Bits(bits).Float32() }

// scaleBits is the half at the end of b, with one zero.
func scaleBits(b []byte) uint16 {
	if bits := binary.LittleEndian.Uint16(b[len(b)-2:]); bits != 0x8000 {
		return bits
	}
	return 0
}

// pack writes the lanes of a row of the source to those of a panel's row.
func (g *ggmlSource) pack(panel []byte, row int) error {
	count := g.cols / cpu.BlockCols
	first := row * count
	if g.fourRows {
		first = row / 4 * count
	}
	data := g.data
	if g.front > 0 {
		data, first = g.data[row*(g.front+count/g.lanes*g.bytes):], 0
		if own, one := data[:g.front], g.data[:g.front]; !bytes.Equal(own, one) {
			return &ValueError{Kind: ErrScale, Row: row, Found: fmt.Sprint(frontScale(own)), Expected: fmt.Sprintf("%v, the scale of the first row", frontScale(one))}
		}
		data = data[g.front:]
	}
	bad := uint64(0)
	for n := 0; n < count; {
		block := data[(first+n)/g.lanes*g.bytes:][:g.bytes]
		if from := (first + n) % g.lanes; from > 0 || count-n < g.lanes { // a block that runs over the ends of rows
			var lanes [16 * cpu.BlockBytes]byte
			g.unpack(lanes[:], block, row)
			for ; from < g.lanes && n < count; from, n = from+1, n+1 {
				x := binary.LittleEndian.Uint32(lanes[from*cpu.BlockBytes:])
				bad |= uint64(x & (x >> 1))
				binary.LittleEndian.PutUint32(panel[n*cpu.BlockBytes:], x)
			}
			continue
		}
		to := panel[n*cpu.BlockBytes:]
		n += g.lanes
		if g.tail+g.front == 0 {
			switch bits := scaleBits(block); bits {
			case 0: // zeros, whatever the codes
				padLane(to[:(g.lanes-1)*cpu.BlockBytes+4], 0)
				continue
			case g.scale:
			default:
				return &ValueError{Kind: ErrScale, Row: row, Col: (n - g.lanes) * cpu.BlockCols, Found: fmt.Sprint(half(bits)), Expected: fmt.Sprint(half(g.scale))}
			}
		}
		bad |= g.unpack(to, block, row)
	}
	if bad&0x5555555555555555 != 0 {
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

// unpackI2SX86: byte i has the values i, 32+i, 64+i and 96+i, the first in the highest bits.
func unpackI2SX86(panel, b []byte, _ int) uint64 {
	x0, x1, x2, x3 := turn32(b)
	return put8(panel, x3, x2, x1, x0)
}

// unpackI2SArm64: byte i has the values i, 16+i, 32+i and 48+i, the first in the highest bits.
func unpackI2SArm64(panel, b []byte, _ int) uint64 {
	x0, x1, x2, x3 := turn16(b)
	return put4(panel, x3, x2, x1, x0)
}

// unpackI2SRow4: byte i has column i of four rows, the first in the highest bits.
func unpackI2SRow4(panel, b []byte, row int) uint64 {
	const mask = 0x0303030303030303
	b = b[:16]
	shift := (6 - row%4*2) & 6
	x := binary.LittleEndian.Uint64(b) >> shift & mask
	y := binary.LittleEndian.Uint64(b[8:]) >> shift & mask
	lane := uint32(x) | uint32(x>>32)<<2 | uint32(y)<<4 | uint32(y>>32)<<6
	binary.LittleEndian.PutUint32(panel, lane)
	return uint64(lane & (lane >> 1))
}

// unpackTQ2: byte i of each half has the values i, 32+i, 64+i and 96+i of it, the first in the lowest bits.
func unpackTQ2(panel, b []byte, _ int) uint64 {
	x0, x1, x2, x3 := turn32(b)
	y0, y1, y2, y3 := turn32(b[32:])
	return put8(panel, x0, x1, x2, x3) | put8(panel[8*cpu.BlockBytes:], y0, y1, y2, y3)
}

// unpackTQ1: of 32 bytes digit n in base 3 of byte i is value 32n+i, of the next 16 value 160+16n+i, and of the last four, which have four
// digits, value 240+4n+i.
func unpackTQ1(panel, b []byte, _ int) uint64 {
	b = b[:52]
	q0, q1, q2, q3 := trits4(b), trits4(b[4:]), trits4(b[8:]), trits4(b[12:])
	r0, r1, r2, r3 := trits4(b[16:]), trits4(b[20:]), trits4(b[24:]), trits4(b[28:])
	x0, x1, x2, x3 := turn(q0&lower|r0<<32, q1&lower|r1<<32, q2&lower|r2<<32, q3&lower|r3<<32)
	put8(panel, x0, x1, x2, x3)
	rest := (*[7*cpu.BlockBytes + 4]byte)(panel[8*cpu.BlockBytes:])
	binary.LittleEndian.PutUint32(rest[0:], fifths(q0, q1, q2, q3))
	binary.LittleEndian.PutUint32(rest[cpu.BlockBytes:], fifths(r0, r1, r2, r3))
	q0, q1, q2, q3 = trits4(b[32:]), trits4(b[36:]), trits4(b[40:]), trits4(b[44:])
	x0, x1, x2, x3 = turn(q0&lower, q1&lower, q2&lower, q3&lower)
	put4(rest[2*cpu.BlockBytes:], x0, x1, x2, x3)
	binary.LittleEndian.PutUint32(rest[6*cpu.BlockBytes:], fifths(q0, q1, q2, q3))
	binary.LittleEndian.PutUint32(rest[7*cpu.BlockBytes:], uint32(trits4(b[48:])))
	return 0
}

// trits4 are the digits of four bytes: the first four of byte i in byte i, two bits each, and the fifth in byte 4+i.
func trits4(b []byte) uint64 {
	b = b[:4]
	return trits[b[0]] | trits[b[1]]<<8 | trits[b[2]]<<16 | trits[b[3]]<<24
}

// trits is trits4 for one byte. Digit n is what 3 times the byte times 3^n, modulo 256, carries over.
var trits = func() (t [256]uint64) {
	for b := range t {
		rest := uint64(b)
		for n := range 5 {
			t[b] |= rest * 3 >> 8 << (n/4*32 + n%4*2)
			rest = rest * 3 & 0xff
		}
	}
	return t
}()

// fifths makes a lane of the fifth digits.
func fifths(x0, x1, x2, x3 uint64) uint32 {
	return uint32(x0>>32 | x1>>32<<2 | x2>>32<<4 | x3>>32<<6)
}

// unpackIQ2BN: byte i has the values i, 16+i, 32+i and 48+i, the first in the lowest bits.
func unpackIQ2BN(panel, b []byte, _ int) uint64 {
	x0, x1, x2, x3 := turn16(b)
	return put4(panel, x0, x1, x2, x3)
}

// unpackIQ1BN: three bytes have fifteen values of a lane, five digits each, the lowest first, and the last byte the sixteenth of four lanes.
func unpackIQ1BN(panel, b []byte, _ int) uint64 {
	b = b[:13]
	lane := func(g int) uint64 {
		return uint64(lowTrits[0][b[3*g]] | lowTrits[1][b[3*g+1]] | lowTrits[2][b[3*g+2]] | lowTrits[0][b[12]]>>(8*g)&3<<30)
	}
	return put4(panel, lane(0), lane(1), lane(2), lane(3))
}

// lowTrits are the digits of a byte of IQ1_BN, the lowest first, where a lane has the columns from 0, 5 and 10 on.
var lowTrits = func() (t [3][256]uint32) {
	for b := range 256 {
		rest := b
		for n := 4; n >= 0; n-- {
			for j := range t {
				column := 5*j + n
				t[j][b] |= uint32(rest*3>>8) << (column%4*8 + column/4*2)
			}
			rest = rest * 3 & 0xff
		}
	}
	return t
}()

// put8 writes eight lanes, two in a word.
func put8(panel []byte, x0, x1, x2, x3 uint64) (bad uint64) {
	p := (*[7*cpu.BlockBytes + 4]byte)(panel)
	binary.LittleEndian.PutUint32(p[0:], uint32(x0))
	binary.LittleEndian.PutUint32(p[cpu.BlockBytes:], uint32(x0>>32))
	binary.LittleEndian.PutUint32(p[2*cpu.BlockBytes:], uint32(x1))
	binary.LittleEndian.PutUint32(p[3*cpu.BlockBytes:], uint32(x1>>32))
	binary.LittleEndian.PutUint32(p[4*cpu.BlockBytes:], uint32(x2))
	binary.LittleEndian.PutUint32(p[5*cpu.BlockBytes:], uint32(x2>>32))
	binary.LittleEndian.PutUint32(p[6*cpu.BlockBytes:], uint32(x3))
	binary.LittleEndian.PutUint32(p[7*cpu.BlockBytes:], uint32(x3>>32))
	return x0&(x0>>1) | x1&(x1>>1) | x2&(x2>>1) | x3&(x3>>1)
}

// put4 writes four lanes.
func put4(panel []byte, x0, x1, x2, x3 uint64) (bad uint64) {
	p := (*[3*cpu.BlockBytes + 4]byte)(panel)
	binary.LittleEndian.PutUint32(p[0:], uint32(x0))
	binary.LittleEndian.PutUint32(p[cpu.BlockBytes:], uint32(x1))
	binary.LittleEndian.PutUint32(p[2*cpu.BlockBytes:], uint32(x2))
	binary.LittleEndian.PutUint32(p[3*cpu.BlockBytes:], uint32(x3))
	return x0&(x0>>1) | x1&(x1>>1) | x2&(x2>>1) | x3&(x3>>1)
}

// turn16 makes four lanes of sixteen bytes: lane k has the codes in bits 2k of these.
func turn16(b []byte) (x0, x1, x2, x3 uint64) {
	b = b[:16]
	x, y := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	return turn(x&lower, x>>32, y&lower, y>>32)
}

// turn32 is turn16 for twice sixteen bytes, of which the second have the upper halves.
func turn32(b []byte) (x0, x1, x2, x3 uint64) {
	b = b[:32]
	x, y := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	u, v := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	return turn(x&lower|u<<32, x>>32|u&^lower, y&lower|v<<32, y>>32|v&^lower)
}

const lower = 1<<32 - 1

// turn swaps field i of word k with field k of word i, in every byte.
func turn(w0, w1, w2, w3 uint64) (x0, x1, x2, x3 uint64) {
	const even, low = 0x3333333333333333, 0x0f0f0f0f0f0f0f0f
	t := (w0>>2 ^ w1) & even
	w0, w1 = w0^t<<2, w1^t
	t = (w2>>2 ^ w3) & even
	w2, w3 = w2^t<<2, w3^t
	t = (w0>>4 ^ w2) & low
	w0, w2 = w0^t<<4, w2^t
	t = (w1>>4 ^ w3) & low
	return w0, w1 ^ t<<4, w2, w3 ^ t
}

// ErrScale is a tensor of blocks that is no ternary matrix: its blocks have
// several scales.
var ErrScale = errors.New("quant: a ternary layer has one scale")
