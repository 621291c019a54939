package tests_go

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/tokenfile"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// tokenFile is a file of n ids that is open.
func tokenFile(t *testing.T, n, separator int32) *tokenfile.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.bin")
	w, err := tokenfile.Create(path, 61, separator)
	require.NoError(t, err)
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(i * i % 61)
	}
	require.NoError(t, w.Write(ids))
	require.NoError(t, w.Commit())
	f, err := tokenfile.Open(path, tokenfile.Options{Vocab: 61})
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// datasets are one of each kind.
func datasets(t *testing.T) map[string]train.Dataset {
	t.Helper()
	end := int32(4)
	file := tokenFile(t, 700, end)
	stream, err := train.NewStream(file, 16, nil)
	require.NoError(t, err)
	documents, err := train.NewStream(file, 16, &end)
	require.NoError(t, err)
	c := train.ExamplesConfig{Length: 16}
	for i := range int32(37) {
		for j := range 3 + i%9 {
			c.IDs = append(c.IDs, (i+j*j)%61)
		}
		c.Lengths = append(c.Lengths, int(3+i%9))
	}
	examples, err := train.NewExamples(c)
	require.NoError(t, err)
	c.Pack = true
	packed, err := train.NewExamples(c)
	require.NoError(t, err)
	return map[string]train.Dataset{"file": stream, "documents": documents, "examples": examples, "packed": packed}
}

// Wherever an epoch is left, and whatever the order: the run that goes on sees what it would have seen.
func TestARunGoesOnInTheMiddleOfAnEpoch(t *testing.T) {
	for name, data := range datasets(t) {
		for _, order := range train.Orders() {
			c := runConfig("adamw", "constant")
			c.Steps, c.BatchSize, c.Accumulation, c.EvalEvery, c.Order = 14, 4, 2, 0, order
			c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir(), Every: 7}
			start := func() *train.Trainer {
				tr, err := train.NewTrainer(trainable(t, "relu2"), c, data, data)
				require.NoError(t, err)
				t.Cleanup(tr.Close)
				return tr
			}
			losses := map[int]float64{}
			note := func(tr *train.Trainer, compare bool) {
				tr.Callbacks = []train.Callback{train.StepFunc(func(r train.Record) error {
					if compare {
						require.Equal(t, losses[r.Step], r.Loss, "%s, %s: step %d", name, order, r.Step)
					}
					losses[r.Step] = r.Loss
					return nil
				})}
			}
			whole := start()
			note(whole, false)
			require.NoError(t, whole.Train(context.Background()))
			require.NoError(t, os.Remove(filepath.Join(c.Checkpoint.Dir, "step-00000014.ckpt")))
			second := start()
			r, err := second.Resume(c.Checkpoint.Dir)
			require.NoError(t, err)
			require.Equal(t, 7, r.Step)
			note(second, true)
			require.NoError(t, second.Train(context.Background()))
			require.Len(t, losses, 14)

			c.Order = train.OrderRandom
			if order == train.OrderRandom {
				c.Order = train.OrderSequential
			}
			_, err = start().Resume(c.Checkpoint.Dir)
			require.ErrorIs(t, err, train.ErrMismatch)
			require.ErrorContains(t, err, "config.order")
		}
	}
}

func TestARunDoesNotGoOnWithOtherData(t *testing.T) {
	all := datasets(t)
	c := runConfig("sgd", "constant")
	c.Steps, c.EvalEvery = 1, 0
	c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir()}
	tr, err := train.NewTrainer(trainable(t, "relu2"), c, all["file"], nil)
	require.NoError(t, err)
	require.NoError(t, tr.Train(context.Background()))
	tr.Close()
	longer, err := train.NewStream(tokenFile(t, 701, 4), 16, nil)
	require.NoError(t, err)
	for field, data := range map[string]train.Dataset{"data.crc32c": longer, "data.separator": all["documents"], "data.kind": all["examples"]} {
		c.Order = train.OrderRandom
		tr, err := train.NewTrainer(trainable(t, "relu2"), c, data, nil)
		require.NoError(t, err)
		_, err = tr.Resume(c.Checkpoint.Dir)
		require.ErrorIs(t, err, train.ErrMismatch, field)
		tr.Close()
	}
}

// A file that is cut short while a model trains on it ends the run with an error that names it, and the model stays usable.
func TestAFileThatIsCutShortEndsTheRun(t *testing.T) {
	file := tokenFile(t, 5000, -1)
	data, err := train.NewStream(file, 16, nil)
	require.NoError(t, err)
	c := runConfig("sgd", "constant")
	c.EvalEvery = 0
	m := trainable(t, "relu2")
	tr, err := train.NewTrainer(m, c, data, nil)
	require.NoError(t, err)
	defer tr.Close()
	tr.Callbacks = []train.Callback{train.StepFunc(func(r train.Record) error {
		if r.Step == 3 {
			return os.Truncate(file.Path(), 100)
		}
		return nil
	})}
	err = tr.Train(context.Background())
	require.ErrorIs(t, err, tokenfile.ErrFormat)
	require.ErrorContains(t, err, file.Path())
	require.NotEmpty(t, logitsOf(t, m))
}

func TestEvaluationsThatCannotBeAreNamed(t *testing.T) {
	m := trainable(t, "relu2")
	by := predictor{infer.NewEngine(m)}
	defer by.Close()
	end := int32(4)
	separators, err := train.NewStream(train.IDs{4, 4, 4, 4, 4, 4}, 2, &end)
	require.NoError(t, err)
	_, err = train.Evaluate(context.Background(), by, separators, 1)
	require.ErrorIs(t, err, train.ErrBatch)
	require.ErrorContains(t, err, "no example has a target")

	ctx := context.Background()
	for message, call := range map[string]func() error{
		"expected at least one":   func() error { _, err := by.Predict(ctx, nil, nil); return err },
		"targets":                 func() error { _, err := by.Predict(ctx, []int32{1, 2}, []int32{1}); return err },
		"targets[1]":              func() error { _, err := by.Predict(ctx, []int32{1, 2}, []int32{-100, 61}); return err },
		"tokens[1]":               func() error { _, err := by.Predict(ctx, []int32{1, 61}, []int32{1, 1}); return err },
		"max_position_embeddings": func() error { _, err := by.Predict(ctx, make([]int32, 201), make([]int32, 201)); return err },
	} {
		err := call()
		var argument *infer.ArgumentError
		require.ErrorAs(t, err, &argument, message)
		require.ErrorContains(t, err, message)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	stream, err := train.NewTokens(make([]int32, 40), 8)
	require.NoError(t, err)
	_, err = train.Evaluate(canceled, by, stream, 1)
	require.ErrorIs(t, err, context.Canceled)
}

// A text may have stretches of separators, as where documents were padded with them.
func TestUpdatesWithoutATargetAreSkipped(t *testing.T) {
	end := int32(7)
	ids := make(train.IDs, 200)
	for i := range ids {
		ids[i] = int32(i % 6)
		if i < 16 || i >= 64 && i < 96 { // windows 0, 4 and 5
			ids[i] = end
		}
	}
	data, err := train.NewStream(ids, 16, &end)
	require.NoError(t, err)
	c := runConfig("adamw", "cosine")
	c.Steps, c.Schedule.TotalSteps, c.BatchSize, c.Accumulation, c.Order, c.EvalEvery = 10, 10, 1, 1, train.OrderSequential, 0
	whole := newRunOn(t, c, data, nil)
	before, tokens, note := whole.weights(), int64(0), whole.onStep
	whole.onStep = func(r train.Record) error {
		skipped := r.Step == 1 || r.Step == 5 || r.Step == 6
		require.Equal(t, skipped, r.Skipped, "step %d", r.Step)
		require.Equal(t, skipped, math.IsNaN(r.Loss), "step %d", r.Step)
		require.Equal(t, skipped, r.Tokens == tokens, "step %d", r.Step)
		require.Equal(t, skipped, reflect.DeepEqual(before, whole.weights()), "step %d", r.Step)
		before, tokens = whole.weights(), r.Tokens
		return note(r)
	}
	require.NoError(t, whole.Train(context.Background()))

	path := filepath.Join(t.TempDir(), "x")
	first := newRunOn(t, c, data, nil)
	first.until(t, 5)
	require.NoError(t, first.WriteCheckpoint(path))
	second := newRunOn(t, c, data, nil)
	_, err = second.Resume(path)
	require.NoError(t, err)
	require.NoError(t, second.Train(context.Background()))
	require.Equal(t, whole.weights(), second.weights())

	for i := range ids {
		ids[i] = end
	}
	c.Steps, c.Schedule.TotalSteps = 1000, 1000
	err = newRunOn(t, c, data, nil).Train(context.Background())
	require.ErrorIs(t, err, train.ErrBatch)
	require.ErrorContains(t, err, "step 100: 100 updates in a row had no target that counts")
}
