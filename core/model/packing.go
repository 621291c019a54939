package model

import (
	"context"
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// How the ternary weights that every token reads lie in memory (LoadOptions.Packing).
const (
	PackingAuto  = "auto"  // as the native file has them where this processor is fast with it or weights are Deferred, and else with two bits a weight
	Packing2Bit  = "2bit"  // two bits a weight
	PackingBase3 = "base3" // 1.6 bits a weight, five in a byte
)

// checkPacking refuses an unknown packing, and base 3 in a model that is trained. A processor without kernels for base 3 unpacks it step by step: a file
// for another machine may be made on any.
func (o *LoadOptions) checkPacking() error {
	switch o.Packing {
	case "", PackingAuto, Packing2Bit:
		return nil
	case PackingBase3:
	default:
		return fmt.Errorf("%w: packing %q: must be one of %s, %s, %s", ErrOption, o.Packing, PackingAuto, Packing2Bit, PackingBase3)
	}
	if o.Trainable {
		return fmt.Errorf("%w: packing %q: must be %s or %s in a model that is trained", ErrOption, o.Packing, PackingAuto, Packing2Bit)
	}
	return nil
}

// packed is the layout of a matrix whose own one is layout: of a file, or of a config. Lines stay as they are, since they are for skipping. What is
// deferred goes to another file as it is.
func (o *LoadOptions) packed(layout quant.Layout) quant.Layout {
	switch {
	case layout == quant.Panel16 && o.Packing == PackingBase3:
		return quant.Base3
	case layout == quant.Base3 && (o.Packing == Packing2Bit || o.Packing != PackingBase3 && !o.Deferred && !cpu.Base3Ready()):
		return quant.Panel16
	}
	return layout
}

// repack plans the codes of t, of another layout than from, those in the file.
func (s *nativeSource) repack(t *quant.Ternary, v nativeView, from quant.Layout) {
	s.used[v.Name] = true
	s.reserve(&t.Data, t.Layout.Bytes(t.Rows, t.Cols))
	s.plan(v, v.Size(), func(ctx context.Context) error {
		data, done, err := s.whole(ctx, v, s.checker(v, from, t.Cols))
		if err != nil {
			return err
		}
		defer done()
		t.Repack(&quant.Ternary{Rows: t.Rows, Cols: t.Cols, Layout: from, Data: data[:from.Bytes(t.Rows, t.Cols)]})
		return nil
	})
}

// badCodes looks in a piece of a ternary matrix, which begins at a multiple of 64 bytes, for what is no weight: kernels rely on its absence.
func badCodes(layout quant.Layout, cols int, piece []byte, at int) bool {
	if layout == quant.Base3 {
		return cpu.BadBase3(piece, cols, at)
	}
	return gguf.HasCode3(piece)
}

// badCodesError is what badCodes has found in a matrix.
func badCodesError(v container.View, layout quant.Layout) error {
	found, expected := "a ternary code 3", "codes 0, 1 and 2"
	if layout == quant.Base3 {
		found, expected = "a byte that stands for no five weights", "bytes below 243, and codes 0, 1 and 2 at the ends of panels"
	}
	return &container.Error{Kind: ErrValue, Path: v.Path(), Tensor: v.Name, Found: found, Expected: expected}
}
