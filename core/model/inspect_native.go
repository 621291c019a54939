package model

import (
	"context"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// inspectNative lists a native file, by what its metadata says of its tensors.
func inspectNative(path string) (*inspected, error) {
	file, err := openNative(path)
	if err != nil {
		return nil, err
	}
	f := &inspected{info: &FileInfo{Path: path, Format: "native", Metadata: map[string]any{}}, set: file}
	for key, value := range file.meta {
		if key != keyTensors {
			f.info.Metadata[key] = value
		}
	}
	f.describe = func(t *TensorInfo) {
		said := file.tensors[t.Name]
		t.DType, t.Shape = said.Layout, said.Shape
	}
	f.plan = func(ctx context.Context, l *loader) error {
		_, err := planNative(ctx, file, l)
		return err
	}
	f.sum = func(s *scan, name string) error {
		v, err := file.listed(name)
		if err != nil {
			return err
		}
		return v.read(s.ctx, true, func(at int, piece []byte) error {
			if v.plain() {
				return s.passed(v.View, at+len(piece))
			}
			s.told(len(piece))
			return nil
		})
	}
	f.codes = func(s *scan, v container.View) (*TernaryStats, error) {
		said := file.tensors[v.Name]
		layout, ok := ternaryLayouts[said.Layout]
		if !ok {
			return nil, nil
		}
		whole, err := file.listed(v.Name)
		if err != nil {
			return nil, err
		}
		scale, err := file.scaleOf(v.Name, said)
		if err != nil {
			return nil, err
		}
		var n codeCount
		if err := whole.countCodes(s, &n, layout, said.Shape[0], said.Shape[1]); err != nil {
			return nil, err
		}
		return n.stats(scale), nil
	}
	f.numbers = func(s *scan, v container.View, each func([]float32)) error {
		said := file.tensors[v.Name]
		format, ok := denseLayouts[said.Layout]
		if !ok && said.Layout != layoutVector {
			return nil
		}
		whole, err := file.listed(v.Name)
		if err != nil {
			return err
		}
		if said.Layout == layoutVector {
			return whole.units(s, 4, func(_ int, piece []byte) error {
				s.decode(safetensors.F32, piece, each)
				return nil
			})
		}
		d := quant.Dense{Rows: said.Shape[0], Cols: said.Shape[1], Format: format}
		nextScales := func(int) ([]byte, error) { return nil, nil }
		if quant.Scaled(format) {
			scales, err := file.tensor(v.Name+".row_scale", layoutVector, []int{d.Rows}, safetensors.F32, d.Rows)
			if err != nil {
				return err
			}
			next, end, err := scales.pieces()
			if err != nil {
				return err
			}
			defer end()
			nextScales = next
		}
		return whole.eachRow(s, d, nextScales, each)
	}
	return f, nil
}

// units shows the bytes of a tensor to each, whole units of them.
func (v nativeView) units(s *scan, unit int, each func(at int, piece []byte) error) error {
	if v.plain() {
		return s.pieces(v.View, unit, each)
	}
	next, end, err := v.pieces()
	if err != nil {
		return err
	}
	defer end()
	step := wholeUnits(unit)
	var joined []byte // units that are larger than what is read at once
	if step > readPiece {
		joined = make([]byte, min(step, v.size))
	}
	for at := 0; at < v.size; at += step {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		n := min(step, v.size-at)
		piece, err := next(min(n, readPiece))
		for have := 0; err == nil && joined != nil; {
			if have += copy(joined[have:n], piece); have == n {
				piece = joined[:n]
				break
			}
			piece, err = next(min(n-have, readPiece))
		}
		if err != nil {
			return err
		}
		if err := each(at, piece); err != nil {
			return err
		}
		s.told(n)
	}
	_, err = next(0)
	return err
}

// countCodes counts those of a ternary matrix.
func (v nativeView) countCodes(s *scan, n *codeCount, layout quant.Layout, rows, cols int) error {
	at, lines, unit := 0, rows, 0 // which line, of how many, of so many bytes
	width := func(lane int) int { return cols - lane*cpu.BlockCols }
	var panel []byte
	switch layout {
	case quant.RowLines:
		unit = cpu.LineBytes(cols)
	case quant.ColumnLines:
		lines, unit = cols, cpu.LineBytes(rows)
		width = func(lane int) int { return rows - lane*cpu.BlockCols }
	default: // a line is a panel of rows, a lane of each in turn
		lines, unit = (rows+cpu.PanelRows-1)/cpu.PanelRows, layout.Bytes(cpu.PanelRows, cols)
		width = func(lane int) int {
			if at*cpu.PanelRows+lane%cpu.PanelRows >= rows {
				return 0
			}
			return cols - lane/cpu.PanelRows*cpu.BlockCols
		}
	}
	if layout == quant.Base3 {
		panel = make([]byte, cpu.TernaryBytes(cpu.PanelRows, cols))
	}
	return v.units(s, unit, func(begin int, piece []byte) error {
		if badCodes(layout, cols, piece, begin) {
			return badCodesError(v.View, layout)
		}
		for ; at < lines && len(piece) >= unit; at, piece = at+1, piece[unit:] {
			line := piece[:unit]
			if layout == quant.Base3 {
				cpu.UnpackBase3(panel, line, cols, 0, 1)
				line = panel
			}
			n.addLanes(line, width)
		}
		return nil
	})
}

// eachRow shows the rows of d, a dense matrix without its panels and scales: of the latter next gives so many bytes.
func (v nativeView) eachRow(s *scan, d quant.Dense, next func(bytes int) ([]byte, error), each func([]float32)) error {
	rest, unit, row := d.Rows, cpu.DenseBytes(d.Format, cpu.PanelRows, d.Cols), make([]float32, d.Cols)
	return v.units(s, unit, func(_ int, piece []byte) error {
		for ; rest > 0 && len(piece) >= unit; rest, piece = rest-d.Rows, piece[unit:] {
			d.Rows, d.Panels, d.RowScale = min(rest, cpu.PanelRows), piece[:unit], nil
			if quant.Scaled(d.Format) {
				scales, err := next(4 * d.Rows)
				if err != nil {
					return err
				}
				s.decode(safetensors.F32, scales, func(values []float32) { d.RowScale = values })
			}
			for r := range d.Rows {
				d.Row(row, r)
				each(row)
			}
		}
		return nil
	})
}
