package quant

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Hugging Face checkpoints pack ternary weights along the output dimension in
// four contiguous quarters: with R = rows/4 and code = value+1, byte [r, c] of
// the uint8 [R, cols] tensor holds rows r, R+r, 2R+r and 3R+r of column c in
// its bits 0-1, 2-3, 4-5 and 6-7.

// hfQuarters is the number of weights in a packed byte.
const hfQuarters = 4

// HFBytes is the size of a packed rows x cols matrix; rows are a multiple of 4.
func HFBytes(rows, cols int) int { return rows / hfQuarters * cols }

// PackHF turns Hugging Face's packed weights into panel16, two-bit code by
// two-bit code without a dense copy. rows counts the matrix's rows, four per
// packed row.
//
// Errors: ErrShape when rows are no multiple of 4 or a buffer does not fit;
// ErrCode with the position of a code 3.
func PackHF(dst, packed []byte, rows, cols int) error {
	if err := checkHF(dst, packed, rows, cols); err != nil {
		return err
	}
	quarter := rows / hfQuarters
	panels := len(dst) / cpu.TernaryBytes(cpu.PanelRows, cols)
	if quarter%cpu.PanelRows != 0 {
		return inChunks(panels, func(from, to int) error {
			for p := from; p < to; p++ {
				if err := packHFPanel(dst, packed, p, rows, cols); err != nil {
					return err
				}
			}
			return nil
		})
	}
	// Sixteen packed rows make one panel in each quarter: read them once.
	perQuarter := panels / hfQuarters
	return inChunks(perQuarter, func(from, to int) error {
		for p := from; p < to; p++ {
			for q := range hfQuarters {
				if err := packHFPanel(dst, packed, q*perQuarter+p, rows, cols); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func checkHF(panels, packed []byte, rows, cols int) error {
	if err := checkHFShape(len(packed), rows, cols); err != nil {
		return err
	}
	return checkBytes("panels", len(panels), cpu.TernaryBytes(rows, cols), rows, cols)
}

func checkHFShape(packed, rows, cols int) error {
	if err := checkShape(rows, cols); err != nil {
		return err
	}
	if rows%hfQuarters != 0 {
		return fmt.Errorf("%w: packed weights: found %d output rows, expected a multiple of %d", ErrShape, rows, hfQuarters)
	}
	return checkBytes("packed weights", packed, HFBytes(rows, cols), rows, cols)
}

// packHFPanel makes panel p. A 32-bit lane of a block holds columns 4f..4f+3 of
// a row in bits 2f of its four bytes, so four 32-bit words of packed bytes,
// masked and shifted, are the lane.
func packHFPanel(dst, packed []byte, p, rows, cols int) error {
	const mask = 0x03030303
	stride := cpu.TernaryBytes(cpu.PanelRows, cols)
	panel := dst[p*stride : (p+1)*stride]
	quarter := rows / hfQuarters
	for r := range cpu.PanelRows {
		row := p*cpu.PanelRows + r
		if row >= rows {
			padLane(panel, r)
			continue
		}
		shift := 2 * (row / quarter)
		src := packed[row%quarter*cols:][:cols]
		lanes := panel[4*r:]
		bad := uint32(0)
		for at := 0; len(src) > 0; at += cpu.BlockBytes {
			block := [cpu.BlockCols]byte{}
			if len(src) >= len(block) {
				block = [cpu.BlockCols]byte(src)
				src = src[len(block):]
			} else {
				for i := range block {
					block[i] = 0x55
				}
				src = src[copy(block[:], src):]
			}
			lane := binary.LittleEndian.Uint32(block[0:])>>shift&mask |
				binary.LittleEndian.Uint32(block[4:])>>shift&mask<<2 |
				binary.LittleEndian.Uint32(block[8:])>>shift&mask<<4 |
				binary.LittleEndian.Uint32(block[12:])>>shift&mask<<6
			bad |= lane & (lane >> 1)
			binary.LittleEndian.PutUint32(lanes[at:], lane)
		}
		if bad&0x55555555 != 0 {
			return findCode3(packed[row%quarter*cols:][:cols], shift, row)
		}
	}
	return nil
}

// findCode3 names the first bad weight of a row that is known to have one.
func findCode3(src []byte, shift, row int) error {
	e := &ValueError{Kind: ErrCode, Row: row, Found: "code 3", Expected: "0, 1 or 2"}
	for c, b := range src {
		if b>>shift&3 == 3 {
			e.Col = c
			break
		}
	}
	return e
}

// ToHF is the reverse of PackHF, for export: dst, HFBytes long, gets the packed
// bytes of a panel16 matrix.
func ToHF(dst, panels []byte, rows, cols int) error {
	if err := checkHF(panels, dst, rows, cols); err != nil {
		return err
	}
	const mask = 0x03030303
	stride := cpu.TernaryBytes(cpu.PanelRows, cols)
	quarter := rows / hfQuarters
	return inChunks(quarter, func(from, to int) error {
		for r := from; r < to; r++ {
			out := dst[r*cols : (r+1)*cols]
			for b := 0; len(out) > 0; b += cpu.BlockBytes {
				var words [4]uint32
				for q := range hfQuarters {
					row := q*quarter + r
					lane := binary.LittleEndian.Uint32(panels[row/cpu.PanelRows*stride+b+4*(row%cpu.PanelRows):])
					for f := range words {
						words[f] |= lane >> (2 * f) & mask << (2 * q)
					}
				}
				var block [cpu.BlockCols]byte
				for f, w := range words {
					binary.LittleEndian.PutUint32(block[4*f:], w)
				}
				out = out[copy(out, block[:]):]
			}
		}
		return nil
	})
}

// UnpackHF writes the row-major codes -1, 0 and 1 of Hugging Face's packed
// bytes to dst, rows*cols long: the plain form, for tools and tests.
func UnpackHF(dst []int8, packed []byte, rows, cols int) error {
	panels := make([]byte, cpu.TernaryBytes(max(rows, 0), max(cols, 0)))
	if err := PackHF(panels, packed, rows, cols); err != nil {
		return err
	}
	if err := checkBytes("codes", len(dst), rows*cols, rows, cols); err != nil {
		return err
	}
	cpu.UnpackTernary(dst, panels, rows, cols)
	return nil
}

// HFCount counts the codes of Hugging Face's packed bytes piece by piece, so
// that memory does not grow with the matrix.
type HFCount struct {
	rows, cols int
	bytes      [256]int
	seen       int
	bad        [hfQuarters]int // by quarter: 1 + the first byte with a code 3, 0 if there is none
}

// NewHFCount begins with the first byte of a matrix of so many packed bytes.
//
// Errors: as of PackHF for the shape.
func NewHFCount(packed, rows, cols int) (*HFCount, error) {
	if err := checkHFShape(packed, rows, cols); err != nil {
		return nil, err
	}
	return &HFCount{rows: rows, cols: cols}, nil
}

// Add counts the next bytes.
func (c *HFCount) Add(piece []byte) {
	var bad byte
	for _, b := range piece {
		c.bytes[b]++
		bad |= b & (b >> 1)
	}
	for q := range c.bad {
		if c.bad[q] > 0 || bad>>(2*q)&1 == 0 {
			continue
		}
		c.bad[q] = c.seen + 1 + slices.IndexFunc(piece, func(b byte) bool { return b>>(2*q)&3 == 3 })
	}
	c.seen += len(piece)
}

// Counts says how many weights are -1, 0 and 1.
//
// Errors: ErrCode with the position of the code 3 that PackHF would name.
func (c *HFCount) Counts() (n [3]int, err error) {
	if err := c.code3(); err != nil {
		return n, err
	}
	for b, times := range c.bytes {
		for q := range hfQuarters {
			if code := b >> (2 * q) & 3; code < 3 {
				n[code] += times
			}
		}
	}
	return n, nil
}

// code3 is the first of the bad ones in the order of PackHF: row by row, or panel by panel of all quarters.
func (c *HFCount) code3() error {
	var first *ValueError
	quarter, least := c.rows/hfQuarters, 0
	for q, at := range c.bad {
		if at == 0 {
			continue
		}
		row, col := (at-1)/c.cols, (at-1)%c.cols
		panel := row / cpu.PanelRows
		if quarter%cpu.PanelRows != 0 {
			panel = 0
		}
		if first == nil || panel < least {
			first, least = &ValueError{Kind: ErrCode, Row: q*quarter + row, Col: col, Found: "code 3", Expected: "0, 1 or 2"}, panel
		}
	}
	if first == nil {
		return nil
	}
	return first
}
