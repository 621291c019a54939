//go:build !linux

package cpu

import "runtime"

// PhysicalCores is how many cores this process may use; outside Linux it is the number of logical CPUs.
func PhysicalCores() int { return runtime.NumCPU() }
