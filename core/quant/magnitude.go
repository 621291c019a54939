package quant

import (
	"math"
	"sync/atomic"
)

// Magnitude says whether a float matrix holds nothing but 0 and one value with both signs, as the float form of a ternary
// matrix does, and that value. A matrix of zeros has none.
//
// Errors: ErrShape; ErrNotFinite with the position of a NaN or infinity.
func Magnitude(dtype string, src []byte, rows, cols int) (value float32, same bool, err error) {
	size, err := checkSource(dtype, src, rows, cols)
	if err != nil {
		return 0, false, err
	}
	var found atomic.Uint32
	var several atomic.Bool
	err = inChunks(rows, func(from, to int) error {
		row := make([]float32, cols)
		for r := from; r < to; r++ {
			if !decode(row, dtype, src[r*cols*size:]) {
				return notFinite(row, r*cols, cols)
			}
			for _, x := range row {
				bits := math.Float32bits(x) &^ (1 << 31)
				if bits != 0 && bits != found.Load() && !found.CompareAndSwap(0, bits) && bits != found.Load() { // others may be first with the same
					several.Store(true)
				}
			}
		}
		return nil
	})
	value = math.Float32frombits(found.Load())
	return value, err == nil && value > 0 && !several.Load(), err
}
