package train

import (
	"math/bits"
	"math/rand/v2"
)

// permutation is a random order of 0..n-1 that is computed and not stored: a Feistel network permutes the numbers below a power of
// four, and numbers that land beyond n walk on until one is below (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
type permutation struct {
	n    uint64
	half uint // bits of each half
	keys [6]uint64
}

// newPermutation is the order of epoch for seed.
func newPermutation(n int, seed, epoch uint64) *permutation {
	p := &permutation{n: uint64(n), half: max(1, uint(bits.Len64(uint64(n-1))+1)/2)}
	r := rand.NewPCG(seed, epoch)
	for i := range p.keys {
		p.keys[i] = r.Uint64()
	}
	return p
}

// at is the number at place i.
func (p *permutation) at(i int) int {
	mask := uint64(1)<<p.half - 1
	for x := uint64(i); ; {
		left, right := x>>p.half, x&mask
		for _, k := range p.keys {
			left, right = right, left^mix(right^k)&mask
		}
		if x = left<<p.half | right; x < p.n {
			return int(x)
		}
	}
}

// mix scatters the bits of x (the finalizer of SplitMix64, Steele et al. 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
