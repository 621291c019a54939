package tests_go

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bitnet-rust/bitnet_rust/core/format/tokenfile"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// The memory of training is flat. `make test` looks at a part of the steps and cycles; BITNET_TEST_LEAKS=full at all of them.

// What the runtime and the test framework may take meanwhile, in bytes.
const (
	rssTolerance  = 3 << 20
	heapTolerance = 256 << 10
)

func often(t *testing.T, few, many int) int {
	if os.Getenv("BITNET_ISA") != "" {
		t.Skip("memory does not depend on the instruction set")
	}
	if os.Getenv("BITNET_TEST_LEAKS") == "full" {
		return many
	}
	return few
}

// workers are the threads of the worker pool, which stay.
var workers = goleak.IgnoreAnyFunction("github.com/bitnet-rust/bitnet_rust/accel/cpu.(*workPool).work")

// memory is what the process has when the collector has given back what it can, in bytes.
type memory struct{ rss, heap, pool int64 }

func settled() memory {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // what finalizers of the first run have freed
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{pool.ResidentBytes(), int64(m.HeapAlloc), pool.Default().InUse()}
}

func (m memory) String() string {
	return fmt.Sprintf("RSS %d KiB, heap %d KiB, pool %d KiB", m.rss>>10, m.heap>>10, m.pool>>10)
}

// requireFlat compares what was before with what is after.
func requireFlat(t *testing.T, before, after memory) {
	t.Helper()
	require.LessOrEqual(t, after.rss-before.rss, int64(rssTolerance), "RSS")
	require.LessOrEqual(t, after.heap-before.heap, int64(heapTolerance), "heap")
}

// leakData is a file of tokens, and examples of different lengths.
func leakData(t *testing.T) map[string]train.Dataset {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.bin")
	w, err := tokenfile.Create(path, 61, -1)
	require.NoError(t, err)
	ids := make([]int32, 4000)
	for i := range ids {
		ids[i] = int32(i * i % 61)
	}
	require.NoError(t, w.Write(ids))
	require.NoError(t, w.Commit())
	file, err := tokenfile.Open(path, tokenfile.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, file.Close()) })
	stream, err := train.NewStream(file, 24, nil)
	require.NoError(t, err)
	var lengths []int
	for sum := 0; sum < len(ids); {
		lengths = append(lengths, min(2+sum%23, len(ids)-sum))
		sum += lengths[len(lengths)-1]
	}
	examples, err := train.NewExamples(train.ExamplesConfig{IDs: ids, Lengths: lengths, Length: 24})
	require.NoError(t, err)
	return map[string]train.Dataset{"stream": stream, "examples": examples}
}

func leakConfig(steps int) train.Config {
	c := train.Config{
		Steps: steps, BatchSize: 3, Accumulation: 2, GradientClip: 1, EvalEvery: max(steps/4, 1), Optimizer: optim.DefaultConfig("adamw"),
		Schedule: optim.ScheduleConfig{Name: "cosine"}, WeightChanges: true, PeakFLOPS: 1e9,
	}
	c.Dropout, c.AttentionDropout = 0.1, 0.1
	return c
}

func TestMemoryIsFlatOverSteps(t *testing.T) {
	before := goleak.IgnoreCurrent()
	steps := often(t, 300, 2000)
	for name, data := range leakData(t) {
		t.Run(name, func(t *testing.T) {
			tr, err := train.NewTrainer(trainable(t, "relu2"), leakConfig(steps), data, data)
			require.NoError(t, err)
			defer tr.Close()
			var at [3]memory // when a tenth, the half and all is done
			tr.Callbacks = []train.Callback{train.StepFunc(func(r train.Record) error {
				for i, step := range []int{steps / 10, steps / 2, steps} {
					if r.Step == step {
						at[i] = settled()
					}
				}
				return nil
			})}
			require.NoError(t, tr.Train(context.Background()))
			t.Logf("%d steps: %v; %v; %v", steps, at[0], at[1], at[2])
			requireFlat(t, at[1], at[2])
			if name == "stream" { // every step has the same shapes
				requireFlat(t, at[0], at[2])
				require.Equal(t, at[0].pool, at[2].pool)
			}
		})
	}
	goleak.VerifyNone(t, before, workers)
}

func TestMemoryIsFlatOverModels(t *testing.T) {
	before := goleak.IgnoreCurrent()
	cycles := often(t, 12, 200)
	data := leakData(t)
	cfg := trainable(t, "relu2").Config
	dir := t.TempDir()
	cycle := func() {
		m, err := model.NewTrainable(cfg, 1, model.LoadOptions{})
		require.NoError(t, err)
		for _, d := range data {
			c := leakConfig(2)
			c.GradientCheckpointing = true
			c.Checkpoint = train.CheckpointConfig{Dir: filepath.Join(dir, "run")}
			require.NoError(t, os.RemoveAll(c.Checkpoint.Dir))
			tr, err := train.NewTrainer(m, c, d, d)
			require.NoError(t, err)
			require.NoError(t, tr.Train(context.Background()))
			tr.Close()
			again, err := train.NewTrainer(m, c, d, d)
			require.NoError(t, err)
			_, err = again.Resume(c.Checkpoint.Dir)
			require.NoError(t, err)
			again.Close()
		}
		require.NoError(t, m.SaveHFContext(context.Background(), filepath.Join(dir, "hf"), model.HFOptions{Masters: "float32"}))
		require.NoError(t, m.Close())
		loaded, err := model.Load(context.Background(), filepath.Join(dir, "hf"), model.LoadOptions{Trainable: true})
		require.NoError(t, err)
		require.NoError(t, loaded.Close())
	}
	empty := settled()
	var warm memory
	for i := range cycles {
		cycle()
		if i == cycles/10 {
			warm = settled()
		}
	}
	end := settled()
	t.Logf("%d cycles: %v after a tenth; %v", cycles, warm, end)
	require.Equal(t, empty.pool, end.pool, "the pool has everything back")
	requireFlat(t, warm, end)
	goleak.VerifyNone(t, before, workers)
}
