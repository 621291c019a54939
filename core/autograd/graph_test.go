package autograd

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

func leafWith(values ...float32) *GradTensor {
	t := New(must(tensor.FromFloat32(values, len(values))))
	if err := t.RequireGrad(true); err != nil {
		panic(err)
	}
	return t
}

func constant(values ...float32) *GradTensor {
	return New(must(tensor.FromFloat32(values, len(values))))
}

func call(t require.TestingT, name string, operands ...*GradTensor) *GradTensor {
	return callWith(t, name, "", operands...)
}

func callWith(t require.TestingT, name, params string, operands ...*GradTensor) *GradTensor {
	out, err := Grad.Call(name, operands, []byte(params))
	require.NoError(t, err)
	return out[0]
}

func grads(t *GradTensor) []float32 { return t.Grad().Float32s() }

func back1(t require.TestingT, x *GradTensor) {
	require.NoError(t, x.Backward(context.Background(), nil, Options{}))
}

func TestUsesOfAValueAddUpAndSoDoPasses(t *testing.T) {
	x := leafWith(3)
	y := call(t, "add", call(t, "mul", x, x), x) // x^2 + x
	back1(t, y)
	require.Equal(t, []float32{7}, grads(x))
	back1(t, call(t, "square", x))
	require.Equal(t, []float32{13}, grads(x))
	require.NoError(t, x.SetGrad(nil))
	require.Nil(t, x.Grad())
}

func TestOnlyWhatIsAskedForGetsAGradient(t *testing.T) {
	x, c := leafWith(2), constant(5)
	y := call(t, "mul", x, c)
	require.True(t, y.RequiresGrad())
	require.False(t, y.IsLeaf())
	require.Equal(t, "mul", y.Operation())
	require.False(t, call(t, "square", c).RequiresGrad())
	back1(t, y)
	require.Nil(t, c.Grad())
	require.Nil(t, y.Grad(), "intermediate values keep none")

	z, err := NoGrad.Call("mul", []*GradTensor{x, c}, nil)
	require.NoError(t, err)
	require.False(t, z[0].RequiresGrad())
	require.False(t, call(t, "mul", x.Detach(), c).RequiresGrad())
	require.False(t, call(t, "greater", x, c).RequiresGrad())
	require.True(t, call(t, "square", x).RequiresGrad())
	require.NoError(t, x.RequireGrad(false))
	require.False(t, call(t, "square", x).RequiresGrad())
}

func TestMisuseOfAGraphIsATypedError(t *testing.T) {
	ctx := context.Background()
	x := leafWith(1, 2)
	y := call(t, "square", x)
	require.ErrorIs(t, y.Backward(ctx, nil, Options{}), ErrGradient, "not a scalar")
	require.ErrorIs(t, y.Backward(ctx, must(tensor.Ones(tensor.Float32, 3)), Options{}), ErrGradient)
	require.ErrorIs(t, y.Backward(ctx, must(tensor.Ones(tensor.Int32, 2)), Options{}), ErrGradient)
	require.ErrorIs(t, constant(1).Backward(ctx, nil, Options{}), ErrNoGrad)
	require.ErrorIs(t, y.RequireGrad(false), ErrNotLeaf)
	require.ErrorIs(t, ints([]int64{1}, 1).RequireGrad(true), tensor.ErrDType)
	require.ErrorIs(t, x.SetGrad(must(tensor.Ones(tensor.Float32, 3))), ErrGradient)
	require.ErrorIs(t, constant(1).SetGrad(must(tensor.Ones(tensor.Float32, 1))), ErrNoGrad)
	_, err := y.Param()
	require.ErrorIs(t, err, ErrNotLeaf)
	_, err = constant(1).RegisterHook(nil)
	require.ErrorIs(t, err, ErrNoGrad)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, call(t, "sum", y).Backward(canceled, nil, Options{}), context.Canceled)
}

func TestASecondBackwardNeedsARetainedGraph(t *testing.T) {
	ctx := context.Background()
	x := leafWith(3)
	y := call(t, "square", call(t, "exp", x))
	require.NoError(t, y.Backward(ctx, nil, Options{Retain: true}))
	first := grads(x)[0]
	require.NoError(t, y.Backward(ctx, nil, Options{}))
	require.Equal(t, 2*first, grads(x)[0])
	err := y.Backward(ctx, nil, Options{})
	require.ErrorIs(t, err, ErrFreed)
	require.ErrorContains(t, err, "retain_graph")
	// So is a graph that shares a freed part.
	shared := call(t, "exp", x)
	a, b := call(t, "square", shared), call(t, "neg", shared)
	back1(t, a)
	require.ErrorIs(t, b.Backward(ctx, nil, Options{}), ErrFreed)
}

func TestAValueThatChangedSinceItWasSavedIsFound(t *testing.T) {
	ctx := context.Background()
	for name, change := range map[string]func(x *GradTensor){
		"itself": func(x *GradTensor) { require.NoError(t, NoGrad.Assign(x, constant(9))) },
		"through views": func(x *GradTensor) {
			require.NoError(t, NoGrad.Assign(callWith(t, "index", `{"index":[[0,1,1]]}`, x), constant(9)))
		},
		"detached":     func(x *GradTensor) { require.NoError(t, Grad.Assign(x.Detach(), constant(9))) },
		"an optimizer": func(x *GradTensor) { x.Changed() },
	} {
		x := leafWith(1, 2)
		y := call(t, "sum", call(t, "square", x))
		change(x)
		err := y.Backward(ctx, nil, Options{})
		require.ErrorIs(t, err, ErrChanged, name)
		require.ErrorContains(t, err, "square needs a float32 value of shape (2,)", name)
	}
	// What was not saved may change: the derivative of x + c does not read x.
	x := leafWith(1)
	y := call(t, "add", x, x)
	x.Changed()
	back1(t, y)
	// A product saves only the factor that a gradient needs.
	buffer := constant(3)
	z := call(t, "mul", buffer, call(t, "exp", x))
	require.ErrorIs(t, func() error { buffer.Changed(); return z.Backward(ctx, nil, Options{}) }(), ErrChanged)
	w := leafWith(2)
	z = call(t, "mul", w, buffer)
	w.Changed()
	back1(t, z)
}

func TestInPlaceChangesThatHistoryCannotFollowAreRefused(t *testing.T) {
	x := leafWith(1, 2)
	require.ErrorIs(t, Grad.Assign(x, constant(0)), ErrInPlace, "a leaf")
	require.NoError(t, NoGrad.Assign(x, constant(5), tensor.Span(0, 1, 1)))
	require.Equal(t, []float32{5, 2}, x.data.Float32s())
	y := call(t, "exp", x)
	row := callWith(t, "index", `{"index":[[0,1,1]]}`, y)
	require.ErrorIs(t, Grad.Assign(row, constant(0)), ErrInPlace, "a view")
	require.ErrorIs(t, Grad.Assign(y, constant(0)), ErrInPlace, "a base with views")
	require.ErrorIs(t, Grad.Assign(ints([]int64{1}, 1), callWith(t, "index", `{"index":[[0,1,1]]}`, x)), ErrInPlace)
	// A buffer that is filled has the history of what it was filled with.
	buffer := constant(0, 0, 0)
	require.NoError(t, Grad.Assign(buffer, call(t, "square", x), tensor.Span(1, 3, 1)))
	require.True(t, buffer.RequiresGrad())
	back1(t, call(t, "sum", buffer))
	require.Equal(t, []float32{10, 4}, grads(x))
}

func TestHooksSeeAndReplaceGradients(t *testing.T) {
	x := leafWith(2)
	y := call(t, "square", x)
	var seen []float32
	hookY, err := y.RegisterHook(func(g *tensor.Tensor) (*tensor.Tensor, error) {
		seen = append(seen, g.Float32s()[0])
		return tensor.FromFloat32([]float32{10}, 1)
	})
	require.NoError(t, err)
	hookX, err := x.RegisterHook(func(g *tensor.Tensor) (*tensor.Tensor, error) {
		seen = append(seen, g.Float32s()[0])
		return nil, nil
	})
	require.NoError(t, err)
	z := call(t, "add", y, y)
	require.NoError(t, z.Backward(context.Background(), nil, Options{Retain: true}))
	require.Equal(t, []float32{2, 40}, seen, "complete gradients, the output first")
	require.Equal(t, []float32{40}, grads(x))
	y.RemoveHook(hookY)
	x.RemoveHook(hookX)
	x.RemoveHook(hookX)
	require.NoError(t, x.SetGrad(nil))
	back1(t, z)
	require.Equal(t, []float32{8}, grads(x))
	require.Len(t, seen, 2)

	y = call(t, "square", x)
	failure := errors.New("no")
	_, _ = y.RegisterHook(func(*tensor.Tensor) (*tensor.Tensor, error) { return nil, failure })
	require.ErrorIs(t, y.Backward(context.Background(), nil, Options{}), failure)
	y = call(t, "square", x)
	_, _ = y.RegisterHook(func(*tensor.Tensor) (*tensor.Tensor, error) { return tensor.FromFloat32([]float32{1, 2}, 2) })
	require.ErrorIs(t, y.Backward(context.Background(), nil, Options{}), ErrGradient)
	y = call(t, "square", x)
	_, _ = y.RegisterHook(func(*tensor.Tensor) (*tensor.Tensor, error) { return tensor.FromInt64([]int64{1}, 1) })
	require.ErrorIs(t, y.Backward(context.Background(), nil, Options{}), ErrGradient)
}

func TestAWalkStopsForHooksOfOthers(t *testing.T) {
	ctx := context.Background()
	x := leafWith(2)
	y := call(t, "square", x)
	id, err := y.RegisterExternalHook()
	require.NoError(t, err)
	require.ErrorIs(t, call(t, "neg", y).Backward(ctx, nil, Options{Retain: true}), ErrGradient)
	w, err := NewWalk([]*GradTensor{call(t, "neg", y)}, nil, Options{})
	require.NoError(t, err)
	defer w.Close()
	stop, err := w.Next(ctx)
	require.NoError(t, err)
	require.Equal(t, id, stop.ID)
	require.Equal(t, []float32{-1}, stop.Grad.Float32s())
	require.NoError(t, w.Resume(must(tensor.FromFloat32([]float32{3}, 1))))
	stop, err = w.Next(ctx)
	require.NoError(t, err)
	require.Nil(t, stop)
	require.Equal(t, []float32{12}, grads(x))
}

func TestRetainedGradientsAndGradientsForInputs(t *testing.T) {
	x := leafWith(2)
	y := call(t, "square", x)
	require.NoError(t, y.RetainGrad())
	z := callWith(t, "sum", "", call(t, "exp", y))
	require.NoError(t, z.Backward(context.Background(), nil, Options{Retain: true}))
	require.InDelta(t, math.Exp(4), grads(y)[0], 1e-3)
	require.NoError(t, z.Backward(context.Background(), nil, Options{Retain: true}))
	require.InDelta(t, 2*math.Exp(4), grads(y)[0], 1e-3, "they add up as those of leaves do")
	require.NoError(t, y.SetGrad(nil))
	require.NoError(t, x.SetGrad(nil))
	require.NoError(t, z.Backward(context.Background(), nil, Options{Retain: true}))
	before := grads(x)[0]
	unused := leafWith(1)
	gs, err := Gradients(context.Background(), []*GradTensor{z}, nil, []*GradTensor{x, y, unused}, false)
	require.NoError(t, err)
	require.Equal(t, before, gs[0].Float32s()[0])
	require.Equal(t, grads(y), gs[1].Float32s())
	require.Nil(t, gs[2])
	require.Equal(t, []float32{before}, grads(x), "leaves do not change")
}

func TestGradientsHaveTheDTypeOfTheirValues(t *testing.T) {
	x := leafWith(1, 2)
	half := callWith(t, "cast", `{"dtype":"float16"}`, x)
	leaf := half.Detach()
	require.NoError(t, leaf.RequireGrad(true))
	back1(t, callWith(t, "sum", "", call(t, "mul", leaf, x)))
	require.Equal(t, tensor.Float16, leaf.Grad().DType())
	require.Equal(t, []float32{1, 2}, must(leaf.Grad().Cast(tensor.Float32)).Float32s())
	require.Equal(t, tensor.Float32, x.Grad().DType())
	back1(t, callWith(t, "sum", "", call(t, "mul", leaf, x)))
	require.Equal(t, []float32{2, 4}, must(leaf.Grad().Cast(tensor.Float32)).Float32s(), "halves add up too")
	back1(t, callWith(t, "sum", "", half))
	require.Equal(t, []float32{3, 5}, grads(x), "1 + 2 of two products, 1 of the cast")
}

func TestAParameterOfSomebodyElseKeepsItsMemory(t *testing.T) {
	p := &Param{Name: "w", Shape: []int{2}, Data: []float32{1, 2}, Grad: []float32{7, 7}}
	changes := 0
	w, err := NewLeaf(p, nil, func() { changes++ })
	require.NoError(t, err)
	back1(t, call(t, "sum", call(t, "square", w)))
	require.Equal(t, []float32{2, 4}, p.Grad, "what was there before is not a gradient of ours")
	require.NoError(t, NoGrad.Assign(w, constant(5)))
	require.Equal(t, []float32{5, 5}, p.Data)
	require.Equal(t, 1, changes)
	seen, err := w.Param()
	require.NoError(t, err)
	require.Equal(t, "w", seen.Name)
	require.Same(t, &p.Grad[0], &seen.Grad[0])
	require.NoError(t, w.SetGrad(nil))
	require.Empty(t, seen.Grad)
	require.Equal(t, []float32{0, 0}, p.Grad)

	// A function that adds to p.Grad by itself.
	sink := w.Sink()
	sink.Begin(false)
	p.Grad[0] += 3
	g, err := sink.End(true)
	require.NoError(t, err)
	require.Nil(t, g)
	require.Equal(t, []float32{3, 0}, grads(w))
	sink.Begin(true)
	p.Grad[1] += 4
	g, err = sink.End(true)
	require.NoError(t, err)
	require.Equal(t, []float32{0, 4}, g.Float32s())
	require.Equal(t, []float32{3, 0}, grads(w), "put aside")
}

// counting notes when it is released.
type counting struct{ released *int }

func (counting) Name() string                                     { return "counting" }
func (c counting) Backward(b *Backward) ([]*tensor.Tensor, error) { return b.Grads, nil }
func (c counting) Release()                                       { *c.released++ }

func TestAGraphThatNobodyHoldsGivesBackWhatItKept(t *testing.T) {
	released := 0
	x := leafWith(1)
	y := New(x.data)
	Record(counting{&released}, []*GradTensor{x}, []*GradTensor{y})
	z := call(t, "square", y)
	y.Release()
	require.Zero(t, released, "z still needs it")
	z.Release()
	z.Release()
	require.Equal(t, 1, released)
	require.ErrorIs(t, z.Backward(context.Background(), nil, Options{}), ErrFreed)

	y = New(x.data)
	Record(counting{&released}, []*GradTensor{x}, []*GradTensor{y})
	z = call(t, "neg", y)
	y.Release()
	back1(t, z)
	require.Equal(t, 2, released)
	z.Release()
	require.Equal(t, 2, released)
}

func TestDerivedValuesLastUntilAChange(t *testing.T) {
	x, builds := leafWith(1), 0
	build := func() (any, error) { builds++; return builds, nil }
	for range 2 {
		v, err := x.Derived("count", build)
		require.NoError(t, err)
		require.Equal(t, 1, v)
	}
	x.Changed()
	require.Equal(t, 2, must(x.Detach().Derived("count", build)))
	require.Equal(t, 3, must(x.Derived("another kind", build)))
	require.Equal(t, 4, must(x.Derived("count", build)))
}

func TestGradCheckFindsAWrongGradient(t *testing.T) {
	x := leafWith(1, 2, 3)
	wrong := func(in []*GradTensor) ([]*GradTensor, error) {
		y := New(must(tensor.Square(in[0].data)))
		Record(counting{new(int)}, in, []*GradTensor{y})
		return []*GradTensor{y}, nil
	}
	err := GradCheck(wrong, []*GradTensor{x}, CheckOptions{})
	var bad *CheckError
	require.ErrorAs(t, err, &bad)
	require.ErrorIs(t, err, ErrCheck)
	require.Equal(t, []int{2}, bad.Index)
	require.Equal(t, 3, bad.Wrong)
	require.InDelta(t, 6*bad.Analytic, bad.Numeric, 0.01, "1 where 2x = 6 is right")
	require.Equal(t, []float32{1, 2, 3}, x.data.Float32s(), "inputs are as they were")
	require.ErrorIs(t, GradCheck(wrong, []*GradTensor{constant(1)}, CheckOptions{}), ErrNoGrad)
}

func TestGradCheckSaysWhatItCannotCheck(t *testing.T) {
	failure := errors.New("no")
	calls := 0
	after := func(n int) func(in []*GradTensor) ([]*GradTensor, error) {
		calls = 0
		return func(in []*GradTensor) ([]*GradTensor, error) {
			if calls++; calls > n {
				return nil, failure
			}
			return Grad.Call("square", in, nil)
		}
	}
	x := leafWith(1, 2)
	for _, n := range []int{0, 1, 3} {
		require.ErrorIs(t, GradCheck(after(n), []*GradTensor{x}, CheckOptions{}), failure)
		require.Equal(t, []float32{1, 2}, x.data.Float32s(), "inputs are as they were")
	}
	require.NoError(t, GradCheck(after(100), []*GradTensor{constant(1), x}[1:], CheckOptions{}))
	apart := func(in []*GradTensor) ([]*GradTensor, error) { return []*GradTensor{constant(1)}, nil }
	require.ErrorIs(t, GradCheck(apart, []*GradTensor{x}, CheckOptions{}), ErrNoGrad)
	require.ErrorIs(t, GradCheck(after(100), []*GradTensor{call(t, "square", x)}, CheckOptions{}), ErrNotLeaf)
	undefined := func(in []*GradTensor) ([]*GradTensor, error) { return Grad.Call("log", in, nil) }
	err := GradCheck(undefined, []*GradTensor{leafWith(-1)}, CheckOptions{})
	require.ErrorIs(t, err, ErrCheck, "NaN agrees with nothing")
}

// A graph of several goroutines that share leaves has the sum of their gradients, whole numbers here.
func TestGraphsMayBeWalkedFromSeveralGoroutines(t *testing.T) {
	x := leafWith(1, 2, 3)
	shared := call(t, "square", x)
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 20 {
				y := call(t, "sum", call(t, "mul", shared, constant(1, 1, 1)))
				if err := y.Backward(context.Background(), nil, Options{Retain: true}); err != nil {
					panic(err)
				}
				y.Release()
			}
		}()
	}
	all.Wait()
	require.Equal(t, []float32{320, 640, 960}, grads(x))
}

// Of several passes over one graph that is not retained exactly one wins.
func TestOnePassWinsAGraph(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		x := leafWith(2)
		y := call(t, "square", call(t, "exp", x))
		want := call(t, "square", call(t, "exp", x))
		var all sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for range 4 {
			all.Add(1)
			go func() {
				defer all.Done()
				if err := y.Backward(context.Background(), nil, Options{}); err == nil {
					mu.Lock()
					won++
					mu.Unlock()
				} else if !errors.Is(err, ErrFreed) {
					panic(err)
				}
			}()
		}
		all.Wait()
		require.Equal(t, 1, won)
		once := grads(x)[0]
		require.NoError(t, x.SetGrad(nil))
		back1(t, want)
		require.Equal(t, once, grads(x)[0])
	})
}

// dropping drops the last tensor of its own graph while its backward pass runs, as a signal handler might.
type dropping struct {
	counting
	drop func()
}

func (d dropping) Backward(b *Backward) ([]*tensor.Tensor, error) {
	d.drop()
	return b.Grads, nil
}

func TestAGraphMayBeDroppedWhileItIsWalked(t *testing.T) {
	for _, retain := range []bool{false, true} {
		released := 0
		x := leafWith(2)
		y := New(x.data)
		Record(dropping{counting{&released}, y.Release}, []*GradTensor{call(t, "square", x)}, []*GradTensor{y})
		require.NoError(t, y.Backward(context.Background(), nil, Options{Retain: retain}))
		require.Equal(t, []float32{4}, grads(x))
		require.Equal(t, 1, released)
	}
}
