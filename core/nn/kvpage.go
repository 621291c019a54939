package nn

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// kvPage is what one head of one layer has in a page, of whatever type.
type kvPage struct {
	dtype        KVType
	pad          int // PaddedDim
	keys, values []byte
	all          []byte    // keys, values and scales
	keyScale     []float32 // [PageTokens], of KVInt8
	valueScale   []float32
	next         []byte // what is read after this page, and others that lie beside it, or nil
	done         int    // pages beside this one that have asked for a part of next
}

func (c *KVCache) at(layer, kvHead, page int) (p kvPage) {
	p.turn(c, layer, kvHead, page)
	return p
}

// turn makes p another page, which has asked for nothing.
func (p *kvPage) turn(c *KVCache, layer, kvHead, page int) {
	b, half := c.headBytes(layer, kvHead, page), c.half*kvTypes[c.dtype].size
	p.dtype, p.pad, p.all, p.keys, p.values = c.dtype, c.half/PageTokens, b, b[:half], b[half:2*half]
	if c.dtype == KVInt8 {
		scales := pool.View[float32](b[2*half:])
		p.keyScale, p.valueScale = scales[:PageTokens], scales[PageTokens:]
	}
	p.next, p.done = nil, 0
}

// ahead is what a product asks for: as much as this page has, in each of the places in next as far behind others that asked before, the first half
// beside this page's keys and the second one beside its values.
func (p *kvPage) ahead(half int) cpu.Ahead {
	apart := len(p.next) / cpu.AheadPlaces
	at := (2*p.done + half) * (len(p.all) / cpu.AheadPlaces) / 2
	if at >= apart { // there is less to ask for than to read
		return cpu.Ahead{}
	}
	return cpu.Ahead{First: p.next[at:apart], Apart: apart}
}

// ask asks memory for the first n keys and values.
func (p *kvPage) ask(n int) {
	size := kvTypes[p.dtype].size
	rows, row := p.pad, PageTokens*size
	if p.dtype == KVInt8 { // in pairs
		rows, row, size, n = rows/2, 2*row, 2*size, (n+1)/2*2
	}
	cpu.Ask(p.keys, rows, row, padded(n)*size)
	cpu.Ask(p.values, 1, 0, n*p.pad*kvTypes[p.dtype].size)
}

// store puts n keys and values, rows that lie stride apart in k and v, to the positions from slot on.
func (p *kvPage) store(slot, n int, k, v []float32, stride, dim int) {
	switch p.dtype {
	case KVFloat32:
		keys, values := pool.View[float32](p.keys), pool.View[float32](p.values)
		cpu.Transpose(keys[slot:], PageTokens, k, stride, n, dim)
		for i := range n {
			put(values[(slot+i)*p.pad:(slot+i+1)*p.pad], v[i*stride:][:dim])
		}
	case KVFloat16, KVBFloat16:
		keys, values := pool.View[uint16](p.keys), pool.View[uint16](p.values)
		var row [storePiece]uint16
		for i := range n {
			for from := 0; from < dim; from += storePiece {
				piece := row[:min(storePiece, dim-from)]
				cpu.ToHalves(p.dtype.half(), piece, k[i*stride+from:][:len(piece)])
				scatter(keys[from*PageTokens+slot+i:], piece)
			}
			to := values[(slot+i)*p.pad:][:p.pad]
			cpu.ToHalves(p.dtype.half(), to, v[i*stride:][:dim])
			clear(to[dim:])
		}
	case KVInt8:
		keys, values := pool.View[int8](p.keys), pool.View[int8](p.values)
		var row [storePiece]int8
		for i := range n {
			at := slot + i
			inv := scaleOf(k[i*stride:][:dim], &p.keyScale[at])
			for from := 0; from < dim; from += storePiece {
				piece := row[:min(storePiece, dim-from)]
				cpu.QuantizeInt8(piece, k[i*stride+from:][:len(piece)], inv)
				for d, v := range piece {
					keys[(from+d)&^1*PageTokens+2*at+d&1] = v
				}
			}
			inv = scaleOf(v[i*stride:][:dim], &p.valueScale[at])
			to := values[at&^1*p.pad+at&1:]
			for from := 0; from < dim; from += storePiece {
				piece := row[:min(storePiece, dim-from)]
				cpu.QuantizeInt8(piece, v[i*stride+from:][:len(piece)], inv)
				for d, v := range piece {
					to[2*(from+d)] = v
				}
			}
			for d := dim; d < p.pad; d++ {
				to[2*d] = 0
			}
		}
	}
}

// half is the format of a type of 16 bits.
func (t KVType) half() cpu.Half {
	if t == KVBFloat16 {
		return cpu.BFloat16
	}
	return cpu.Float16
}

// storePiece is how many elements of a key are converted at a time.
const storePiece = 128

// put copies src and zeroes what is left of dst.
func put(dst, src []float32) { clear(dst[copy(dst, src):]) }

// scatter writes a key's elements to their rows of the transposed page.
func scatter[T any](column, key []T) {
	for d, v := range key {
		column[d*PageTokens] = v
	}
}

// scaleOf stores what one step of x as int8 is worth and returns how many steps one is.
func scaleOf(x []float32, scale *float32) (inv float32) {
	top := cpu.AbsMax(x)
	if *scale = top / 127; *scale == 0 {
		return 0
	}
	return 127 / top
}

// leftFactor is rows of queries or of probabilities. For the products of KVInt8 quantize makes them int16, each row where its floats were.
type leftFactor struct {
	floats []float32 // [rows, columns]
	ints   []int16   // [rows, 2*columns], of which the first half is used
	scale  []float32 // [rows] what one step of ints is worth
}

// newLeftFactor takes its memory from buf.
func newLeftFactor(buf []float32, rows, columns int) (f leftFactor, rest []float32) {
	n := rows * columns
	return leftFactor{floats: buf[:n], ints: pool.View[int16](pool.BytesOf(buf[:n])), scale: buf[n : n+rows]}, buf[n+rows:]
}

// from leaves out the first rows.
func (f leftFactor) from(row, columns int) leftFactor {
	return leftFactor{floats: f.floats[row*columns:], ints: f.ints[row*2*columns:], scale: f.scale[row:]}
}

// quantize makes ints of floats.
func (f leftFactor) quantize(rows, columns, terms int) {
	cpu.QuantizeRows(f.ints, 2*columns, f.floats, columns, rows, columns, mostInt(terms), f.scale)
}

// mostInt is as fine as sums of so many terms with int8 have room for in an int32: no sum depends on an order.
func mostInt(terms int) int { return min(math.MaxInt16, math.MaxInt32/(-math.MinInt8*terms)) }

// addScores adds the products of rows queries [rows, pad] with the page's first width keys to scores [rows, PageTokens]. Those of KVInt8 are
// still to be multiplied by keyScale.
func (p *kvPage) addScores(scores []float32, q *leftFactor, rows, width, dim int) {
	switch p.dtype {
	case KVFloat32:
		cpu.AddProduct(scores, PageTokens, q.floats, p.pad, 1, pool.View[float32](p.keys), PageTokens, rows, width, dim, p.ahead(0))
	case KVFloat16, KVBFloat16:
		cpu.AddProductHalf(scores, PageTokens, q.floats, p.pad, 1, p.dtype.half(), pool.View[uint16](p.keys), PageTokens, rows, width, dim, p.ahead(0))
	case KVInt8:
		cpu.AddPairs(scores, PageTokens, q.ints, 2*p.pad, q.scale, pool.View[int8](p.keys), 2*PageTokens, rows, width, (dim+1)/2, p.ahead(0))
	}
}

// addValues adds the values [from, to) of the page, weighed by rows of probabilities [rows, PageTokens], to acc [rows, pad].
func (p *kvPage) addValues(acc []float32, probabilities *leftFactor, rows, from, to int) {
	weights := probabilities.floats[from:]
	switch p.dtype {
	case KVFloat32:
		cpu.AddProduct(acc, p.pad, weights, PageTokens, 1, pool.View[float32](p.values)[from*p.pad:], p.pad, rows, p.pad, to-from, p.ahead(1))
	case KVFloat16, KVBFloat16:
		cpu.AddProductHalf(acc, p.pad, weights, PageTokens, 1, p.dtype.half(), pool.View[uint16](p.values)[from*p.pad:], p.pad, rows, p.pad, to-from, p.ahead(1))
	}
}

// softmax makes weights of all values of the page, which rows queries see: of addScores and cpu.ExpRows, and for KVInt8 of quantize.
func (p *kvPage) softmax(weights, q *leftFactor, rows, dim int, top, sum []float32) {
	switch p.dtype {
	case KVFloat32:
		scores := weights.floats[:rows*PageTokens]
		clear(scores)
		p.addScores(scores, q, rows, PageTokens, dim)
		cpu.ExpRows(scores, PageTokens, rows, PageTokens, nil, nil, top, sum)
	case KVFloat16, KVBFloat16:
		cpu.SoftmaxHalf(weights.floats, PageTokens, q.floats, p.pad, 1, p.dtype.half(), pool.View[uint16](p.keys), PageTokens, rows, PageTokens, dim,
			top, sum, p.ahead(0))
	case KVInt8:
		cpu.SoftmaxPairs(weights.floats, PageTokens, q.ints, 2*p.pad, q.scale, pool.View[int8](p.keys), 2*PageTokens, rows, PageTokens, (dim+1)/2,
			p.keyScale, p.valueScale, top, sum, mostInt(PageTokens), weights.scale, p.ahead(0))
	}
}

// addInt8Values adds the first n values of a page of KVInt8, weighed by rows of probabilities that have been multiplied by valueScale and
// quantized: the sums of a row are exact, and join acc at once.
func (p *kvPage) addInt8Values(acc []float32, probabilities *leftFactor, rows, n int) {
	cpu.AddPairs(acc, p.pad, probabilities.ints, 2*PageTokens, probabilities.scale, pool.View[int8](p.values), 2*p.pad, rows, p.pad, (n+1)/2, p.ahead(1))
}
