package cpu

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

// detect asks the operating system, through x/sys, which does not know how to on a Mac; but every Mac with this architecture has SDOT.
func detect() features {
	dot := cpu.ARM64.HasASIMDDP || runtime.GOOS == "darwin"
	f := features{isas: []ISA{NEON}, names: present(feature{"asimd", true}, feature{"asimddp", dot})}
	if dot {
		f.isas = append(f.isas, NEONDot)
	}
	return f
}

// vectors says whether kernels that have one version for vectors run it.
func vectors() bool { return Active() != Scalar }
