//go:build unix

package container

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps a whole file read-only. An empty file, which cannot be mapped,
// gives empty data.
func mapFile(path string) (data []byte, mapped bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer file.Close() // the mapping keeps the file alive
	info, err := file.Stat()
	if err != nil {
		return nil, false, err
	}
	size := info.Size()
	if size == 0 {
		return []byte{}, false, nil
	}
	if int64(int(size)) != size {
		return nil, false, unix.EFBIG
	}
	data, err = unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	return data, err == nil, err
}

func unmap(data []byte) error { return unix.Munmap(data) }

func advise(pages []byte, a Advice) error {
	flag := unix.MADV_WILLNEED
	switch a {
	case Sequential:
		flag = unix.MADV_SEQUENTIAL
	case Random:
		flag = unix.MADV_RANDOM
	}
	return unix.Madvise(pages, flag)
}

func releasePages(pages []byte) error { return unix.Madvise(pages, unix.MADV_DONTNEED) }
