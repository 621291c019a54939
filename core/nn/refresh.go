package nn

import (
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// Refresh derives the weights that forward passes use from the master weights, after these have changed: a ternary
// layer's codes and scale by the absmean rule (by a scale that is learned, as that says), a dense layer's panels by copying. The layer must be trainable.
func (l *Linear) Refresh() error {
	src := pool.BytesOf(l.Weight.Data)
	if l.Ternary == nil {
		return refreshDense(l.Dense, l.Weight.Name, src)
	}
	var err error
	if l.Scale == nil {
		l.Ternary.Scale, err = quant.TernarizeF32(l.Ternary.Data, src, l.Out, l.In)
	} else if l.Ternary.Scale, err = l.learnedScale(); err == nil {
		err = quant.TernarizeScaled(l.Ternary.Data, quant.F32, src, l.Out, l.In, l.Ternary.Scale)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", l.Weight.Name, err)
	}
	l.refreshFlipped()
	return nil
}

// refreshFlipped transposes the ternary weights.
func (l *Linear) refreshFlipped() {
	if l.flipped == nil {
		l.flipped = &quant.Ternary{Rows: l.In, Cols: l.Out, Data: make([]byte, cpu.TernaryBytes(l.In, l.Out))}
	}
	l.flipped.Scale = l.Ternary.Scale
	flip := flipWeights{dst: l.flipped.Data, w: l.Weight.Data, rows: l.Out, cols: l.In, scale: l.Ternary.Scale}
	flip.run()
}

func refreshDense(d *quant.Dense, name string, src []byte) error {
	if w := pool.View[float32](src); d.Format == cpu.DenseF32 && isFinite(cpu.AbsMax(w)) {
		panels := panelTask{dst: pool.View[float32](d.Panels), w: w, rows: d.Rows, cols: d.Cols}
		panels.run()
		return nil
	}
	if err := quant.PackDense(d.Panels, d.RowScale, d.Format, quant.F32, src, d.Rows, d.Cols); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func isFinite(x float32) bool { return x-x == 0 }

// NewTrainable makes a layer's forward weights for master weights of shape [out, in]: ternary or dense float32.
func NewTrainable(ternary bool, out, in int) *Linear {
	l := &Linear{In: in, Out: out}
	if ternary {
		l.Ternary = &quant.Ternary{Rows: out, Cols: in, Data: make([]byte, cpu.TernaryBytes(out, in))}
	} else {
		l.Dense = &quant.Dense{Rows: out, Cols: in, Format: cpu.DenseF32, Panels: make([]byte, cpu.DenseBytes(cpu.DenseF32, out, in))}
	}
	return l
}
