package infer_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
)

func TestAProfileRecordsStepsFromItsStartToItsStop(t *testing.T) {
	e := tiny(t, 2, 64, 128)
	g := decoding(t, e, 2)
	step := func() {
		_, err := g.Step(context.Background())
		require.NoError(t, err)
	}
	require.Nil(t, e.StopProfile())
	require.NoError(t, e.StartProfile())
	var wrong *infer.ArgumentError
	require.True(t, errors.As(e.StartProfile(), &wrong))
	step()
	step()
	p := e.StopProfile()
	step() // is no part of it
	text, err := json.Marshal(p)
	require.NoError(t, err)
	var got struct {
		Steps, Rows int
		Totals      []struct {
			Op    string
			Count int
		}
	}
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, 2, got.Steps)
	require.Equal(t, 4, got.Rows)
	counts := map[string]int{}
	for _, one := range got.Totals {
		counts[one.Op] += one.Count
	}
	require.Equal(t, 2, counts["head"])
	require.Equal(t, 2, counts["sampler"])
	require.Equal(t, 2*2, counts["qkv"]) // two layers
	require.Zero(t, testing.AllocsPerRun(10, step), "a profile that has ended")
}
