package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// kvPage is what one head of one layer has in a page, of whatever type.
type kvPage struct {
	dtype        KVType
	pad          int // PaddedDim
	keys, values []byte
	both         []byte    // keys and values
	keyScale     []float32 // [PageTokens], of KVInt8
	valueScale   []float32
	next         []byte // keys and values of the page that is read after this one, or nil
}

func (c *KVCache) at(layer, kvHead, page int) kvPage {
	b, half := c.headBytes(layer, kvHead, page), c.half*kvTypes[c.dtype].size
	p := kvPage{dtype: c.dtype, both: b[:2*half], pad: c.half / PageTokens, keys: b[:half], values: b[half : 2*half]}
	if c.dtype == KVInt8 {
		scales := pool.View[float32](b[2*half:])
		p.keyScale, p.valueScale = scales[:PageTokens], scales[PageTokens:]
	}
	return p
}

// ahead is what a product asks for: of each of the places in the next page, the first half beside this page's keys and the second one beside
// its values.
func (p *kvPage) ahead(half int) cpu.Ahead {
	apart := len(p.next) / cpu.AheadPlaces
	return cpu.Ahead{First: p.next[half*apart/2 : apart], Apart: apart}
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
	case KVFloat16:
		keys, values := pool.View[uint16](p.keys), pool.View[uint16](p.values)
		var row [storePiece]uint16
		for i := range n {
			for from := 0; from < dim; from += storePiece {
				piece := row[:min(storePiece, dim-from)]
				cpu.ToHalves(piece, k[i*stride+from:][:len(piece)])
				scatter(keys[from*PageTokens+slot+i:], piece)
			}
			to := values[(slot+i)*p.pad:][:p.pad]
			cpu.ToHalves(to, v[i*stride:][:dim])
			clear(to[dim:])
		}
	case KVInt8:
		keys, values := pool.View[int8](p.keys), pool.View[int8](p.values)
		var row [storePiece]int8
		for i := range n {
			inv := scaleOf(k[i*stride:][:dim], &p.keyScale[slot+i])
			for from := 0; from < dim; from += storePiece {
				piece := row[:min(storePiece, dim-from)]
				cpu.QuantizeInt8(piece, k[i*stride+from:][:len(piece)], inv)
				scatter(keys[from*PageTokens+slot+i:], piece)
			}
			inv = scaleOf(v[i*stride:][:dim], &p.valueScale[slot+i])
			to := values[(slot+i)*p.pad:][:p.pad]
			cpu.QuantizeInt8(to[:dim], v[i*stride:][:dim], inv)
			clear(to[dim:])
		}
	}
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

// addScores adds the products of rows queries [rows, pad] with the page's first width keys to scores [rows, PageTokens]. Those of KVInt8 are
// still to be multiplied by keyScale.
func (p *kvPage) addScores(scores, q []float32, rows, width, dim int) {
	switch p.dtype {
	case KVFloat32:
		cpu.AddProduct(scores, PageTokens, q, p.pad, 1, pool.View[float32](p.keys), PageTokens, rows, width, dim, p.ahead(0))
	case KVFloat16:
		cpu.AddProductHalf(scores, PageTokens, q, p.pad, 1, pool.View[uint16](p.keys), PageTokens, rows, width, dim, p.ahead(0))
	case KVInt8:
		cpu.AddProductInt8(scores, PageTokens, q, p.pad, 1, pool.View[int8](p.keys), PageTokens, rows, width, dim, p.ahead(0))
	}
}

// addValues adds the values [from, to) of the page, weighed by rows of probabilities [rows, PageTokens], to acc [rows, pad]. For KVInt8 these
// have been multiplied by valueScale.
func (p *kvPage) addValues(acc, probabilities []float32, rows, from, to int) {
	switch p.dtype {
	case KVFloat32:
		cpu.AddProduct(acc, p.pad, probabilities[from:], PageTokens, 1, pool.View[float32](p.values)[from*p.pad:], p.pad, rows, p.pad, to-from, p.ahead(1))
	case KVFloat16:
		cpu.AddProductHalf(acc, p.pad, probabilities[from:], PageTokens, 1, pool.View[uint16](p.values)[from*p.pad:], p.pad, rows, p.pad, to-from, p.ahead(1))
	case KVInt8:
		cpu.AddProductInt8(acc, p.pad, probabilities[from:], PageTokens, 1, pool.View[int8](p.values)[from*p.pad:], p.pad, rows, p.pad, to-from, p.ahead(1))
	}
}
