package model

import (
	"encoding/binary"
	"io"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// turnedRows is how many rows of a matrix are turned into columns at a time, and the other way round: a cache line of codes.
const turnedRows = 64

// eachRows does work with the rows of a matrix, turnedRows from first on at a time, on all threads.
func eachRows(n int, work func(first, rows int)) {
	cpu.Parallel((n+turnedRows-1)/turnedRows, task(func(chunk int) {
		first := chunk * turnedRows
		work(first, min(turnedRows, n-first))
	}))
}

// task makes a function a cpu.Task.
type task func(chunk int)

// Run does the chunk.
func (f task) Run(chunk int) { f(chunk) }

// rowWriter writes matrices whose rows are made on several threads. It keeps its memory from one to the next: else there would be as much
// garbage as there are bytes in a file.
type rowWriter struct{ text []byte }

// write writes rows of size bytes in order; fill makes some of them.
func (w *rowWriter) write(out io.Writer, rows, size int, fill func(text []byte, first, rows int)) error {
	const room = 1 << 20
	most := min(max(1, room/(size*turnedRows))*turnedRows, rows)
	if len(w.text) < most*size {
		w.text = make([]byte, most*size)
	}
	for first := 0; first < rows; first += most {
		n := min(most, rows-first)
		eachRows(n, func(at, k int) { fill(w.text[at*size:(at+k)*size], first+at, k) })
		if _, err := out.Write(w.text[:n*size]); err != nil {
			return err
		}
	}
	return nil
}

// turn writes the transpose of a matrix of bytes, whose rows lie lds apart: dst[c*ldd+r] = src[r*lds+c].
func turn(dst []byte, ldd int, src []byte, lds, rows, cols int) {
	const side = 8 // of the squares that lie in eight words
	wholeRows, wholeCols := rows&^(side-1), cols&^(side-1)
	for c := 0; c < wholeCols; c += side { // columns are filled one after the other
		for r := 0; r < wholeRows; r += side {
			turnSquare(dst[c*ldd+r:], ldd, src[r*lds+c:], lds)
		}
	}
	for r := range rows {
		first := wholeCols
		if r >= wholeRows {
			first = 0
		}
		for c := first; c < cols; c++ {
			dst[c*ldd+r] = src[r*lds+c]
		}
	}
}

// turnFloats is turn for numbers of two or four bytes, of which src and dst hold so many to a line.
func turnFloats(dst []byte, ldd int, src []byte, lds, rows, cols, size int) {
	if rows == 0 || cols == 0 {
		return
	}
	if size == 4 {
		cpu.Transpose(words[float32](dst), ldd, words[float32](src), lds, rows, cols)
		return
	}
	const side = 16 // of the squares that are turned one after the other: lines of the cache
	to, from := words[uint16](dst), words[uint16](src)
	for r := 0; r < rows; r += side {
		for c := 0; c < cols; c += side {
			height := min(side, rows-r)
			for i := c; i < min(c+side, cols); i++ {
				line, at := to[i*ldd+r:][:height], r*lds+i
				for j := range line {
					line[j] = from[at]
					at += lds
				}
			}
		}
	}
}

// words are the whole numbers of two or four bytes in data, wherever they lie.
func words[T uint16 | float32](data []byte) []T {
	var one T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(data))), len(data)/int(unsafe.Sizeof(one)))
}

// turnSquare turns eight by eight bytes: squares of four change places, in them squares of two, and in those bytes. Its words are in
// variables, which are in registers, as an array would not be.
func turnSquare(dst []byte, ldd int, src []byte, lds int) {
	load := func(i int) uint64 { return binary.LittleEndian.Uint64(src[i*lds:]) }
	a, b, c, d, e, f, g, h := load(0), load(1), load(2), load(3), load(4), load(5), load(6), load(7)

	a, e = exchange(a, e, 32, 0x00000000ffffffff)
	b, f = exchange(b, f, 32, 0x00000000ffffffff)
	c, g = exchange(c, g, 32, 0x00000000ffffffff)
	d, h = exchange(d, h, 32, 0x00000000ffffffff)

	a, c = exchange(a, c, 16, 0x0000ffff0000ffff)
	b, d = exchange(b, d, 16, 0x0000ffff0000ffff)
	e, g = exchange(e, g, 16, 0x0000ffff0000ffff)
	f, h = exchange(f, h, 16, 0x0000ffff0000ffff)

	a, b = exchange(a, b, 8, 0x00ff00ff00ff00ff)
	c, d = exchange(c, d, 8, 0x00ff00ff00ff00ff)
	e, f = exchange(e, f, 8, 0x00ff00ff00ff00ff)
	g, h = exchange(g, h, 8, 0x00ff00ff00ff00ff)

	store := func(i int, v uint64) { binary.LittleEndian.PutUint64(dst[i*ldd:], v) }
	store(0, a)
	store(1, b)
	store(2, c)
	store(3, d)
	store(4, e)
	store(5, f)
	store(6, g)
	store(7, h)
}

// exchange swaps the bits of a that lie shift above those of the mask with those of b under it.
func exchange(a, b uint64, shift int, mask uint64) (uint64, uint64) {
	t := (a>>shift ^ b) & mask
	return a ^ t<<shift, b ^ t
}
