package cpu

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// ISA is an instruction set for which the package has kernels.
type ISA uint8

const (
	Scalar  ISA = iota // portable Go, the definition of every kernel
	AVX2               // amd64: 256-bit integer and float vectors, fused multiply-add (FMA3)
	AVXVNNI            // amd64: AVX2 with VPDPBUSD, which multiplies and adds bytes
	AVX512             // amd64: AVX-512 F, BW, VL, DQ and VNNI
	AMX                // amd64: tiles of int8, beside AVX-512
	NEON               // arm64: 128-bit vectors, which all have
	NEONDot            // arm64: NEON with SDOT, which multiplies and adds bytes
)

var isaNames = [...]string{
	Scalar: "scalar", AVX2: "avx2", AVXVNNI: "avxvnni", AVX512: "avx512", AMX: "amx", NEON: "neon", NEONDot: "neon-dotprod",
}

// String gives the name that [ParseISA] and BITNET_ISA accept.
func (i ISA) String() string {
	if int(i) < len(isaNames) {
		return isaNames[i]
	}
	return fmt.Sprintf("ISA(%d)", uint8(i))
}

// ParseISA turns a name, such as "scalar" or "avx2", into an ISA. It does not ask whether this processor has it.
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
	ISA       ISA   // that was asked for
	Supported []ISA // those that can be had
}

// Error has the instruction set and those that this processor has.
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
func Supported() []ISA { return append([]ISA{Scalar}, detected.isas...) }

// Best is the fastest supported instruction set.
func Best() ISA {
	list := Supported()
	return list[len(list)-1]
}

// active is read by every kernel call; it starts as Best or what BITNET_ISA says.
var active atomic.Uint32

// Active is the instruction set that kernels run on now.
func Active() ISA { return ISA(active.Load()) }

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

// Refusal is an instruction set of this processor that is not among [Supported], and why.
type Refusal struct {
	ISA    ISA    // that is refused
	Reason string // a sentence
}

// Refused lists the instruction sets that the processor has and the operating system does not let this process use.
func Refused() []Refusal { return append([]Refusal(nil), detected.refused...) }

// Features names the processor features that the package looked for and found, for build information.
func Features() []string { return append([]string(nil), detected.names...) }

// feature is something that a processor may have.
type feature struct {
	name string
	has  bool
}

// present names what there is of a list.
func present(list ...feature) (names []string) {
	for _, f := range list {
		if f.has {
			names = append(names, f.name)
		}
	}
	return names
}

// features is what detection found on this processor.
type features struct {
	isas    []ISA // beside Scalar, slowest first
	names   []string
	refused []Refusal
}

var detected = detect()

//go:generate go run ./gen -out kernels_amd64.s -stubs kernels_amd64.go -pkg cpu
//go:generate go run ./gen/neon -out kernels_arm64.s -stubs kernels_arm64.go
