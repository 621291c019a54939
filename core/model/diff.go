package model

import (
	"context"
	"fmt"
	"math"
	"reflect"
)

// TensorDiff is how a tensor of two models differs. Both are taken as they compute: whatever the formats of their files, a ternary weight is
// its code times the layer's scale.
type TensorDiff struct {
	Name   string     `json:"name"`             // of the module, and .weight or .bias, as in a Hugging Face checkpoint
	Shapes [2][]int   `json:"shapes"`           // rows and columns; null in the model that has no such tensor
	Kinds  [2]string  `json:"kinds"`            // "ternary" or "float"; "" in the model that has no such tensor
	Scales [2]float32 `json:"scales"`           // of ternary tensors, 0 of others
	Values int        `json:"values"`           // how many there are
	Codes  *int       `json:"codes,omitempty"`  // how many codes differ, when both are ternary
	Differ int        `json:"differ"`           // how many values differ
	Max    float64    `json:"max_difference"`   // the largest difference of two values; infinity and NaN count as 0 against themselves
	At     []int      `json:"at,omitempty"`     // row and column of that
	Beyond int        `json:"beyond,omitempty"` // how many values differ by a NaN or an infinity, which Max leaves out
}

// Equal says whether the tensor is the same in both models, to the bit but for the sign of a zero.
func (d *TensorDiff) Equal() bool {
	return d.Differ == 0 && d.Kinds[0] == d.Kinds[1] && fmt.Sprint(d.Shapes[0]) == fmt.Sprint(d.Shapes[1])
}

// Diff compares the tensors of two models, in the order of a forward pass; those that only b has come last. Tensors of different shapes
// are listed and not compared.
//
// Errors: ErrClosed for a closed model, ErrOption for one that was loaded with LoadOptions.Deferred, whose weights are not in memory, and
// ctx.Err() when ctx ends first.
func Diff(ctx context.Context, a, b *Model) ([]TensorDiff, error) {
	if a.deferred != nil || b.deferred != nil {
		return nil, fmt.Errorf("%w: Deferred = true: models whose weights stay in their files cannot be compared", ErrOption)
	}
	release, err := acquireBoth(a, b)
	if err != nil {
		return nil, err
	}
	defer release()
	left, right := a.matrices(), b.matrices()
	byName := map[string]matrix{}
	for _, m := range right {
		byName[m.name] = m
	}
	var out []TensorDiff
	for _, x := range left {
		y := byName[x.name]
		delete(byName, x.name)
		d, err := compare(ctx, x, y)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	for _, y := range right {
		if _, alone := byName[y.name]; alone {
			d, err := compare(ctx, matrix{name: y.name}, y) // of another shape
			if err != nil {
				return nil, err
			}
			out = append(out, d)
		}
	}
	return out, nil
}

// acquireBoth keeps two models, which may be one, from being closed. A reader that holds one and wants another, or the same again, waits for
// whoever waits for the first reader to end: each model is acquired once, and all who need two acquire them in the same order.
func acquireBoth(a, b *Model) (release func(), err error) {
	if reflect.ValueOf(a).Pointer() > reflect.ValueOf(b).Pointer() {
		a, b = b, a
	}
	if err := a.Acquire(); err != nil {
		return nil, err
	}
	if a == b {
		return a.Release, nil
	}
	if err := b.Acquire(); err != nil {
		a.Release()
		return nil, err
	}
	return func() {
		b.Release()
		a.Release()
	}, nil
}

// describe fills in what one of the models says of a tensor.
func (d *TensorDiff) describe(side int, m matrix) {
	if m.rows == 0 {
		return
	}
	d.Name, d.Shapes[side], d.Kinds[side] = m.name, []int{m.rows, m.cols}, "float"
	if m.ternary != nil {
		d.Kinds[side], d.Scales[side] = "ternary", m.ternary.Scale
	}
}

func compare(ctx context.Context, x, y matrix) (d TensorDiff, err error) {
	d.describe(0, x)
	d.describe(1, y)
	d.Values = max(x.rows*x.cols, y.rows*y.cols)
	if x.rows != y.rows || x.cols != y.cols {
		d.Differ = d.Values
		return d, nil
	}
	next, other, different := x.reader(), y.reader(), 0
	p, q := make([]float32, x.cols), make([]float32, x.cols)
	one, two := make([]int8, x.cols), make([]int8, x.cols)
	for r := range x.rows {
		if err := ctx.Err(); err != nil {
			return d, err
		}
		next(p, one, r)
		other(q, two, r)
		for c := range p {
			d.add(p[c], q[c], r, c)
			if one[c] != two[c] {
				different++
			}
		}
	}
	if x.ternary != nil && y.ternary != nil {
		d.Codes = &different
	}
	return d, nil
}

// add takes in a pair of values.
func (d *TensorDiff) add(p, q float32, r, c int) {
	if p == q || (p != p && q != q) {
		return
	}
	d.Differ++
	gap := math.Abs(float64(p) - float64(q))
	if math.IsNaN(gap) || math.IsInf(gap, 0) {
		d.Beyond++
		return
	}
	if gap > d.Max {
		d.Max, d.At = gap, []int{r, c}
	}
}
