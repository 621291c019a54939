package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

func write(t require.TestingT, path string, tensors []container.Tensor, meta map[string]string) {
	require.NoError(t, Write(path, tensors, meta))
}

func u8(name string, n int) container.Tensor {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i*7 + len(name))
	}
	return container.Tensor{Name: name, DType: U8, Shape: []int{n}, Data: data}
}

func TestWrittenTensorsReadBackInOrderWithMetadata(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	meta := map[string]string{"format": "pt", "quote\"<&>": "line\nbreak ü"}
	tensors := []container.Tensor{
		{Name: "z", DType: F32, Shape: []int{2, 1}, Data: make([]byte, 8)},
		{Name: "scalar", DType: BF16, Data: []byte{1, 2}},
		{Name: "empty", DType: I64, Shape: []int{0, 7}},
		{Name: "<a>/\"ü\"", DType: U8, Shape: []int{3}, Data: []byte("xyz")},
		{Name: "fp4", DType: F4, Shape: []int{2, 3}, Data: []byte("123")},
	}
	write(t, path, tensors, meta)
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, path, f.Path())
	require.Equal(t, meta, f.Metadata())
	for _, want := range tensors {
		require.True(t, f.Has(want.Name))
		v, err := f.Tensor(want.Name)
		require.NoError(t, err)
		require.Equal(t, want.DType, v.DType)
		require.Equal(t, string(want.Data), string(v.Data))
		require.Equal(t, append([]int{}, want.Shape...), v.Shape)
		require.Equal(t, path, v.Path())
	}
	var names []string
	for _, info := range f.Tensors() {
		names = append(names, info.Name)
	}
	require.Equal(t, []string{"z", "empty", "scalar", "<a>/\"ü\"", "fp4"}, sortedLikeOffsets(names))
	require.Equal(t, int64(0), f.Tensors()[0].Offset)
}

// sortedLikeOffsets moves the zero-size tensor, whose place among tensors of
// the same offset is its name's, to where the test expects it.
func sortedLikeOffsets(names []string) []string {
	out := []string{}
	for _, n := range names {
		if n != "empty" {
			out = append(out, n)
			if n == "z" {
				out = append(out, "empty")
			}
		}
	}
	return out
}

func TestWrittenDataStartsAtACacheLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	for i := range 70 {
		write(t, path, []container.Tensor{u8(strings.Repeat("n", i+1), 5)}, nil)
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Zero(t, (8+binary.LittleEndian.Uint64(content))%64)
		require.Len(t, content, int(8+binary.LittleEndian.Uint64(content))+5)
	}
}

func TestAnyTensorsSurviveAWriteAndRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringN(1, 12, -1), 0, 6, rapid.ID[string]).Draw(t, "names")
		var tensors []container.Tensor
		for _, name := range names {
			dtype := rapid.SampledFrom([]string{U8, I8, F16, BF16, F32, F64, I64, Bool, C64, F8E4M3}).Draw(t, "dtype")
			shape := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 3).Draw(t, "shape")
			size, err := Size(container.Tensor{Name: name, DType: dtype, Shape: shape})
			require.NoError(t, err)
			data := rapid.SliceOfN(rapid.Byte(), int(size), int(size)).Draw(t, "data")
			one := container.Tensor{Name: name, DType: dtype, Shape: shape, Data: data}
			if rapid.Bool().Draw(t, "stream") {
				one.Data, one.Stream = nil, func(w io.Writer) error { return writeBytewise(w, data) }
			}
			tensors = append(tensors, one)
			tensors[len(tensors)-1].Data = data
		}
		meta := rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "metadata")
		var b bytes.Buffer // without the disk: flushing hundreds of files takes seconds
		require.NoError(t, WriteTo(&b, tensors, meta))
		f, err := OpenBytes("any", b.Bytes())
		require.NoError(t, err)
		require.Equal(t, meta, f.Metadata())
		require.Len(t, f.Tensors(), len(tensors))
		for _, want := range tensors {
			v, err := f.Tensor(want.Name)
			require.NoError(t, err)
			require.Equal(t, string(want.Data), string(v.Data))
		}
	})
}

func writeBytewise(w io.Writer, data []byte) error {
	for i := range data {
		if _, err := w.Write(data[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

func TestByAlignmentPutsWideDTypesFirst(t *testing.T) {
	tensors := []container.Tensor{{Name: "a", DType: U8}, {Name: "b", DType: BF16}, {Name: "c", DType: F32}, {Name: "d", DType: U8}, {Name: "e", DType: I64}}
	ByAlignment(tensors)
	var order string
	for _, x := range tensors {
		order += x.Name
	}
	require.Equal(t, "ecbad", order)
}

func TestTheWriterRefusesWhatItCouldNotReadBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.safetensors")
	stream := func(n int) func(io.Writer) error {
		return func(w io.Writer) error { return writeBytewise(w, make([]byte, n)) }
	}
	for name, c := range map[string]struct {
		tensors []container.Tensor
		meta    map[string]string
		want    error
	}{
		"a name twice":           {[]container.Tensor{u8("a", 1), u8("a", 1)}, nil, ErrDuplicateKey},
		"no name":                {[]container.Tensor{u8("", 1)}, nil, ErrName},
		"the reserved name":      {[]container.Tensor{u8("__metadata__", 1)}, nil, ErrName},
		"a name not UTF-8":       {[]container.Tensor{u8("\xff", 1)}, nil, ErrName},
		"metadata not UTF-8":     {nil, map[string]string{"a": "\xff"}, ErrMetadata},
		"an unknown dtype":       {[]container.Tensor{{Name: "a", DType: "F128"}}, nil, ErrDType},
		"a negative dimension":   {[]container.Tensor{{Name: "a", DType: U8, Shape: []int{-1}}}, nil, ErrShape},
		"an overflowing shape":   {[]container.Tensor{{Name: "a", DType: U8, Shape: []int{1 << 40, 1 << 40}}}, nil, ErrShape},
		"data too short":         {[]container.Tensor{{Name: "a", DType: U8, Shape: []int{2}, Data: []byte{1}}}, nil, container.ErrSize},
		"a stream that is short": {[]container.Tensor{{Name: "a", DType: U8, Shape: []int{2}, Stream: stream(1)}}, nil, container.ErrSize},
		"a stream that is long":  {[]container.Tensor{{Name: "a", DType: U8, Shape: []int{2}, Stream: stream(3)}}, nil, container.ErrSize},
		"a header above 100 MB":  {nil, map[string]string{"a": strings.Repeat("x", MaxHeader)}, ErrHeaderTooLarge},
	} {
		require.ErrorIs(t, Write(path, c.tensors, c.meta), c.want, name)
		require.ErrorIs(t, WriteTo(io.Discard, c.tensors, c.meta), c.want, name)
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, entries, name)
	}
	boom := errors.New("boom")
	failing := []container.Tensor{{Name: "a", DType: U8, Shape: []int{2}, Stream: func(io.Writer) error { return boom }}}
	require.ErrorIs(t, Write(path, failing, nil), boom)
	require.ErrorIs(t, WriteTo(brokenWriter{0, boom}, nil, nil), boom)
	require.ErrorIs(t, WriteTo(&brokenWriter{1, boom}, []container.Tensor{u8("a", 1)}, nil), boom)
}

// brokenWriter fails after a number of writes.
type brokenWriter struct {
	good int
	err  error
}

func (b brokenWriter) Write([]byte) (int, error) { return 0, b.err }

func TestErrorsNameFileTensorFieldFoundAndExpected(t *testing.T) {
	_, err := OpenBytes("dir/x.safetensors", contentOf(object(entry("layer.weight", F32, "[2,3]", 0, 8)), 8))
	require.EqualError(t, err, `byte size does not follow from shape and dtype: dir/x.safetensors: tensor "layer.weight": data_offsets: found [0, 8]: 8 bytes, expected 24 bytes for shape [2 3] of F32`)
	long := strings.Repeat("n", 5000)
	_, err = OpenBytes("x", contentOf(object(entry(long, "F128", "[1]", 0, 4)), 4))
	require.ErrorIs(t, err, ErrDType)
	require.Less(t, len(err.Error()), 700)
}

func TestOpeningSomethingThatIsNoFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(filepath.Join(dir, "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(dir)
	require.ErrorIs(t, err, container.ErrNotRegular)
	for _, name := range []string{"absent", ""} {
		_, err = OpenSet(filepath.Join(dir, name))
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}

func TestParsingAllocatesInProportionToTheFileAlone(t *testing.T) {
	for _, a := range attacks {
		allocated := bytesAllocated(func() { _, _ = OpenBytes(a.name, a.content) })
		require.Less(t, allocated, uint64(64<<10+64*len(a.content)), a.name)
	}
}

func bytesAllocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAViewChecksItsShapeAndDType(t *testing.T) {
	f, err := OpenBytes("x", contentOf(object(entry("a", F32, "[2,3]", 0, 24)), 24))
	require.NoError(t, err)
	v, err := f.Tensor("a")
	require.NoError(t, err)
	require.NoError(t, v.Check([]int{2, 3}, BF16, F32))
	require.NoError(t, v.Check([]int{-1, 3}))
	for _, err := range []error{v.Check([]int{2, 3}, BF16), v.Check([]int{3, 2}), v.Check([]int{6}), v.Check([]int{2, 3, 1})} {
		require.ErrorIs(t, err, container.ErrMismatch)
		require.ErrorContains(t, err, `x: tensor "a"`)
	}
	_, err = f.Tensor("b")
	require.ErrorIs(t, err, container.ErrTensorMissing)
	require.False(t, f.Has("b"))
	require.NoError(t, v.ReleasePages(), "memory that is no mapping has no pages to release")
	require.Empty(t, f.Metadata())
}

func TestAfterCloseEveryUseIsAnErrorAndTheListRemains(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	write(t, path, []container.Tensor{u8("a", 10)}, nil)
	f, err := Open(path)
	require.NoError(t, err)
	v, err := f.Tensor("a")
	require.NoError(t, err)
	require.NoError(t, v.Advise(container.WillNeed))
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	_, err = f.Tensor("a")
	require.ErrorIs(t, err, container.ErrClosed)
	require.ErrorContains(t, err, path)
	require.ErrorIs(t, v.Advise(container.WillNeed), container.ErrClosed)
	require.ErrorIs(t, v.ReleasePages(), container.ErrClosed)
	require.Len(t, f.Tensors(), 1)
}

func TestAFileMayBeReadAndClosedFromManyGoroutines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	write(t, path, []container.Tensor{u8("a", 10000)}, nil)
	f, err := Open(path)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				v, err := f.Tensor("a")
				if errors.Is(err, container.ErrClosed) {
					return
				}
				_ = v.ReleasePages()
			}
		}()
	}
	require.NoError(t, f.Close())
	wg.Wait()
}

func TestAViewOfAnotherFileCannotBeReleased(t *testing.T) {
	dir := t.TempDir()
	var files []*File
	for i := range 2 {
		path := filepath.Join(dir, fmt.Sprint(i))
		write(t, path, []container.Tensor{u8("a", 10)}, nil)
		f, err := Open(path)
		require.NoError(t, err)
		defer f.Close()
		files = append(files, f)
	}
	v, err := files[0].Tensor("a")
	require.NoError(t, err)
	require.ErrorIs(t, files[1].ReleasePages(v.Data), container.ErrMismatch)
	for _, a := range []container.Advice{container.WillNeed, container.Sequential, container.Random} {
		require.NoError(t, v.Advise(a))
	}
}

func TestWriteToAndWriteGiveTheSameBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	tensors, meta := []container.Tensor{u8("a", 100), u8("b", 3)}, map[string]string{"k": "v"}
	write(t, path, tensors, meta)
	var b bytes.Buffer
	require.NoError(t, WriteTo(&b, tensors, meta))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, content, b.Bytes())
}

func TestEveryNamedDTypeHasAWidth(t *testing.T) {
	require.Len(t, DTypes(), 22)
	for _, name := range DTypes() {
		bits, ok := DTypeBits(name)
		require.True(t, ok)
		require.Contains(t, []int{4, 6, 8, 16, 32, 64}, bits)
	}
	_, ok := DTypeBits("f32")
	require.False(t, ok)
}

func TestAHeaderThatCostsMoreThanAModelsIsRefused(t *testing.T) {
	repeat := func(open, item, end string) string {
		return open + strings.TrimSuffix(strings.Repeat(item+",", (6<<20)/len(item)), ",") + end
	}
	var entries []string
	for i := range 50_000 {
		entries = append(entries, entry(fmt.Sprint(i), U8, "[0]", 0, 0))
	}
	for name, c := range map[string]struct {
		text string
		want error
		says string
	}{
		"dimensions": {repeat(`{"t":{"dtype":"U8","shape":[`, "1", `],"data_offsets":[0,1]}}`), ErrHeaderJSON, "4194304 bytes without an end"},
		"numbers":    {repeat(`{"t":{"dtype":"U8","data_offsets":[`, "1", `]}}`), ErrHeaderJSON, "4194304 bytes without an end"},
		"a name":     {`{"` + strings.Repeat("n", 6<<20) + `":{}}`, ErrHeaderJSON, "4194304 bytes without an end at byte 1"},
		"an escaped": {`{"` + strings.Repeat(`\"`, 6<<20) + `":{}}`, ErrHeaderJSON, "4194304 bytes without an end at byte 1"},
		"spaces":     {"{" + strings.Repeat(" ", 6<<20) + "}", ErrHeaderJSON, "4194304 bytes without an end at byte 0"},
		"tensors":    {object(entries...), ErrHeaderTooLarge, "JSON tokens"},
	} {
		_, err := OpenBytes(name, contentOf(c.text, 0))
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, c.says, name)
	}
	_, err := OpenBytes("padding", contentOf("{}"+strings.Repeat(" ", 6<<20), 0))
	require.NoError(t, err)
}
