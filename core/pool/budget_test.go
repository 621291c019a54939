package pool

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestABudgetIsChangedWhileThePoolIsUsed(t *testing.T) {
	p := New(Options{Budget: 64 << 20})
	first, err := p.Alloc(8<<20, "weights")
	require.NoError(t, err)
	p.SetBudget(10 << 20)
	_, err = p.Alloc(4<<20, "kv cache")
	var refused *BudgetError
	require.ErrorAs(t, err, &refused)
	assert.EqualValues(t, 10<<20, refused.Budget)
	p.SetBudget(64 << 20)
	second, err := p.Alloc(4<<20, "kv cache")
	require.NoError(t, err)
	p.SetBudget(0)
	assert.Equal(t, DetectBudget(), p.Stats().Budget)
	first.Release()
	second.Release()
	require.NoError(t, p.Close())
}

func TestABudgetIsReadAsTheEnvironmentHasIt(t *testing.T) {
	n, err := ParseBudget("1.5 GiB")
	require.NoError(t, err)
	assert.EqualValues(t, 3<<29, n)
	half, err := ParseBudget("50%")
	require.NoError(t, err)
	assert.InDelta(t, float64(DetectBudget())/2, float64(half), 1)
	for _, text := range []string{"much", "", "-1GiB", "0"} {
		_, err := ParseBudget(text)
		require.ErrorIs(t, err, ErrBudgetText, text)
		assert.Contains(t, err.Error(), "expected a positive number")
	}
}

func TestWhatDoesNotFitTheBudgetIsABudgetError(t *testing.T) {
	p := New(Options{Budget: 8 << 20})
	b := mustAlloc(t, p, 5<<20)
	_, err := p.Alloc(4<<20, "kv cache")
	var budget *BudgetError
	require.ErrorAs(t, err, &budget)
	assert.ErrorIs(t, err, ErrBudget)
	assert.ErrorIs(t, err, ErrOutOfMemory)
	assert.Equal(t, BudgetError{Tag: "kv cache", Requested: 4 << 20, InUse: 5 << 20, Reserved: 6 << 20, Budget: 8 << 20}, *budget)
	assert.Contains(t, err.Error(), `"kv cache" asks for 4.0 MiB`)
	assert.Contains(t, err.Error(), EnvBudget)
	assert.EqualValues(t, 1, p.Stats().Failures.Budget)

	b.Release()
	mustAlloc(t, p, 8<<20).Release()
}

func TestFreeMemoryMakesRoomInTheBudget(t *testing.T) {
	p := New(Options{Budget: 8 << 20})
	for _, n := range []int{100, 1000, smallBlock, 500 << 10} { // each leaves a slab or a chunk behind
		mustAlloc(t, p, n).Release()
	}
	assert.NotZero(t, p.Stats().Reserved)
	mustAlloc(t, p, 8<<20).Release()
	assert.LessOrEqual(t, p.Stats().PeakReserved, int64(8<<20))
}

func TestASmallBudgetIsUsedToTheEnd(t *testing.T) {
	p := New(Options{Budget: slabBytes})
	b := mustAlloc(t, p, 64)
	_, err := p.Alloc(1024, "another class")
	assert.ErrorIs(t, err, ErrBudget)
	_, err = p.Alloc(smallBlock+1, "a run")
	assert.ErrorIs(t, err, ErrBudget)
	b.Release()
}

func TestSizesAreReadWithUnits(t *testing.T) {
	const whole = 1000
	for text, want := range map[string]int64{
		"1": 1, "4096": 4096, "64B": 64, "1k": 1 << 10, "1KiB": 1 << 10, "2kb": 2000, "8GiB": 8 << 30, " 8 gib ": 8 << 30, "1.5GB": 1.5e9,
		"512MiB": 512 << 20, "3m": 3 << 20, "5MB": 5e6, "1g": 1 << 30, "2TiB": 2 << 40, "1tb": 1e12, "1T": 1 << 40, "50%": 500, "1e3": 1000,
	} {
		got, ok := parseSize(text, whole)
		assert.True(t, ok, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "GiB", "-1", "0", "0.5", "eight", "8 Gigs", "1e30", "nan", "inf", "%", "8GiBB"} {
		_, ok := parseSize(text, whole)
		assert.False(t, ok, text)
	}
}

func TestSizesAreWrittenWithUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 3 << 20: "3.0 MiB", 5 << 30: "5.0 GiB", 2 << 40: "2.0 TiB"} {
		assert.Equal(t, want, formatSize(n))
	}
}

func TestTheEnvironmentConfiguresTheDefaultPool(t *testing.T) {
	env := func(budget, debug string) func(string) string {
		return func(name string) string { return map[string]string{EnvBudget: budget, EnvDebug: debug}[name] }
	}
	p := newFromEnv(env("8GiB", "1"))
	assert.EqualValues(t, 8<<30, p.Stats().Budget)
	assert.True(t, p.opts.Debug)
	assert.True(t, p.opts.HugePages)
	assert.Equal(t, DetectBudget(), newFromEnv(env("", "")).Stats().Budget)
	assert.EqualValues(t, DetectBudget()/2, newFromEnv(env("50%", "0")).Stats().Budget)

	for _, bad := range []EnvError{{Name: EnvBudget, Value: "lots"}, {Name: EnvDebug, Value: "maybe"}} {
		p := newFromEnv(func(name string) string {
			if name == bad.Name {
				return bad.Value
			}
			return ""
		})
		_, err := p.Alloc(1, "x")
		var found *EnvError
		require.ErrorAs(t, err, &found)
		assert.ErrorIs(t, err, ErrEnv)
		assert.Equal(t, bad.Name, found.Name)
		assert.Equal(t, bad.Value, found.Value)
		assert.Contains(t, err.Error(), bad.Name+`="`+bad.Value+`"`)
	}
	assert.Same(t, Default(), Default())
}

func TestTheControlGroupLimitsTheBudget(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no groups": {nil, 0},
		"v2": {map[string]string{
			"proc/self/cgroup":                "0::/app\n",
			"sys/fs/cgroup/app/memory.max":    "1073741824\n",
			"sys/fs/cgroup/app/memory.high":   "1\n",
			"sys/fs/cgroup/memory.limit_in_b": "1\n",
		}, 1 << 30},
		"v2, a parent is stricter": {map[string]string{
			"proc/self/cgroup":                   "0::/pod/app\n",
			"sys/fs/cgroup/pod/app/memory.max":   "max\n",
			"sys/fs/cgroup/pod/memory.max":       "4096\n",
			"sys/fs/cgroup/pod/other/memory.max": "1\n",
		}, 4096},
		"v2, path of the host inside a container": {map[string]string{
			"proc/self/cgroup":         "0::/kube/pod7\n",
			"sys/fs/cgroup/memory.max": "8192\n",
		}, 8192},
		"v2, a path upwards": {map[string]string{
			"proc/self/cgroup":         "0::/../..\n",
			"sys/fs/cgroup/memory.max": "8192\n",
		}, 8192},
		"v2, unlimited": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		"v1": {map[string]string{
			"proc/self/cgroup": "12:cpu,cpuacct:/app\n4:memory:/app\n",
			"sys/fs/cgroup/memory/app/memory.limit_in_bytes": "2147483648\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712\n",
		}, 2 << 30},
		"v1, the largest number means none": {map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		"nonsense": {map[string]string{"proc/self/cgroup": "x\n::\n0::/\n", "sys/fs/cgroup/memory.max": "much\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range c.files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o644))
			}
			assert.Equal(t, c.want, cgroupLimit(root))
		})
	}
}

func TestTheDetectedBudgetIsThatOfARealMachine(t *testing.T) {
	n := DetectBudget()
	assert.Greater(t, n, int64(16<<20))
	assert.Less(t, n, int64(math.MaxInt64))
}

func TestCheckRefusesWhatTheWholeBudgetCannotHold(t *testing.T) {
	p := New(Options{Budget: mib})
	require.NoError(t, p.Check(mib, "plan"))
	err := p.Check(mib+1, "plan")
	require.ErrorIs(t, err, ErrOutOfMemory)
	require.ErrorContains(t, err, `"plan" asks for 1.0 MiB`)
	require.EqualValues(t, 1, p.Stats().Failures.Budget)

	bad := newFromEnv(func(string) string { return "much" })
	require.ErrorIs(t, bad.Check(1, "plan"), ErrEnv)
}
