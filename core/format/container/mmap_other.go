//go:build !unix

package container

import "os"

// mapFile reads the whole file: this system has no mapping that we use.
func mapFile(path string) (data []byte, mapped bool, err error) {
	data, err = os.ReadFile(path)
	return data, false, err
}

func unmap([]byte) error { return nil }

func advise([]byte, Advice) error { return nil }

func releasePages([]byte) error { return nil }
