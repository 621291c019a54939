package gguf

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// testdata/vectors.gguf was written by the Python package gguf, see
// tests_py/record/gguf_vectors.py.
func openVectors(t *testing.T) *File {
	t.Helper()
	f, err := Open("testdata/vectors.gguf")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

func view(t *testing.T, f Set, name string) container.View {
	t.Helper()
	v, err := f.Tensor(name)
	require.NoError(t, err)
	return v
}

func TestEveryTypeDecodesToTheBitsOfThePythonPackage(t *testing.T) {
	f := openVectors(t)
	for _, dtype := range []string{F32, F16, BF16, Q4_0, Q8_0, Q4_K, Q6_K, TQ1_0, TQ2_0} {
		require.True(t, Decodes(dtype))
		v := view(t, f, dtype)
		require.Equal(t, dtype, v.DType)
		require.Equal(t, []int{4, 512}, v.Shape)
		got := make([]float32, v.Elements())
		require.NoError(t, Dequantize(got, dtype, v.Data))
		want := v
		if dtype != F32 {
			want = view(t, f, dtype+".float32")
		}
		for i, x := range got {
			bits := binary.LittleEndian.Uint32(want.Data[4*i:])
			require.Equal(t, bits, math.Float32bits(x), "%s value %d: %v, expected %v", dtype, i, x, math.Float32frombits(bits))
		}
	}
}

func TestTernaryTypesGiveAndTakeCodes(t *testing.T) {
	f := openVectors(t)
	var want []int8
	for _, b := range view(t, f, "codes").Data {
		want = append(want, int8(b))
	}
	got := make([]int8, len(want))
	for _, dtype := range []string{TQ1_0, TQ2_0} {
		v := view(t, f, "codes."+dtype)
		scale, err := Codes(got, dtype, v.Data)
		require.NoError(t, err)
		assert.Equal(t, float32(0.75), scale)
		assert.Equal(t, want, got)
		again := make([]byte, len(v.Data))
		PutCodes(again, dtype, want, 0x3a00) // 0.75
		assert.Equal(t, v.Data, again, dtype)
	}
	for _, layout := range I2SLayouts() {
		v := view(t, f, "codes."+layout)
		scale, err := I2S(got, layout, v.Data, 4, 512)
		require.NoError(t, err)
		assert.Equal(t, float32(0.75), scale)
		assert.Equal(t, want, got, layout)
	}
	x86 := view(t, f, "codes.x86").Data
	again := make([]byte, len(want)/4)
	PutI2SRow(again, want)
	assert.Equal(t, x86, append(again, I2STail(0.75)...))
}

// testdata/iq_bn.gguf has rows that ik_llama.cpp quantized, see tests_py/record/gguf_iq_bn.py.
func TestRowsOfIkLlamaGiveTheCodesThatWentIn(t *testing.T) {
	f, err := Open("testdata/iq_bn.gguf")
	require.NoError(t, err)
	defer f.Close()
	var want []int8
	for _, b := range view(t, f, "codes").Data {
		want = append(want, int8(b))
	}
	for dtype, scale := range map[string]float32{IQ1_BN: 0.054138184, IQ2_BN: 0.054126587} { // a float16, and the scale as it was
		v := view(t, f, dtype)
		require.Equal(t, dtype, v.DType)
		got := make([]int8, len(want))
		found, err := RowCodes(got, dtype, v.Data, v.Shape[1])
		require.NoError(t, err)
		require.Equal(t, scale, found)
		require.Equal(t, want, got, dtype)
		_, err = RowCodes(got, dtype, v.Data[1:], v.Shape[1])
		require.ErrorIs(t, err, ErrDecode)
	}
}

func TestBlocksOfZerosHaveAnyScaleAndOthersHaveOne(t *testing.T) {
	codes := make([]int8, 3*256)
	for i := range codes {
		codes[i] = int8(i%3 - 1)
	}
	for _, dtype := range []string{TQ1_0, TQ2_0} {
		size := dtypes[dtype].bytes
		b := make([]byte, 3*size)
		PutCodes(b, dtype, codes, 0x3c00)
		PutCodes(b[size:], dtype, codes[:256], 0) // a block of scale 0 is zeros, whatever its codes say
		got := make([]int8, len(codes))
		scale, err := Codes(got, dtype, b)
		require.NoError(t, err)
		require.Equal(t, float32(1), scale)
		want := slices.Clone(codes)
		clear(want[256:512])
		require.Equal(t, want, got)

		PutCodes(b[2*size:], dtype, codes[:256], 0x3800)
		_, err = Codes(got, dtype, b)
		require.ErrorIs(t, err, ErrDecode)
		require.ErrorContains(t, err, "scale of block 2: found 0.5, expected 1")
	}
}

func TestBytesThatDoNotFitAreRefused(t *testing.T) {
	require.ErrorIs(t, Dequantize(make([]float32, 32), Q8_0, make([]byte, 33)), ErrDecode)
	require.ErrorIs(t, Dequantize(make([]float32, 31), Q8_0, make([]byte, 34)), ErrDecode)
	require.ErrorIs(t, Dequantize(make([]float32, 256), "Q2_K", make([]byte, 84)), ErrDecode)
	_, err := Codes(make([]int8, 256), Q8_0, make([]byte, 272))
	require.ErrorIs(t, err, ErrDecode)
	_, err = I2S(make([]int8, 128), I2SX86, make([]byte, 63), 1, 128)
	require.ErrorIs(t, err, ErrDecode)
	_, err = I2S(make([]int8, 128), "x87", make([]byte, 64), 1, 128)
	require.ErrorContains(t, err, "one of [x86 arm64 row4]")
	_, err = I2S(make([]int8, 64), I2SX86, make([]byte, 48), 1, 64)
	require.ErrorContains(t, err, "whole blocks of 128 values")
}

func TestMetadataHasTheTypesOfTheFile(t *testing.T) {
	m := openVectors(t).Metadata()
	for key, want := range map[string]any{
		"general.architecture": "bitnet",
		"test.uint8":           uint8(math.MaxUint8), "test.int8": int8(math.MinInt8),
		"test.uint16": uint16(math.MaxUint16), "test.int16": int16(math.MinInt16),
		"test.uint32": uint32(math.MaxUint32), "test.int32": int32(math.MinInt32),
		"test.uint64": uint64(math.MaxUint64), "test.int64": int64(math.MinInt64),
		"test.float32": float32(0.1), "test.float64": 0.1, "test.bool": true, "test.string": "grüße 👋\n",
		"test.strings": []string{"a", "", "ünï"}, "test.ints": []int32{1, -2, 3}, "test.floats": []float32{0.5, -0.25},
		"test.bools": []bool{true, false}, "test.nested": []any{[]int32{1, 2}, []int32{3}},
	} {
		require.Equal(t, want, m.Any(key), key)
		require.Contains(t, m.Keys(), key)
	}
	require.Nil(t, m.Any("absent"))
	require.Equal(t, 3, m.Len("test.strings"))

	n, err := m.Int("test.int16")
	require.NoError(t, err)
	require.Equal(t, math.MinInt16, n)
	x, err := m.Float("test.uint8")
	require.NoError(t, err)
	require.Equal(t, 255.0, x)
	_, err = m.Int("test.uint64")
	require.EqualError(t, err, "gguf: metadata entry has another type: testdata/vectors.gguf: test.uint64: found 18446744073709551615, expected an integer below 2^63")
	_, err = m.Int("test.strings")
	require.ErrorIs(t, err, ErrType)
	_, err = m.String("test.strings")
	require.EqualError(t, err, "gguf: metadata entry has another type: testdata/vectors.gguf: test.strings: found an array of 3 strings, expected a string")
	_, err = m.Bool("absent")
	require.EqualError(t, err, "gguf: no such metadata entry: testdata/vectors.gguf: absent, expected a bool")
	_, err = m.Strings("test.ints")
	require.ErrorIs(t, err, ErrType)
}

func TestDimensionsAreSlowestFirst(t *testing.T) {
	v := view(t, openVectors(t), "three.dimensions")
	require.Equal(t, []int{2, 3, 4}, v.Shape)
	require.Equal(t, "I32", v.DType)
	for i := range 24 {
		require.Equal(t, uint32(i), binary.LittleEndian.Uint32(v.Data[4*i:]))
	}
}

func TestHalvesWidenExactly(t *testing.T) {
	for bits := range 1 << 16 {
		h := []byte{byte(bits), byte(bits >> 8)}
		exponent, fraction := bits>>10&31, float64(bits&0x3ff)
		want := math.Ldexp(1+fraction/1024, exponent-15)
		switch {
		case exponent == 0:
			want = math.Ldexp(fraction, -24)
		case exponent == 31 && fraction == 0:
			want = math.Inf(1)
		case exponent == 31:
			want = math.NaN()
		}
		got := float64(half(h))
		if bits>>15 == 1 {
			want = -want
		}
		require.Equal(t, math.IsNaN(want), math.IsNaN(got))
		if want == want {
			require.Equal(t, math.Float64bits(want), math.Float64bits(got), "%#x", bits)
		}
	}
}
