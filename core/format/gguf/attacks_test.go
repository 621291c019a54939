package gguf

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// The attack corpus: one file for each way in which a GGUF file can lie, committed so that other readers can be run against
// it, and regenerated with
//
//	go test ./core/format/gguf -run TestAttack -update
var update = flag.Bool("update", false, "rewrite the attack corpus in tests_go/testdata/attacks_gguf")

const attackDir = "../../../tests_go/testdata/attacks_gguf"

// raw builds a file from its parts: numbers with their widths, and strings with their lengths.
func raw(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = binary.LittleEndian.AppendUint64(b, uint64(len(p)))
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		case uint8:
			b = append(b, p)
		case uint32:
			b = binary.LittleEndian.AppendUint32(b, p)
		case uint64:
			b = binary.LittleEndian.AppendUint64(b, p)
		default:
			panic(fmt.Sprintf("%T", p))
		}
	}
	return b
}

func head(tensors, entries uint64) []byte { return raw([]byte(magic), uint32(3), tensors, entries) }

// one is a file with one metadata entry.
func one(parts ...any) []byte { return slices.Concat(head(0, 1), raw(parts...), make([]byte, 64)) }

// tensors is a file with tensors, described as name, dimensions, type, offset, and bytes of data.
func tensors(data int, descriptions ...[]byte) []byte {
	b := slices.Concat(head(uint64(len(descriptions)), 0), slices.Concat(descriptions...))
	b = append(b, make([]byte, pad(int64(len(b))))...)
	return append(b, make([]byte, data)...)
}

func describe(name string, dims []uint64, dtype uint32, offset uint64) []byte {
	b := raw(name, uint32(len(dims)))
	for _, d := range dims {
		b = raw(b, d)
	}
	return raw(b, dtype, offset)
}

const i8 = uint32(24)

func nested(depth int) []byte {
	b := raw("k", uint32(typeArray))
	for range depth {
		b = raw(b, uint32(typeArray), uint64(1))
	}
	return raw(b, uint32(typeUint8), uint64(1), uint8(7))
}

var attacks = []struct {
	name    string
	content []byte
	want    error
}{
	{"empty", nil, ErrMagic},
	{"magic_cut", []byte("GGU"), ErrMagic},
	{"magic_ggjt", append([]byte("tjgg"), make([]byte, 64)...), ErrMagic},
	{"magic_zip", append([]byte("PK\x03\x04"), make([]byte, 64)...), ErrMagic},
	{"version_missing", []byte(magic), ErrTruncated},
	{"version_0", raw([]byte(magic), uint32(0), uint64(0), uint64(0)), ErrVersion},
	{"version_1", raw([]byte(magic), uint32(1), uint64(0), uint64(0)), ErrVersion},
	{"version_4", raw([]byte(magic), uint32(4), uint64(0), uint64(0)), ErrVersion},
	{"version_big_endian", raw([]byte(magic), uint32(3<<24), uint64(0), uint64(0)), ErrVersion},
	{"counts_missing", raw([]byte(magic), uint32(3)), ErrTruncated},
	{"tensors_billion", append(head(1_000_000_000, 0), make([]byte, 100)...), ErrCount},
	{"tensors_max_uint64", append(head(1<<64-1, 0), make([]byte, 100)...), ErrCount},
	{"entries_billion", append(head(0, 1_000_000_000), make([]byte, 100)...), ErrCount},
	{"entries_max_uint64", append(head(0, 1<<64-1), make([]byte, 100)...), ErrCount},
	{"entries_missing", head(0, 1), ErrCount},
	{"key_empty", one("", uint32(typeUint8), uint8(1)), ErrKey},
	{"key_length_max_uint64", one(uint64(1<<64-1), uint32(typeUint8), uint8(1)), ErrKey},
	{"key_length_70000", one(strings.Repeat("k", 70000), uint32(typeUint8), uint8(1)), ErrKey},
	{"key_past_end", slices.Concat(head(0, 1), raw(uint64(60000)), make([]byte, 64)), ErrTruncated},
	{"key_not_utf8", one("\xff\xfe", uint32(typeUint8), uint8(1)), ErrKey},
	{"key_twice", slices.Concat(head(0, 2), raw("k", uint32(typeUint8), uint8(1)), raw("k", uint32(typeUint8), uint8(1)), make([]byte, 64)), ErrDuplicate},
	{"value_type_13", one("k", uint32(13), uint8(1)), ErrValue},
	{"value_type_max", one("k", uint32(1<<32-1), uint8(1)), ErrValue},
	{"bool_2", one("k", uint32(typeBool), uint8(2)), ErrValue},
	{"string_length_max_uint64", one("k", uint32(typeString), uint64(1<<64-1)), ErrTruncated},
	{"string_past_end", one("k", uint32(typeString), uint64(1000)), ErrTruncated},
	{"array_type_13", one("k", uint32(typeArray), uint32(13), uint64(1), uint8(1)), ErrValue},
	{"array_billion", one("k", uint32(typeArray), uint32(typeUint8), uint64(1_000_000_000)), ErrCount},
	{"array_length_max_uint64", one("k", uint32(typeArray), uint32(typeFloat64), uint64(1<<64-1)), ErrCount},
	{"array_length_wraps", one("k", uint32(typeArray), uint32(typeFloat64), uint64(1<<61)), ErrCount},
	{"array_of_strings_billion", one("k", uint32(typeArray), uint32(typeString), uint64(1_000_000_000)), ErrCount},
	{"array_of_bools_2", one("k", uint32(typeArray), uint32(typeBool), uint64(1), uint8(2)), ErrValue},
	{"array_of_string_past_end", one("k", uint32(typeArray), uint32(typeString), uint64(1), uint64(1<<40)), ErrTruncated},
	{"array_nested_5", slices.Concat(head(0, 1), nested(5), make([]byte, 64)), ErrNesting},
	{"array_nested_10000", slices.Concat(head(0, 1), nested(10000), make([]byte, 64)), ErrNesting},
	{"alignment_0", one(alignmentKey, uint32(typeUint32), uint32(0)), ErrAlignment},
	{"alignment_7", one(alignmentKey, uint32(typeUint32), uint32(7)), ErrAlignment},
	{"alignment_max", one(alignmentKey, uint32(typeUint32), uint32(1<<31)), ErrAlignment},
	{"alignment_negative", one(alignmentKey, uint32(typeInt32), uint32(1<<32-32)), ErrAlignment},
	{"alignment_string", one(alignmentKey, uint32(typeString), "32"), ErrType},
	{"tensor_cut", slices.Concat(head(1, 0), raw("a", uint32(1)), make([]byte, 8)), ErrTruncated},
	{"tensor_name_empty", tensors(64, describe("", []uint64{8}, i8, 0)), ErrKey},
	{"tensor_name_not_utf8", tensors(64, describe("\xc3\x28", []uint64{8}, i8, 0)), ErrKey},
	{"tensor_twice", tensors(64, describe("a", []uint64{8}, i8, 0), describe("a", []uint64{8}, i8, 32)), ErrDuplicate},
	{"dimensions_5", tensors(64, describe("a", []uint64{1, 1, 1, 1, 1}, i8, 0)), ErrShape},
	{"dimensions_billion", slices.Concat(head(1, 0), raw("a", uint32(1_000_000_000)), make([]byte, 64)), ErrShape},
	{"dimension_0", tensors(64, describe("a", []uint64{8, 0}, i8, 0)), ErrShape},
	{"dimension_max_uint64", tensors(64, describe("a", []uint64{1<<64 - 1}, i8, 0)), ErrShape},
	{"shape_overflows", tensors(64, describe("a", []uint64{1 << 40, 1 << 40}, i8, 0)), ErrShape},
	{"shape_wraps_to_zero", tensors(64, describe("a", []uint64{1 << 32, 1 << 32}, i8, 0)), ErrShape},
	{"shape_part_of_block", tensors(64, describe("a", []uint64{31}, 8, 0)), ErrShape},
	{"shape_size_overflows", tensors(64, describe("a", []uint64{1 << 50}, 28, 0)), ErrShape},
	{"type_4", tensors(64, describe("a", []uint64{8}, 4, 0)), ErrDType},
	{"type_max", tensors(64, describe("a", []uint64{8}, 1<<32-1, 0)), ErrDType},
	{"offset_unaligned", tensors(64, describe("a", []uint64{8}, i8, 8)), ErrOffset},
	{"offset_max_uint64", tensors(64, describe("a", []uint64{8}, i8, 1<<64-32)), ErrBounds},
	{"offset_past_end", tensors(64, describe("a", []uint64{8}, i8, 64)), ErrBounds},
	{"offset_huge", tensors(64, describe("a", []uint64{8}, i8, 1<<49)), ErrBounds},
	{"data_missing", tensors(0, describe("a", []uint64{8}, i8, 0)), ErrBounds},
	{"data_cut", tensors(63, describe("a", []uint64{64}, i8, 0)), ErrBounds},
	{"i2s_without_scale", tensors(32, describe("a", []uint64{128}, 36, 0)), ErrBounds},
	{"overlap_same_bytes", tensors(64, describe("a", []uint64{8}, i8, 0), describe("b", []uint64{8}, i8, 0)), ErrOverlap},
	{"overlap_partial", tensors(96, describe("a", []uint64{64}, i8, 0), describe("b", []uint64{8}, i8, 32)), ErrOverlap},
}

func TestAttackFilesAreRefusedEachWithItsOwnError(t *testing.T) {
	if *update {
		require.NoError(t, os.MkdirAll(attackDir, 0o755))
	}
	for _, a := range attacks {
		path := filepath.Join(attackDir, a.name+".gguf")
		if *update {
			require.NoError(t, os.WriteFile(path, a.content, 0o644))
		}
		committed, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(a.content), string(committed), "%s differs from its recipe; run with -update", a.name)

		f, err := Open(path)
		require.Nil(t, f, a.name)
		require.ErrorIs(t, err, a.want, a.name)
		require.ErrorIs(t, err, container.ErrFormat, a.name)
		var format *container.Error
		require.ErrorAs(t, err, &format, a.name)
		require.Equal(t, path, format.Path, a.name)
		require.NotEmpty(t, format.Field, a.name)
		require.Less(t, len(err.Error()), 1200, a.name)
	}
	entries, err := os.ReadDir(attackDir)
	require.NoError(t, err)
	require.Len(t, entries, len(attacks), "a file in the folder is not tested")
}

func TestParsingAllocatesInProportionToTheFileAlone(t *testing.T) {
	for _, a := range attacks {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = OpenBytes(a.name, a.content)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<10+64*len(a.content)), a.name)
	}
}

func FuzzOpen(f *testing.F) {
	for _, a := range attacks {
		f.Add(a.content)
	}
	vectors, err := os.ReadFile("testdata/vectors.gguf")
	require.NoError(f, err)
	f.Add(vectors[:8<<10])
	f.Add(one("k", uint32(typeArray), uint32(typeArray), uint64(2), uint32(typeString), uint64(1), "x", uint32(typeBool), uint64(1), uint8(1)))
	f.Add(tensors(128, describe("a", []uint64{32}, 8, 0), describe("b", []uint64{2, 3}, 0, 64), describe("c", nil, 1, 96)))
	f.Fuzz(func(t *testing.T, content []byte) {
		file, err := OpenBytes("fuzz", content)
		if err != nil {
			require.ErrorIs(t, err, container.ErrFormat)
			return
		}
		for _, key := range file.Metadata().Keys() {
			require.NotNil(t, file.Metadata().Any(key))
		}
		total := 0
		for _, info := range file.Tensors() {
			v, err := file.Tensor(info.Name)
			require.NoError(t, err)
			total += len(v.Data)
			if Decodes(v.DType) {
				require.NoError(t, Dequantize(make([]float32, v.Elements()), v.DType, v.Data))
			}
		}
		require.LessOrEqual(t, total, len(content))
	})
}
