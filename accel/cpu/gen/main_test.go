package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// generated is what the generator writes, once in a process: avo collects the kernels of a second run behind those of the first.
var generated = map[string][]byte{}

func generateOnce(t *testing.T) {
	t.Helper()
	if len(generated) > 0 {
		return
	}
	dir := t.TempDir()
	files := map[string]string{"out": "kernels_amd64.s", "stubs": "kernels_amd64.go"}
	for name, file := range files {
		require.NoError(t, flag.Set(name, filepath.Join(dir, file)))
	}
	require.NoError(t, flag.Set("pkg", "cpu"))
	main()
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		generated[file] = content
	}
}

func TestTheCommittedKernelsAreWhatTheGeneratorWrites(t *testing.T) {
	generateOnce(t)
	for file, want := range generated {
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

// avo gives registers to whatever asks for one, and the sixteen that only AVX-512 has when the others are taken: a processor without it then meets
// an illegal instruction.
func TestKernelsForAVX2UseNothingOfAVX512(t *testing.T) {
	kernels, err := os.ReadFile(filepath.Join("..", "kernels_amd64.s"))
	require.NoError(t, err)
	only512 := regexp.MustCompile(`\b([XY](1[6-9]|2\d|3[01])|Z\d+|K[0-7]|AVX512\w*)\b`)
	seen := 0
	for _, kernel := range strings.Split(string(kernels), "\n// func ")[1:] {
		name, text, _ := strings.Cut(kernel, "(")
		if strings.Contains(name, "AVX2") {
			seen++
			require.Empty(t, only512.FindAllString(text, -1), name)
		}
	}
	require.Greater(t, seen, 50)
}
