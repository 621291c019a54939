package pool_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

func ExampleHybridMemoryPool() {
	p := pool.New(pool.Options{Budget: 1 << 30, HugePages: true})
	defer p.Close()

	weights, err := p.Alloc(4*1000, "weights") // 4000 zeroed bytes on a 64-byte border
	if err != nil {
		panic(err)
	}
	w := weights.Float32() // the same memory as []float32
	w[0] = 0.5

	shared := weights.Retain() // a second owner
	weights.Release()
	fmt.Println(shared.Float32()[0], p.Stats().LiveBlocks)
	shared.Release() // the last reference: the memory is free, w must not be used any more
	fmt.Println(p.Stats().LiveBlocks)
	// Output:
	// 0.5 1
	// 0
}

func ExampleBudgetError() {
	p := pool.New(pool.Options{Budget: 1 << 20})
	_, err := p.Alloc(3<<20, "kv cache")

	var budget *pool.BudgetError
	if errors.As(err, &budget) {
		fmt.Println(budget.Tag, budget.Requested, budget.Budget)
	}
	fmt.Println(err)
	// Output:
	// kv cache 3145728 1048576
	// pool: "kv cache" asks for 3.0 MiB: memory budget exceeded: 0 B in use, 0 B reserved, budget 1.0 MiB (see BITNET_MEMORY_BUDGET)
}

func ExampleHybridMemoryPool_OnPressure() {
	p := pool.New(pool.Options{Budget: 64 << 20})
	var cached []*pool.Block

	cancel := p.OnPressure(0.75, func(s pool.Stats) {
		fmt.Println("evict at", s.InUse>>20, "MiB")
		for _, b := range cached {
			b.Release()
		}
		cached = nil
	})
	defer cancel()

	for range 8 {
		b, _ := p.Alloc(12<<20, "cached prefix")
		cached = append(cached, b)
	}
	// Output:
	// evict at 48 MiB
	// evict at 48 MiB
}

func ExampleScratch() {
	p := pool.New(pool.Options{})
	s := p.NewScratch()
	defer s.Close()

	for range 3 {
		s.Begin(1) // steps with the same key have the same shape
		x := pool.View[float32](s.Alloc(4 * 1000))
		y := pool.View[float32](s.Alloc(4 * 500))
		s.Free(pool.BytesOf(x)) // in any order, or not at all
		z := pool.View[float32](s.Alloc(4 * 750))
		_, _ = y, z
		s.End() // frees the rest
	}

	live, reserved := s.Efficiency()
	fmt.Println(live, reserved)
	// Output: 6000 6080
}

// The code in docs/memory.md is the code of the examples above, so it compiles and prints what it says.
func TestTheCodeInTheDocumentationIsTested(t *testing.T) {
	doc, err := os.ReadFile("../../docs/memory.md")
	require.NoError(t, err)
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		indented := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(b[1], "\t$1")
		assert.True(t, strings.Contains(string(source), indented), "not in example_test.go:\n%s", b[1])
	}
}
