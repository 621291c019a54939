package model

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// TernaryStats count the codes of a ternary matrix.
type TernaryStats struct {
	Minus int     `json:"minus"` // weights -1
	Zero  int     `json:"zero"`  // weights 0
	Plus  int     `json:"plus"`  // weights 1
	Scale float32 `json:"scale"` // mean|W|
}

// FloatStats describe the numbers of a tensor; Min to Std are of the finite ones.
type FloatStats struct {
	Min       float64 `json:"min"`
	Max       float64 `json:"max"`  // the largest
	Mean      float64 `json:"mean"` // of them
	Std       float64 `json:"std"`
	Zeros     int     `json:"zeros"`      // how many are 0
	NotFinite int     `json:"not_finite"` // NaN and infinities

	magnitude float64 // of the first that is not 0
	several   bool    // there are others
}

// codes says why the numbers are not those of a ternary matrix as it is stored beside its scale, or nil.
func (s *FloatStats) codes() error {
	if !s.several && (s.magnitude == 0 || s.magnitude == 1) {
		return nil
	}
	return errors.New("other numbers than -1, 0 and 1: expected codes beside a weight_scale")
}

// scan is the reading of one tensor, a piece at a time: memory is that of a piece, however large the tensor is or says it is.
type scan struct {
	ctx   context.Context
	shown func(bytes int) // is told how far it came; nil if nobody asks
	read  int
	room  []float32
}

// aheadOfFault is how much of a mapping a touched page may bring back, which was given back before: what Linux reads around a fault.
const aheadOfFault = 64 << 10

// passed notes that the bytes of v before read have been looked at. Once these are many, their pages are given back.
//
// Errors: that of the context.
func (s *scan) passed(v container.View, read int) error {
	if read-s.read < readPiece && read < len(v.Data) {
		return nil
	}
	if err := release(v, v.Data[max(0, s.read-aheadOfFault):read]); err != nil {
		return err
	}
	s.told(read - s.read)
	s.read = read
	return s.ctx.Err()
}

func (s *scan) told(bytes int) {
	if s.shown != nil {
		s.shown(bytes)
	}
}

// pieces shows the bytes of v to each, whole units of them.
func (s *scan) pieces(v container.View, unit int, each func(at int, piece []byte) error) error {
	for at, step := 0, wholeUnits(unit); at < len(v.Data); at += step {
		end := min(at+step, len(v.Data))
		if err := each(at, v.Data[at:end]); err != nil {
			return err
		}
		if err := s.passed(v, end); err != nil {
			return err
		}
	}
	return nil
}

// wholeUnits is about readPiece in units.
func wholeUnits(unit int) int { return max(1, readPiece/unit) * unit }

// floats shows the numbers of a tensor of F32, F16 or BF16; other dtypes have no numbers that are weights.
func (s *scan) floats(v container.View, each func([]float32)) error {
	if !slices.Contains(floats, v.DType) {
		return nil
	}
	return s.pieces(v, dtypeBytes(v.DType), func(_ int, piece []byte) error {
		s.decode(v.DType, piece, each)
		return nil
	})
}

// decode shows numbers of F32, F16 or BF16; they are good until the next ones.
func (s *scan) decode(dtype string, data []byte, each func([]float32)) {
	size := dtypeBytes(dtype)
	const most = 4096
	if n := min(most, len(data)/size); n > len(s.room) {
		s.room = make([]float32, n)
	}
	for piece := range slices.Chunk(data, size*most) {
		values := s.room[:len(piece)/size]
		for i := range values {
			values[i] = decodeFloat(dtype, piece[i*size:])
		}
		each(values)
	}
}

// codeCount counts weights: by their code, which is the weight plus 1.
type codeCount [3]int

func (n *codeCount) stats(scale float32) *TernaryStats {
	return &TernaryStats{Minus: n[0], Zero: n[1], Plus: n[2], Scale: scale}
}

// add counts weights that are -1, 0 and 1.
func (n *codeCount) add(weights []int8) {
	const ones, signs = 0x0101010101010101, 0x8080808080808080
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(weights))), len(weights))
	odd, minus := 0, 0
	for ; len(raw) >= 8; raw = raw[8:] {
		eight := binary.LittleEndian.Uint64(raw)
		odd += bits.OnesCount64(eight & ones)
		minus += bits.OnesCount64(eight & signs)
	}
	for _, b := range raw {
		odd += int(b & 1)
		minus += int(b >> 7)
	}
	n[0] += minus
	n[1] += len(weights) - odd
	n[2] += odd - minus
}

// addLanes counts codes as kernels read them, sixteen columns of a row to 32 bits (see cpu.PackTernary), of which the first width(i) of lane i are
// of the matrix.
func (n *codeCount) addLanes(data []byte, width func(lane int) int) {
	for i := range len(data) / 4 {
		x, mask := binary.LittleEndian.Uint32(data[4*i:]), laneMasks[max(0, min(width(i), cpu.BlockCols))]
		n[0] += bits.OnesCount32(^(x | x>>1) & mask)
		n[1] += bits.OnesCount32(x &^ (x >> 1) & mask)
		n[2] += bits.OnesCount32(x >> 1 &^ x & mask)
	}
}

// laneMasks have the lower bit of each of the first columns of a lane.
var laneMasks = func() (masks [cpu.BlockCols + 1]uint32) {
	for c := range cpu.BlockCols {
		masks[c+1] = masks[c] | 1<<(8*(c%4)+2*(c/4))
	}
	return masks
}()

// moments adds numbers up.
type moments struct {
	FloatStats
	n, sum, squares float64
}

func (m *moments) add(values []float32) {
	for _, v := range values {
		x := float64(v)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			m.NotFinite++
			continue
		}
		if m.n == 0 {
			m.Min, m.Max = x, x
		}
		if x == 0 {
			m.Zeros++
		} else if magnitude := math.Abs(x); m.magnitude == 0 {
			m.magnitude = magnitude
		} else if magnitude != m.magnitude {
			m.several = true
		}
		m.Min, m.Max = min(m.Min, x), max(m.Max, x)
		m.n++
		m.sum += x
		m.squares += float64(x * x)
	}
}

func (m *moments) stats() *FloatStats {
	if m.n > 0 {
		m.Mean = m.sum / m.n
		m.Std = math.Sqrt(max(0, m.squares/m.n-float64(m.Mean*m.Mean)))
	}
	return &m.FloatStats
}
