package safetensors

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// The attack corpus: one file for each way in which a safetensors file can lie,
// committed so that other readers (the Python package, other tools) can be run
// against it, and regenerated with
//
//	go test ./core/format/safetensors -run TestAttack -update
var update = flag.Bool("update", false, "rewrite the attack corpus in tests_go/testdata/attacks")

const attackDir = "../../../tests_go/testdata/attacks"

// contentOf builds a file from a header text and a number of data bytes.
func contentOf(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range data {
		b = append(b, byte(i))
	}
	return b
}

// withLength replaces the header length that a file states.
func withLength(file []byte, n uint64) []byte {
	binary.LittleEndian.PutUint64(file, n)
	return file
}

// entry renders one tensor entry.
func entry(name, dtype, shape string, begin, end uint64) string {
	return fmt.Sprintf(`%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, name, dtype, shape, begin, end)
}

func object(entries ...string) string { return "{" + strings.Join(entries, ",") + "}" }

var attacks = []struct {
	name    string
	content []byte
	want    error
}{
	{"empty", nil, ErrFileTooShort},
	{"seven_bytes", make([]byte, 7), ErrFileTooShort},
	{"header_length_zero", make([]byte, 8), ErrHeaderJSON},
	{"header_length_past_end", withLength(contentOf("{}", 0), 3), ErrHeaderTruncated},
	{"header_length_100mb", withLength(contentOf("{}", 0), MaxHeader), ErrHeaderTruncated},
	{"header_length_above_100mb", withLength(contentOf("{}", 0), MaxHeader+1), ErrHeaderTooLarge},
	{"header_length_max_uint64", withLength(contentOf("{}", 0), 1<<64-1), ErrHeaderTooLarge},
	{"header_length_wraps_to_small", withLength(contentOf("{}", 0), 1<<64-8), ErrHeaderTooLarge},
	{"header_empty_text", contentOf("", 4), ErrHeaderJSON},
	{"header_leading_space", contentOf(" {}", 0), ErrHeaderJSON},
	{"header_array", contentOf("[]", 0), ErrHeaderJSON},
	{"header_cut_off", contentOf(object(entry("a", F32, "[1]", 0, 4))[:30], 4), ErrHeaderJSON},
	{"header_unclosed", contentOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`, 4), ErrHeaderJSON},
	{"header_text_after_object", contentOf("{} {}", 0), ErrHeaderJSON},
	{"header_nul_padding", contentOf("{}\x00\x00", 0), ErrHeaderJSON},
	{"header_not_utf8", contentOf("{\"\xff\xfe\":1}", 0), ErrHeaderUTF8},
	{"header_bare_key", contentOf("{a:1}", 0), ErrHeaderJSON},
	{"nested_entry", contentOf(`{"a":{"dtype":{"x":1},"shape":[1],"data_offsets":[0,4]}}`, 4), ErrNesting},
	{"nested_shape", contentOf(`{"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}}`, 4), ErrNesting},
	{"nested_shape_deep", contentOf(`{"a":{"dtype":"F32","shape":`+strings.Repeat("[", 15000)+`}}`, 4), ErrNesting},
	{"nested_metadata", contentOf(`{"__metadata__":{"a":{"b":"c"}}}`, 0), ErrNesting},
	{"duplicate_tensor", contentOf(object(entry("a", F32, "[1]", 0, 4), entry("a", F32, "[1]", 4, 8)), 8), ErrDuplicateKey},
	{"duplicate_tensor_escaped", contentOf(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), ErrDuplicateKey},
	{"duplicate_field", contentOf(`{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}`, 4), ErrDuplicateKey},
	{"duplicate_metadata", contentOf(`{"__metadata__":{},"__metadata__":{}}`, 0), ErrDuplicateKey},
	{"duplicate_metadata_key", contentOf(`{"__metadata__":{"a":"1","a":"2"}}`, 0), ErrDuplicateKey},
	{"metadata_number", contentOf(`{"__metadata__":{"a":1}}`, 0), ErrMetadata},
	{"metadata_string", contentOf(`{"__metadata__":"a"}`, 0), ErrMetadata},
	{"entry_number", contentOf(`{"a":1}`, 0), ErrField},
	{"entry_null", contentOf(`{"a":null}`, 0), ErrField},
	{"entry_unknown_field", contentOf(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"stride":[1]}}`, 1), ErrField},
	{"dtype_missing", contentOf(`{"a":{"shape":[1],"data_offsets":[0,4]}}`, 4), ErrField},
	{"dtype_number", contentOf(`{"a":{"dtype":32,"shape":[1],"data_offsets":[0,4]}}`, 4), ErrField},
	{"dtype_unknown", contentOf(object(entry("a", "F128", "[1]", 0, 16)), 16), ErrDType},
	{"dtype_lower_case", contentOf(object(entry("a", "f32", "[1]", 0, 4)), 4), ErrDType},
	{"shape_missing", contentOf(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4), ErrField},
	{"shape_number", contentOf(object(entry("a", F32, "1", 0, 4)), 4), ErrField},
	{"shape_negative", contentOf(object(entry("a", F32, "[-1]", 0, 4)), 4), ErrField},
	{"shape_fraction", contentOf(object(entry("a", F32, "[1.5]", 0, 4)), 4), ErrField},
	{"shape_exponent", contentOf(object(entry("a", F32, "[1e0]", 0, 4)), 4), ErrField},
	{"shape_string", contentOf(object(entry("a", F32, `["1"]`, 0, 4)), 4), ErrField},
	{"shape_above_uint64", contentOf(object(entry("a", F32, "[18446744073709551616]", 0, 4)), 4), ErrField},
	{"shape_above_int64", contentOf(object(entry("a", F32, "[9223372036854775808]", 0, 4)), 4), ErrShape},
	{"shape_product_overflows", contentOf(object(entry("a", F32, "[4294967296,4294967296,4294967296]", 0, 4)), 4), ErrShape},
	{"shape_product_wraps_to_zero", contentOf(object(entry("a", U8, "[4294967296,4294967296]", 0, 0)), 0), ErrShape},
	{"shape_product_wraps_to_four", contentOf(object(entry("a", U8, "[4611686018427387905,4]", 0, 4)), 4), ErrShape},
	{"shape_overflow_behind_zero", contentOf(object(entry("a", U8, "[0,9223372036854775807,9223372036854775807]", 0, 0)), 0), ErrShape},
	{"shape_half_byte", contentOf(object(entry("a", F4, "[3]", 0, 1)), 1), ErrShape},
	{"offsets_missing", contentOf(`{"a":{"dtype":"F32","shape":[1]}}`, 4), ErrField},
	{"offsets_one", contentOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}}`, 4), ErrField},
	{"offsets_three", contentOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}`, 4), ErrField},
	{"offsets_negative", contentOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4), ErrField},
	{"offsets_reversed", contentOf(object(entry("a", F32, "[1]", 4, 0)), 4), ErrOffsets},
	{"offsets_max_uint64", contentOf(object(entry("a", F32, "[1]", 1<<64-5, 1<<64-1)), 4), ErrOutOfBounds},
	{"offsets_past_end", contentOf(object(entry("a", F32, "[2]", 0, 8)), 4), ErrOutOfBounds},
	{"offsets_huge", contentOf(object(entry("a", U8, "[1099511627776]", 0, 1<<40)), 4), ErrOutOfBounds},
	{"size_too_small", contentOf(object(entry("a", F32, "[2]", 0, 4)), 4), container.ErrSize},
	{"size_too_large", contentOf(object(entry("a", F32, "[1]", 0, 8)), 8), container.ErrSize},
	{"size_of_scalar", contentOf(object(entry("a", F32, "[]", 0, 0)), 0), container.ErrSize},
	{"overlap_same_bytes", contentOf(object(entry("a", F32, "[1]", 0, 4), entry("b", F32, "[1]", 0, 4)), 4), ErrOverlap},
	{"overlap_partial", contentOf(object(entry("a", F32, "[2]", 0, 8), entry("b", F32, "[2]", 4, 12)), 12), ErrOverlap},
	{"overlap_inside", contentOf(object(entry("a", F32, "[4]", 0, 16), entry("b", F32, "[1]", 4, 8)), 16), ErrOverlap},
	{"hole_at_start", contentOf(object(entry("a", F32, "[1]", 4, 8)), 8), ErrHole},
	{"hole_between", contentOf(object(entry("a", F32, "[1]", 0, 4), entry("b", F32, "[1]", 8, 12)), 12), ErrHole},
	{"hole_under_empty_tensor", contentOf(object(entry("a", F32, "[0]", 4, 4)), 4), ErrHole},
	{"trailing_bytes", contentOf(object(entry("a", F32, "[1]", 0, 4)), 5), ErrTrailing},
	{"trailing_bytes_without_tensors", contentOf("{}", 16), ErrTrailing},
	{"truncated_data", contentOf(object(entry("a", F32, "[1024]", 0, 4096)), 4095), ErrOutOfBounds},
	{"many_tensors_same_bytes", contentOf(object(manyEntries(100)...), 4), ErrOverlap},
}

func manyEntries(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = entry(fmt.Sprint(i), F32, "[1]", 0, 4)
	}
	return out
}

func TestAttackFilesAreRefusedEachWithItsOwnError(t *testing.T) {
	if *update {
		require.NoError(t, os.MkdirAll(attackDir, 0o755))
	}
	for _, a := range attacks {
		path := filepath.Join(attackDir, a.name+".safetensors")
		if *update {
			require.NoError(t, os.WriteFile(path, a.content, 0o644))
		}
		committed, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(a.content), string(committed), "%s differs from its recipe; run with -update", a.name)
		require.Less(t, len(committed), 20<<10)

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
}

func TestTheAttackFolderHoldsNothingUntested(t *testing.T) {
	entries, err := os.ReadDir(attackDir)
	require.NoError(t, err)
	require.Len(t, entries, len(attacks))
}

func FuzzOpen(f *testing.F) {
	for _, a := range attacks {
		f.Add(a.content)
	}
	f.Add(contentOf("{}", 0))
	f.Add(contentOf(object(entry("a", F32, "[1]", 0, 4), entry("b", U8, "[2,3]", 4, 10))+"   ", 10))
	f.Add(contentOf(object(`"__metadata__":{"format":"pt"}`, entry("a", BF16, "[]", 0, 2), entry("z", F64, "[0,5]", 2, 2)), 2))
	f.Fuzz(func(t *testing.T, content []byte) {
		file, err := OpenBytes("fuzz", content)
		if err != nil {
			require.ErrorIs(t, err, container.ErrFormat)
			return
		}
		var again []container.Tensor
		total := 0
		for _, info := range file.Tensors() {
			v, err := file.Tensor(info.Name)
			require.NoError(t, err)
			total += len(v.Data)
			bits, ok := DTypeBits(v.DType)
			require.True(t, ok)
			require.Equal(t, len(v.Data)*8, v.Elements()*bits)
			if info.Name != "" {
				again = append(again, container.Tensor{Name: v.Name, DType: v.DType, Shape: v.Shape, Data: v.Data})
			}
		}
		require.LessOrEqual(t, total, len(content))
		// What opens can be written, and opens again with the same tensors.
		var b strings.Builder
		require.NoError(t, WriteTo(&b, again, file.Metadata()))
		copied, err := OpenBytes("copy", []byte(b.String()))
		require.NoError(t, err)
		for _, w := range again {
			v, err := copied.Tensor(w.Name)
			require.NoError(t, err)
			require.Equal(t, w.Data, v.Data)
			require.Equal(t, w.Shape, v.Shape)
		}
	})
}
