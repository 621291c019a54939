package cpu

import "golang.org/x/sys/cpu"

// detect asks CPUID (and, through x/sys, whether the operating system saves the wide registers), and the system for tile registers.
func detect() features {
	x := &cpu.X86
	f := features{
		avx2:   x.HasAVX2, // every processor with AVX2 converts half precision too (F16C)
		avx512: x.HasAVX2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasAVX512VNNI,
	}
	f.amx = f.avx512 && x.HasAMXTile && x.HasAMXInt8 && requestTiles()
	for _, c := range []struct {
		name string
		has  bool
	}{
		{"avx", x.HasAVX}, {"avx2", x.HasAVX2}, {"fma", x.HasFMA},
		{"avx512f", x.HasAVX512F}, {"avx512bw", x.HasAVX512BW}, {"avx512vl", x.HasAVX512VL},
		{"avx512dq", x.HasAVX512DQ}, {"avx512vnni", x.HasAVX512VNNI}, {"avx512vbmi", x.HasAVX512VBMI},
		{"avx512bf16", x.HasAVX512BF16}, {"amx_int8", x.HasAMXInt8}, {"amx_bf16", x.HasAMXBF16},
	} {
		if c.has {
			f.names = append(f.names, c.name)
		}
	}
	return f
}
