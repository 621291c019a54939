//go:build !linux

package cpu

import "runtime"

// PhysicalCores is how many cores this process may use; outside Linux it is the number of logical CPUs.
func PhysicalCores() int { return runtime.NumCPU() }

// LogicalCPUs is how many logical CPUs this process may run on.
func LogicalCPUs() int { return runtime.NumCPU() }

// Quota is the CPU time that the control groups of this process allow, in whole CPUs; outside Linux there is no limit, 0.
func Quota() int { return 0 }
