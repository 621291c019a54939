package cpu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestISANamesGoBothWays(t *testing.T) {
	for _, isa := range []ISA{Scalar, AVX2, AVXVNNI, AVX512, AMX, NEON, NEONDot} {
		back, err := ParseISA(isa.String())
		require.NoError(t, err)
		require.Equal(t, isa, back)
	}
	_, err := ParseISA("avx1024")
	require.ErrorContains(t, err, `"avx1024"`)
	require.ErrorContains(t, err, "scalar, avx2, avxvnni, avx512, amx, neon, neon-dotprod")
	require.Equal(t, "ISA(7)", ISA(7).String())
}

func TestSetISAOnlyTakesSupportedOnes(t *testing.T) {
	require.Equal(t, Scalar, Supported()[0])
	require.Equal(t, Best(), Supported()[len(Supported())-1])
	old := Active()
	defer func() { require.NoError(t, SetISA(old)) }()
	for _, isa := range Supported() {
		require.NoError(t, SetISA(isa))
		require.Equal(t, isa, Active())
	}
	err := SetISA(ISA(7))
	var unsupported *UnsupportedISAError
	require.ErrorAs(t, err, &unsupported)
	require.Contains(t, err.Error(), "ISA(7)")
	require.Equal(t, Supported(), unsupported.Supported)
}

func TestFeaturesAreNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Features() {
		require.False(t, seen[f], f)
		seen[f] = true
	}
	for name, isa := range map[string]ISA{"avx2": AVX2, "asimd": NEON, "asimddp": NEONDot} {
		require.Equal(t, seen[name], slices.Contains(Supported(), isa), name)
	}
}

func TestBitnetISAIsHonouredOrReported(t *testing.T) {
	for _, c := range []struct {
		value     string
		supported []ISA
		want      ISA
		message   string
	}{
		{"", []ISA{Scalar}, Scalar, ""},
		{"", []ISA{Scalar, AVX2, AVX512}, AVX512, ""},
		{"scalar", []ISA{Scalar, AVX2}, Scalar, ""},
		{"avx2", []ISA{Scalar, AVX2, AVX512}, AVX2, ""},
		{"avx512", []ISA{Scalar, AVX2}, AVX2, `cpu: environment variable BITNET_ISA="avx512" cannot be used: accepted are scalar, avx2`},
		{"AVX2", []ISA{Scalar, AVX2}, AVX2, `cpu: environment variable BITNET_ISA="AVX2" cannot be used: accepted are scalar, avx2`},
	} {
		got, err := isaFromEnv(c.value, c.supported)
		require.Equal(t, c.want, got, c)
		if c.message == "" {
			require.NoError(t, err)
			continue
		}
		var env *EnvError
		require.ErrorAs(t, err, &env)
		require.EqualError(t, err, c.message)
		require.Error(t, errors.Unwrap(err))
	}
}

func TestBitnetNumThreadsIsHonouredOrReported(t *testing.T) {
	cores := func() int { return 3 }
	for _, value := range []string{"0", "-1", "1025", "two", "1.5", " 2"} {
		n, err := numThreadsFromEnv(value, cores)
		require.Equal(t, 3, n, value)
		var env *EnvError
		require.ErrorAs(t, err, &env, value)
		require.Equal(t, EnvNumThreads, env.Variable)
		require.Equal(t, value, env.Value)
		require.Contains(t, env.Accepted, "1 to 1024")
	}
	for value, want := range map[string]int{"": 3, "1": 1, "1024": 1024} {
		n, err := numThreadsFromEnv(value, cores)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	n, err := numThreadsFromEnv("", func() int { return 5000 })
	require.NoError(t, err)
	require.Equal(t, MaxThreads, n)
}

func TestBitnetSkipZerosIsHonouredOrReported(t *testing.T) {
	for value, want := range map[string]bool{"": true, "1": true, "0": false} {
		skip, err := skipFromEnv(value)
		require.NoError(t, err)
		require.Equal(t, want, skip, value)
	}
	for _, value := range []string{"2", "00", " 0", "no", "false", "off"} {
		skip, err := skipFromEnv(value)
		require.True(t, skip, value)
		var env *EnvError
		require.ErrorAs(t, err, &env, value)
		require.EqualError(t, err, fmt.Sprintf("cpu: environment variable BITNET_SKIP_ZEROS=%q cannot be used: accepted are 0 and 1", value))
	}
}

const childEnv = "BITNET_CPU_TEST_CHILD"

// reportToParent is what the test binary does as a child process.
func reportToParent() {
	fmt.Printf("isa=%s threads=%d err=%v\n", Active(), NumThreads(), InitError())
}

func TestTheEnvironmentIsReadWhenAProcessStarts(t *testing.T) {
	child := func(env ...string) string {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), append(env, childEnv+"=1")...)
		out, err := cmd.Output()
		if errors.Is(err, syscall.ENOEXEC) {
			t.Skip("the tests run under an emulator, which does not start processes")
		}
		require.NoError(t, err)
		return strings.TrimSpace(string(out))
	}
	require.Equal(t, "isa=scalar threads=3 err=<nil>", child("BITNET_ISA=scalar", "BITNET_NUM_THREADS=3"))
	got := child("BITNET_ISA=sse9", "BITNET_NUM_THREADS=0")
	require.Contains(t, got, fmt.Sprintf("isa=%s threads=%d err=", Best(), clampThreads(PhysicalCores())))
	require.Contains(t, got, `BITNET_ISA="sse9"`)
	require.Contains(t, got, `BITNET_NUM_THREADS="0"`)
}
