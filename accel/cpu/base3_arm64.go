package cpu

// There are no kernels for arm64: models are loaded with panels there.

func base3Ready() bool { return false }

func base3Unpack(dst, src []byte, groups int) { base3UnpackRef(dst, src, groups) }

func base3MatVec(dst []int32, src []byte, nb int, x []int8, xsum int32) {
	base3MatVecRef(dst, src, nb, x, xsum)
}
