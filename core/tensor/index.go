package tensor

import "slices"

// Item is one entry of an index expression such as x[2, ..., 1:3, None].
type Item struct {
	kind              itemKind
	start, stop, step int
}

type itemKind uint8

const (
	itemAt itemKind = iota
	itemSpan
	itemNewAxis
	itemEllipsis
)

// The items without parameters.
var (
	NewAxis  = Item{kind: itemNewAxis}  // inserts an axis of length one
	Ellipsis = Item{kind: itemEllipsis} // stands for as many whole axes as are left
)

// At takes one index of an axis and drops the axis.
func At(i int) Item { return Item{kind: itemAt, start: i} }

// Span is start:stop:step of an axis, see [Tensor.Slice].
func Span(start, stop, step int) Item {
	return Item{kind: itemSpan, start: start, stop: stop, step: step}
}

// Index applies an index expression as a view. Axes that are not mentioned are
// kept whole.
func (t *Tensor) Index(items ...Item) (*Tensor, error) {
	used, ellipses := 0, 0
	for _, it := range items {
		switch it.kind {
		case itemAt, itemSpan:
			used++
		case itemEllipsis:
			ellipses++
		}
	}
	if ellipses > 1 {
		return nil, indexErrorf("index: only one ellipsis is allowed, got %d (shape %s)", ellipses, formatShape(t.shape))
	}
	if used > len(t.shape) {
		return nil, indexErrorf("index: %d indices for shape %s", used, formatShape(t.shape))
	}
	out := t.view(slices.Clone(t.shape), slices.Clone(t.strides), t.offset)
	axis := 0
	for _, it := range items {
		var err error
		switch it.kind {
		case itemAt:
			out, err = out.Select(axis, it.start)
		case itemSpan:
			out, err = out.Slice(axis, it.start, it.stop, it.step)
			axis++
		case itemNewAxis:
			out, err = out.Unsqueeze(axis)
			axis++
		case itemEllipsis:
			axis += len(t.shape) - used
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
