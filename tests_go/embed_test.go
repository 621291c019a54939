package tests_go

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The programs of docs/how-to/embed-in-go.md, in a module that knows this one as its users do, without cgo and without the network.
func TestProgramsOfOtherModulesRun(t *testing.T) {
	page, err := os.ReadFile("../docs/how-to/embed-in-go.md")
	require.NoError(t, err)
	programs := regexp.MustCompile("(?sm)^```go\n(.*?)^```$").FindAllSubmatch(page, -1)
	wants := []string{"(?m)^1 \\d+ length$", "(a client heard 16 tokens\n){3}", "step 1 loss 5(?s:.*)step 30 loss [0-2]\\."}
	require.Len(t, programs, len(wants))

	root, err := filepath.Abs("..")
	require.NoError(t, err)
	sums, err := os.ReadFile("../go.sum")
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name string, text []byte) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	}
	write("go.mod", []byte("module example.org/app\n\ngo 1.24.0\n\nrequire github.com/bitnet-rust/bitnet_rust v0.0.0\n\nreplace github.com/bitnet-rust/bitnet_rust => "+root+"\n"))
	write("go.sum", sums)
	names := []string{"generate", "serve", "train"}
	for i, program := range programs {
		write(filepath.Join(names[i], "main.go"), program[1])
	}
	run := func(command string, arguments ...string) string {
		cmd := exec.Command(command, arguments...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOPROXY=off", "GOFLAGS=-mod=mod", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	bin := t.TempDir()
	run("go", "build", "-o", bin, "./...")
	run("go", "vet", "./...")
	for i, want := range wants {
		place := filepath.Join(root, "python/bitnet_rust/models/bitnet-shakespeare")
		if names[i] == "train" {
			place = dir
		}
		require.Regexp(t, want, run(filepath.Join(bin, names[i]), place))
	}
	require.FileExists(t, filepath.Join(dir, "fox.bitnet"))
}
