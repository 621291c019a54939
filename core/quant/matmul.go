package quant

import "github.com/bitnet-rust/bitnet_rust/accel/cpu"

// MatMul multiplies panels p0 to p1 of the matrix with tokens rows of int8 activations, see cpu.TernaryMatMul: the sums before their scales,
// ldd from row to row of dst. space has [Ternary.Space] bytes.
func (t *Ternary) MatMul(dst []int32, ldd, p0, p1 int, x []int8, ldx int, xsum []int32, tokens int, space []byte) {
	switch {
	case t.Layout == Panel16:
		cpu.TernaryMatMul(dst, ldd, t.Data, t.Cols, p0, p1, x, ldx, xsum, tokens)
	case t.Layout != Base3:
		m := cpu.TernaryLines{Data: t.Data, Rows: t.Rows, Cols: t.Cols, Columns: t.Layout == ColumnLines}
		cpu.TernaryLinesMatMul(dst, ldd, m, p0, p1, x, ldx, xsum, tokens, space)
	case len(space) == 0: // one row, whose time is that of reading, is multiplied with base 3 as it is
		cpu.Base3MatVec(dst, t.Data, t.Cols, p0, p1, x, xsum[0])
	default:
		window := base3Window(tokens)
		for from, to := p0, 0; from < p1; from = to {
			to = min(from+window, p1)
			t.panelRange(space, from, to)
			cpu.TernaryMatMul(dst[(from-p0)*cpu.PanelRows:], ldd, space, t.Cols, 0, to-from, x, ldx, xsum, tokens)
		}
	}
}

// Space is the memory that MatMul works in with as many rows of activations.
func (t *Ternary) Space(tokens int) int {
	switch {
	case t.Layout == Panel16 || t.Layout == Base3 && tokens == 1 && cpu.Base3Ready():
		return 0
	case t.Layout == Base3:
		return cpu.PanelSpace(base3Window(tokens), t.Cols)
	}
	return cpu.LinesSpace(t.Cols)
}

// base3Window is how many panels are made of base 3 at a time: few of them stay in the first-level cache, or close to it, until they are
// multiplied; with many rows more panels share what is read of the rows.
func base3Window(tokens int) int {
	if tokens <= 32 {
		return 4
	}
	return 16
}
