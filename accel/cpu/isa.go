package cpu

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// ISA is an instruction set for which the package has kernels.
type ISA uint8

const (
	Scalar ISA = iota // portable Go, the definition of every kernel
	AVX2              // 256-bit integer and float vectors
	AVX512            // AVX-512 F, BW, VL, DQ and VNNI
	AMX               // tiles of int8, beside AVX-512
)

var isaNames = [...]string{Scalar: "scalar", AVX2: "avx2", AVX512: "avx512", AMX: "amx"}

// String gives the name that [ParseISA] and BITNET_ISA accept.
func (i ISA) String() string {
	if int(i) < len(isaNames) {
		return isaNames[i]
	}
	return fmt.Sprintf("ISA(%d)", uint8(i))
}

// ParseISA turns "scalar", "avx2", "avx512" or "amx" into an ISA. It does not ask whether this processor has it.
func ParseISA(name string) (ISA, error) {
	for i, n := range isaNames {
		if name == n {
			return ISA(i), nil
		}
	}
	return Scalar, fmt.Errorf("cpu: unknown instruction set %q: want one of %s", name, strings.Join(isaNames[:], ", "))
}

// UnsupportedISAError says that this processor (or this build) cannot run an instruction set.
type UnsupportedISAError struct {
	ISA       ISA
	Supported []ISA
}

func (e *UnsupportedISAError) Error() string {
	return fmt.Sprintf("cpu: instruction set %s is not available here: supported are %s", e.ISA, joinISAs(e.Supported))
}

func joinISAs(list []ISA) string {
	names := make([]string, len(list))
	for i, isa := range list {
		names[i] = isa.String()
	}
	return strings.Join(names, ", ")
}

// Supported lists the instruction sets that this processor can run, slowest first. Scalar is always among them.
func Supported() []ISA {
	list := []ISA{Scalar}
	f := detected
	if f.avx2 {
		list = append(list, AVX2)
	}
	if f.avx512 {
		list = append(list, AVX512)
	}
	if f.amx {
		list = append(list, AMX)
	}
	return list
}

// Best is the fastest supported instruction set.
func Best() ISA {
	list := Supported()
	return list[len(list)-1]
}

// active is read by every kernel call; it starts as Best or what BITNET_ISA says.
var active atomic.Uint32

// Active is the instruction set that kernels run on now.
func Active() ISA { return ISA(active.Load()) }

// vectors is the instruction set of kernels that have no version for tiles.
func vectors() ISA { return min(Active(), AVX512) }

// SetISA makes kernels run on isa, for tests and benchmarks. A call that overlaps a running kernel is safe for
// memory and, as all instruction sets give the same bits, for results, but it says nothing about which one ran.
// The error is an [*UnsupportedISAError].
func SetISA(isa ISA) error {
	for _, s := range Supported() {
		if s == isa {
			active.Store(uint32(isa))
			return nil
		}
	}
	return &UnsupportedISAError{ISA: isa, Supported: Supported()}
}

// Features names the processor features that the package looked for and found, for build information.
func Features() []string { return append([]string(nil), detected.names...) }

// features is what detection found on this processor.
type features struct {
	avx2, avx512, amx bool
	names             []string
}

var detected = detect()

//go:generate go run ./gen -out kernels_amd64.s -stubs kernels_amd64.go -pkg cpu
