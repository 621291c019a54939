// Package sentencepiece reads the tokenizer.model of SentencePiece: its pieces
// with their scores, and the settings by which texts become pieces. The format
// is sentencepiece_model.proto.
package sentencepiece

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/protobuf"
)

// What can be wrong with a file.
var (
	ErrMessage = container.NewKind("not a SentencePiece model")
	ErrPieces  = container.NewKind("impossible vocabulary")
)

// MaxSize is the largest file that is read, several times the largest published one.
const MaxSize = 16 << 20

// Bounds of a vocabulary, so that a small file cannot ask for much memory.
const (
	maxPieces = 300_000
	maxPiece  = 1 << 12
)

// The kinds of pieces, by their numbers in the file.
const (
	Normal      = 1 // made of others
	Unknown     = 2 // stands for what no piece spells
	Control     = 3 // such as the beginning of a text, and not found in one
	UserDefined = 4 // found in a text before it is cut
	Unused      = 5 // stands for nothing
	Byte        = 6 // a byte of what no other piece spells
)

// BPE is the Type of models that put pieces together, the best first. Others choose by probabilities, or take words or characters.
const BPE = 2

// Piece is an entry of the vocabulary; its id is its place there.
type Piece struct {
	Text  string  // not empty
	Score float32 // of two pieces that could be made, that of the higher is
	Kind  int32   // Normal to Byte
}

// Model is the content of a file. Ids are -1 where there is no such piece.
type Model struct {
	Pieces            []Piece // at least one
	Type              int     // BPE, or another number
	UnknownID         int     // of what no piece spells
	BeginID           int     // of what begins a text
	EndID             int     // of what ends one
	PadID             int     // of what fills a batch
	CharsMap          bool    // whether characters are replaced by others first
	DummyPrefix       bool    // whether a space is put before texts
	RemoveExtraSpaces bool    // whether of several spaces one is left
	EscapeSpaces      bool    // whether pieces have U+2581 for a space
}

// The field numbers of sentencepiece_model.proto that are read.
const (
	modelPieces, modelTrainer, modelNormalizer                         = 1, 2, 3
	pieceText, pieceScore, pieceKind                                   = 1, 2, 3
	trainerType, trainerUnk, trainerBOS, trainerEOS, trainerPad        = 3, 40, 41, 42, 43
	normalizerMap, normalizerPrefix, normalizerExtra, normalizerEscape = 2, 3, 4, 5
)

// Parse reads the content of a file; path is for errors. Texts of pieces are copies.
func Parse(path string, content []byte) (*Model, error) {
	p := &parser{path: path, model: &Model{Type: 1, BeginID: 1, EndID: 2, PadID: -1, DummyPrefix: true, RemoveExtraSpaces: true, EscapeSpaces: true}}
	if len(content) > MaxSize {
		return nil, p.wrong(ErrMessage, "size", fmt.Sprintf("%d bytes", len(content)), fmt.Sprintf("at most %d", MaxSize))
	}
	err := p.walk(content, 0, func(f protobuf.Field) error {
		switch f.Number {
		case modelPieces:
			return p.piece(f)
		case modelTrainer:
			return p.message(f, p.trainer)
		case modelNormalizer:
			return p.message(f, p.normalizer)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(p.model.Pieces) == 0 {
		return nil, p.wrong(ErrPieces, "pieces", "none", "a vocabulary")
	}
	return p.model, nil
}

type parser struct {
	path  string
	model *Model
}

func (p *parser) walk(message []byte, at int, each func(f protobuf.Field) error) error {
	return protobuf.Walk(message, at, func(at int, expected string) error {
		return p.wrong(ErrMessage, fmt.Sprintf("byte %d", at), "", expected)
	}, each)
}

// message walks over a field that is a message itself.
func (p *parser) message(f protobuf.Field, each func(f protobuf.Field) error) error {
	if err := p.wants(f, protobuf.Bytes); err != nil {
		return err
	}
	return p.walk(f.Data, f.At, each)
}

func (p *parser) wants(f protobuf.Field, wire int) error {
	if f.Wire == wire {
		return nil
	}
	return p.wrong(ErrMessage, fmt.Sprintf("byte %d", f.At), fmt.Sprintf("field %d in wire type %d", f.Number, f.Wire), fmt.Sprintf("wire type %d", wire))
}

func (p *parser) wrong(kind error, field, found, expected string) error {
	return &container.Error{Kind: kind, Path: p.path, Field: field, Found: found, Expected: expected}
}

// piece reads an entry of the vocabulary.
func (p *parser) piece(f protobuf.Field) error {
	if len(p.model.Pieces) == maxPieces {
		return p.wrong(ErrPieces, "pieces", fmt.Sprintf("more than %d", maxPieces), "fewer")
	}
	one := Piece{Kind: Normal}
	err := p.message(f, func(f protobuf.Field) error {
		switch f.Number {
		case pieceText:
			if len(f.Data) > maxPiece || !utf8.Valid(f.Data) {
				return p.wrong(ErrPieces, p.place(), container.Quote(string(f.Data[:min(len(f.Data), maxPiece)])), fmt.Sprintf("at most %d bytes of UTF-8", maxPiece))
			}
			one.Text = string(f.Data)
			return p.wants(f, protobuf.Bytes)
		case pieceScore:
			if err := p.wants(f, protobuf.Fixed32); err != nil {
				return err
			}
			one.Score = math.Float32frombits(binary.LittleEndian.Uint32(f.Data))
		case pieceKind:
			one.Kind = int32(min(f.Value, math.MaxInt32))
			return p.wants(f, protobuf.Varint)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case one.Text == "":
		return p.wrong(ErrPieces, p.place(), "no text", "one")
	case one.Kind < Normal || one.Kind > Byte:
		return p.wrong(ErrPieces, p.place()+": type", fmt.Sprint(one.Kind), fmt.Sprintf("%d to %d", Normal, Byte))
	case math.IsNaN(float64(one.Score)):
		return p.wrong(ErrPieces, p.place()+": score", "NaN", "a number")
	}
	p.model.Pieces = append(p.model.Pieces, one)
	return nil
}

// place is how the piece that is being read is called.
func (p *parser) place() string { return fmt.Sprintf("piece %d", len(p.model.Pieces)) }

// trainer reads the settings of the training that matter afterwards.
func (p *parser) trainer(f protobuf.Field) error {
	m := p.model
	to := map[int]*int{trainerType: &m.Type, trainerUnk: &m.UnknownID, trainerBOS: &m.BeginID, trainerEOS: &m.EndID, trainerPad: &m.PadID}[f.Number]
	if to == nil {
		return nil
	}
	*to = int(int32(f.Value)) // negative ones are sign-extended
	return p.wants(f, protobuf.Varint)
}

func (p *parser) normalizer(f protobuf.Field) error {
	switch f.Number {
	case normalizerMap:
		p.model.CharsMap = len(f.Data) > 0
		return p.wants(f, protobuf.Bytes)
	case normalizerPrefix:
		p.model.DummyPrefix = f.Value != 0
	case normalizerExtra:
		p.model.RemoveExtraSpaces = f.Value != 0
	case normalizerEscape:
		p.model.EscapeSpaces = f.Value != 0
	default:
		return nil
	}
	return p.wants(f, protobuf.Varint)
}
