package optim

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
)

// Everything in this file is compared with what PyTorch computed; tests_py/record/optim.py made the files.

// recording is one .npz file.
type recording map[string]npz.Array

func record(t *testing.T, name string) recording {
	t.Helper()
	r, err := npz.Load("../../tests_go/testdata/optim/" + name + ".npz")
	require.NoError(t, err)
	return r
}

func (r recording) floats(t *testing.T, name string) []float32 {
	t.Helper()
	v, err := r[name].Float32s()
	require.NoError(t, err, name)
	return v
}

func (r recording) doubles(t *testing.T, name string) []float64 {
	t.Helper()
	v, err := npz.Values[float64](r[name])
	require.NoError(t, err, name)
	return v
}

func (r recording) text(t *testing.T, name string) []byte {
	t.Helper()
	v, err := r[name].Uint8s()
	require.NoError(t, err, name)
	return v
}

func (r recording) json(t *testing.T, name string, into any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(r.text(t, name), into), name)
}

// torchCase is an optimizer run as the recording describes it.
type torchCase struct {
	Class   string          `json:"class"`
	Hyper   json.RawMessage `json:"hyper"`
	Second  json.RawMessage `json:"second"`  // of the group of tensor 1, over Hyper
	Missing []int           `json:"missing"` // tensor and period: no gradient in each period-th step
}

// torchRun replays a recorded run on our side.
type torchRun struct {
	torchCase
	r      recording
	name   string
	params []*Param // in the recording's order
	opt    *Optimizer
}

func replay(t *testing.T, r recording, name string) *torchRun {
	t.Helper()
	run := &torchRun{r: r, name: name}
	r.json(t, name+"/case", &run.torchCase)
	var shapes [][]int
	r.json(t, "shapes", &shapes)
	start := slices.Clone(r.floats(t, "start"))
	for i, shape := range shapes {
		n := 1
		for _, d := range shape {
			n *= d
		}
		run.params = append(run.params, &Param{Name: fmt.Sprintf("tensor%d", i), Shape: shape, Data: start[:n]})
		start = start[n:]
	}

	c := DefaultConfig(strings.ToLower(run.Class))
	require.NoError(t, json.Unmarshal(run.Hyper, &c.Hyper))
	groups := []Group{{Params: run.params}}
	if run.Second != nil {
		second := c.Hyper
		require.NoError(t, json.Unmarshal(run.Second, &second))
		groups = []Group{{Params: []*Param{run.params[0], run.params[2]}}, {Params: run.params[1:2], Hyper: &second}}
	}
	var err error
	run.opt, err = New(nil, c, groups...)
	require.NoError(t, err)
	t.Cleanup(run.opt.Close)
	return run
}

// step makes recorded step number step, counted from 1.
func (run *torchRun) step(t *testing.T, step int) {
	t.Helper()
	size := len(run.r.floats(t, "start"))
	row := slices.Clone(run.r.floats(t, "gradients")[(step-1)*size : step*size])
	for i, p := range run.params {
		p.Grad, row = row[:len(p.Data)], row[len(p.Data):]
		if run.Missing != nil && i == run.Missing[0] && step%run.Missing[1] == 0 {
			p.Grad = nil
		}
	}
	require.NoError(t, run.opt.Step())
}

func (run *torchRun) weights() (all []float32) {
	for _, p := range run.params {
		all = append(all, p.Data...)
	}
	return all
}

// savedState is PyTorch's state dict after so many steps.
func (run *torchRun) savedState(t *testing.T, step int) *StateDict {
	t.Helper()
	prefix := fmt.Sprintf("%s/%d/", run.name, step)
	var tensors []NamedTensor
	for _, key := range sortedKeys(run.r) {
		if name, ok := strings.CutPrefix(key, prefix+"state."); ok {
			tensors = append(tensors, NamedTensor{"state." + name, Tensor{run.r[key].Shape, run.r.floats(t, key)}})
		}
	}
	d, err := ParseStateDict(run.r.text(t, prefix+"json"), tensors)
	require.NoError(t, err)
	return d
}

// tolerance is the agreement with PyTorch, relative to a value, or to the root mean square of its tensor where the value is smaller: a
// weight that comes from 1 and crosses zero has the rounding errors of a 1.
const tolerance = 1e-6

func assertClose(t *testing.T, want, got []float32, what string, args ...any) {
	t.Helper()
	require.Len(t, got, len(want))
	rms := math.Sqrt(sumSquares(want) / float64(len(want)))
	for i := range want {
		w, g := float64(want[i]), float64(got[i])
		if diff := math.Abs(w - g); !(diff <= tolerance*max(math.Abs(w), rms)) {
			t.Errorf("%s: element %d is %v, PyTorch has %v (relative %g)", fmt.Sprintf(what, args...), i, g, w, diff/math.Abs(w))
		}
	}
}

func optimizerCases(r recording) (names []string) {
	for _, key := range sortedKeys(r) {
		if name, ok := strings.CutSuffix(key, "/case"); ok {
			names = append(names, name)
		}
	}
	return names
}

func TestOptimizersMatchPyTorchOverAHundredSteps(t *testing.T) {
	r := record(t, "optimizers")
	steps, err := r["steps"].Int32s()
	require.NoError(t, err)
	for _, name := range optimizerCases(r) {
		t.Run(name, func(t *testing.T) {
			run := replay(t, r, name)
			want := r.floats(t, name+"/params")
			for step := 1; step <= 100; step++ {
				run.step(t, step)
				if row := slices.Index(steps, int32(step)); row >= 0 {
					got := run.weights()
					assertClose(t, want[row*len(got):(row+1)*len(got)], got, "weights after step %d", step)
				}
			}
			ours, theirs := run.opt.StateDict(), run.savedState(t, 100)
			assert.Equal(t, sortedKeys(theirs.State), sortedKeys(ours.State))
			for i, s := range theirs.State {
				assert.Equal(t, s.Step, ours.State[i].Step)
				assert.Equal(t, sortedKeys(s.Tensors), sortedKeys(ours.State[i].Tensors))
				for key, tensor := range s.Tensors {
					assertClose(t, tensor.Data, ours.State[i].Tensors[key].Data, "state %d %s", i, key)
				}
			}
		})
	}
}

func TestAPyTorchOptimizerIsContinued(t *testing.T) {
	r := record(t, "optimizers")
	for _, name := range optimizerCases(r) {
		t.Run(name, func(t *testing.T) {
			run := replay(t, r, name)
			state := run.savedState(t, 50)
			run.opt.SetRates(Rates{LR: 7, WeightDecay: 3}) // to be overwritten by the state
			steps, err := r["steps"].Int32s()
			require.NoError(t, err)
			row := slices.Index(steps, 50)
			weights := r.floats(t, name+"/params")[row*len(run.weights()):]
			for _, p := range run.params {
				copy(p.Data, weights)
				weights = weights[len(p.Data):]
			}
			require.NoError(t, run.opt.LoadStateDict(state))
			for step := 51; step <= 100; step++ {
				run.step(t, step)
			}
			rows := r.floats(t, name+"/params")
			assertClose(t, rows[len(rows)-len(run.weights()):], run.weights(), "weights at the end")
		})
	}
}

func TestTheStateDictHasPyTorchsKeysAndValues(t *testing.T) {
	r := record(t, "optimizers")
	for _, name := range optimizerCases(r) {
		t.Run(name, func(t *testing.T) {
			run := replay(t, r, name)
			for step := 1; step <= 50; step++ {
				run.step(t, step)
			}
			text, err := json.Marshal(run.opt.StateDict())
			require.NoError(t, err)
			type dict struct {
				State  map[string]map[string]any `json:"state"`
				Groups []map[string]any          `json:"param_groups"`
			}
			var ours, theirs dict
			require.NoError(t, json.Unmarshal(text, &ours))
			r.json(t, name+"/50/json", &theirs)
			assert.Equal(t, theirs.State, ours.State)
			require.Len(t, ours.Groups, len(theirs.Groups))
			for i, group := range theirs.Groups {
				for key, value := range group {
					assert.Contains(t, ours.Groups[i], key)
					assert.Equal(t, value, ours.Groups[i][key], key)
				}
			}
		})
	}
}

func TestClippingMatchesPyTorch(t *testing.T) {
	r := record(t, "clipping")
	grads := func(name string) (*Gradients, *Param) {
		data := slices.Clone(r.floats(t, name))
		p := &Param{Shape: []int{len(data)}, Data: make([]float32, len(data)), Grad: data}
		g, err := NewGradients([]*Param{p})
		require.NoError(t, err)
		return g, p
	}
	for _, name := range []string{"above", "below"} {
		g, p := grads(name + "/before")
		norm, err := g.ClipNorm(1)
		require.NoError(t, err)
		assert.InEpsilon(t, r.doubles(t, name+"/norm")[0], norm, tolerance)
		assertClose(t, r.floats(t, name+"/after"), p.Grad, "%s", name)
	}
	g, p := grads("value/before")
	require.NoError(t, g.ClipValue(0.25))
	assert.Equal(t, r.floats(t, "value/after"), p.Grad)
}

func TestTheGradScalerFollowsPyTorchs(t *testing.T) {
	r := record(t, "scaler")
	var config ScalerConfig
	r.json(t, "config", &config)
	s, err := NewGradScaler(config)
	require.NoError(t, err)
	weight := &Param{Shape: []int{2}, Data: []float32{1, -2}, Grad: make([]float32, 2)}
	c := DefaultConfig("sgd")
	c.LR = 0.01
	opt, err := New(nil, c, Group{Params: []*Param{weight}})
	require.NoError(t, err)
	defer opt.Close()

	scales, weights := r.doubles(t, "scales"), r.floats(t, "weights")
	for i, bad := range r.text(t, "overflow") {
		for j, w := range weight.Data { // of the loss scale * sum(w^2)
			weight.Grad[j] = 2 * w * s.Scale()
		}
		if bad == 1 {
			weight.Grad[1] = float32(math.Inf(1))
		}
		stepped, err := s.Step(opt)
		require.NoError(t, err)
		assert.Equal(t, bad == 0, stepped)
		require.NoError(t, s.Update())
		assert.Equal(t, scales[i], float64(s.Scale()), "scale after step %d", i+1)
		assertClose(t, weights[2*i:2*i+2], weight.Data, "weights after step %d", i+1)
	}
	var state ScalerState
	r.json(t, "state", &state)
	assert.Equal(t, state, s.StateDict())
	assert.Equal(t, 3, s.Skipped())
}

func TestSchedulesMatchPyTorchAndTransformers(t *testing.T) {
	r := record(t, "schedules")
	base := r.doubles(t, "base")[0]
	for _, key := range sortedKeys(r) {
		name, ok := strings.CutSuffix(key, "/config")
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			var config ScheduleConfig
			r.json(t, key, &config)
			c := DefaultConfig("sgd")
			c.LR, c.Momentum, c.WeightDecay = base, 0.9, 0.25
			opt := newTestOptimizer(t, c)
			s, err := NewScheduler(opt, config)
			require.NoError(t, err)
			rates := r.doubles(t, name+"/rates")
			for step := range 100 {
				if config.Name == "plateau" {
					s.Observe(r.doubles(t, "metrics")[step])
					assert.InEpsilon(t, rates[step], opt.Group(0).LR, tolerance, "step %d", step)
				} else {
					assert.InDelta(t, rates[2*step], opt.Group(0).LR, tolerance*rates[2*step]+1e-12*base, "step %d", step)
					assert.InEpsilon(t, rates[2*step+1], opt.Group(0).Momentum, tolerance, "momentum at step %d", step)
				}
				assert.Equal(t, 0.25, opt.Group(0).WeightDecay)
				s.Step()
			}
		})
	}
}
