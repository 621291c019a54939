package gguf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

func TestWhatIsWrittenReadsBack(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, "m.gguf")
		entries := []Entry{{"general.architecture", "bitnet"}}
		values := rapid.OneOf(
			rapid.Map(rapid.String(), func(v string) any { return v }), rapid.Map(rapid.Bool(), func(v bool) any { return v }),
			rapid.Map(rapid.Uint8(), func(v uint8) any { return v }), rapid.Map(rapid.Int8(), func(v int8) any { return v }),
			rapid.Map(rapid.Uint16(), func(v uint16) any { return v }), rapid.Map(rapid.Int16(), func(v int16) any { return v }),
			rapid.Map(rapid.Uint32(), func(v uint32) any { return v }), rapid.Map(rapid.Int32(), func(v int32) any { return v }),
			rapid.Map(rapid.Uint64(), func(v uint64) any { return v }), rapid.Map(rapid.Int64(), func(v int64) any { return v }),
			rapid.Map(rapid.Float32(), func(v float32) any { return v }), rapid.Map(rapid.Float64(), func(v float64) any { return v }),
			slicesOf(rapid.String()), slicesOf(rapid.Int32()), slicesOf(rapid.Float32()), slicesOf(rapid.Bool()), slicesOf(rapid.Uint64()),
			slicesOf(rapid.Int8()), slicesOf(rapid.Uint8()), slicesOf(rapid.Int16()), slicesOf(rapid.Uint16()), slicesOf(rapid.Uint32()),
			slicesOf(rapid.Int64()), slicesOf(rapid.Float64()),
		)
		name := rapid.StringN(1, 20, 60)
		for _, key := range rapid.SliceOfNDistinct(name, 0, 6, rapid.ID).Draw(t, "keys") {
			if key != alignmentKey && key != entries[0].Key {
				entries = append(entries, Entry{key, values.Draw(t, "value")})
			}
		}
		var tensors []container.Tensor
		for _, name := range rapid.SliceOfNDistinct(name, 0, 5, rapid.ID).Draw(t, "names") {
			one := container.Tensor{Name: name, DType: rapid.SampledFrom(DTypes()).Draw(t, "dtype")}
			one.Shape = append(rapid.SliceOfN(rapid.IntRange(1, 3), 0, 2).Draw(t, "shape"), dtypes[one.DType].values*rapid.IntRange(1, 2).Draw(t, "blocks"))
			size, err := Size(one)
			require.NoError(t, err)
			data := rapid.SliceOfN(rapid.Byte(), int(size), int(size)).Draw(t, "data")
			one.Data = data
			if rapid.Bool().Draw(t, "stream") {
				one.Stream = func(w io.Writer) error { _, err := w.Write(data); return err }
			}
			tensors = append(tensors, one)
		}
		require.NoError(t, Write(path, entries, tensors))

		f, err := Open(path)
		require.NoError(t, err)
		defer f.Close()
		require.Equal(t, 3, f.Version())
		require.Len(t, f.Metadata().Keys(), len(entries))
		for i, e := range entries {
			require.Equal(t, e.Key, f.Metadata().Keys()[i])
			if x, ok := e.Value.(float32); !ok || x == x {
				require.Equal(t, e.Value, f.Metadata().Any(e.Key))
			}
		}
		require.Len(t, f.Tensors(), len(tensors))
		for i, want := range tensors {
			require.Equal(t, want.Name, f.Tensors()[i].Name)
			v, err := f.Tensor(want.Name)
			require.NoError(t, err)
			require.Equal(t, want.Shape, v.Shape)
			require.Equal(t, want.DType, v.DType)
			require.Equal(t, want.Data, v.Data)
		}
	})
}

func slicesOf[T any](g *rapid.Generator[T]) *rapid.Generator[any] {
	return rapid.Map(rapid.SliceOfN(g, 0, 5), func(v []T) any { return v })
}

func bytesTensor(name string, n int) container.Tensor {
	return container.Tensor{Name: name, DType: "I8", Shape: []int{n}, Data: make([]byte, n)}
}

func TestWhatCannotBeWrittenIsRefusedAndLeavesTheOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, Write(path, nil, []container.Tensor{bytesTensor("a", 10)}))
	old, err := os.ReadFile(path)
	require.NoError(t, err)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		entries []Entry
		tensors []container.Tensor
		want    error
	}{
		"key twice":       {[]Entry{{"a", "x"}, {"a", "y"}}, nil, ErrDuplicate},
		"empty key":       {[]Entry{{"", "x"}}, nil, ErrKey},
		"key not UTF-8":   {[]Entry{{"\xff", "x"}}, nil, ErrKey},
		"unsized integer": {[]Entry{{"a", 1}}, nil, ErrValue},
		"nil":             {[]Entry{{"a", nil}}, nil, ErrValue},
		"tensor twice":    {nil, []container.Tensor{bytesTensor("a", 1), bytesTensor("a", 1)}, ErrDuplicate},
		"unknown type":    {nil, []container.Tensor{{Name: "a", DType: "F31", Shape: []int{1}}}, ErrDType},
		"part of a block": {nil, []container.Tensor{{Name: "a", DType: Q8_0, Shape: []int{2, 16}}}, ErrShape},
		"five dimensions": {nil, []container.Tensor{{Name: "a", DType: "I8", Shape: []int{1, 1, 1, 1, 1}}}, ErrShape},
		"too few bytes":   {nil, []container.Tensor{{Name: "a", DType: "I8", Shape: []int{4}, Data: make([]byte, 3)}}, container.ErrSize},
		"too many bytes":  {nil, []container.Tensor{{Name: "a", DType: "I8", Shape: []int{4}, Data: make([]byte, 5)}}, container.ErrSize},
		"broken stream": {nil, []container.Tensor{{Name: "a", DType: "I8", Shape: []int{4},
			Stream: func(io.Writer) error { return broken }}}, broken},
	} {
		require.ErrorIs(t, Write(path, c.entries, c.tensors), c.want, name)
		now, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, old, now, name)
	}
}

// split writes a model of three files.
func split(t *testing.T, change func(i int, entries []Entry) []Entry) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for i, names := range [][]string{{"a", "b"}, {"c"}, {"d"}} {
		entries := []Entry{{splitNumber, uint16(i)}, {splitCount, uint16(3)}, {splitTensors, int32(4)}}
		if i == 0 {
			entries = append(entries, Entry{"general.name", "split"})
		}
		if change != nil {
			entries = change(i, entries)
		}
		var tensors []container.Tensor
		for _, name := range names {
			tensors = append(tensors, bytesTensor(name, int(name[0])))
		}
		require.NoError(t, Write(filepath.Join(dir, SplitName("m", i, 3)), entries, tensors))
	}
	return dir
}

func TestSplitFilesReadAsOne(t *testing.T) {
	dir := split(t, nil)
	for i := range 3 { // by whichever file
		set, err := OpenSet(filepath.Join(dir, SplitName("m", i, 3)))
		require.NoError(t, err)
		require.Len(t, set.(*Split).Files(), 3)
		require.Equal(t, "split", set.Metadata().Any("general.name"))
		var names string
		for _, info := range set.Tensors() {
			names += info.Name
			v, err := set.Tensor(info.Name)
			require.NoError(t, err)
			require.Len(t, v.Data, int(info.Name[0]))
			require.True(t, set.Has(info.Name))
		}
		require.Equal(t, "abcd", names)
		_, err = set.Tensor("e")
		require.ErrorIs(t, err, container.ErrTensorMissing)
		require.NoError(t, set.Close())
		_, err = set.Tensor("a")
		require.ErrorIs(t, err, container.ErrClosed)
	}
	f, err := OpenSet("testdata/vectors.gguf")
	require.NoError(t, err)
	require.IsType(t, &File{}, f)
	require.NoError(t, f.Close())
}

func TestSplitFilesThatDoNotBelongTogetherAreRefused(t *testing.T) {
	replaced := func(at int, e Entry) func(int, []Entry) []Entry {
		return func(i int, entries []Entry) []Entry {
			if i == at {
				for k := range entries {
					if entries[k].Key == e.Key {
						entries[k] = e
					}
				}
			}
			return entries
		}
	}
	for name, change := range map[string]func(int, []Entry) []Entry{
		"another number":     replaced(1, Entry{splitNumber, uint16(2)}),
		"another count":      replaced(2, Entry{splitCount, uint16(4)}),
		"too few tensors":    replaced(0, Entry{splitTensors, int32(5)}),
		"a count of no type": replaced(0, Entry{splitCount, "3"}),
		"no files":           replaced(0, Entry{splitCount, uint16(0)}),
		"60000 files":        replaced(0, Entry{splitCount, uint16(60000)}),
		"another name":       replaced(0, Entry{splitCount, uint16(2)}),
	} {
		_, err := OpenSet(filepath.Join(split(t, change), SplitName("m", 0, 3)))
		require.ErrorIs(t, err, container.ErrFormat, name)
	}
	dir := split(t, nil)
	require.NoError(t, Write(filepath.Join(dir, SplitName("m", 2, 3)), []Entry{{splitNumber, uint16(2)}, {splitCount, uint16(3)}},
		[]container.Tensor{bytesTensor("a", 1)}))
	_, err := OpenSet(filepath.Join(dir, SplitName("m", 0, 3)))
	require.ErrorIs(t, err, ErrDuplicate)
	require.NoError(t, os.Remove(filepath.Join(dir, SplitName("m", 2, 3))))
	_, err = OpenSet(filepath.Join(dir, SplitName("m", 0, 3)))
	require.ErrorIs(t, err, ErrSplit)
	require.ErrorContains(t, err, "all 3 files beside each other")
}

func TestAModelIsWrittenIntoFilesOfAtMostSomeBytes(t *testing.T) {
	dir := t.TempDir()
	names := func() (out []string) {
		found, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range found {
			out = append(out, e.Name())
		}
		return out
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, SplitName("other", 0, 2)), nil, 0o644))
	entries := []Entry{{"general.name", "m"}}
	tensors := []container.Tensor{bytesTensor("a", 30), bytesTensor("b", 30), bytesTensor("c", 99), bytesTensor("d", 1)}
	for _, c := range []struct {
		most int64
		want []string
	}{
		{60, []string{"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"}},
		{59, []string{"m-00001-of-00004.gguf", "m-00002-of-00004.gguf", "m-00003-of-00004.gguf", "m-00004-of-00004.gguf"}},
		{160, []string{"m.gguf"}},
		{99, []string{"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"}},
	} {
		got, err := WriteSplit(dir, "m", entries, tensors, c.most)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
		require.Equal(t, append(slices.Clone(c.want), "other-00001-of-00002.gguf"), names())
		set, err := OpenSet(filepath.Join(dir, c.want[0]))
		require.NoError(t, err)
		require.Equal(t, "m", set.Metadata().Any("general.name"))
		require.Len(t, set.Tensors(), 4)
		for _, want := range tensors {
			v, err := set.Tensor(want.Name)
			require.NoError(t, err)
			require.Equal(t, want.Data, v.Data)
		}
		require.NoError(t, set.Close())
	}
	broken := errors.New("broken")
	bad := append(slices.Clone(tensors[1:]), container.Tensor{Name: "a", DType: "I8", Shape: []int{1}, Stream: func(io.Writer) error { return broken }})
	_, err := WriteSplit(dir, "m", entries, bad, 99)
	require.ErrorIs(t, err, broken)
	_, err = OpenSet(filepath.Join(dir, SplitName("m", 1, 3)))
	require.ErrorIs(t, err, ErrSplit, "never parts of two models")

	many := make([]container.Tensor, maxSplits+1)
	for i := range many {
		many[i] = bytesTensor(fmt.Sprint("t", i), 1)
	}
	for _, c := range []struct {
		tensors []container.Tensor
		most    int64
		want    error
	}{{tensors, 0, container.ErrSize}, {many, 1, ErrSplit}, {append(slices.Clone(tensors), tensors[0]), 1, ErrDuplicate}} {
		_, err := WriteSplit(filepath.Join(dir, "new"), "m", entries, c.tensors, c.most)
		require.ErrorIs(t, err, c.want)
	}
	require.Equal(t, "a-b", SplitPrefix("a-b-00001-of-00002.gguf"))
	require.Empty(t, SplitPrefix("a-00001-of-00002.safetensors"))
}

func TestOpeningSomethingThatIsNoFileIsAnError(t *testing.T) {
	_, err := OpenSet(filepath.Join(t.TempDir(), "absent.gguf"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = OpenSet(t.TempDir())
	require.ErrorIs(t, err, container.ErrNotRegular)
}
