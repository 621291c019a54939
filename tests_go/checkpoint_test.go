package tests_go

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

var errInterrupted = errors.New("interrupted")

// run is a training run on a small model, whose records and end the tests compare.
type run struct {
	*train.Trainer
	model   *model.Model
	records []train.Record
	onStep  func(train.Record) error
}

func runConfig(optimizer, schedule string) train.Config {
	c := train.Config{
		Steps: 60, BatchSize: 2, Accumulation: 2, GradientClip: 1, EvalEvery: 7, Seed: 1<<63 + 5, Optimizer: optim.DefaultConfig(optimizer),
		Schedule: optim.ScheduleConfig{Name: schedule},
	}
	c.Optimizer.LR, c.Optimizer.WeightDecay = 1e-2, 0.1
	if schedule == "cosine" {
		c.Schedule.TotalSteps, c.Schedule.WarmupSteps = 60, 5
	}
	return c
}

func runTexts(t *testing.T) (data, eval *train.Tokens) {
	t.Helper()
	text := make([]int32, 600)
	for i := range text {
		text[i] = int32(i * i % 61)
	}
	data, err := train.NewTokens(text[:500], 16)
	require.NoError(t, err)
	eval, err = train.NewTokens(text[500:], 16)
	require.NoError(t, err)
	return data, eval
}

func newRun(t *testing.T, c train.Config) *run {
	t.Helper()
	data, eval := runTexts(t)
	return newRunOn(t, c, data, eval)
}

func newRunOn(t *testing.T, c train.Config, data, eval train.Dataset) *run {
	t.Helper()
	m := trainable(t, "relu2")
	tr, err := train.NewTrainer(m, c, data, eval)
	require.NoError(t, err)
	t.Cleanup(tr.Close)
	r := &run{Trainer: tr, model: m}
	r.onStep = func(rec train.Record) error {
		rec.Resources = train.Resources{}
		r.records = append(r.records, rec)
		return nil
	}
	tr.Callbacks = []train.Callback{train.StepFunc(func(rec train.Record) error { return r.onStep(rec) })}
	return r
}

// until trains to a step and stops there.
func (r *run) until(t *testing.T, step int) {
	t.Helper()
	note := r.onStep
	r.onStep = func(rec train.Record) error {
		if rec.Step == step {
			r.Stop()
		}
		return note(rec)
	}
	require.NoError(t, r.Train(context.Background()))
	require.Equal(t, step, r.Step())
	r.onStep = note
}

// crash trains to a step and ends there with an error, before anything is saved of that step.
func (r *run) crash(t *testing.T, step int) {
	t.Helper()
	note := r.onStep
	r.onStep = func(rec train.Record) error {
		if rec.Step == step {
			return errInterrupted
		}
		return note(rec)
	}
	require.ErrorIs(t, r.Train(context.Background()), errInterrupted)
	r.onStep = note
}

func (r *run) weights() map[string][]uint32 {
	bits := map[string][]uint32{}
	for _, p := range r.model.Params() {
		for _, v := range p.Data {
			bits[p.Name] = append(bits[p.Name], math.Float32bits(v))
		}
	}
	return bits
}

// savedFunc is called after every checkpoint.
type savedFunc func(path string)

func (savedFunc) RunStart(*train.Trainer) error                  { return nil }
func (savedFunc) Evaluation(*train.Trainer, *train.Record) error { return nil }
func (savedFunc) Step(*train.Trainer, train.Record) error        { return nil }
func (savedFunc) RunEnd(*train.Trainer, error) error             { return nil }
func (f savedFunc) Checkpoint(_ *train.Trainer, path string) error {
	f(path)
	return nil
}

func checkpoints(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != ".lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestAResumedRunIsTheUninterruptedOne(t *testing.T) {
	sgd := runConfig("sgd", "constant")
	sgd.Optimizer.Momentum = 0.9
	plain := runConfig("sgd", "plateau")
	zero := 0
	plain.Schedule.Patience = &zero
	amsgrad := runConfig("adam", "cosine")
	amsgrad.Optimizer.AMSGrad = true
	cycle := runConfig("adamw", "one_cycle")
	cycle.Schedule.TotalSteps, cycle.Schedule.CycleMomentum = 60, true
	for name, c := range map[string]train.Config{
		"sgd with momentum": sgd, "sgd, plateau": plain, "adam": runConfig("adam", "cosine"), "adam, amsgrad": amsgrad,
		"adamw": runConfig("adamw", "cosine"), "adamw, one cycle": cycle,
	} {
		t.Run(name, func(t *testing.T) {
			whole := newRun(t, c)
			require.NoError(t, whole.Train(context.Background()))

			c.Checkpoint = train.CheckpointConfig{Dir: filepath.Join(t.TempDir(), "made", "[here]"), Every: 10}
			first := newRun(t, c)
			first.crash(t, 33)
			second := newRun(t, c)
			r, err := second.Resume(c.Checkpoint.Dir)
			require.NoError(t, err)
			require.GreaterOrEqual(t, r.Step, 30)
			require.Empty(t, r.Skipped)
			require.NoError(t, second.Train(context.Background()))
			require.Equal(t, whole.records, append(first.records[:r.Step:r.Step], second.records...))
			require.Equal(t, whole.weights(), second.weights())
			require.Equal(t, whole.Best(), second.Best())
			require.Contains(t, checkpoints(t, c.Checkpoint.Dir), "step-00000060.ckpt", "the end is saved")

			again := newRun(t, c)
			_, err = again.Resume(c.Checkpoint.Dir)
			require.NoError(t, err)
			require.NoError(t, again.Train(context.Background()))
			require.Empty(t, again.records, "a run that is over stays over")
			require.Equal(t, whole.weights(), again.weights())
		})
	}
}

func TestTheNewestAndTheBestCheckpointsStay(t *testing.T) {
	for _, keep := range []int{1, 2, 5} {
		c := runConfig("adamw", "constant")
		c.Optimizer.LR = 3e-2
		c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir(), Every: 4, Keep: keep}
		require.NoError(t, os.WriteFile(filepath.Join(c.Checkpoint.Dir, "notes.txt"), nil, 0o666))
		require.NoError(t, os.WriteFile(filepath.Join(c.Checkpoint.Dir, ".step-00000004.ckpt.0a.tmp"), nil, 0o666))
		r := newRun(t, c)
		saved := map[int]bool{}
		var best train.Best
		note := r.onStep
		r.onStep = func(rec train.Record) error {
			if err := note(rec); err != nil {
				return err
			}
			if rec.EvalRecord != nil && (best.Step == 0 || rec.EvalLoss < best.Value) {
				best = train.Best{Step: rec.Step, Value: rec.EvalLoss}
			}
			return nil
		}
		r.Callbacks = append(r.Callbacks, savedFunc(func(path string) {
			require.True(t, r.Step()%4 == 0 || r.Step() == best.Step)
			require.Equal(t, filepath.Join(c.Checkpoint.Dir, fmt.Sprintf("step-%08d.ckpt", r.Step())), path)
			saved[r.Step()] = true
			var want []string
			for step := r.Step(); step > 0; step-- {
				if saved[step] && (len(want) < keep || step == best.Step) {
					want = append(want, fmt.Sprintf("step-%08d.ckpt", step))
				}
			}
			want = append(want, "notes.txt") // and what a killed writer left is gone
			slices.Sort(want)
			require.Equal(t, want, checkpoints(t, c.Checkpoint.Dir), "keep %d, step %d", keep, r.Step())
		}))
		require.NoError(t, r.Train(context.Background()))
		require.Equal(t, &best, r.Best())
	}
}

func TestACheckpointOfAnotherRunIsRefused(t *testing.T) {
	c := runConfig("adamw", "cosine")
	c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir(), Every: 2}
	newRun(t, c).until(t, 2)
	for field, spoil := range map[string]func(*train.Config){
		"config.batch_size: found 2, expected 3":                   func(c *train.Config) { c.BatchSize = 3 },
		"config.accumulation: found 2, expected 1":                 func(c *train.Config) { c.Accumulation = 0 },
		"config.gradient_clip: found 1, expected 0":                func(c *train.Config) { c.GradientClip = 0 },
		"config.seed: found 9223372036854775813, expected 1":       func(c *train.Config) { c.Seed = 1 },
		"config.optimizer.lr: found 0.01, expected 0.5":            func(c *train.Config) { c.Optimizer.LR = 0.5 },
		`config.optimizer.name: found "adamw", expected "adam"`:    func(c *train.Config) { c.Optimizer.Name = "adam" },
		"config.scheduler.min_ratio: found none, expected 0.5":     func(c *train.Config) { c.Schedule.MinRatio = 0.5 },
		`config.scheduler.name: found "cosine", expected "linear"`: func(c *train.Config) { c.Schedule.Name = "linear" },
	} {
		other := c
		spoil(&other)
		r := newRun(t, other)
		before := r.weights()
		_, err := r.Resume(c.Checkpoint.Dir)
		require.ErrorIs(t, err, train.ErrMismatch)
		require.ErrorContains(t, err, "step-00000002.ckpt: "+field)
		require.Equal(t, before, r.weights())
	}

	longer := c
	longer.Steps, longer.EvalEvery, longer.Schedule.TotalSteps = 100, 3, 100
	_, err := newRun(t, longer).Resume(c.Checkpoint.Dir)
	require.NoError(t, err, "a run may go on for longer than was planned")

	for _, from := range []*train.EarlyStopping{nil, {Patience: 100}} {
		for _, to := range []*train.EarlyStopping{nil, {Patience: 7, MinDelta: 0.1}} {
			c.EarlyStopping = from
			first, path := newRun(t, c), filepath.Join(t.TempDir(), "x")
			require.NoError(t, first.WriteCheckpoint(path))
			c.EarlyStopping = to
			_, err := newRun(t, c).Resume(path)
			require.NoError(t, err, "when it is given up may be decided anew")
		}
	}
	c.EarlyStopping = nil

	data, eval := runTexts(t)
	ids := make([]int32, 500)
	otherText, err := train.NewTokens(ids, 16)
	require.NoError(t, err)
	cfg := *trainable(t, "relu2").Config
	cfg.IntermediateSize = 64
	wide, err := model.NewTrainable(&cfg, 3, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, wide.Close()) }()
	for field, make := range map[string]func() (*train.Trainer, error){
		"model.intermediate_size: found 88, expected 64": func() (*train.Trainer, error) { return train.NewTrainer(wide, c, data, eval) },
		"data.crc32c: found ":                            func() (*train.Trainer, error) { return train.NewTrainer(trainable(t, "relu2"), c, otherText, eval) },
		"eval: found none, expected null":                func() (*train.Trainer, error) { return train.NewTrainer(trainable(t, "relu2"), c, data, nil) },
	} {
		tr, err := make()
		require.NoError(t, err)
		_, err = tr.Resume(c.Checkpoint.Dir)
		require.ErrorContains(t, err, field)
		var mismatch *train.MismatchError
		require.ErrorAs(t, err, &mismatch)
		tr.Close()
	}
}

// The learning rate of wsd stays where it is until it is decided that the run ends.
func TestTheDecayMayBeDecidedOnWhileTheRunGoes(t *testing.T) {
	c := runConfig("adamw", "wsd")
	c.Steps, c.Schedule.TotalSteps, c.Schedule.DecaySteps = 12, 12, 4
	whole := newRun(t, c)
	whole.until(t, 12)

	open := c
	open.Steps, open.Schedule.TotalSteps, open.Schedule.DecaySteps = 60, 60, 20
	open.Checkpoint = train.CheckpointConfig{Dir: t.TempDir(), Every: 6}
	newRun(t, open).until(t, 6)
	c.Checkpoint = open.Checkpoint
	ended := newRun(t, c)
	_, err := ended.Resume(open.Checkpoint.Dir)
	require.NoError(t, err)
	ended.until(t, 12)
	require.Equal(t, whole.weights(), ended.weights())
}

// Every way to be damaged is reported with the file's path, and the run goes on from the checkpoint before.
func TestDamagedCheckpointsAreReportedAndSkipped(t *testing.T) {
	c := runConfig("adamw", "cosine")
	c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir(), Every: 2, Keep: 2}
	whole := newRun(t, c)
	whole.until(t, 4)
	newest := filepath.Join(c.Checkpoint.Dir, "step-00000004.ckpt")
	good, err := os.ReadFile(newest)
	require.NoError(t, err)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	// rewrite makes a file with right checksums and another content.
	rewrite := func(change func(s *model.Snapshot, state map[string]json.RawMessage)) func() []byte {
		return func() []byte {
			path := filepath.Join(t.TempDir(), "x")
			require.NoError(t, os.WriteFile(path, good, 0o666))
			s, err := model.ReadSnapshot(path)
			require.NoError(t, err)
			var state map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(s.State, &state))
			change(s, state)
			if state != nil {
				s.State, err = json.Marshal(state)
				require.NoError(t, err)
			}
			require.NoError(t, model.WriteSnapshot(path, *s))
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			return b
		}
	}
	set := func(field, value string) func() []byte {
		return rewrite(func(_ *model.Snapshot, state map[string]json.RawMessage) { state[field] = json.RawMessage(value) })
	}
	// metadata makes a container with other metadata, the checksums as they may be.
	metadata := func(key, value string) func() []byte {
		return func() []byte {
			f, err := safetensors.OpenBytes("good", good)
			require.NoError(t, err)
			meta := f.Metadata()
			meta[key] = value
			var tensors []container.Tensor
			for _, i := range f.Tensors() {
				v, err := f.Tensor(i.Name)
				require.NoError(t, err)
				tensors = append(tensors, container.Tensor{Name: i.Name, DType: i.DType, Shape: i.Shape, Data: v.Data})
			}
			path := filepath.Join(t.TempDir(), "x")
			require.NoError(t, safetensors.Write(path, tensors, meta))
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			return b
		}
	}
	cases := map[string]struct {
		make func() []byte
		kind error
	}{
		"empty":            {func() []byte { return nil }, safetensors.ErrFileTooShort},
		"another version":  {metadata("format_version", "2"), model.ErrVersion},
		"no version":       {metadata("format_version", "x"), safetensors.ErrMetadata},
		"another format":   {metadata("format", "bitnet"), safetensors.ErrMetadata},
		"state was edited": {metadata("state", "{}"), model.ErrChecksum},
		"state is no object": {rewrite(func(s *model.Snapshot, state map[string]json.RawMessage) {
			clear(state)
			state["step"] = json.RawMessage(`"x"`)
		}), train.ErrDamaged},
		"run is no object":     {set("run", "3"), train.ErrDamaged},
		"another step":         {set("step", "5"), train.ErrDamaged},
		"scheduler's step":     {set("scheduler", `{"name":"cosine","step":3}`), train.ErrDamaged},
		"scheduler's name":     {set("scheduler", `{"name":"linear","step":4}`), optim.ErrState},
		"optimizer's groups":   {set("optimizer", `{"state":{},"param_groups":[]}`), optim.ErrState},
		"optimizer is no JSON": {set("optimizer", `[]`), optim.ErrState},
		"a weight is missing":  {rewrite(func(s *model.Snapshot, _ map[string]json.RawMessage) { s.Tensors = s.Tensors[1:] }), train.ErrDamaged},
		"a weight is NaN":      {rewrite(func(s *model.Snapshot, _ map[string]json.RawMessage) { s.Tensors[2].Data[1] = float32(math.NaN()) }), train.ErrDamaged},
		"a weight too many": {rewrite(func(s *model.Snapshot, _ map[string]json.RawMessage) {
			s.Tensors = append(s.Tensors, model.SnapshotTensor{Name: "extra", Shape: []int{1}, Data: []float32{1}})
		}), train.ErrDamaged},
		"a moment of another shape": {rewrite(func(s *model.Snapshot, _ map[string]json.RawMessage) {
			last := &s.Tensors[len(s.Tensors)-1]
			last.Shape, last.Data = []int{1}, last.Data[:1]
		}), optim.ErrState},
	}
	for range 40 {
		n := rng.IntN(len(good))
		cases[fmt.Sprintf("cut to %d bytes", n)] = struct {
			make func() []byte
			kind error
		}{func() []byte { return good[:n] }, container.ErrFormat}
	}
	for i := range 120 {
		n := rng.IntN(len(good))
		if i%2 == 0 {
			n = rng.IntN(8 + int(good[0]) + int(good[1])<<8) // the header
		}
		bit := byte(1) << rng.IntN(8)
		cases[fmt.Sprintf("bit %d of byte %d flipped", bit, n)] = struct {
			make func() []byte
			kind error
		}{func() []byte {
			b := slices.Clone(good)
			b[n] ^= bit
			return b
		}, container.ErrFormat}
	}
	second := newRun(t, c)
	for name, damage := range cases {
		require.NoError(t, os.WriteFile(newest, damage.make(), 0o666))
		r, err := second.Resume(c.Checkpoint.Dir)
		require.NoError(t, err, name)
		require.Equal(t, 2, r.Step, name)
		require.Len(t, r.Skipped, 1, name)
		require.Equal(t, newest, r.Skipped[0].Path)
		require.ErrorIs(t, r.Skipped[0], train.ErrDamaged, name)
		require.ErrorIs(t, r.Skipped[0], damage.kind, name)
		require.ErrorContains(t, r.Skipped[0], newest, name)
	}
	second.until(t, 4)
	require.Equal(t, whole.weights(), second.weights(), "after all the failures the run is as if it had never been interrupted")
	rewritten, err := os.ReadFile(newest)
	require.NoError(t, err)
	require.Equal(t, good, rewritten)
}

func TestADamagedCheckpointDoesNotCountAsOneThatIsKept(t *testing.T) {
	c := runConfig("sgd", "constant")
	c.EvalEvery, c.Checkpoint = 0, train.CheckpointConfig{Dir: t.TempDir(), Every: 4, Keep: 2}
	newRun(t, c).until(t, 8)
	require.NoError(t, os.WriteFile(filepath.Join(c.Checkpoint.Dir, "step-00000008.ckpt"), []byte("broken"), 0o666))
	c.Checkpoint.Every = 5
	r := newRun(t, c)
	_, err := r.Resume(c.Checkpoint.Dir)
	require.NoError(t, err)
	r.until(t, 5)
	require.Equal(t, []string{"step-00000004.ckpt", "step-00000005.ckpt", "step-00000008.ckpt"}, checkpoints(t, c.Checkpoint.Dir))
	r.until(t, 10)
	require.Equal(t, []string{"step-00000005.ckpt", "step-00000010.ckpt"}, checkpoints(t, c.Checkpoint.Dir))
}

// Two runs do not write into one directory at the same time, be they of one process or of two.
func TestADirectoryBelongsToOneRunAtATime(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no advisory locks")
	}
	refused := func(r *run, dir string, pid int) {
		t.Helper()
		var locked *train.LockedError
		require.ErrorAs(t, r.Train(context.Background()), &locked)
		require.Equal(t, train.LockedError{Dir: dir, PID: pid}, *locked)
		_, err := r.SaveCheckpoint()
		require.ErrorIs(t, err, train.ErrLocked)
	}
	c := runConfig("sgd", "constant")
	c.Steps, c.Checkpoint = 4, train.CheckpointConfig{Dir: t.TempDir(), Every: 1}
	first, second := newRun(t, c), newRun(t, c)
	first.Callbacks = append(first.Callbacks, savedFunc(func(string) { refused(second, c.Checkpoint.Dir, os.Getpid()) }))
	require.NoError(t, first.Train(context.Background()))
	_, err := first.SaveCheckpoint()
	require.NoError(t, err)
	_, err = second.Resume(c.Checkpoint.Dir)
	require.NoError(t, err)
	require.NoError(t, second.Train(context.Background()), "the first run is over")

	c = killedRun(t.TempDir())
	child := exec.Command(os.Args[0], "-test.run=^TestChildThatTrains$")
	child.Env = append(os.Environ(), killedDir+"="+c.Checkpoint.Dir)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	_, err = child.StdinPipe() // never written to: the child waits after its first step until it is killed
	require.NoError(t, err)
	require.NoError(t, child.Start())
	require.True(t, bufio.NewScanner(out).Scan())
	r := newRun(t, c)
	refused(r, c.Checkpoint.Dir, child.Process.Pid)
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	c.Steps, c.Schedule.TotalSteps = 1, 400
	r = newRun(t, c)
	if _, err = r.Resume(c.Checkpoint.Dir); !errors.Is(err, train.ErrNoCheckpoint) {
		require.NoError(t, err)
	}
	_, err = r.SaveCheckpoint()
	require.NoError(t, err, "the system unlocks what a killed process had")
}

func TestCheckpointMistakesAreNamed(t *testing.T) {
	c := runConfig("sgd", "constant")
	c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir()}
	r := newRun(t, c)
	_, err := r.Resume(c.Checkpoint.Dir)
	require.ErrorIs(t, err, train.ErrNoCheckpoint)
	require.NotErrorIs(t, err, train.ErrDamaged)
	_, err = r.Resume(filepath.Join(c.Checkpoint.Dir, "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorIs(t, err, train.ErrNoCheckpoint)

	path := filepath.Join(c.Checkpoint.Dir, "step-00000007.ckpt")
	require.NoError(t, os.Mkdir(path, 0o777))
	_, err = r.Resume(c.Checkpoint.Dir)
	require.ErrorIs(t, err, train.ErrNoCheckpoint)
	require.ErrorIs(t, err, train.ErrDamaged)
	require.ErrorIs(t, err, container.ErrNotRegular)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, r.Train(context.Background()), "checkpoints of another run")
	_, err = r.SaveCheckpoint()
	require.ErrorIs(t, err, train.ErrConfig)

	file := filepath.Join(c.Checkpoint.Dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	c.Checkpoint.Dir = filepath.Join(file, "below")
	require.Error(t, newRun(t, c).Train(context.Background()))
	c.Checkpoint.Dir = t.TempDir()
	r = newRun(t, c)
	saved, err := r.SaveCheckpoint()
	require.NoError(t, err)
	require.Equal(t, filepath.Join(c.Checkpoint.Dir, "step-00000000.ckpt"), saved)
	require.NoError(t, os.RemoveAll(c.Checkpoint.Dir))
	_, err = r.SaveCheckpoint()
	require.ErrorIs(t, err, os.ErrNotExist, "the directory has gone meanwhile")

	c.Checkpoint = train.CheckpointConfig{}
	_, err = newRun(t, c).SaveCheckpoint()
	require.ErrorIs(t, err, train.ErrConfig)
	data, eval := runTexts(t)
	for message, bad := range map[string]train.CheckpointConfig{
		"checkpoint_every = -1": {Every: -1}, "checkpoint_keep = -2": {Keep: -2},
	} {
		c.Checkpoint = bad
		_, err = train.NewTrainer(trainable(t, "relu2"), c, data, eval)
		require.ErrorContains(t, err, message)
	}
}

// killedRun is the run of the test with real processes.
func killedRun(dir string) train.Config {
	c := runConfig("adamw", "cosine")
	c.Steps, c.Schedule.TotalSteps, c.EvalEvery = 400, 400, 10
	c.Checkpoint = train.CheckpointConfig{Dir: dir, Every: 1, Keep: 2}
	return c
}

const killedDir = "BITNET_TEST_CHECKPOINT_DIR"

// A process that trains until it is killed; it says when it has made an update, and makes the next one when it has got a line.
func TestChildThatTrains(t *testing.T) {
	dir := os.Getenv(killedDir)
	if dir == "" {
		t.Skip("a part of the tests that kill a process")
	}
	r := newRun(t, killedRun(dir))
	if resumed, err := r.Resume(dir); !errors.Is(err, train.ErrNoCheckpoint) {
		require.NoError(t, err)
		require.Empty(t, resumed.Skipped)
	}
	goOn := bufio.NewReader(os.Stdin)
	r.onStep = func(rec train.Record) error {
		fmt.Println("step", rec.Step)
		_, err := goOn.ReadString('\n')
		return err
	}
	require.NoError(t, r.Train(context.Background()))
}

// A process is killed at twenty random moments: there is never a broken checkpoint, and the run ends as if nothing had been.
func TestTrainingSurvivesBeingKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BITNET_TEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("BITNET_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := filepath.Join(t.TempDir(), "run")
	require.NoError(t, os.Mkdir(dir, 0o777))
	inTheMiddle, newest := 0, ""
	for range 20 {
		child := exec.Command(os.Args[0], "-test.run=^TestChildThatTrains$")
		child.Env = append(os.Environ(), killedDir+"="+dir)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		goOn, err := child.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines := bufio.NewScanner(out)
		var before, update time.Duration // when a line came, and how long after the one before
		start := time.Now()
		for n := 2 + rng.IntN(3); n > 0 && lines.Scan(); n-- {
			now := time.Since(start)
			before, update = now, now-before
			_, err := io.WriteString(goOn, "\n")
			require.NoError(t, err)
		}
		_, err = io.WriteString(goOn, "\n") // it waits after two more: the run does not end before all kills, however late they come
		require.NoError(t, err)
		time.Sleep(time.Duration(2 * rng.Float64() * float64(update))) // the moment: anywhere in the next two updates
		require.NoError(t, child.Process.Kill())
		var exit *exec.ExitError
		require.ErrorAs(t, child.Wait(), &exit)
		require.Equal(t, -1, exit.ExitCode(), "the child ended by itself, %s", lines.Text())

		was := newest
		for _, name := range checkpoints(t, dir) {
			if filepath.Ext(name) == ".tmp" {
				inTheMiddle++
				continue
			}
			_, err := model.ReadSnapshot(filepath.Join(dir, name))
			require.NoError(t, err)
			newest = max(newest, name)
		}
		require.GreaterOrEqual(t, newest, was)
	}
	t.Logf("newest %s; %d of 20 kills left a file half written", newest, inTheMiddle)

	last := newRun(t, killedRun(dir))
	r, err := last.Resume(dir)
	require.NoError(t, err)
	require.Empty(t, r.Skipped)
	require.NoError(t, last.Train(context.Background()))

	whole := killedRun("")
	whole.Checkpoint = train.CheckpointConfig{}
	uninterrupted := newRun(t, whole)
	require.NoError(t, uninterrupted.Train(context.Background()))
	require.Equal(t, uninterrupted.weights(), last.weights())
	require.Equal(t, uninterrupted.Best(), last.Best())
	require.Equal(t, uninterrupted.records[r.Step:], last.records)
	for _, name := range checkpoints(t, dir) {
		require.NotEqual(t, ".tmp", filepath.Ext(name), "what killed processes left is gone")
	}
}
