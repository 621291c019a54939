package cpu

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Property tests draw from a fixed seed unless -rapid.seed is given, so that a failure here is a failure everywhere.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		reportToParent()
		return
	}
	flag.Parse()
	if f := flag.Lookup("rapid.seed"); f != nil && f.Value.String() == "0" {
		_ = f.Value.Set("20240227")
	}
	os.Exit(m.Run())
}

// onISA runs f with an instruction set active.
func onISA(isa ISA, f func()) {
	old := Active()
	if err := SetISA(isa); err != nil {
		panic(err)
	}
	defer func() { _ = SetISA(old) }()
	f()
}

// threadsFor sets the number of threads for one test and leaves no worker behind.
func threadsFor(t testing.TB, n int) {
	t.Helper()
	require.NoError(t, SetNumThreads(n))
	t.Cleanup(func() { _ = SetNumThreads(1) })
}

func source(t *rapid.T) *rand.Rand {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
}

// floatKinds are the inputs that float kernels must agree on.
var floatKinds = []string{"normal", "tiny", "huge", "denormal", "zeros", "special", "positive"}

func drawFloats(t *rapid.T, r *rand.Rand, name string, n int) []float32 {
	return floats(r, rapid.SampledFrom(floatKinds).Draw(t, name), n)
}

func floats(r *rand.Rand, kind string, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		v := float32(r.NormFloat64())
		switch kind {
		case "tiny":
			v *= 1e-20
		case "huge":
			v *= 1e30
		case "denormal":
			v *= 1e-42
		case "zeros":
			v = 0
			if r.IntN(2) == 0 {
				v = float32(math.Copysign(0, -1))
			}
		case "special":
			if r.IntN(8) == 0 {
				v = []float32{float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), math.MaxFloat32, -math.MaxFloat32, 0, 128.5, -128.5}[r.IntN(8)]
			}
		case "positive":
			v = float32(math.Abs(float64(v)))
		}
		x[i] = v
	}
	return x
}

// sameBits compares bit patterns; any two NaN are equal.
func sameBits(t require.TestingT, want, got []float32, msg ...any) {
	require.Equal(t, len(want), len(got), msg...)
	for i := range want {
		w, g := want[i], got[i]
		if math.Float32bits(w) != math.Float32bits(g) && (w == w || g == g) {
			require.Fail(t, fmt.Sprintf("element %d: got %v (%#08x), want %v (%#08x)", i, g, math.Float32bits(g), w, math.Float32bits(w)), msg...)
		}
	}
}

const guard = 37 // elements before and after a guarded slice

// guarded gives a slice of n elements within sentinels and a check that these are untouched.
func guarded[T comparable](n int, sentinel T) ([]T, func(t require.TestingT, msg ...any)) {
	all := make([]T, n+2*guard)
	for i := range all {
		all[i] = sentinel
	}
	return all[guard : guard+n : guard+n], func(t require.TestingT, msg ...any) {
		for i := range guard {
			if all[i] != sentinel || all[guard+n+i] != sentinel {
				require.Fail(t, "a kernel wrote outside of its destination", msg...)
			}
		}
	}
}
