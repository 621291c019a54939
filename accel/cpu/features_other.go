//go:build !amd64 && !arm64

package cpu

// detect: other processors run the Go reference.
func detect() features { return features{} }
