package tensor_test

import (
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

func ExampleAdd() {
	matrix, _ := tensor.FromFloat32([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	row, _ := tensor.FromFloat32([]float32{10, 20, 30}, 3)
	sum, err := tensor.Add(matrix, row) // the row broadcasts over axis 0
	fmt.Println(sum.Shape(), sum.Float32s(), err)

	_, err = tensor.Add(matrix, matrix.T())
	fmt.Println(err)
	// Output:
	// [2 3] [11 22 33 14 25 36] <nil>
	// tensor: add: shapes (2, 3) and (3, 2) do not broadcast
}

func ExampleTensor_Slice() {
	x, _ := tensor.FromFloat32([]float32{0, 1, 2, 3, 4, 5}, 2, 3)
	backwards, _ := x.Slice(1, tensor.None, tensor.None, -1) // x[:, ::-1], a view
	copied, _ := backwards.Contiguous()
	fmt.Println(backwards.Strides(), copied.Float32s())
	// Output: [3 -1] [2 1 0 5 4 3]
}

func ExampleTensor_Cast() {
	weights, _ := tensor.FromFloat32([]float32{1, -1, 0, 1}, 4)
	packed, _ := weights.Cast(tensor.Ternary)
	fmt.Printf("%d byte: %08b\n", len(packed.Bytes()), packed.Bytes())
	// Output: 1 byte: [10010010]
}
