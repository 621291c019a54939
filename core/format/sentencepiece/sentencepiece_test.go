package sentencepiece

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

const vectors = "../../../tests_go/testdata/sentencepiece/tokenizer.model"

func content(t testing.TB) []byte {
	data, err := os.ReadFile(vectors)
	require.NoError(t, err)
	return data
}

func TestAModelOfThePackageIsRead(t *testing.T) {
	m, err := Parse(vectors, content(t))
	require.NoError(t, err)
	require.Len(t, m.Pieces, 500)
	require.Equal(t, Piece{"<unk>", 0, Unknown}, m.Pieces[0])
	require.Equal(t, Piece{"<s>", 0, Control}, m.Pieces[1])
	require.Equal(t, Piece{"<0x0A>", 0, Byte}, m.Pieces[3+'\n'])
	require.Equal(t, Piece{"▁t", 0, Normal}, m.Pieces[259])
	require.Equal(t, Piece{"he", -1, Normal}, m.Pieces[260])
	m.Pieces = nil
	require.Equal(t, &Model{Type: BPE, UnknownID: 0, BeginID: 1, EndID: 2, PadID: -1, DummyPrefix: true, EscapeSpaces: true}, m)
}

// message is a field of a message that is one itself.
func message(number int, parts ...[]byte) []byte {
	whole := bytes.Join(parts, nil)
	return append(binary.AppendUvarint([]byte{byte(number<<3 | 2)}, uint64(len(whole))), whole...)
}

func TestWhatIsNoModelIsNamed(t *testing.T) {
	a := message(1, message(1, []byte("a")))
	for _, c := range []struct {
		name    string
		content []byte
		kind    error
		says    string
	}{
		{"nothing", nil, ErrPieces, "pieces: found none"},
		{"a text", []byte("SentencePiece"), ErrMessage, "byte 1, expected a field of another wire type than 3"},
		{"cut", a[:4], ErrMessage, "byte 2, expected 3 bytes before the message ends, not 2"},
		{"a length of 2^63", []byte{10, 255, 255, 255, 255, 255, 255, 255, 255, 127}, ErrMessage, "expected 9223372036854775807 bytes"},
		{"pieces that are numbers", []byte{8, 1}, ErrMessage, "field 1 in wire type 0"},
		{"a piece without text", append(a, message(1)...), ErrPieces, "piece 1: found no text"},
		{"a piece that is not UTF-8", message(1, message(1, []byte{0xff})), ErrPieces, `piece 0: found "\xff"`},
		{"a long piece", message(1, message(1, make([]byte, maxPiece+1))), ErrPieces, "expected at most 4096 bytes"},
		{"a piece of another type", message(1, message(1, []byte("a")), []byte{3 << 3, 7}), ErrPieces, "piece 0: type: found 7"},
		{"a score that is no number", message(1, message(1, []byte("a")), binary.LittleEndian.AppendUint32([]byte{2<<3 | 5}, math.Float32bits(float32(math.NaN())))),
			ErrPieces, "piece 0: score: found NaN"},
		{"too many pieces", bytes.Repeat(a, maxPieces+1), ErrPieces, "more than 300000"},
		{"a large file", make([]byte, MaxSize+1), ErrMessage, "size: found 16777217 bytes"},
	} {
		_, err := Parse("m", c.content)
		require.ErrorIs(t, err, c.kind, c.name)
		require.ErrorContains(t, err, c.says, c.name)
	}
}

// FuzzParse: whatever the bytes, there is a vocabulary or an error about the file.
func FuzzParse(f *testing.F) {
	f.Add(content(f)[:2000])
	f.Add(message(1, message(1, []byte("a")), []byte{3 << 3, 4}))
	f.Add(append(message(1, message(1, []byte("b"))), message(2, []byte{3 << 3, 2})...))
	f.Add(message(3, message(2, []byte("x")), []byte{3 << 3, 0, 4 << 3, 1, 5 << 3, 0}))
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := Parse("fuzz", content)
		if err != nil {
			require.ErrorIs(t, err, container.ErrFormat)
			return
		}
		for _, p := range m.Pieces {
			require.NotEmpty(t, p.Text)
		}
	})
}
