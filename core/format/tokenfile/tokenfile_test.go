package tokenfile

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
)

func write(t *testing.T, path string, vocab int, separator int32, pieces ...[]int32) {
	t.Helper()
	w, err := Create(path, vocab, separator)
	require.NoError(t, err)
	for _, p := range pieces {
		require.NoError(t, w.Write(p))
	}
	require.NoError(t, w.Commit())
}

func open(t *testing.T, path string, o Options) *File {
	t.Helper()
	f, err := Open(path, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func numbers(n, below int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(i * 7919 % below)
	}
	return ids
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for vocab, dtype := range map[int]string{1 << 16: "uint16", 1<<16 + 1: "uint32", 1 << 31: "uint32"} {
		path := filepath.Join(t.TempDir(), "tokens.bin")
		ids := append(numbers(10_000, vocab), int32(vocab-1))
		write(t, path, vocab, 3, ids[:7], ids[7:7], ids[7:])
		f := open(t, path, Options{Vocab: vocab})
		require.Equal(t, Info{Kind: "bitnet", DType: dtype, Tokens: len(ids), Separator: 3, VocabSize: vocab, MaxID: int64(vocab - 1)}, f.Info)
		require.NoError(t, f.Verify())
		got := make([]int32, len(ids))
		require.NoError(t, f.ReadIDs(got, 0))
		require.Equal(t, ids, got)
		require.NoError(t, f.ReadIDs(got[:5], len(ids)-5))
		require.Equal(t, ids[len(ids)-5:], got[:5])
		require.NoError(t, f.ReadIDs(nil, len(ids)))
		require.Error(t, f.ReadIDs(got[:5], len(ids)-4))
		require.Error(t, f.ReadIDs(got[:5], -1))
	}
}

func TestAFileAppearsCompleteOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tokens.bin")
	w, err := Create(path, 100, -1)
	require.NoError(t, err)
	require.NoError(t, w.Write([]int32{1, 2}))
	require.NotContains(t, names(t, dir), "tokens.bin")
	require.ErrorContains(t, w.Write([]int32{5, 100}), "id 3 of "+path+" is 100: expected 0 <= id < vocab_size = 100")
	w.Abort()
	w.Abort()
	require.Empty(t, names(t, dir))
	require.Error(t, w.Commit())
	require.Empty(t, names(t, dir))

	_, err = Create(filepath.Join(dir, "absent", "x"), 100, -1)
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, bad := range []struct {
		vocab     int
		separator int32
	}{{0, -1}, {1<<31 + 1, -1}, {100, 100}, {100, -2}} {
		_, err = Create(path, bad.vocab, bad.separator)
		require.ErrorIs(t, err, ErrID)
	}
}

func TestNumPyFilesAreRead(t *testing.T) {
	ids := numbers(300, 200)
	for _, dtype := range DTypes() {
		var a npz.Array
		var err error
		switch dtype {
		case "uint8":
			a, err = npz.New(converted[uint8](ids), len(ids))
		case "uint16":
			a, err = npz.New(converted[uint16](ids), len(ids))
		case "int16":
			a, err = npz.New(converted[int16](ids), len(ids))
		case "uint32":
			a, err = npz.New(converted[uint32](ids), len(ids))
		case "int32":
			a, err = npz.New(ids, len(ids))
		case "uint64":
			a, err = npz.New(converted[uint64](ids), len(ids))
		case "int64":
			a, err = npz.New(converted[int64](ids), len(ids))
		}
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "tokens.npy")
		require.NoError(t, npz.SaveArray(path, a))
		f := open(t, path, Options{Vocab: 200})
		require.Equal(t, Info{Kind: "npy", DType: dtype, Tokens: 300, Separator: -1, MaxID: -1}, f.Info)
		got := make([]int32, 300)
		require.NoError(t, f.ReadIDs(got, 0))
		require.Equal(t, ids, got)
		require.NoError(t, f.Verify())
	}
}

func converted[T uint8 | uint16 | int16 | uint32 | uint64 | int64](ids []int32) []T {
	out := make([]T, len(ids))
	for i, id := range ids {
		out[i] = T(id)
	}
	return out
}

func TestBareFilesNeedADType(t *testing.T) {
	path := filepath.Join(t.TempDir(), "train.bin")
	require.NoError(t, os.WriteFile(path, []byte{9, 9, 9, 9, 1, 0, 0xff, 0xff}, 0o666))
	_, err := Open(path, Options{})
	require.ErrorIs(t, err, ErrDType)
	require.ErrorContains(t, err, path+" has no header")
	_, err = Open(path, Options{DType: "float32"})
	require.ErrorIs(t, err, ErrDType)
	_, err = Open(path, Options{DType: "uint16", Offset: 3})
	require.ErrorContains(t, err, "found 5 bytes, expected a multiple of 2")
	_, err = Open(path, Options{DType: "uint16", Offset: 9})
	require.ErrorIs(t, err, ErrFormat)
	f := open(t, path, Options{DType: "uint16", Offset: 4})
	ids := make([]int32, 2)
	require.NoError(t, f.ReadIDs(ids, 0))
	require.Equal(t, []int32{1, 65535}, ids)
	f = open(t, path, Options{DType: "uint16", Offset: 2, Tokens: 2})
	require.NoError(t, f.ReadIDs(ids, 0))
	require.Equal(t, []int32{9 + 9<<8, 1}, ids)
	f = open(t, path, Options{DType: "uint16", Offset: 1, Tokens: 2})
	require.NoError(t, f.ReadIDs(ids, 0))
	require.Equal(t, []int32{9 + 9<<8, 9 + 1<<8}, ids, "an odd rest is not taken")
	for _, tokens := range []int{-1, 4} {
		_, err = Open(path, Options{DType: "uint16", Offset: 2, Tokens: tokens})
		require.ErrorContains(t, err, "expected 0 to 3, what the file has")
	}
}

func TestAPartOfAFileIsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.bin")
	write(t, path, 100, -1, numbers(50, 100))
	whole, part := open(t, path, Options{}), open(t, path, Options{First: 10, Tokens: 5})
	require.Equal(t, 5, part.Len())
	ids := make([]int32, 5)
	require.NoError(t, part.ReadIDs(ids, 0))
	require.Equal(t, numbers(50, 100)[10:15], ids)
	require.Error(t, part.ReadIDs(ids, 1))
	require.NoError(t, part.Verify())
	require.Equal(t, 40, open(t, path, Options{First: 10}).Len())
	a, err := whole.Fingerprint()
	require.NoError(t, err)
	b, err := part.Fingerprint()
	require.NoError(t, err)
	require.NotEqual(t, a, b)
	for _, o := range []Options{{First: -1}, {First: 51}, {First: 10, Tokens: 41}, {Tokens: -1}} {
		_, err := Open(path, o)
		require.ErrorIs(t, err, ErrFormat)
		require.ErrorContains(t, err, "what the file has")
	}
}

// An id that no model has is found where it is read, and named by its place in the file.
func TestIDsOutOfRangeAreNamed(t *testing.T) {
	dir := t.TempDir()
	for dtype, raw := range map[string][]byte{
		"uint16": binary.LittleEndian.AppendUint16(make([]byte, 2*5000), 50),
		"int16":  binary.LittleEndian.AppendUint16(make([]byte, 2*5000), 0xffff),
		"uint32": binary.LittleEndian.AppendUint32(make([]byte, 4*5000), 1<<31),
		"int32":  binary.LittleEndian.AppendUint32(make([]byte, 4*5000), 0xffffffff),
		"int64":  binary.LittleEndian.AppendUint64(make([]byte, 8*5000), 1<<40),
		"uint64": binary.LittleEndian.AppendUint64(make([]byte, 8*5000), 1<<63),
	} {
		path := filepath.Join(dir, dtype)
		require.NoError(t, os.WriteFile(path, raw, 0o666))
		f := open(t, path, Options{DType: dtype, Vocab: 50})
		ids := make([]int32, 5001)
		require.NoError(t, f.ReadIDs(ids[:5000], 0))
		for _, err := range []error{f.ReadIDs(ids, 0), f.Verify()} {
			require.ErrorIs(t, err, ErrID)
			require.ErrorContains(t, err, path+": id 5000 is ")
			require.ErrorContains(t, err, "vocab_size = 50")
		}
	}
	path := filepath.Join(dir, "own")
	write(t, path, 100, -1, []int32{99})
	_, err := Open(path, Options{Vocab: 99})
	require.ErrorContains(t, err, path+": its largest id is 99", "our own files say it when they are opened")
}

func TestFilesThatChangeOrGoAwayAreErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.bin")
	write(t, path, 100, -1, numbers(1000, 100))
	f := open(t, path, Options{})
	require.NoError(t, os.Truncate(path, 500))
	ids := make([]int32, 1000)
	require.ErrorIs(t, f.ReadIDs(ids, 0), ErrFormat)
	require.ErrorContains(t, f.ReadIDs(ids[:10], 900), "it ends before id 900")
	require.ErrorIs(t, f.Verify(), ErrFormat)
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.ReadIDs(ids[:1], 0), ErrClosed)

	_, err := Open(filepath.Dir(path), Options{})
	require.ErrorIs(t, err, ErrFormat)
	_, err = Open(path+".absent", Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Every bit of a file is covered: the header's by opening, the ids' by Verify.
func TestDamageIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.bin")
	write(t, path, 1<<16, 7, numbers(40, 1<<16))
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, good, 64+80)
	for bit := range 8 * len(good) {
		bad := slices.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		require.NoError(t, os.WriteFile(path, bad, 0o666))
		f, err := Open(path, Options{})
		if err == nil {
			require.GreaterOrEqual(t, bit/8, 64)
			err = f.Verify()
			require.NoError(t, f.Close())
		}
		require.Error(t, err, "bit %d", bit)
	}
	for n := range len(good) {
		require.NoError(t, os.WriteFile(path, good[:n], 0o666))
		_, err := Open(path, Options{})
		require.Error(t, err, "cut to %d", n)
	}
}

func TestWrongNumPyFilesAreNamed(t *testing.T) {
	dir := t.TempDir()
	save := func(name string, a npz.Array, err error) string {
		require.NoError(t, err)
		path := filepath.Join(dir, name)
		require.NoError(t, npz.SaveArray(path, a))
		return path
	}
	a, err := npz.New([]int32{1, 2, 3, 4}, 2, 2)
	_, err = Open(save("matrix.npy", a, err), Options{})
	require.ErrorContains(t, err, "found [2 2], expected one dimension")
	a, err = npz.New([]float32{1, 2}, 2)
	_, err = Open(save("float.npy", a, err), Options{})
	require.ErrorIs(t, err, ErrDType)
	require.ErrorContains(t, err, "float32")
	a, err = npz.New([]int32{1, 2}, 2)
	path := save("short.npy", a, err)
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, raw[:len(raw)-1], 0o666))
	_, err = Open(path, Options{})
	require.ErrorContains(t, err, "found 7 data bytes, expected 2 ids of 4")
	require.NoError(t, os.WriteFile(path, raw[:20], 0o666))
	_, err = Open(path, Options{})
	require.ErrorIs(t, err, npz.ErrFormat)
	require.ErrorContains(t, err, path)
}

func TestFingerprintsTellFilesApart(t *testing.T) {
	dir := t.TempDir()
	print := func(name string, o Options) string {
		p, err := open(t, filepath.Join(dir, name), o).Fingerprint()
		require.NoError(t, err)
		return p
	}
	write(t, filepath.Join(dir, "a"), 100, -1, []int32{1, 2, 3})
	write(t, filepath.Join(dir, "b"), 100, -1, []int32{1, 2, 4})
	require.NotEqual(t, print("a", Options{}), print("b", Options{}))

	// Of a file larger than what is read, the beginning, the end and pieces between count.
	size := 5 << 20
	big := make([]byte, size)
	prints := map[string]string{}
	for _, at := range []int{-1, 0, size - 1, size / 63 * 30} {
		if at >= 0 {
			big[at] ^= 1
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "big"), big, 0o666))
		p := print("big", Options{DType: "uint16"})
		require.Empty(t, prints[p], "byte %d", at)
		prints[p] = fmt.Sprint(at)
		require.NotEqual(t, p, print("big", Options{DType: "int16"}))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "small"), []byte{1, 0}, 0o666))
	require.NotEmpty(t, print("small", Options{DType: "uint16"}))
}

// Whatever the bytes, opening and reading give ids or an error.
func FuzzOpen(f *testing.F) {
	w := &Writer{vocab: 9, separator: -1, width: 2, count: 2, max: 1}
	f.Add(append(w.header(), 1, 0, 0, 0), "")
	f.Add([]byte{1, 0, 2, 0}, "uint16")
	f.Add([]byte("\x93NUMPY\x01\x00\x3e\x00{'descr': '<u2', 'fortran_order': False, 'shape': (1,), }    \n\x01\x00"), "")
	f.Fuzz(func(t *testing.T, content []byte, dtype string) {
		path := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(path, content, 0o666))
		file, err := Open(path, Options{DType: dtype, Vocab: 1000})
		if err != nil {
			return
		}
		defer file.Close()
		ids := make([]int32, file.Len())
		if file.ReadIDs(ids, 0) == nil {
			for _, id := range ids {
				require.True(t, id >= 0 && id < 1000)
			}
		}
		_, err = file.Fingerprint()
		require.NoError(t, err)
	})
}
