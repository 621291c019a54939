package tests_go

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The arrows of docs/architecture.md: who may import whom. A package imports only packages of lower layers, and few import
// core/format. Tests are free: they compare rooms that do not know each other.

const module = "github.com/bitnet-rust/bitnet_rust/"

// layers, the callers first. Packages of one line do not import each other.
var layers = [][]string{
	{"bindings"},
	{"core/functional"},
	{"core/infer", "core/train"},
	{"core/model"},
	{"core/nn", "core/optim"},
	{"core/autograd"},
	{"core/quant"},
	{"core/tensor"},
	{"core/format/tokenfile"},
	{"core/format/safetensors", "core/format/gguf", "core/format/onnx", "core/format/npz", "core/format/bitnet", "core/format/sentencepiece"},
	{"core/format/atomicfile", "core/format/container", "core/format/protobuf"},
	{"core/pool"},
	{"core/logs"},
	{"accel/cpu"},
}

// leaves are programs and test packages: they may import what they like and nobody imports them.
var leaves = []string{"accel/cpu/gen", "accel/cpu/gen/neon", "bench", "tests_go"}

// formatUsers may import core/format: the model to read and write files, the bindings to tell the formats' errors apart.
var formatUsers = []string{"core/model", "bindings"}

// onlyThese narrows what a room may import of ours below what its layer allows.
var onlyThese = map[string][]string{
	"core/optim": {"accel/cpu", "core/pool", "core/tensor", "core/autograd"}, // parameters, memory and slices: it knows no layers
}

// onlyFor binds libraries of other people to the room that needs them; "" is for tests.
var onlyFor = map[string]string{
	"github.com/mmcloughlin/avo":    "accel/cpu/gen",
	"codeberg.org/sbinet/npyio":     "core/format/npz",
	"github.com/goccy/go-yaml":      "core/model",
	"github.com/stretchr/testify":   "",
	"pgregory.net/rapid":            "",
	"go.uber.org/goleak":            "",
	"gonum.org/v1/gonum":            "",
	"github.com/pmezard/go-difflib": "",
}

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	CgoFiles   []string
	Error      *struct{ Err string }
}

// platforms are all that the module has files for; each is listed with the build tag of the extension and without.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/arm64", "windows/amd64"}

func TestPackagesImportOnlyFromLowerLayers(t *testing.T) {
	for _, platform := range platforms {
		for _, tags := range []string{"", "pyext"} {
			t.Run(strings.TrimSuffix(platform+" "+tags, " "), func(t *testing.T) {
				var wrong []string
				for _, p := range goList(t, platform, tags) {
					wrong = append(wrong, violations(p)...)
				}
				assert.Empty(t, wrong)
			})
		}
	}
}

func TestCoreBuildsWithoutC(t *testing.T) {
	for _, p := range goList(t, "linux/amd64", "pyext") {
		if !p.Standard && p.ImportPath != module+"bindings" {
			assert.Empty(t, p.CgoFiles, "%s uses cgo", p.ImportPath)
		}
	}
}

func TestViolationsAreFound(t *testing.T) {
	for _, c := range []struct{ from, to, complaint string }{
		{"accel/cpu", module + "core/tensor", "accel/cpu imports core/tensor"},
		{"core/model", module + "bindings", "core/model imports bindings"},
		{"core/nn", module + "core/model", "core/nn imports core/model"},
		{"core/infer", module + "core/train", "core/infer imports core/train"},
		{"core/infer", module + "core/format/safetensors", "only core/model and bindings may"},
		{"core/format/npz", module + "core/tensor", "core/format/npz imports core/tensor"},
		{"core/quant", "C", "cgo"},
		{"core/nn", module + "tests_go", "nobody imports"},
		{"core/optim", module + "core/quant", "it may import accel/cpu, core/pool, core/tensor, core/autograd only"},
		{"core/brandnew", "fmt", "has no layer"},
		{"core/nn", module + "core/brandnew", "has no layer"},
		{"accel/cpu", "github.com/mmcloughlin/avo/build", "for accel/cpu/gen only"},
		{"core/nn", "github.com/stretchr/testify/require", "for tests only"},
	} {
		got := violations(listed{ImportPath: module + c.from, Imports: []string{"fmt", c.to}})
		if assert.NotEmpty(t, got, "%s -> %s", c.from, c.to) {
			assert.Contains(t, strings.Join(got, "\n"), c.complaint)
		}
	}
	assert.Empty(t, violations(listed{ImportPath: module + "core/model", Imports: []string{"fmt", module + "core/format/npz", module + "core/nn"}}))
	assert.Empty(t, violations(listed{ImportPath: module + "bindings", Imports: []string{"C", module + "core/infer"}}))
	assert.Empty(t, violations(listed{ImportPath: "fmt", Standard: true, Imports: []string{"C"}}))
}

// violations lists what is wrong with a package's imports, in words.
func violations(p listed) (wrong []string) {
	from, ours := strings.CutPrefix(p.ImportPath, module)
	if !ours || slices.Contains(leaves, from) {
		return nil
	}
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if layer(from) < 0 {
		complain("%s has no layer: add it to the table and to docs/architecture.md", from)
		return wrong
	}
	for _, path := range p.Imports {
		to, ours := strings.CutPrefix(path, module)
		switch {
		case path == "C" && from != "bindings":
			complain("%s uses cgo: only bindings may", from)
		case !ours:
			if owner, bound := ownerOf(path); bound && owner != from {
				complain("%s imports %s, which is for %s only", from, path, cmp.Or(owner, "tests"))
			}
		case slices.Contains(leaves, to):
			complain("%s imports %s, which nobody imports", from, to)
		case layer(to) < 0:
			complain("%s imports %s, which has no layer", from, to)
		case layer(to) <= layer(from):
			complain("%s imports %s, which is not in a lower layer", from, to)
		case onlyThese[from] != nil && !slices.Contains(onlyThese[from], to):
			complain("%s imports %s, it may import %s only", from, to, strings.Join(onlyThese[from], ", "))
		case strings.HasPrefix(to, "core/format/") && !strings.HasPrefix(from, "core/format/") && !slices.Contains(formatUsers, from):
			complain("%s imports %s, which only %s may", from, to, strings.Join(formatUsers, " and "))
		}
	}
	return wrong
}

// layer is the number of the package's line in layers, -1 if it is in none.
func layer(pkg string) int {
	return slices.IndexFunc(layers, func(line []string) bool { return slices.Contains(line, pkg) })
}

// ownerOf finds the room that an outside package belongs to, if it is bound to one.
func ownerOf(path string) (owner string, bound bool) {
	for prefix, owner := range onlyFor {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return owner, true
		}
	}
	return "", false
}

// goList lists the module's packages and everything they depend on, tests left out.
func goList(t *testing.T, platform, tags string) []listed {
	t.Helper()
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.Command("go", "list", "-e", "-deps", "-tags", tags, "-json=ImportPath,Standard,Imports,CgoFiles,Error", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=1", "GOFLAGS=-buildvcs=false")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())

	var packages []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Nil(t, p.Error, "%s: %+v", p.ImportPath, p.Error)
		packages = append(packages, p)
	}
	require.True(t, slices.ContainsFunc(packages, func(p listed) bool { return p.ImportPath == module+"accel/cpu" }), "the list is of this module")
	return packages
}
