package cpu

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// PhysicalCores is how many cores this process may use: the CPUs of its affinity mask with SMT siblings counted once,
// limited by the CPU quota of its control groups (v1 and v2).
func PhysicalCores() int {
	return countCores(os.DirFS("/"), affinity())
}

// LogicalCPUs is how many logical CPUs this process may run on, SMT siblings counted each.
func LogicalCPUs() int { return len(affinity()) }

// Quota is the CPU time that the control groups of this process allow, in whole CPUs rounded up; 0 when there is no limit.
func Quota() int { return cpuQuota(os.DirFS("/")) }

// affinity lists the logical CPUs that the process may run on.
func affinity() []int {
	var set unix.CPUSet
	var cpus []int
	if err := unix.SchedGetaffinity(0, &set); err == nil {
		for c, left := 0, set.Count(); left > 0; c++ {
			if set.IsSet(c) {
				cpus = append(cpus, c)
				left--
			}
		}
		return cpus
	}
	for c := range runtime.NumCPU() { // more CPUs than the set can name
		cpus = append(cpus, c)
	}
	return cpus
}
