package cpu

import "golang.org/x/sys/cpu"

func base3Ready() bool { return vectors() == AVX512 && cpu.X86.HasAVX512VBMI }

func base3Unpack(dst, src []byte, groups int) {
	if !base3Ready() {
		base3UnpackRef(dst, src, groups)
		return
	}
	base3UnpackAVX512(&dst[0], &src[0], groups)
}

// base3MatVec reads panels side by side where that is faster.
func base3MatVec(dst []int32, src []byte, nb int, x []int8, xsum int32) {
	if !base3Ready() {
		base3MatVecRef(dst, src, nb, x, xsum)
		return
	}
	groups, tail := nb/base3Group, nb%base3Group
	stride := (groups*base3Packed + tail) * BlockBytes
	p, n := 0, len(src)/stride
	if manyStreams {
		for p+sides <= n {
			step := (n - p) / sides
			for range step {
				base3GemvAVX512Side(&dst[p*PanelRows], &src[p*stride], &x[0], &xsum, groups, tail, step)
				p++
			}
			p += step * (sides - 1)
		}
	}
	for ; p < n; p++ {
		base3GemvAVX512(&dst[p*PanelRows], &src[p*stride], &x[0], &xsum, groups, tail)
	}
}
