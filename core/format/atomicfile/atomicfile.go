// Package atomicfile replaces a file in one step: readers see the old content
// or the new one, never a part of it, whatever happens in between.
//
// The new content goes to a temporary file beside the target, is flushed to
// the disk, takes the target's name by rename (which POSIX makes atomic inside
// one directory), and the directory itself is flushed so that the new name
// survives a power cut. A failure at any step removes the temporary file and
// leaves the target untouched. A process that has the old file mapped keeps
// reading the old content: rename changes the name, not the inode.
//
// A process that is killed leaves its temporary file behind. Whoever writes to
// the same name next takes it away: files that are being written are locked,
// and one that is not has nobody who will finish it. WriteDir does all this
// with a whole directory.
package atomicfile

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// bufferSize is the size of the write buffer: large enough that streaming
// many small rows costs no more system calls than one copy.
const bufferSize = 1 << 20

// Write creates or replaces the file at path with what write produces. write
// receives a buffered writer; its error, or a panic, aborts the replacement.
// The file gets mode 0666 less the process's umask.
func Write(path string, write func(w io.Writer) error) (err error) {
	f, err := Create(path)
	if err != nil {
		return err
	}
	defer f.Abort() // also on a panic of write
	buffered := bufio.NewWriterSize(f, bufferSize)
	if err := write(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("atomicfile: writing %s: %w", path, err)
	}
	return f.Commit()
}

// File is new content of a file that has not taken its name yet. It is for
// writers that Write cannot call: those that get their content piece by piece,
// or go back in it.
type File struct {
	*os.File
	path string
	lock io.Closer // held until the file has its name
	done bool
}

// Create begins new content of the file at path. Commit or Abort end it.
func Create(path string) (*File, error) {
	temp, lock, err := create(path)
	if err != nil {
		return nil, fmt.Errorf("atomicfile: %w", err)
	}
	return &File{File: temp, path: path, lock: lock}, nil
}

// Commit gives the content the file's name. After an error the content is gone
// and the file as it was.
func (f *File) Commit() error {
	defer f.Abort()
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("atomicfile: writing %s: %w", f.path, err)
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return fmt.Errorf("atomicfile: %w", err)
	}
	f.done = true
	_ = f.lock.Close() // it has done its work
	return syncDir(filepath.Dir(f.path))
}

// Abort removes the content; after Commit it does nothing.
func (f *File) Abort() {
	if !f.done {
		_ = f.Close()
		_ = os.Remove(f.Name())
		_ = f.lock.Close()
		f.done = true
	}
}

var errIrregular = errors.New("it is no regular file")

// create opens a fresh hidden file beside the target. os.CreateTemp would give
// mode 0600, which a checkpoint shared between users must not have.
func create(path string) (f *os.File, lock io.Closer, err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil, nil, &fs.PathError{Op: "write", Path: path, Err: errIrregular} // root could replace /dev/null
	}
	_, lock, err = fresh(path, func(name string) (err error) {
		if f != nil {
			_ = f.Close() // one that was taken
		}
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		return err
	})
	if err != nil && f != nil {
		_ = f.Close()
	}
	return f, lock, err
}

// fresh makes something under a new hidden name beside the target, and locks it.
// What was left of earlier writes to the target goes away.
func fresh(path string, make func(name string) error) (name string, lock io.Closer, err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	sweep(dir, base)
	for {
		if name, err = tempName(dir, base); err != nil {
			return "", nil, err
		}
		if err := make(name); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return "", nil, err
		}
		if lock, err = claim(name); err == nil {
			return name, lock, nil
		}
		if !errors.Is(err, errTaken) {
			return "", nil, errors.Join(err, os.Remove(name))
		}
	}
}

// tempName is a fresh name beside the target that sweep knows.
func tempName(dir, base string) (string, error) {
	var random [6]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", err
	}
	return filepath.Join(dir, "."+base+"."+hex.EncodeToString(random[:])+".tmp"), nil
}

// sweep removes what was left of writes to a name whose process has ended.
func sweep(dir, base string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // the write will say so
	}
	for _, e := range entries {
		middle, ok := strings.CutPrefix(e.Name(), "."+base+".")
		middle, also := strings.CutSuffix(middle, ".tmp")
		if _, err := hex.DecodeString(middle); !ok || !also || len(middle) != 12 || err != nil {
			continue
		}
		name := filepath.Join(dir, e.Name())
		if lock, err := claim(name); err == nil && lock != unlocked {
			_ = os.RemoveAll(name)
			_ = lock.Close()
		}
	}
}

// errTaken says that somebody sweeps a file away, or has, before it was locked.
var errTaken = errors.New("taken by another process")

// unlocked stands for the lock of systems that have none.
var unlocked io.Closer = noLock{}

type noLock struct{}

func (noLock) Close() error { return nil }
