package train

import (
	"encoding/binary"
	"math/bits"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// WeightChanges says what happened to the ternary weights since the last record, or since a run was resumed, as shares of all of them.
type WeightChanges struct {
	Flipped float64 `json:"weights_flipped"` // went from 1 to -1 or back
	Zeroed  float64 `json:"weights_zeroed"`  // became 0
	Zero    float64 `json:"weights_zero"`    // are 0 now
}

// weightWatch remembers the ternary codes of the last record.
type weightWatch struct {
	layers []*nn.Linear
	codes  [][]byte
	total  int
}

// newWeightWatch begins with the weights as they are.
func newWeightWatch(m *model.Model) *weightWatch {
	w := &weightWatch{}
	m.EachTernary(func(_ string, l *nn.Linear) {
		w.layers = append(w.layers, l)
		w.codes = append(w.codes, append([]byte(nil), l.Ternary.Data...))
		w.total += l.Out * l.In
	})
	return w
}

// changes compares the weights with those of the call before.
func (w *weightWatch) changes() *WeightChanges {
	var flipped, zeroed, zero int
	for i, l := range w.layers {
		f, z, all := compareCodes(w.codes[i], l.Ternary.Data)
		flipped, zeroed = flipped+f, zeroed+z
		zero += all - (4*len(l.Ternary.Data) - l.Out*l.In) // the padding is zeros
		copy(w.codes[i], l.Ternary.Data)
	}
	n := max(float64(w.total), 1)
	return &WeightChanges{float64(flipped) / n, float64(zeroed) / n, float64(zero) / n}
}

// compareCodes counts, in panels of two-bit codes 0, 1, 2 for -1, 0, 1: those that changed their sign, those that became zero, and
// those that are zero.
func compareCodes(before, after []byte) (flipped, zeroed, zero int) {
	const low = 0x5555555555555555
	for ; len(after) > 0; before, after = before[8:], after[8:] { // panels are whole blocks of 64 bytes
		a, b := binary.LittleEndian.Uint64(before), binary.LittleEndian.Uint64(after)
		changed := a ^ b
		isZero := b & low
		// Codes 0 and 2 differ in the high bit alone.
		flipped += bits.OnesCount64(changed >> 1 & ^changed & low)
		zeroed += bits.OnesCount64((changed | changed>>1) & isZero)
		zero += bits.OnesCount64(isZero)
	}
	return flipped, zeroed, zero
}
