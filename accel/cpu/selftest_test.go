package cpu

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheSelfTestPassesOnEveryISAAndLeavesTheActiveOne(t *testing.T) {
	before := Active()
	checks := SelfTest()
	assert.Equal(t, before, Active())
	assert.Len(t, checks, len(selfTests)*len(Supported())+1)
	seen := map[ISA]bool{}
	for _, c := range checks {
		require.NoError(t, c.Err, "%s on %s", c.Kernel, c.ISA)
		seen[c.ISA] = true
	}
	assert.Len(t, seen, len(Supported()))
}

func TestTheSelfTestFindsAKernelThatComputesSomethingElse(t *testing.T) {
	saved := selfTests
	defer func() { selfTests = saved }()
	selfTests = append(selfTests[:0:0], selfTests...)
	right := selfTests[0].run
	selfTests[0].run = func(r *rand.Rand) []uint32 {
		bits := right(r)
		if Active() != Scalar {
			bits[3] ^= 1
		}
		return bits
	}
	failed := 0
	for _, c := range SelfTest() {
		if c.Err != nil {
			failed++
			assert.NotEqual(t, Scalar, c.ISA)
			assert.Contains(t, c.Err.Error(), "result 3 of ")
		}
	}
	assert.Equal(t, len(Supported())-1, failed)
}
