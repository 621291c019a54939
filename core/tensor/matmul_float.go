package tensor

import (
	"sync"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

const (
	blockRows    = 128               // rows of the left operand a block covers
	blockColumns = 4 * cpu.PanelRows // columns of the right operand, packed once for them
	longSum      = 1 << 14           // from this k on one panel is packed at a time
)

// float multiplies in float32. The right operand is packed, a block of columns
// at a time, into the panels of cpu.DenseMatMul, which vectorizes over 16
// columns and keeps the order of every sum.
func (p *matmul) float() {
	if p.m <= 4 && p.n <= 4 {
		p.dots()
		return
	}
	// The operand with more outputs goes into panels of 16: (AB)' = B'A', and
	// since products commute each sum is the same.
	turned := p.n < cpu.PanelRows && p.m > p.n
	work := *p
	if turned {
		work.m, work.n = p.n, p.m
	}
	columns := blockColumns
	if p.k >= longSum {
		columns = cpu.PanelRows
	}
	work.blocks(blockRows, columns, func(batch, r, nr, c, nc int) {
		a, b, out := at(p.a, batch), at(p.b, batch), at(p.out, batch)
		if turned {
			a, b, out = b.transposed(), a.transposed(), out.transposed()
		}
		multiplyBlock(out.sub(r, nr, c, nc), a.sub(r, nr, 0, p.k), b.sub(0, p.k, c, nc))
	})
}

// multiplyBlock computes out = a*b for up to blockRows x blockColumns.
func multiplyBlock(out, a, b matrix) {
	k := a.cols
	padded := padTo4(k)
	panels := (b.cols + cpu.PanelRows - 1) / cpu.PanelRows
	width := panels * cpu.PanelRows

	packed := borrow(panels * padded * cpu.PanelRows)
	defer packed.giveBack()
	packPanels(packed.s, padded, b)

	x, ldx := []float32(nil), a.down
	if a.t.dtype == Float32 && a.side == 1 && k%4 == 0 && (a.down >= k || a.rows == 1) {
		ldx = max(ldx, k)
		x = elems[float32](a.t)[a.pos : a.pos+(a.rows-1)*ldx+k]
	} else {
		rows := borrow(a.rows * padded)
		defer rows.giveBack()
		x, ldx = rows.s, padded
		load(x, ldx, a)
		for i := range a.rows {
			clear(x[i*ldx+k : (i+1)*ldx])
		}
	}

	sums := borrow(a.rows * width)
	defer sums.giveBack()
	cpu.DenseMatMul(sums.s, width, cpu.DenseF32, bytesOf(packed.s), nil, k, 0, panels, x, ldx, a.rows)
	store := storeInto[float32](out.t)
	for i := range out.rows {
		store(sums.s[i*width:][:out.cols], out.pos+i*out.down, out.side)
	}
}

// packPanels writes b [k, columns] as panels of 16 columns, each padded to
// panelRows rows, with zeros where there is no element.
func packPanels(dst []float32, panelRows int, b matrix) {
	size := panelRows * cpu.PanelRows
	whole := b.cols / cpu.PanelRows
	if rest := b.cols % cpu.PanelRows; rest > 0 {
		last := dst[whole*size:][:size]
		clear(last)
		load(last, cpu.PanelRows, b.sub(0, b.rows, whole*cpu.PanelRows, rest))
	}
	if b.t.dtype == Float32 && b.side == 1 { // each row is read once, in one piece
		src := elems[float32](b.t)
		for k := range b.rows {
			row := src[b.pos+k*b.down:][:whole*cpu.PanelRows]
			for p := range whole {
				copy(dst[p*size+k*cpu.PanelRows:][:cpu.PanelRows], row[p*cpu.PanelRows:])
			}
		}
	} else {
		for p := range whole {
			load(dst[p*size:][:size], cpu.PanelRows, b.sub(0, b.rows, p*cpu.PanelRows, cpu.PanelRows))
		}
	}
	for p := range whole {
		clear(dst[p*size+b.rows*cpu.PanelRows : (p+1)*size])
	}
}

// dots is the path of products so small that panels of 16 columns would be
// mostly padding: scalar code with the same order.
func (p *matmul) dots() {
	for batch := range p.batches {
		a, b, out := at(p.a, batch), at(p.b, batch).transposed(), at(p.out, batch)
		store := storeInto[float32](p.out)
		for i := range p.m {
			for j := range p.n {
				sum := [1]float32{dotLanes(a.sub(i, 1, 0, p.k), b.sub(j, 1, 0, p.k))}
				store(sum[:], out.pos+i*out.down+j*out.side, 1)
			}
		}
	}
}

// dotLanes multiplies two rows in the order of cpu.DenseMatMul, of whose padding
// it adds the zeros: they turn -0, which a product rounds to when it is too
// small, into 0.
func dotLanes(a, b matrix) float32 {
	x, y := rowReader(a), rowReader(b)
	var acc [4]float32
	for n := range chunks(a.cols) { // chunks are multiples of four but for the last
		u, v := x.next(n), y.next(n)
		for i := range u {
			acc[i%4] = cpu.FMA(u[i], v[i], acc[i%4])
		}
	}
	for k := a.cols; k%4 != 0; k++ {
		acc[k%4] += 0
	}
	return float32(acc[0]+acc[1]) + float32(acc[2]+acc[3])
}

func rowReader(m matrix) *reader[float32] {
	return read[float32](m.t.view([]int{m.cols}, []int{m.side}, m.pos))
}

// scratch is a buffer that is used again.
type scratch struct{ s []float32 }

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// borrow returns a buffer of n values, which are not cleared.
func borrow(n int) *scratch {
	b := scratchPool.Get().(*scratch)
	if cap(b.s) < n {
		b.s = make([]float32, n)
	}
	b.s = b.s[:n]
	return b
}

func (b *scratch) giveBack() { scratchPool.Put(b) }
