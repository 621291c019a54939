package cpu

import "golang.org/x/sys/cpu"

// detect asks CPUID (and, through x/sys, whether the operating system saves the wide registers), and the system for tile registers.
func detect() features {
	x := &cpu.X86
	avx2 := x.HasAVX2 && x.HasFMA // what has these converts half precision too (F16C)
	avx512 := avx2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasAVX512VNNI
	var f features
	amx := avx512 && x.HasAMXTile && x.HasAMXInt8
	if amx && !requestTiles() {
		amx = false
		f.refused = append(f.refused, Refusal{AMX, "the operating system gives this process no tile registers"})
	}
	for _, c := range []struct {
		isa ISA
		has bool
	}{
		{AVX2, avx2}, {AVXVNNI, avx2 && x.HasAVXVNNI}, {AVX512, avx512},
		{AMX, amx},
	} {
		if c.has {
			f.isas = append(f.isas, c.isa)
		}
	}
	f.names = present(
		feature{"avx", x.HasAVX}, feature{"avx2", x.HasAVX2}, feature{"fma", x.HasFMA}, feature{"avxvnni", x.HasAVXVNNI},
		feature{"avx512f", x.HasAVX512F}, feature{"avx512bw", x.HasAVX512BW}, feature{"avx512vl", x.HasAVX512VL},
		feature{"avx512dq", x.HasAVX512DQ}, feature{"avx512vnni", x.HasAVX512VNNI}, feature{"avx512vbmi", x.HasAVX512VBMI},
		feature{"avx512bf16", x.HasAVX512BF16}, feature{"amx_int8", x.HasAMXInt8}, feature{"amx_bf16", x.HasAMXBF16},
	)
	return f
}

// vectors is the instruction set of kernels that have no version for tiles and none for VPDPBUSD without AVX-512.
func vectors() ISA {
	switch isa := Active(); isa {
	case AMX:
		return AVX512
	case AVXVNNI:
		return AVX2
	default:
		return isa
	}
}
