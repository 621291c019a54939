package cpu

// tiles walks over rows x cols elements of a product, cols a multiple of 16, in tiles that there are kernels for. Rows are taken as many
// at once as there are, with all their columns: the right factor, keys or values of a page, stays in the first-level cache, where it has no
// room beside the left factors of all rows.
type tiles struct {
	isa                   ISA
	rows, cols            int
	row, col, tall, width int // the tile
	times                 int // there is one more to its right, and so on: kernels that ask for what comes next take all of them
}

func newTiles(isa ISA, rows, cols int) tiles {
	return tiles{isa: isa, rows: rows, cols: cols, col: cols}
}

func (t *tiles) next() bool {
	if t.col += t.width * t.times; t.col >= t.cols {
		t.row += t.tall
		if t.row == t.rows {
			return false
		}
		t.tall, t.col = tallest(t.rows-t.row), 0
	}
	t.width, t.times = widest(t.isa, t.tall, t.cols-t.col), 1
	if t.isa != AVX2 && t.tall <= streamedRows && t.width == streamedColumns {
		t.times = (t.cols - t.col) / streamedColumns
	}
	return true
}

// ahead is where a tile goes on asking for what comes next: a line for each that tiles before it have read of the right factor.
func (t *tiles) ahead(next Ahead, column int) *byte {
	at := t.col * column / AheadPlaces &^ 63
	if at < len(next.First) {
		return &next.First[at]
	}
	return &next.First[0]
}

// Tiles of up to so many rows, and of so many columns, ask for what comes next.
const (
	streamedRows    = 4
	streamedColumns = 64
)

// shape is rows and columns of a tile as one number.
func shape(rows, cols int) int { return rows<<8 | cols }

// A product of halves has the format above the shape. Float16 is 0.
const (
	formatShift = 16
	bf16        = int(BFloat16) << formatShift
)

// tallest is how many of the rows that are left a tile takes.
func tallest(left int) int {
	switch {
	case left >= 6:
		return 6
	case left >= 4:
		return 4
	case left >= 2:
		return 2
	}
	return 1
}

// widest is how many of the columns that are left a tile takes.
func widest(isa ISA, tall, left int) int {
	switch {
	case isa == AVX2 && tall <= 2 && left >= 64/tall:
		return 64 / tall
	case isa == AVX2:
		return Lanes
	case left >= 64:
		return 64
	case tall == 6 && left >= 32:
		return 32
	}
	return Lanes
}

func addProduct(c []float32, ldc int, a []float32, row, step int, b []float32, ldb, rows, cols, n int, ahead Ahead) {
	isa := vectors()
	if isa == Scalar {
		addProductRef(c, ldc, a, row, step, b, ldb, rows, cols, n)
		return
	}
	for t := newTiles(isa, rows, cols); t.next(); {
		to, left, right := &c[t.row*ldc+t.col], &a[t.row*row], &b[t.col]
		if isa == AVX2 {
			addProduct256(t.tall, t.width, to, ldc, left, row, step, right, ldb, n)
		} else {
			addProduct512(t.tall, t.width, to, ldc, left, row, step, right, ldb, n, t.times, t.ahead(ahead, 4*n), ahead.Apart)
		}
	}
}

func addProductHalf(c []float32, ldc int, a []float32, row, step int, f Half, b []uint16, ldb, rows, cols, n int, ahead Ahead) {
	isa := vectors()
	if isa == Scalar {
		addProductHalfRef(c, ldc, a, row, step, f, b, ldb, rows, cols, n)
		return
	}
	for t := newTiles(isa, rows, cols); t.next(); {
		to, left, right := &c[t.row*ldc+t.col], &a[t.row*row], &b[t.col]
		if isa == AVX2 {
			addProductHalf256(f, t.tall, t.width, to, ldc, left, row, step, right, ldb, n)
		} else {
			addProductHalf512(f, t.tall, t.width, to, ldc, left, row, step, right, ldb, n, t.times, t.ahead(ahead, 2*n), ahead.Apart)
		}
	}
}

func addPairs(c []float32, ldc int, a []int16, lda int, scale []float32, b []int8, ldb, rows, cols, n int, ahead Ahead) {
	isa := vectors()
	if isa == Scalar {
		addPairsRef(c, ldc, a, lda, scale, b, ldb, rows, cols, n)
		return
	}
	for t := newTiles(isa, rows, cols); t.next(); {
		to, left, right := &c[t.row*ldc+t.col], &a[t.row*lda], &b[2*t.col]
		if isa == AVX2 {
			addPairs256(t.tall, t.width, to, ldc, left, lda, &scale[t.row], right, ldb, n)
		} else {
			addPairs512(t.tall, t.width, to, ldc, left, lda, &scale[t.row], right, ldb, n, t.times, t.ahead(ahead, 2*n), ahead.Apart)
		}
	}
}

func addProduct256(rows, cols int, c *float32, ldc int, a *float32, row, step int, b *float32, ldb, n int) {
	switch shape(rows, cols) {
	case 6<<8 | 16:
		addProductAVX2r6x16(c, ldc, a, row, step, b, ldb, n)
	case 4<<8 | 16:
		addProductAVX2r4x16(c, ldc, a, row, step, b, ldb, n)
	case 2<<8 | 32:
		addProductAVX2r2x32(c, ldc, a, row, step, b, ldb, n)
	case 2<<8 | 16:
		addProductAVX2r2x16(c, ldc, a, row, step, b, ldb, n)
	case 1<<8 | 64:
		addProductAVX2r1x64(c, ldc, a, row, step, b, ldb, n)
	case 1<<8 | 16:
		addProductAVX2r1x16(c, ldc, a, row, step, b, ldb, n)
	}
}

func addProduct512(rows, cols int, c *float32, ldc int, a *float32, row, step int, b *float32, ldb, n, times int, ahead *byte, apart int) {
	switch shape(rows, cols) {
	case 6<<8 | 64:
		addProductAVX512r6x64(c, ldc, a, row, step, b, ldb, n)
	case 6<<8 | 32:
		addProductAVX512r6x32(c, ldc, a, row, step, b, ldb, n)
	case 6<<8 | 16:
		addProductAVX512r6x16(c, ldc, a, row, step, b, ldb, n)
	case 4<<8 | 64:
		addProductAVX512r4x64(c, ldc, a, row, step, b, ldb, n, times, ahead, apart)
	case 4<<8 | 16:
		addProductAVX512r4x16(c, ldc, a, row, step, b, ldb, n)
	case 2<<8 | 64:
		addProductAVX512r2x64(c, ldc, a, row, step, b, ldb, n, times, ahead, apart)
	case 2<<8 | 16:
		addProductAVX512r2x16(c, ldc, a, row, step, b, ldb, n)
	case 1<<8 | 64:
		addProductAVX512r1x64(c, ldc, a, row, step, b, ldb, n, times, ahead, apart)
	case 1<<8 | 16:
		addProductAVX512r1x16(c, ldc, a, row, step, b, ldb, n)
	}
}

func addProductHalf256(f Half, rows, cols int, c *float32, ldc int, a *float32, row, step int, b *uint16, ldb, n int) {
	switch int(f)<<formatShift | shape(rows, cols) {
	case 6<<8 | 16:
		addProductHalfAVX2r6x16(c, ldc, a, row, step, b, ldb, n)
	case 4<<8 | 16:
		addProductHalfAVX2r4x16(c, ldc, a, row, step, b, ldb, n)
	case 2<<8 | 32:
		addProductHalfAVX2r2x32(c, ldc, a, row, step, b, ldb, n)
	case 2<<8 | 16:
		addProductHalfAVX2r2x16(c, ldc, a, row, step, b, ldb, n)
	case 1<<8 | 64:
		addProductHalfAVX2r1x64(c, ldc, a, row, step, b, ldb, n)
	case 1<<8 | 16:
		addProductHalfAVX2r1x16(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 6<<8 | 16:
		addProductBF16AVX2r6x16(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 4<<8 | 16:
		addProductBF16AVX2r4x16(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 2<<8 | 32:
		addProductBF16AVX2r2x32(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 2<<8 | 16:
		addProductBF16AVX2r2x16(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 1<<8 | 64:
		addProductBF16AVX2r1x64(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 1<<8 | 16:
		addProductBF16AVX2r1x16(c, ldc, a, row, step, b, ldb, n)
	}
}

func addProductHalf512(f Half, rows, cols int, c *float32, ldc int, a *float32, row, step int, b *uint16, ldb, n, times int, ahead *byte, apart int) {
	switch int(f)<<formatShift | shape(rows, cols) {
	case 6<<8 | 64:
		addProductHalfAVX512r6x64(c, ldc, a, row, step, b, ldb, n)
	case 6<<8 | 32:
		addProductHalfAVX512r6x32(c, ldc, a, row, step, b, ldb, n)
	case 6<<8 | 16:
		addProductHalfAVX512r6x16(c, ldc, a, row, step, b, ldb, n)
	case 4<<8 | 64:
		addProductHalfAVX512r4x64(c, ldc, a, row, step, b, ldb, n, times, ahead, apart)
	case 4<<8 | 16:
		addProductHalfAVX512r4x16(c, ldc, a, row, step, b, ldb, n)
	case 2<<8 | 64:
		addProductHalfAVX512r2x64(c, ldc, a, row, step, b, ldb, n, times, ahead, apart)
	case 2<<8 | 16:
		addProductHalfAVX512r2x16(c, ldc, a, row, step, b, ldb, n)
	case 1<<8 | 64:
		addProductHalfAVX512r1x64(c, ldc, a, row, step, b, ldb, n, times, ahead, apart)
	case 1<<8 | 16:
		addProductHalfAVX512r1x16(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 6<<8 | 64:
		addProductBF16AVX512r6x64(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 6<<8 | 32:
		addProductBF16AVX512r6x32(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 6<<8 | 16:
		addProductBF16AVX512r6x16(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 4<<8 | 64:
		addProductBF16AVX512r4x64(c, ldc, a, row, step, b, ldb, n, times, ahead, apart)
	case bf16 | 4<<8 | 16:
		addProductBF16AVX512r4x16(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 2<<8 | 64:
		addProductBF16AVX512r2x64(c, ldc, a, row, step, b, ldb, n, times, ahead, apart)
	case bf16 | 2<<8 | 16:
		addProductBF16AVX512r2x16(c, ldc, a, row, step, b, ldb, n)
	case bf16 | 1<<8 | 64:
		addProductBF16AVX512r1x64(c, ldc, a, row, step, b, ldb, n, times, ahead, apart)
	case bf16 | 1<<8 | 16:
		addProductBF16AVX512r1x16(c, ldc, a, row, step, b, ldb, n)
	}
}

func addPairs256(rows, cols int, c *float32, ldc int, a *int16, lda int, scale *float32, b *int8, ldb, n int) {
	switch shape(rows, cols) {
	case 6<<8 | 16:
		addPairsAVX2r6x16(c, ldc, a, lda, scale, b, ldb, n)
	case 4<<8 | 16:
		addPairsAVX2r4x16(c, ldc, a, lda, scale, b, ldb, n)
	case 2<<8 | 32:
		addPairsAVX2r2x32(c, ldc, a, lda, scale, b, ldb, n)
	case 2<<8 | 16:
		addPairsAVX2r2x16(c, ldc, a, lda, scale, b, ldb, n)
	case 1<<8 | 64:
		addPairsAVX2r1x64(c, ldc, a, lda, scale, b, ldb, n)
	case 1<<8 | 16:
		addPairsAVX2r1x16(c, ldc, a, lda, scale, b, ldb, n)
	}
}

func addPairs512(rows, cols int, c *float32, ldc int, a *int16, lda int, scale *float32, b *int8, ldb, n, times int, ahead *byte, apart int) {
	switch shape(rows, cols) {
	case 6<<8 | 64:
		addPairsAVX512r6x64(c, ldc, a, lda, scale, b, ldb, n)
	case 6<<8 | 32:
		addPairsAVX512r6x32(c, ldc, a, lda, scale, b, ldb, n)
	case 6<<8 | 16:
		addPairsAVX512r6x16(c, ldc, a, lda, scale, b, ldb, n)
	case 4<<8 | 64:
		addPairsAVX512r4x64(c, ldc, a, lda, scale, b, ldb, n, times, ahead, apart)
	case 4<<8 | 16:
		addPairsAVX512r4x16(c, ldc, a, lda, scale, b, ldb, n)
	case 2<<8 | 64:
		addPairsAVX512r2x64(c, ldc, a, lda, scale, b, ldb, n, times, ahead, apart)
	case 2<<8 | 16:
		addPairsAVX512r2x16(c, ldc, a, lda, scale, b, ldb, n)
	case 1<<8 | 64:
		addPairsAVX512r1x64(c, ldc, a, lda, scale, b, ldb, n, times, ahead, apart)
	case 1<<8 | 16:
		addPairsAVX512r1x16(c, ldc, a, lda, scale, b, ldb, n)
	}
}
