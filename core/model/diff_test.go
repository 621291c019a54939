package model

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// smallModel has random weights, a few kilobytes.
func smallModel(t *testing.T, seed uint64) *Model {
	m, err := NewRandom(&Config{VocabSize: 24, HiddenSize: 16, IntermediateSize: 16, NumHiddenLayers: 1, NumAttentionHeads: 2,
		NumKeyValueHeads: 1}, seed, LoadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// Between two read locks of one goroutine nobody may begin to wait for the lock to write, as promotion and Close do: the second never came.
func TestComparingDoesNotWaitForWhoWaitsForIt(t *testing.T) {
	a, b := smallModel(t, 1), smallModel(t, 2)
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	for _, m := range []*Model{a, b} {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for {
				select {
				case <-stop:
					return
				default:
					m.use.Lock()
					runtime.Gosched()
					m.use.Unlock()
				}
			}
		}()
	}
	for _, pair := range [][2]*Model{{a, a}, {a, b}, {b, a}} {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for range 100 {
				if _, err := Diff(context.Background(), pair[0], pair[1]); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	readers.Wait()
	close(stop)
	writers.Wait()
}

func TestModelsThatCannotBeComparedAreNamed(t *testing.T) {
	a, closed := smallModel(t, 1), smallModel(t, 2)
	require.NoError(t, closed.Close())
	for _, pair := range [][2]*Model{{a, closed}, {closed, a}} {
		_, err := Diff(context.Background(), pair[0], pair[1])
		require.ErrorIs(t, err, ErrClosed)
	}
	later, err := Load(context.Background(), filepath.Join(onnxDir, "own_int2.onnx"), LoadOptions{Deferred: true})
	require.NoError(t, err)
	defer later.Close()
	for _, pair := range [][2]*Model{{a, later}, {later, a}} {
		_, err := Diff(context.Background(), pair[0], pair[1])
		require.ErrorIs(t, err, ErrOption)
	}
	require.NoError(t, a.Close(), "nobody holds it any more")
}

// Models of other shapes, or with layers that the other has not, differ in all of what they do not share.
func TestModelsOfOtherShapesAreCompared(t *testing.T) {
	cfg := Config{VocabSize: 24, HiddenSize: 16, IntermediateSize: 16, NumHiddenLayers: 2, NumAttentionHeads: 2, NumKeyValueHeads: 1}
	deep, err := NewRandom(&cfg, 1, LoadOptions{})
	require.NoError(t, err)
	defer deep.Close()
	cfg.IntermediateSize = 20
	wide, err := NewRandom(&cfg, 1, LoadOptions{})
	require.NoError(t, err)
	defer wide.Close()
	small := smallModel(t, 1)
	for _, pair := range [][2]*Model{{small, deep}, {deep, small}} {
		diffs, err := Diff(context.Background(), pair[0], pair[1])
		require.NoError(t, err)
		alone := 0
		for _, d := range diffs {
			if strings.Contains(d.Name, "layers.1.") {
				alone++
				require.False(t, d.Equal(), d.Name)
			}
		}
		require.NotZero(t, alone)
	}
	diffs, err := Diff(context.Background(), deep, wide)
	require.NoError(t, err)
	for _, d := range diffs {
		if strings.Contains(d.Name, "mlp.gate_proj") {
			require.Equal(t, d.Values, d.Differ)
			require.False(t, d.Equal())
		}
	}
	same, err := Diff(context.Background(), deep, deep)
	require.NoError(t, err)
	for _, d := range same {
		require.True(t, d.Equal(), d.Name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Diff(ctx, deep, deep)
	require.ErrorIs(t, err, context.Canceled)
}
