package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheCommittedKernelsAreWhatTheGeneratorWrites(t *testing.T) {
	assembly, declarations := generate()
	for file, want := range map[string][]byte{"kernels_arm64.s": assembly, "kernels_arm64.go": declarations} {
		got, err := os.ReadFile(filepath.Join("..", "..", file))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "%s is out of date: run go generate ./accel/cpu", file)
	}
}
