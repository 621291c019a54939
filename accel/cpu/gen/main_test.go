package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheCommittedKernelsAreWhatTheGeneratorWrites(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"out": "kernels_amd64.s", "stubs": "kernels_amd64.go"}
	for name, file := range files {
		require.NoError(t, flag.Set(name, filepath.Join(dir, file)))
	}
	require.NoError(t, flag.Set("pkg", "cpu"))
	main()
	for _, file := range files {
		want, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join("..", file))
		require.NoError(t, err)
		require.True(t, bytes.Equal(body(want), body(got)), "%s is out of date: run go generate ./accel/cpu", file)
	}
}

// body leaves out the first line, which names the command.
func body(b []byte) []byte {
	_, rest, _ := bytes.Cut(b, []byte("\n"))
	return rest
}
