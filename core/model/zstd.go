package model

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// compressor makes Zstandard frames of a MiB each, several at once on the worker pool. The same data give the same frames.
type compressor struct {
	encoder *zstd.Encoder
	pieces  [][]byte
	frames  [][]byte
}

func newCompressor() (*compressor, error) {
	threads := cpu.NumThreads()
	// The fastest level, with the entropy coding that it leaves out where nothing repeats: weights have nothing else to gain.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithAllLitEntropyCompression(true),
		zstd.WithWindowSize(zstdFrame), zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(threads))
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return &compressor{encoder: encoder, frames: make([][]byte, 2*threads)}, nil
}

// write writes data, and zeros up to size, as frames.
func (c *compressor) write(w io.Writer, data []byte, size int) error {
	for at := 0; at < size; {
		c.pieces = c.pieces[:0]
		for ; at < size && len(c.pieces) < len(c.frames); at += zstdFrame {
			end := min(at+zstdFrame, size)
			piece := data[min(at, len(data)):min(end, len(data))]
			if missing := end - at - len(piece); missing > 0 {
				piece = append(append(make([]byte, 0, end-at), piece...), make([]byte, missing)...)
			}
			c.pieces = append(c.pieces, piece)
		}
		cpu.Parallel(len(c.pieces), c)
		for _, frame := range c.frames[:len(c.pieces)] {
			if _, err := w.Write(frame); err != nil {
				return err
			}
		}
	}
	return nil
}

// Run compresses one piece.
func (c *compressor) Run(i int) { c.frames[i] = c.encoder.EncodeAll(c.pieces[i], c.frames[i][:0]) }
