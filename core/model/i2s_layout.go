package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
)

// A GGUF file does not say in which of three orders its I2_S tensors have their codes, and read in a wrong one a model loads and talks
// nonsense. What trained weights have in common gives it away. A neuron of the feed-forward network that matters little has many zeros
// in its rows of the gate and up projections and in its column of the down projection. Rows stay together in two of the orders and
// columns in one, so the zeros of rows and columns correlate in the right order alone. Random weights correlate in none.

const (
	// i2sEvidence is the mean of n*r^2 over layers, r being the correlation over n neurons, that convinces. By chance it is 1 on average,
	// and 40 never; in a trained model of 768 neurons it is 290 in the right layout and at most 20 in a wrong one.
	i2sEvidence = 40
	// i2sMargin is how many times the evidence for another layout has to be that for the one given.
	i2sMargin = 4
	// i2sLayers are as many layers as are looked at.
	i2sLayers = 3
)

// checkI2SLayout returns a sentence about a file whose I2_S tensors look as if they had another layout than given, "" if none does.
func checkI2SLayout(ctx context.Context, set gguf.Set, layers int, given string) (string, error) {
	given = cmp.Or(given, gguf.I2SX86)
	matrices, err := sampledMatrices(set, layers)
	if err != nil {
		return "", err
	}
	zeros, errs := make([]map[string]gguf.Zeros, len(matrices)), make([]error, len(matrices))
	cpu.Parallel(len(matrices), task(func(i int) {
		w, s := matrices[i], &scan{ctx: ctx}
		zeros[i], errs[i] = gguf.I2SZeros(w.Data, w.Shape[0], w.Shape[1], func(read int) error { return s.passed(w, read) })
	}))
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	evidence := map[string]float64{}
	for _, layout := range gguf.I2SLayouts() {
		for layer := range slices.Chunk(zeros, 3) {
			down := layer[2][layout].ByCol
			g, u := correlation(layer[0][layout].ByRow, down), correlation(layer[1][layout].ByRow, down)
			evidence[layout] += float64(float64(len(down)) * (float64(g*g) + float64(u*u)) / 2)
		}
		evidence[layout] /= float64(max(1, len(zeros)/3))
	}
	best := given
	for _, layout := range gguf.I2SLayouts() {
		if evidence[layout] > evidence[best] {
			best = layout
		}
	}
	if evidence[best] < i2sEvidence || evidence[best] < i2sMargin*evidence[given] {
		return "", nil
	}
	return fmt.Sprintf("%s was read with i2s_layout=%q and looks as if it had %q: rows and columns of its feed-forward weights fit together %.0f times better in that",
		set.Path(), given, best, evidence[best]/max(1, evidence[given])), nil
}

// sampledMatrices are gate, up and down of some layers from the first to the last, without those that are not I2_S or of a shape that not
// every layout can have.
func sampledMatrices(set gguf.Set, layers int) ([]container.View, error) {
	var out []container.View
	count := min(layers, i2sLayers)
	for i := range count {
		var matrices []container.View
		for _, name := range []string{"gate", "up", "down"} {
			v, err := set.Tensor(fmt.Sprintf("blk.%d.ffn_%s.weight", i*(layers-1)/max(1, count-1), name))
			if err != nil {
				return nil, err
			}
			if v.DType == gguf.I2_S && len(v.Shape) == 2 && v.Shape[1]%128 == 0 && v.Shape[0]%4 == 0 {
				matrices = append(matrices, v)
			}
		}
		if len(matrices) == 3 {
			out = append(out, matrices...)
		}
	}
	return out, nil
}

// correlation is Pearson's, 0 for numbers that are all the same.
func correlation(a, b []int) float64 {
	var sa, sb, aa, bb, ab float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		sa, sb = sa+x, sb+y
		aa, bb, ab = aa+float64(x*x), bb+float64(y*y), ab+float64(x*y)
	}
	n := float64(len(a))
	d := float64((float64(n*aa) - float64(sa*sa)) * (float64(n*bb) - float64(sb*sb)))
	if d <= 0 {
		return 0
	}
	return (float64(n*ab) - float64(sa*sb)) / math.Sqrt(d)
}
