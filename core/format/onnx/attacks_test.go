package onnx

import (
	"encoding/binary"
	"flag"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/protobuf"
)

// The attack corpus: one file for each way in which an ONNX file can lie, committed so that other readers can be run against it, and
// regenerated with
//
//	go test ./core/format/onnx -run TestAttack -update
var update = flag.Bool("update", false, "rewrite the attack corpus in tests_go/testdata/attacks_onnx")

const attackDir = "../../../tests_go/testdata/attacks_onnx"

// number is a field with an integer.
func number(field int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field)<<3), v)
}

// part is a field with bytes: a text, or a message of fields.
func part(field int, parts ...[]byte) []byte {
	content := slices.Concat(parts...)
	b := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field)<<3|protobuf.Bytes), uint64(len(content)))
	return append(b, content...)
}

func text(field int, s string) []byte { return part(field, []byte(s)) }

// file is a model with a graph of the given fields.
func file(graph ...[]byte) []byte {
	return slices.Concat(number(modelIR, 8), part(modelGraph, graph...))
}

// tensor is an initializer.
func tensor(name string, dtype int64, dims []int64, rest ...[]byte) []byte {
	b := slices.Concat(number(tensorDType, uint64(dtype)), text(tensorName, name))
	for _, d := range dims {
		b = append(b, number(tensorDims, uint64(d))...)
	}
	return part(graphInitializer, append([][]byte{b}, rest...)...)
}

// outside is what follows a tensor whose bytes are in a data file.
func outside(entries ...string) []byte {
	b := number(tensorLocation, 1)
	for i := 0; i < len(entries); i += 2 {
		b = append(b, part(tensorExternal, text(entryKey, entries[i]), text(entryValue, entries[i+1]))...)
	}
	return b
}

const f32, i8 = 1, 3

var good = tensor("w", f32, []int64{2}, part(tensorRaw, make([]byte, 8)))

var attacks = []struct {
	name    string
	content []byte
	want    error
}{
	{"empty", nil, ErrMessage},
	{"zeros", make([]byte, 64), ErrMessage},
	{"text", []byte("this is no model\n"), ErrMessage},
	{"html", []byte("<!DOCTYPE html><html><body>404</body></html>"), ErrMessage},
	{"pickle", []byte("\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."), ErrMessage},
	{"zip", append([]byte("PK\x03\x04"), make([]byte, 60)...), ErrMessage},
	{"tag_cut", []byte{0xff}, ErrMessage},
	{"tag_endless", slices.Repeat([]byte{0xff}, 64), ErrMessage},
	{"field_0", []byte{0x02, 0x00}, ErrMessage},
	{"group", []byte{0x0b, 0x0c}, ErrMessage},
	{"length_past_end", slices.Concat(number(modelIR, 8), []byte{0x3a, 0x7f, 0}), ErrMessage},
	{"length_2_63", slices.Concat(number(modelIR, 8), []byte{0x3a}, binary.AppendUvarint(nil, 1<<63)), ErrMessage},
	{"length_max_uint64", slices.Concat(number(modelIR, 8), []byte{0x3a}, binary.AppendUvarint(nil, math.MaxUint64)), ErrMessage},
	{"truncated", file(good)[:20], ErrMessage},
	{"graph_missing", number(modelIR, 8), ErrMessage},
	{"graph_twice", append(file(good), part(modelGraph, good)...), ErrMessage},
	{"graph_number", slices.Concat(number(modelIR, 8), number(modelGraph, 1)), ErrMessage},
	{"version_missing", part(modelGraph, good), ErrMessage},
	{"version_text", slices.Concat(text(modelIR, "8"), part(modelGraph, good)), ErrMessage},
	{"producer_not_utf8", append(file(good), text(modelProducer, "\xff\xfe")...), ErrText},
	{"metadata_twice", slices.Concat(file(good), part(modelMetadata, text(1, "k"), text(2, "a")), part(modelMetadata, text(1, "k"), text(2, "b"))), ErrDuplicate},
	{"metadata_100000", append(file(good), slices.Repeat(part(modelMetadata, text(1, "")), 100000)...), ErrDuplicate},
	{"nodes_million", file(slices.Repeat(part(graphNode), 1_000_000)), ErrCount},
	{"node_inputs_2_million", file(part(graphNode, slices.Repeat(text(nodeInput, ""), 2_000_000))), ErrCount},
	{"node_name_long", file(part(graphNode, text(nodeName, strings.Repeat("n", 5000)))), ErrText},
	{"node_name_not_utf8", file(part(graphNode, text(nodeName, "\xff"))), ErrText},
	{"attribute_ints_10000", file(part(graphNode, part(nodeAttribute, part(attributeInts, make([]byte, 10000))))), ErrCount},
	{"attributes_of_130000_nodes", file(slices.Repeat(part(graphNode, part(nodeAttribute, number(attributeInt, 1))), 130_000)), ErrCount},
	{"attributes_200000", file(part(graphNode, slices.Repeat(part(nodeAttribute, number(attributeInt, 1)), 200_000))), ErrCount},
	{"inputs_100000", file(slices.Repeat(part(graphInput), 100000)), ErrCount},
	{"input_dim_negative", file(part(graphInput, part(valueType, part(typeTensor, part(tensorTypeShape, part(shapeDim, number(dimValue, math.MaxUint64))))))), ErrShape},
	{"sparse", file(part(graphSparse)), ErrDType},
	{"tensors_100000", file(manyTensors(100000)), ErrCount},
	{"tensor_without_name", file(tensor("", f32, []int64{2}, part(tensorRaw, make([]byte, 8)))), ErrMessage},
	{"tensor_twice", file(good, good), ErrDuplicate},
	{"tensor_type_0", file(tensor("w", 0, []int64{2}, part(tensorRaw, make([]byte, 8)))), ErrDType},
	{"tensor_type_99", file(tensor("w", 99, []int64{2}, part(tensorRaw, make([]byte, 8)))), ErrDType},
	{"dim_negative", file(tensor("w", f32, []int64{-2}, part(tensorRaw, make([]byte, 8)))), ErrShape},
	{"dim_min_int64", file(tensor("w", f32, []int64{math.MinInt64}, part(tensorRaw, make([]byte, 8)))), ErrShape},
	{"dims_negative_twice", file(tensor("w", f32, []int64{-1, -2}, part(tensorRaw, make([]byte, 8)))), ErrShape},
	{"dim_max_int64", file(tensor("w", i8, []int64{math.MaxInt64}, part(tensorRaw, make([]byte, 8)))), ErrShape},
	{"dims_overflow", file(tensor("w", i8, []int64{1 << 40, 1 << 40}, part(tensorRaw, make([]byte, 8)))), ErrShape},
	{"dims_wrap_to_zero", file(tensor("w", i8, []int64{1 << 32, 1 << 32}, part(tensorRaw, make([]byte, 8)))), ErrShape},
	{"dims_17", file(tensor("w", f32, slices.Repeat([]int64{1}, 17), part(tensorRaw, make([]byte, 4)))), ErrCount},
	{"dims_million", file(part(graphInitializer, part(tensorDims, slices.Repeat([]byte{1}, 1_000_000)))), ErrCount},
	{"data_missing", file(tensor("w", f32, []int64{2})), ErrSize},
	{"data_huge_shape", file(tensor("w", f32, []int64{1 << 40}, part(tensorRaw, make([]byte, 8)))), ErrSize},
	{"data_short", file(tensor("w", f32, []int64{2}, part(tensorRaw, make([]byte, 7)))), ErrSize},
	{"data_long", file(tensor("w", f32, []int64{2}, part(tensorRaw, make([]byte, 9)))), ErrSize},
	{"data_number", file(tensor("w", f32, []int64{2}, number(tensorRaw, 8))), ErrMessage},
	{"floats_short", file(tensor("w", f32, []int64{2}, part(tensorFloats, make([]byte, 4)))), ErrSize},
	{"floats_apart", file(tensor("w", f32, []int64{2}, []byte{0x25, 0, 0, 0, 0, 0x25, 0, 0, 0, 0})), ErrSize},
	{"ints_short", file(tensor("w", i8, []int64{2}, part(tensorInts, []byte{1}))), ErrSize},
	{"ints_unfinished", file(tensor("w", i8, []int64{2}, part(tensorInts, []byte{1, 0x80}))), ErrSize},
	{"ints_million_and_one", file(tensor("w", 7, []int64{maxWide + 1}, part(tensorInt64s, make([]byte, maxWide+1)))), ErrSize}, // eight bytes of one
	{"floats_in_ints", file(tensor("w", f32, []int64{2}, part(tensorInts, []byte{1, 1}))), ErrDType},
	{"place_empty", file(tensor("w", f32, []int64{2}, outside())), ErrDataFile},
	{"place_parent", file(tensor("w", f32, []int64{2}, outside("location", "../empty.onnx"))), ErrDataFile},
	{"place_absolute", file(tensor("w", f32, []int64{2}, outside("location", "/etc/passwd"))), ErrDataFile},
	{"place_folder", file(tensor("w", f32, []int64{2}, outside("location", "a/../../b"))), ErrDataFile},
	{"place_backslash", file(tensor("w", f32, []int64{2}, outside("location", `..\empty.onnx`))), ErrDataFile},
	{"place_drive", file(tensor("w", f32, []int64{2}, outside("location", `C:empty.onnx`))), ErrDataFile},
	{"place_nul", file(tensor("w", f32, []int64{2}, outside("location", "empty.onnx\x00.data"))), ErrDataFile},
	{"place_dot", file(tensor("w", f32, []int64{2}, outside("location", "."))), ErrDataFile},
	{"place_nowhere", file(tensor("w", f32, []int64{2}, outside("location", "nowhere.data"))), ErrDataFile},
	{"place_offset_negative", file(tensor("w", f32, []int64{2}, outside("location", "zeros.onnx", "offset", "-8"))), ErrDataFile},
	{"place_offset_max", file(tensor("w", f32, []int64{2}, outside("location", "zeros.onnx", "offset", "9223372036854775807"))), ErrDataFile},
	{"place_offset_past_end", file(tensor("w", f32, []int64{2}, outside("location", "zeros.onnx", "offset", "57"))), ErrDataFile},
	{"place_offset_text", file(tensor("w", f32, []int64{2}, outside("location", "zeros.onnx", "offset", "first"))), ErrDataFile},
	{"place_length_other", file(tensor("w", f32, []int64{2}, outside("location", "zeros.onnx", "length", "4"))), ErrDataFile},
	{"place_too_large", file(tensor("w", f32, []int64{1 << 40}, outside("location", "zeros.onnx"))), ErrDataFile},
}

func manyTensors(n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, tensor(string(rune('a'+i%26))+strings.Repeat("x", i/26%64)+string(rune(0x4e00+i/1664)), i8, []int64{0})...)
	}
	return b
}

// Those of a million of something are made, not stored.
const largestStored = 64 << 10

func TestAttackFilesAreRefusedEachWithItsOwnError(t *testing.T) {
	dir, stored := attackDir, 0
	if *update {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}
	for _, a := range attacks {
		path := filepath.Join(dir, a.name+".onnx")
		if len(a.content) > largestStored {
			path = filepath.Join(t.TempDir(), a.name+".onnx")
			require.NoError(t, os.WriteFile(path, a.content, 0o600))
		} else if stored++; *update {
			require.NoError(t, os.WriteFile(path, a.content, 0o644))
		}
		committed, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, string(a.content) == string(committed), "%s differs from its recipe; run with -update", a.name)

		m, err := Open(path)
		require.Nil(t, m, a.name)
		require.ErrorIs(t, err, a.want, a.name)
		require.ErrorIs(t, err, container.ErrFormat, a.name)
		var format *container.Error
		require.ErrorAs(t, err, &format, a.name)
		require.Equal(t, path, format.Path, a.name)
		require.True(t, format.Field != "" || format.Tensor != "", a.name)
		require.Less(t, len(err.Error()), 1200, a.name)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, stored, "a file in the folder is not tested")
}

func TestNoAttackAllocatesMuch(t *testing.T) {
	for _, a := range attacks {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = OpenBytes(a.name, a.content)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		require.Less(t, used, uint64(1<<20+100*len(a.content)), a.name)
		require.Less(t, used, uint64(100<<20), a.name) // of all that was ever allocated; half of it at a time
	}
}

func TestADataFileLiesBesideTheModel(t *testing.T) {
	write := func(path string, content []byte) {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
	link := func(to, at string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.Symlink(to, at))
	}
	content := file(tensor("w", i8, []int64{4}, outside("location", "data", "offset", "2")))
	root := t.TempDir()
	write(filepath.Join(root, "secret"), []byte("0123456789"))

	plain := filepath.Join(root, "plain")
	write(filepath.Join(plain, "model.onnx"), content)
	write(filepath.Join(plain, "data"), []byte("0123456789"))
	m, err := Open(filepath.Join(plain, "model.onnx"))
	require.NoError(t, err)
	v, err := m.Tensor("w")
	require.NoError(t, err)
	require.Equal(t, "2345", string(v.Data))
	require.Equal(t, filepath.Join(plain, "data"), v.Path())
	require.NoError(t, m.Close())
	_, err = m.Tensor("w")
	require.ErrorIs(t, err, container.ErrClosed)

	cache := filepath.Join(root, "cache") // a hub's: both are links to one folder
	write(filepath.Join(cache, "blobs", "aaaa"), content)
	write(filepath.Join(cache, "blobs", "bbbb"), []byte("0123456789"))
	link("../blobs/aaaa", filepath.Join(cache, "snapshot", "model.onnx"))
	link("../blobs/bbbb", filepath.Join(cache, "snapshot", "data"))
	m, err = Open(filepath.Join(cache, "snapshot", "model.onnx"))
	require.NoError(t, err)
	v, err = m.Tensor("w")
	require.NoError(t, err)
	blob, err := filepath.EvalSymlinks(filepath.Join(cache, "blobs", "bbbb"))
	require.NoError(t, err)
	require.Equal(t, blob, v.Path(), "what was checked is what is open, and not a link that may change")
	require.NoError(t, m.Close())

	for name, lay := range map[string]func(dir string){
		"a link to a file elsewhere": func(dir string) { link("../secret", filepath.Join(dir, "data")) },
		"a link by a whole path":     func(dir string) { link(filepath.Join(root, "secret"), filepath.Join(dir, "data")) },
		"a link to itself":           func(dir string) { link("data", filepath.Join(dir, "data")) },
		"a folder":                   func(dir string) { require.NoError(t, os.MkdirAll(filepath.Join(dir, "data"), 0o755)) },
		"nothing":                    func(dir string) {},
	} {
		dir := filepath.Join(root, "bad "+name)
		write(filepath.Join(dir, "model.onnx"), content)
		lay(dir)
		_, err := Open(filepath.Join(dir, "model.onnx"))
		require.Error(t, err, name)
		require.ErrorContains(t, err, "data", name)
	}
	_, err = OpenBytes("memory", content)
	require.ErrorIs(t, err, ErrDataFile)
}

func TestTensorsAreReadWhereverTheirNumbersAre(t *testing.T) {
	m, err := OpenBytes("memory", slices.Concat(file(
		tensor("raw", f32, []int64{2, 1}, part(tensorRaw, []byte{0, 0, 128, 63, 0, 0, 0, 64})),
		tensor("floats", f32, []int64{2}, part(tensorFloats, []byte{0, 0, 128, 63, 0, 0, 0, 64})),
		tensor("int32s", i8, []int64{3}, part(tensorInts, binary.AppendUvarint([]byte{1, 0}, math.MaxUint64))),
		tensor("bits", 16, []int64{2}, part(tensorInts, []byte{0x80, 0x7f, 0x80, 0x80, 0x01})),
		tensor("two bits", I2Type, []int64{3, 2}, part(tensorRaw, []byte{0b11_01_00_01, 0b0011})),
		tensor("nothing", f32, []int64{0}),
		part(graphNode, text(nodeOp, "Constant"), text(nodeOutput, "constant"),
			part(nodeAttribute, text(attributeName, "value"), part(attributeTensor, number(tensorDType, i8), part(tensorRaw, []byte{7})))),
		part(graphNode, text(nodeName, "/a/MatMul"), text(nodeOp, "Gemm"), text(nodeInput, "x"), text(nodeInput, "raw"), text(nodeOutput, "y"),
			part(nodeAttribute, text(attributeName, "transB"), number(attributeInt, 1))),
		part(graphInput, text(valueName, "x"), part(valueType, part(typeTensor, part(tensorTypeShape, part(shapeDim), part(shapeDim, number(dimValue, 2)))))),
		part(graphInput, text(valueName, "raw")),
		part(graphOutput, text(valueName, "y")),
	), text(modelProducer, "test"), text(modelProducerVersion, "1"), part(modelOpset, number(opsetVersion, 18)),
		part(modelMetadata, text(entryKey, "k"), text(entryValue, "v"))))
	require.NoError(t, err)
	for name, want := range map[string]string{
		"raw": "\x00\x00\x80\x3f\x00\x00\x00\x40", "floats": "\x00\x00\x80\x3f\x00\x00\x00\x40", "int32s": "\x01\x00\xff", "bits": "\x80\x3f\x00\x40",
		"two bits": "\xd1\x03", "nothing": "", "constant": "\x07",
	} {
		v, err := m.Tensor(name)
		require.NoError(t, err)
		require.Equal(t, want, string(v.Data), name)
		require.NoError(t, v.ReleasePages())
	}
	require.Len(t, m.Tensors(), 7)
	require.Equal(t, []Node{{Name: "/a/MatMul", Op: "Gemm", Inputs: []string{"x", "raw"}, Outputs: []string{"y"}, Ints: []Ints{{"transB", []int64{1}}}}}, m.Nodes)
	require.Equal(t, int64(1), m.Nodes[0].Int("transB"))
	require.Zero(t, m.Nodes[0].Int("transA"))
	require.Equal(t, []Value{{Name: "x", Shape: []int{0, 2}}}, m.Inputs, "an initializer is no input")
	require.Equal(t, []Value{{Name: "y"}}, m.Outputs)
	require.Equal(t, "test 1", m.Producer)
	require.Equal(t, 18, m.Opset)
	require.Equal(t, map[string]string{"k": "v"}, m.Metadata)
	_, err = m.Tensor("absent")
	require.ErrorIs(t, err, container.ErrTensorMissing)
}

// FuzzOpen: whatever the bytes, opening ends with tensors that lie in the file, or with an error of a format.
func FuzzOpen(f *testing.F) {
	for _, a := range attacks {
		if len(a.content) <= largestStored {
			f.Add(a.content)
		}
	}
	f.Add(file(good, tensor("b", i8, []int64{2}, part(tensorInts, []byte{1, 2}))))
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := OpenBytes("fuzz", content)
		if err != nil {
			require.ErrorIs(t, err, container.ErrFormat)
			return
		}
		for _, info := range m.Tensors() {
			v, err := m.Tensor(info.Name)
			if err != nil {
				require.ErrorIs(t, err, container.ErrFormat)
				continue
			}
			require.LessOrEqual(t, len(v.Data), 8*len(content))
		}
	})
}
