package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// addBiasGrad adds the gradient of the bias of l, the sum of the rows of dy [rows, Out].
func (c *Ctx) addBiasGrad(l *Linear, dy *tensor.Tensor) {
	if l.BiasParam != nil {
		c.addColumns(l.BiasParam.Grad, dy)
	}
}

// addColumns adds the sums of the columns of x to sum, row after row. Threads share the columns.
func (c *Ctx) addColumns(sum []float32, x *tensor.Tensor) {
	c.columns = columnTask{sum: sum, x: x.Float32s(), rows: x.Dim(0), cols: x.Dim(1)}
	cpu.Parallel((c.columns.cols+columnWidth-1)/columnWidth, &c.columns)
}

// columnWidth is how many columns a chunk adds up: some cache lines of each row.
const columnWidth = 256

type columnTask struct {
	sum, x     []float32
	rows, cols int
}

func (t *columnTask) Run(chunk int) {
	from, to := chunk*columnWidth, min((chunk+1)*columnWidth, t.cols)
	sum := t.sum[from:to]
	for r := range t.rows {
		cpu.Add(sum, sum, t.x[r*t.cols+from:r*t.cols+to])
	}
}
