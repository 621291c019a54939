package model

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// loadTrainable is Load for training: the checkpoint as it is loaded for inference, with float32 master weights of its ternary layers.
//
// Where the checkpoint has master weights (quantization_mode "online", or float weights with LoadOptions.Quantize), these are it. Of
// packed weights only the codes and a scale are left; their masters are the codes times one magnitude, chosen so that quantizing them
// gives the same codes and scale: training starts at the function that was loaded, but how near each weight was to another code is lost.
// Embedding, head and layers that are not ternary are widened to float32.
func loadTrainable(ctx context.Context, o LoadOptions, load func(context.Context, LoadOptions) (*Model, error)) (_ *Model, err error) {
	progress := o.Progress
	o.Trainable, o.Packing, o.plain, o.Deferred, o.Progress = false, Packing2Bit, true, true, nil
	plain, err := load(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	o.Deferred = false
	m, err := newMasters(ctx, plain.Config, o, func(float64) func([]float32) { return func([]float32) {} })
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = m.Close() // the first error says more
		}
	}()
	defer container.CatchFault(&err)
	c := masterCopy{ctx: ctx, plain: plain, from: map[string]*nn.Linear{}, norms: map[string]*nn.Norm{}, progress: progress, total: plain.Config.ParameterCount()}
	if err := plain.eachWeight(c.noteLinear, c.noteNorm); err != nil {
		return nil, err
	}
	if err := m.eachWeight(c.linear, c.norm); err != nil {
		return nil, err
	}
	m.Info.Path, m.Info.Metadata, m.Info.Warnings, m.Info.Unused = plain.Info.Path, plain.Info.Metadata, plain.Info.Warnings, plain.Info.Unused
	m.files.Store(plain.files.Load())
	if err := plain.sound(ctx); err != nil { // the masters were copied while its checksums were compared
		return nil, err
	}
	return m, m.Refresh()
}

// masterCopy fills master weights from a model that was loaded for inference, and from the file it came from.
type masterCopy struct {
	ctx   context.Context
	plain *Model
	from  map[string]*nn.Linear
	norms map[string]*nn.Norm

	progress    func(done, total int64)
	done, total int64 // weights
}

func (c *masterCopy) noteLinear(name string, l *nn.Linear) error {
	c.from[name] = l
	return nil
}

func (c *masterCopy) noteNorm(name string, n *nn.Norm) error {
	c.norms[name] = n
	return nil
}

func (c *masterCopy) norm(name string, n *nn.Norm) error {
	copy(n.Weight, c.norms[name].Weight)
	copy(n.Bias, c.norms[name].Bias)
	return nil
}

func (c *masterCopy) linear(name string, l *nn.Linear) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	from := c.from[name]
	copy(l.Bias, from.Bias)
	if l.Norm != nil {
		copy(l.Norm.Weight, from.Norm.Weight)
	}
	if err := c.weights(name, l, from); err != nil {
		return err
	}
	c.done += int64(l.Out) * int64(l.In)
	if c.progress != nil {
		c.progress(min(c.done, c.total), c.total)
	}
	return nil
}

func (c *masterCopy) weights(name string, l, from *nn.Linear) error {
	var rows masterRows
	if from.Ternary != nil && c.plain.masters != nil {
		var err error
		if rows, err = c.plain.masters(name, l.Out, l.In); err != nil {
			return err
		}
	}
	if rows == nil {
		return c.plain.with(c.ctx, name, func() error {
			readMasters(l.Weight.Data, from)
			return nil
		})
	}
	copyRows(l.Weight.Data, l.In, rows)
	return nil
}

func copyRows(w []float32, cols int, read masterRows) {
	for r := range len(w) / cols {
		read(w[r*cols:(r+1)*cols], r)
	}
}

// masterRows reads row r of a layer's master weights.
type masterRows func(row []float32, r int)

// findMasters gives the master weights of a layer [out, in]; nil: the checkpoint has it packed.
type findMasters func(name string, out, in int) (masterRows, error)

// rowsOf reads the rows of a matrix of one of the float dtypes.
func rowsOf(dtype string, data []byte, cols int) masterRows {
	size := dtypeBytes(dtype)
	return func(row []float32, r int) {
		for i := range row {
			row[i] = decodeFloat(dtype, data[(r*cols+i)*size:])
		}
	}
}

// masterRows reads the master weights of a layer; nil if the checkpoint has it packed.
func (s *hfSource) masterRows(name string, out, in int) (masterRows, error) {
	v, err := s.set.Tensor(name + ".weight")
	if err != nil || !slices.Contains(floats, v.DType) || s.storesCodes(name, v.DType) {
		return nil, err
	}
	return rowsOnce(v, v.Data, out, in), nil
}

// rowsOnce reads the rows of v from data, its bytes in the order of the layer, and gives the pages of v back after the last one.
func rowsOnce(v container.View, data []byte, out, in int) masterRows {
	read := rowsOf(v.DType, data, in)
	return func(row []float32, r int) {
		read(row, r)
		if r == out-1 {
			_ = v.ReleasePages() // they are read again when they are needed
		}
	}
}

// derivedMasters gives the codes of t times a magnitude such that their mean absolute value rounds to the scale of t. Multiples of one
// float32 miss it by up to a unit in the last place, so as many of the first weights as needed get the next larger magnitude: rows have
// to be read in ascending order, each once.
func derivedMasters(t *quant.Ternary) masterRows {
	codes, next, nonzero := make([]int8, t.Cols), t.RowReader(), 0
	for r := range t.Rows {
		next(codes, r)
		for _, code := range codes {
			nonzero += int(code * code)
		}
	}
	if nonzero == 0 {
		return func(row []float32, _ int) { clear(row) }
	}
	total := float64(float64(t.Scale) * float64(t.Rows*t.Cols)) // the sum of magnitudes
	small := float32(total / float64(nonzero))
	if float64(small)*float64(nonzero) > total {
		small = math.Nextafter32(small, 0)
	}
	large := math.Nextafter32(small, math.MaxFloat32)
	more := int(math.RoundToEven((total - float64(float64(small)*float64(nonzero))) / (float64(large) - float64(small))))
	return func(row []float32, r int) {
		next(codes, r)
		for i, code := range codes {
			magnitude := small
			if code != 0 && more > 0 {
				magnitude = large
				more--
			}
			row[i] = float32(code) * magnitude
		}
	}
}

// checkMasters says why a model has no master weights to save, or nil.
func (m *Model) checkMasters() error {
	if len(m.Params()) == 0 && m.deferred == nil {
		return fmt.Errorf("%w: it has no master weights: it was not made or loaded for training", ErrExport)
	}
	if m.LearnsScales() {
		return fmt.Errorf("%w: its scales were learned, and whoever reads master weights takes their mean instead: save packed weights", ErrExport)
	}
	return nil
}
