package optim

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/bitnet-rust/bitnet_rust/accel/cpu.(*workPool).work"))
}

// testParams makes parameters with weights and gradients, one a shape; large ones are cut into several chunks.
func testParams(seed uint64, shapes ...[]int) []*Param {
	rng := rand.New(rand.NewPCG(seed, 1))
	var params []*Param
	for i, shape := range shapes {
		n := 1
		for _, d := range shape {
			n *= d
		}
		p := &Param{Name: fmt.Sprintf("layer%d.weight", i), Shape: shape, Data: make([]float32, n), Grad: make([]float32, n)}
		for j := range p.Data {
			p.Data[j] = float32(rng.NormFloat64())
		}
		params = append(params, p)
	}
	fillGrads(params, seed)
	return params
}

func fillGrads(params []*Param, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, p := range params {
		for j := range p.Grad {
			p.Grad[j] = float32(rng.NormFloat64())
		}
	}
}

// manyChunks has tensors of several chunks and of less than one.
func manyChunks() []*Param {
	return testParams(3, []int{100, 400}, []int{7}, []int{1, 16385}, []int{})
}

func newTestOptimizer(t testing.TB, c Config) *Optimizer {
	t.Helper()
	return optimizerFor(t, c, testParams(1, []int{3, 2}, []int{2}))
}

func optimizerFor(t testing.TB, c Config, params []*Param) *Optimizer {
	t.Helper()
	o, err := New(nil, c, DecayGroups(params, c.Hyper)...)
	require.NoError(t, err)
	t.Cleanup(o.Close)
	return o
}

// everyKind lists a configuration for each loop there is.
func everyKind() map[string]Config {
	configs := map[string]Config{}
	for _, name := range Names() {
		c := DefaultConfig(name)
		c.WeightDecay = 0.05
		configs[name] = c
	}
	c := configs["sgd"]
	c.Momentum, c.Dampening = 0.9, 0.1
	configs["sgd momentum"] = c
	c.Dampening, c.Nesterov = 0, true
	configs["sgd nesterov"] = c
	c = configs["adamw"]
	c.AMSGrad = true
	configs["adamw amsgrad"] = c
	c.AMSGrad, c.Betas[0] = false, 0.4
	configs["adamw low beta"] = c
	return configs
}

// clones copies weights and gradients, so that two optimizers start alike.
func clones(params []*Param) []*Param {
	var out []*Param
	for _, p := range params {
		c := *p
		c.Data, c.Grad = append([]float32(nil), p.Data...), append([]float32(nil), p.Grad...)
		out = append(out, &c)
	}
	return out
}

func weightsOf(params []*Param) (all [][]float32) {
	for _, p := range params {
		all = append(all, p.Data)
	}
	return all
}

func withThreads(t testing.TB, n int, f func()) {
	t.Helper()
	before := cpu.NumThreads()
	require.NoError(t, cpu.SetNumThreads(n))
	defer func() { require.NoError(t, cpu.SetNumThreads(before)) }()
	f()
}

func smallPool(t testing.TB, budget int64) *pool.HybridMemoryPool {
	t.Helper()
	p := pool.New(pool.Options{Budget: budget})
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}
