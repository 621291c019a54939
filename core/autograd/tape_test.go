package autograd

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// counted is memory that knows what is out.
type counted struct{ live map[*tensor.Tensor]bool }

func (m *counted) New(rows, cols int) *tensor.Tensor {
	t, err := tensor.FromFloat32(make([]float32, rows*cols), rows, cols)
	if err != nil {
		panic(err)
	}
	m.live[t] = true
	return t
}

func (m *counted) Free(t *tensor.Tensor) {
	if !m.live[t] {
		panic("freed twice")
	}
	delete(m.live, t)
}

func (m *counted) of(values ...float32) *tensor.Tensor {
	t := m.New(1, len(values))
	copy(t.Float32s(), values)
	return t
}

// times is y = k x.
type times struct {
	x, y *tensor.Tensor
	k    float32
}

func (o *times) Backward(t *Tape) {
	dy := t.Take(o.y)
	dx := t.Memory().New(1, dy.Dim(1))
	for i, v := range dy.Float32s() {
		dx.Float32s()[i] = o.k * v
	}
	t.Done(o.y)
	t.Add(o.x, dx)
}

// plus is sum = x + y, y used nowhere else.
type plus struct{ x, y, sum *tensor.Tensor }

func (o *plus) Backward(t *Tape) {
	t.Move(o.sum, o.x)
	t.Share(o.x, o.y)
}

func TestBackwardWalksFromLastToFirstAndSumsUses(t *testing.T) {
	mem := &counted{live: map[*tensor.Tensor]bool{}}
	tape := NewTape(mem)
	x, y, z := mem.of(0), mem.of(0), mem.of(0)
	tape.Record(&times{x, y, 3}) // y = 3x
	tape.Record(&plus{x, y, z})  // z = x + y = 4x
	tape.Record(&times{z, mem.of(0), 5})
	out := tape.ops[2].(*times).y
	require.Equal(t, 3, tape.Len())
	tape.Add(out, mem.of(2))
	tape.Backward()
	require.Equal(t, []float32{40}, tape.Take(x).Float32s(), "5 * 4 * 2")
	require.Zero(t, tape.Len())
	tape.Done(x)
	for _, v := range []*tensor.Tensor{x, y, z, out} {
		mem.Free(v)
	}
	require.Empty(t, mem.live, "gradients are given back")
}

func TestAValueThatNothingDependsOnHasNoGradient(t *testing.T) {
	mem := &counted{live: map[*tensor.Tensor]bool{}}
	tape := NewTape(mem)
	require.Nil(t, tape.Take(mem.of(1)))
	tape.Done(mem.of(1))
	tape.Move(mem.of(1), mem.of(2))
}

func TestResetForgetsAFailedStep(t *testing.T) {
	mem := &counted{live: map[*tensor.Tensor]bool{}}
	tape := NewTape(mem)
	x := mem.of(1)
	tape.Record(&times{x, x, 1})
	tape.Add(x, mem.of(1))
	tape.Reset()
	require.Zero(t, tape.Len())
	require.Nil(t, tape.Take(x))
	tape.Backward()
}

func TestMisuseIsFound(t *testing.T) {
	mem := &counted{live: map[*tensor.Tensor]bool{}}
	tape := NewTape(mem)
	x, y := mem.of(1), mem.of(1)
	tape.Add(x, mem.of(1))
	require.Panics(t, func() { tape.Add(x, mem.of(1, 2)) }, "another size")
	tape.Share(x, y)
	require.Panics(t, func() { tape.Add(y, mem.of(1)) }, "a shared gradient is complete")
	require.Panics(t, func() { tape.Move(y, mem.of(1)) })
	tape.Record(again{})
	require.Panics(t, tape.Backward)
}

type again struct{}

func (again) Backward(t *Tape) { t.Backward() }

func TestBackwardUntilEndsBeforeTheOperationThatStopRefuses(t *testing.T) {
	mem := &counted{map[*tensor.Tensor]bool{}}
	tape := NewTape(mem)
	x, y, z := mem.of(1), mem.of(2), mem.of(6)
	tape.Record(&times{x, y, 2})
	tape.Record(&times{y, z, 3})
	tape.Add(z, mem.of(1))
	stop, asked := errors.New("stop"), 0
	err := tape.BackwardUntil(func() error {
		if asked++; asked == 2 {
			return stop
		}
		return nil
	})
	require.ErrorIs(t, err, stop)
	require.Equal(t, 1, tape.Len())
	require.Equal(t, []float32{3}, tape.Take(y).Float32s())
	require.Nil(t, tape.Take(x))
	tape.Reset()
	require.Zero(t, tape.Len())
}
