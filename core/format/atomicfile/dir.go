package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// WriteDir creates or replaces the directory at path with what write puts into
// the empty one that it is given. The old directory goes with everything in it;
// its mode stays, and so does a link that led to it. On Linux no moment has
// neither of them; elsewhere there is one of replacing, after which a process
// that is killed leaves the new content under a hidden name.
//
// A directory that cannot be replaced, such as a mount point, the working
// directory, or one whose parent is not writable, is itself given to write.
func WriteDir(path string, write func(dir string) error) error {
	path, old, err := resolve(path)
	if err != nil {
		return fmt.Errorf("atomicfile: %w", err)
	}
	if old != nil && isWorkingDir(old) {
		return write(path)
	}
	err = replaceDir(path, old, write)
	if old != nil && errors.Is(err, errFixed) {
		return write(path)
	}
	return err
}

// errFixed is what errors match with that say that a directory stays where it is.
var errFixed = errors.New("directory cannot be replaced")

// resolve follows links, and says what is there: nil if nothing is.
func resolve(path string) (string, fs.FileInfo, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err == nil {
			return "", nil, &fs.PathError{Op: "write", Path: path, Err: errors.New("link leads nowhere")}
		}
		return filepath.Clean(path), nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	info, err := os.Stat(real)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "write", Path: path, Err: syscall.ENOTDIR}
	}
	return real, info, err
}

// isWorkingDir says whether this process, and so perhaps the shell that it was
// started from, is in a directory: it would be left in one that is gone.
func isWorkingDir(dir fs.FileInfo) bool {
	here, err := os.Stat(".")
	return err == nil && os.SameFile(here, dir)
}

// replaceDir makes a directory beside path and gives it that name, with the
// mode of the old one, which may be nil.
func replaceDir(path string, old fs.FileInfo, write func(dir string) error) error {
	temp, lock, err := fresh(path, func(name string) error { return os.Mkdir(name, 0o777) })
	if err != nil {
		return fixed(err)
	}
	defer func() {
		_ = os.RemoveAll(temp) // what failed, or the old one after an exchange
		_ = lock.Close()
	}()
	if old != nil {
		if err := os.Chmod(temp, old.Mode()); err != nil {
			return fmt.Errorf("atomicfile: %w", err)
		}
	}
	if err := write(temp); err != nil {
		return err
	}
	if err := syncDir(temp); err != nil {
		return err
	}
	if err := place(temp, path); err != nil {
		return fixed(err)
	}
	return syncDir(filepath.Dir(path))
}

// fixed adds errFixed to errors about a directory's place rather than its content.
func fixed(err error) error {
	for _, reason := range []error{fs.ErrPermission, syscall.EBUSY, syscall.EXDEV, syscall.EROFS} {
		if errors.Is(err, reason) {
			return fmt.Errorf("atomicfile: %w: %w", errFixed, err)
		}
	}
	return fmt.Errorf("atomicfile: %w", err)
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
