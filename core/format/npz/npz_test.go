package npz

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"codeberg.org/sbinet/npyio/npy"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func array[T Element](t require.TestingT, data []T, shape ...int) Array {
	a, err := New(data, shape...)
	require.NoError(t, err)
	return a
}

// npyFile builds an npy file from parts that may lie.
func npyFile(version byte, header string, data string) []byte {
	b := append([]byte("\x93NUMPY"), version, 0)
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return append(append(b, header...), data...)
}

func read(content []byte) (map[string]Array, error) {
	return Read(bytes.NewReader(content), int64(len(content)), 1<<20)
}

func TestSavedArraysLoadBackEqualInEveryDTypeAndRank(t *testing.T) {
	dir := t.TempDir()
	arrays := map[string]Array{
		"bool": array(t, []bool{true, false}, 2), "i8": array(t, []int8{-128, 127, 0}, 1, 3), "u8": array(t, []uint8{255}),
		"i16": array(t, []int16{-5}, 1), "u16": array(t, []uint16{65535}, 1, 1, 1), "i32": array(t, []int32{}, 0, 7),
		"u32": array(t, []uint32{1 << 31}, 1), "i64": array(t, []int64{-1 << 63}, 1), "u64": array(t, []uint64{1<<64 - 1}, 1),
		"f32": array(t, []float32{1, 2, 3, 4, 5, 6}, 1, 2, 3), "f64": array(t, []float64{0.1}, 1),
		"f16": {DType: "float16", Shape: []int{2}, data: []byte{0, 0x3c, 0, 0x40}},
	}
	for name, save := range map[string]func(string, map[string]Array) error{"stored.npz": Save, "deflated.npz": SaveCompressed} {
		path := filepath.Join(dir, name)
		require.NoError(t, save(path, arrays))
		got, err := Load(path)
		require.NoError(t, err)
		require.Len(t, got, len(arrays))
		for key, want := range arrays {
			require.Equal(t, want.DType, got[key].DType, key)
			require.ElementsMatch(t, want.Shape, got[key].Shape, key)
			require.Equal(t, string(want.Bytes()), string(got[key].Bytes()), key)
		}
		bits, err := got["f16"].Float16Bits()
		require.NoError(t, err)
		require.Equal(t, []uint16{0x3c00, 0x4000}, bits)
	}
}

func TestASavedVectorIsReadableByNpyio(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npy")
	require.NoError(t, SaveArray(path, array(t, []float32{1, -2, 3.5}, 3)))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	var got []float32
	require.NoError(t, npy.Read(bytes.NewReader(content), &got))
	require.Equal(t, []float32{1, -2, 3.5}, got)
	loaded, err := Load(path)
	require.NoError(t, err)
	values, err := loaded[""].Float32s()
	require.NoError(t, err)
	require.Equal(t, got, values)
}

func TestAnyFloatArraySurvivesASaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npz")
	rapid.Check(t, func(t *rapid.T) {
		shape := rapid.SliceOfN(rapid.IntRange(0, 5), 0, 4).Draw(t, "shape")
		n, _ := elements(shape)
		data := rapid.SliceOfN(rapid.Float32(), n, n).Draw(t, "data")
		require.NoError(t, Save(path, map[string]Array{"x": array(t, data, shape...)}))
		got, err := Load(path)
		require.NoError(t, err)
		values, err := got["x"].Float32s()
		require.NoError(t, err)
		require.Equal(t, data, values)
	})
}

func TestFortranOrderAndBigEndianArriveRowMajorLittleEndian(t *testing.T) {
	// numpy.asfortranarray([[1, 2, 3], [4, 5, 6]]).astype(">i2")
	got, err := read(npyFile(1, "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n", "\x00\x01\x00\x04\x00\x02\x00\x05\x00\x03\x00\x06"))
	require.NoError(t, err)
	values, err := Values[int16](got[""])
	require.NoError(t, err)
	require.Equal(t, []int16{1, 2, 3, 4, 5, 6}, values)
}

func TestHeaderVersionsTwoAndThreeLoad(t *testing.T) {
	for _, version := range []byte{2, 3} {
		got, err := read(npyFile(version, "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n", "\x07\x08"))
		require.NoError(t, err)
		values, err := got[""].Uint8s()
		require.NoError(t, err)
		require.Equal(t, []uint8{7, 8}, values)
	}
}

func TestElementsAreNeverConvertedSilently(t *testing.T) {
	a := array(t, []int8{1}, 1)
	_, err := a.Float32s()
	require.ErrorIs(t, err, ErrDType)
	_, err = a.Int32s()
	require.ErrorIs(t, err, ErrDType)
	_, err = a.Int64s()
	require.ErrorIs(t, err, ErrDType)
	_, err = a.Float16Bits()
	require.ErrorIs(t, err, ErrDType)
	values, err := a.Int8s()
	require.NoError(t, err)
	require.Equal(t, []int8{1}, values)
	require.Equal(t, 0, Array{}.Len())
	require.ErrorIs(t, SaveArray(filepath.Join(t.TempDir(), "a"), Array{DType: "complex64"}), ErrDType)
}

func TestNewRefusesAShapeThatDoesNotFit(t *testing.T) {
	for _, shape := range [][]int{{2}, {-1}, {1 << 40, 1 << 40}, {0}} {
		_, err := New([]float32{1}, shape...)
		require.ErrorIs(t, err, ErrFormat)
	}
}

func TestALyingArrayIsATypedErrorAndCostsNoMemory(t *testing.T) {
	good := "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n"
	for name, c := range map[string]struct {
		content []byte
		want    error
	}{
		"empty file":               {nil, ErrFormat},
		"magic only":               {[]byte("\x93NUMPY"), ErrFormat},
		"not numpy":                {[]byte("hello, this is text"), ErrFormat},
		"unknown version":          {npyFile(9, good, "abcd"), ErrFormat},
		"version 2 cut off":        {[]byte("\x93NUMPY\x02\x00\x00\x00"), ErrFormat},
		"header length 4 GiB":      {append([]byte("\x93NUMPY\x02\x00"), 0xff, 0xff, 0xff, 0xff), ErrFormat},
		"header runs past the end": {[]byte("\x93NUMPY\x01\x00\xff\x00{"), ErrFormat},
		"header without newline":   {npyFile(1, "{}", ""), ErrFormat},
		"header keys reordered":    {npyFile(1, "{'shape': (1,), 'fortran_order': False, 'descr': '<f4', }\n", "abcd"), ErrFormat},
		"header without keys":      {npyFile(1, "{'a': 1, }\n", ""), ErrFormat},
		"order is no boolean":      {npyFile(1, strings.Replace(good, "False", "Maybe", 1), "abcd"), ErrFormat},
		"negative dimension":       {npyFile(1, strings.Replace(good, "1,", "-1,", 1), "abcd"), ErrFormat},
		"shape overflows":          {npyFile(1, strings.Replace(good, "1,", "4294967296, 4294967296", 1), "abcd"), ErrFormat},
		"shape larger than data":   {npyFile(1, strings.Replace(good, "1,", "3,", 1), "abcd"), ErrFormat},
		"shape smaller than data":  {npyFile(1, good, "abcdefgh"), ErrFormat},
		"shape above the limit":    {npyFile(1, strings.Replace(good, "1,", "99999999,", 1), "abcd"), ErrTooBig},
		"objects":                  {npyFile(1, strings.Replace(good, "<f4", "|O", 1), "abcd"), ErrDType},
		"complex numbers":          {npyFile(1, strings.Replace(good, "<f4", "<c8", 1), "abcdabcd"), ErrDType},
	} {
		_, err := read(c.content)
		require.ErrorIs(t, err, c.want, name)
	}
}

// archive stores one entry with sizes that may lie.
func archive(t *testing.T, h zip.FileHeader, content []byte, times int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for range times {
		entry := h
		f, err := w.CreateRaw(&entry)
		require.NoError(t, err)
		_, err = f.Write(content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestALyingArchiveIsATypedError(t *testing.T) {
	content := npyFile(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", "abcd")
	n := uint64(len(content))
	for name, c := range map[string]struct {
		header zip.FileHeader
		times  int
	}{
		"entry claims a thousandfold":    {zip.FileHeader{Name: "a.npy", Method: zip.Deflate, CompressedSize64: n, UncompressedSize64: 1 << 40}, 1},
		"stored entry claims more":       {zip.FileHeader{Name: "a.npy", CompressedSize64: n, UncompressedSize64: n + 8}, 1},
		"checksum is wrong":              {zip.FileHeader{Name: "a.npy", CompressedSize64: n, UncompressedSize64: n, CRC32: 1}, 1},
		"unknown compression":            {zip.FileHeader{Name: "a.npy", Method: 99, CompressedSize64: n, UncompressedSize64: n}, 1},
		"deflated bytes are not deflate": {zip.FileHeader{Name: "a.npy", Method: zip.Deflate, CompressedSize64: n, UncompressedSize64: n}, 1},
	} {
		_, err := read(archive(t, c.header, content, c.times))
		require.ErrorIs(t, err, ErrFormat, name)
	}
}

func TestAnArchiveMayNotNameAnArrayTwiceNorExceedTheLimitInSum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npz")
	big := array(t, make([]float32, 1000), 1000)
	require.NoError(t, SaveCompressed(path, map[string]Array{"a": big, "b": big}))
	_, err := LoadLimit(path, 7999)
	require.ErrorIs(t, err, ErrTooBig)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, `"b"`)
	_, err = LoadLimit(path, 8000)
	require.NoError(t, err)

	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for range 2 {
		entry, err := w.Create("a.npy")
		require.NoError(t, err)
		require.NoError(t, writeArray(entry, big))
	}
	require.NoError(t, w.Close())
	_, err = read(b.Bytes())
	require.ErrorIs(t, err, ErrFormat)
}

func TestAMissingFileKeepsTheSystemsError(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "absent.npz"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzRead(f *testing.F) {
	f.Add(npyFile(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", "abcd"))
	f.Add(npyFile(2, "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n", "abcdefghijkl"))
	f.Fuzz(func(t *testing.T, content []byte) {
		arrays, err := read(content)
		if err != nil {
			return
		}
		for _, a := range arrays {
			n, ok := elements(a.Shape)
			if !ok || n != a.Len() {
				t.Fatalf("shape %v with %d elements", a.Shape, a.Len())
			}
		}
	})
}
