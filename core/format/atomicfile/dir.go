package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteDir creates or replaces the directory at path with what write puts into
// the empty one that it is given. The old directory goes with everything in it.
// On Linux no moment has neither of them; elsewhere there is one of replacing,
// after which a process that is killed leaves the new content under a hidden
// name.
func WriteDir(path string, write func(dir string) error) error {
	path = filepath.Clean(path)
	parent, base := filepath.Split(path)
	if parent == "" {
		parent = "."
	}
	sweep(parent, base)
	temp, lock, err := createDir(parent, base)
	if err != nil {
		return fmt.Errorf("atomicfile: %w", err)
	}
	defer func() {
		_ = os.RemoveAll(temp) // what failed, or the old one after an exchange
		_ = lock.Close()
	}()
	if err := write(temp); err != nil {
		return err
	}
	if err := syncDir(temp); err != nil {
		return err
	}
	if err := place(temp, path); err != nil {
		return fmt.Errorf("atomicfile: %w", err)
	}
	return syncDir(parent)
}

func createDir(parent, base string) (string, interface{ Close() error }, error) {
	for {
		name, err := tempName(parent, base)
		if err != nil {
			return "", nil, err
		}
		if err := os.Mkdir(name, 0o777); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return "", nil, err
		}
		if lock, ok := claim(name); ok {
			return name, lock, nil
		}
	}
}

// place gives the directory temp the name path. What had it gets the name temp.
func place(temp, path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return os.Rename(temp, path)
	}
	if done, err := exchange(temp, path); done {
		return err
	}
	old := temp + ".old"
	if err := os.Rename(path, old); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Rename(old, path))
	}
	return os.Rename(old, temp)
}
