package tensor

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRebindReusesTheHeader(t *testing.T) {
	var h Tensor
	data := make([]float32, 24)
	h.Rebind(data, 2, 3, 4)
	require.Equal(t, []int{2, 3, 4}, h.Shape())
	require.Zero(t, testing.AllocsPerRun(100, func() {
		h.Rebind(data[:12], 3, 4)
		h.Rebind(data, 4, 3, 2)
	}))
	require.Equal(t, []int{6, 2, 1}, h.Strides())
	h.Float32s()[23] = 7
	require.Equal(t, float32(7), data[23])
	require.Panics(t, func() { h.Rebind(data, 5) })
}

func TestNewIsZeroForEveryDType(t *testing.T) {
	for _, dt := range allDTypes {
		x := zerosOf(t, dt, 3, 5)
		require.Equal(t, dt, x.DType())
		require.Equal(t, 15, x.Len())
		require.True(t, x.IsContiguous())
		require.Equal(t, make([]float64, 15), values(x).v)
		parsed, err := ParseDType(dt.String())
		require.NoError(t, err)
		require.Equal(t, dt, parsed)
	}
	require.Equal(t, "invalid", DType(77).String())
	_, err := ParseDType("float64")
	require.ErrorIs(t, err, ErrDType)
	var zero Tensor
	require.Equal(t, Float32, zero.DType())
	require.Equal(t, 0, zero.NDim())
}

func TestConstructorsCheckShapesAndBytes(t *testing.T) {
	for _, c := range []struct {
		dt    DType
		bytes int
		shape []int
		is    error
	}{
		{Float32, 24, []int{2, 3}, nil},
		{Float32, 23, []int{2, 3}, ErrShape},
		{Float32, 0, []int{2, -3}, ErrShape},
		{Float32, 0, []int{0, 1 << 40, 1 << 40}, ErrShape},
		{Int8, 0, []int{0, 5}, nil},
		{Int64, 8, nil, nil},
		{Ternary, 4, []int{2, 5}, nil},
		{Ternary, 3, []int{2, 5}, ErrShape},
		{DType(99), 1, []int{1}, ErrDType},
	} {
		_, err := FromBytes(c.dt, make([]byte, c.bytes), c.shape...)
		if c.is == nil {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, c.is)
		}
	}
	_, err := FromBytes(Bool, []byte{0, 1, 2}, 3)
	require.ErrorIs(t, err, ErrValue)
	require.ErrorContains(t, err, "byte 2 of a bool tensor is 2")
	_, err = FromBytes(Ternary, []byte{0xaa, 0x0c}, 8)
	require.ErrorIs(t, err, ErrValue)
}

func TestConstructorsBorrowTheSlice(t *testing.T) {
	f := []float32{1, 2}
	x := floats(t, f, 2)
	f[0] = 5
	require.Equal(t, f, x.Float32s())
	i32, err := FromInt32([]int32{1, -2}, 2)
	require.NoError(t, err)
	require.Equal(t, []int32{1, -2}, i32.Int32s())
	i64, err := FromInt64([]int64{1, -2}, 2)
	require.NoError(t, err)
	require.Equal(t, []int64{1, -2}, i64.Int64s())
	i8, err := FromInt8([]int8{1, -2}, 2)
	require.NoError(t, err)
	require.Equal(t, []byte{1, 0xfe}, i8.Bytes())
	require.Panics(t, func() { i8.Float32s() }, "a contract between packages")
	require.Panics(t, func() { zerosOf(t, Float32, 2, 3).T().Float32s() })
	require.Nil(t, zerosOf(t, Float32, 0).Float32s())
	require.Equal(t, 3, zerosOf(t, Float32, 2, 3).Dim(-1))
}

type counted struct{ released int }

func (c *counted) Release() { c.released++ }

func TestReleaseGivesOwnedMemoryBackOnce(t *testing.T) {
	owner := &counted{}
	x, err := FromOwned(Int8, make([]byte, 6), owner, 2, 3)
	require.NoError(t, err)
	view := x.T()
	view.Release()
	x.Release()
	require.Equal(t, 1, owner.released)
	zerosOf(t, Float32, 2).Release()

	_, err = FromOwned(Int8, make([]byte, 6), owner, 7)
	require.ErrorIs(t, err, ErrShape)
	require.Equal(t, 1, owner.released, "refused memory stays the caller's")
}

func TestHugeRequestsAreRefused(t *testing.T) {
	_, err := New(Float32, 1<<50)
	require.ErrorIs(t, err, ErrMemory)
	require.ErrorContains(t, err, "(1125899906842624,)")
	_, err = New(Float32, 1<<40, 1<<40)
	require.ErrorIs(t, err, ErrShape)

	SetMemoryLimit(1000)
	defer SetMemoryLimit(0)
	x, err := New(Float32, 250)
	require.NoError(t, err)
	require.NotNil(t, x)
	_, err = New(Float32, 251)
	require.ErrorIs(t, err, ErrMemory)

	wide, err := x.Expand(250, 250)
	require.NoError(t, err, "a view takes no memory")
	square := func(t *Tensor) (*Tensor, error) { return t.Reshape(-1) }
	topK := func(t *Tensor) (*Tensor, error) { v, _, err := TopK(t, 250, 0, true); return v, err }
	for name, op := range map[string]func(*Tensor) (*Tensor, error){
		"clone": (*Tensor).Clone, "contiguous": (*Tensor).Contiguous, "reshape": square, "topk": topK, "exp": Exp, "isnan": IsNaN,
		"cast":    func(t *Tensor) (*Tensor, error) { return t.Cast(Int64) },
		"add":     func(t *Tensor) (*Tensor, error) { return Add(t, t) },
		"where":   func(t *Tensor) (*Tensor, error) { return Where(t, t, t) },
		"less":    func(t *Tensor) (*Tensor, error) { return Less(t, t) },
		"and":     func(t *Tensor) (*Tensor, error) { return LogicalAnd(t, t) },
		"matmul":  func(t *Tensor) (*Tensor, error) { return MatMul(t, t) },
		"outer":   func(t *Tensor) (*Tensor, error) { return Outer(x, x) },
		"softmax": func(t *Tensor) (*Tensor, error) { return Softmax(t, 0) },
		"cumsum":  func(t *Tensor) (*Tensor, error) { return CumSum(x.view([]int{250, 2}, []int{1, 0}, 0), 0) },
		"sum":     func(t *Tensor) (*Tensor, error) { return Sum(t, []int{}, false) },
		"concat":  func(t *Tensor) (*Tensor, error) { return Concat(0, t, t) },
		"triu":    func(t *Tensor) (*Tensor, error) { return Triu(t, 0) },
		"full":    func(t *Tensor) (*Tensor, error) { return Full(Float32, 0.0, 999) },
		"arange":  func(t *Tensor) (*Tensor, error) { return Arange(Float32, 0, 1000, 1) },
		"eye":     func(t *Tensor) (*Tensor, error) { return Eye(Float32, 999) },
		"gather":  func(t *Tensor) (*Tensor, error) { return Gather(t, zeroIndex, 0) },
		"embed":   func(t *Tensor) (*Tensor, error) { return Embedding(t, zeroIndex) },
	} {
		_, err := op(wide)
		require.ErrorIs(t, err, ErrMemory, name)
	}
	require.ErrorIs(t, Copy(wide, wide), ErrMemory)
}

var zeroIndex = &Tensor{dtype: Int64, shape: []int{20, 250}, strides: []int{0, 0}, data: make([]byte, 8)}

func TestFullArangeEye(t *testing.T) {
	for _, dt := range allDTypes {
		x, err := Ones(dt, 2)
		require.NoError(t, err)
		require.Equal(t, []float64{1, 1}, values(x).v)
		eye, err := Eye(dt, 3)
		require.NoError(t, err)
		require.Equal(t, []float64{1, 0, 0, 0, 1, 0, 0, 0, 1}, values(eye).v)
		x, err = Arange(dt, 0, 2, 1)
		require.NoError(t, err)
		require.Equal(t, []float64{0, 1}, values(x).v)
	}
	for _, c := range []struct {
		start, stop, step float64
		want              []float64
	}{
		{0, 1, 0.25, []float64{0, 0.25, 0.5, 0.75}},
		{3, 0, -1.5, []float64{3, 1.5}},
		{3, 0, 1, nil},
	} {
		x, err := Arange(Float32, c.start, c.stop, c.step)
		require.NoError(t, err)
		require.Equal(t, len(c.want), x.Len())
		requireValues(t, array{[]int{len(c.want)}, c.want}, x, 0)
	}
	for _, c := range [][3]float64{{0, 1, 0}, {0, math.Inf(1), 1}, {math.NaN(), 1, 1}} {
		_, err := Arange(Float32, c[0], c[1], c[2])
		require.ErrorIs(t, err, ErrValue)
	}
	_, err := Arange(Float32, 0, 1e30, 1)
	require.ErrorIs(t, err, ErrShape)
	_, err = Arange(Int8, 0, 200, 1)
	require.ErrorIs(t, err, ErrValue)
	for _, c := range []struct {
		dt DType
		v  float64
	}{{Int8, 128}, {UInt8, -1}, {Int32, math.NaN()}, {Int64, math.Inf(1)}, {Ternary, 2}} {
		_, err := Full(c.dt, c.v)
		require.ErrorIs(t, err, ErrValue)
		require.ErrorContains(t, err, c.dt.String())
	}
	_, err = Full(DType(50), 0.0)
	require.ErrorIs(t, err, ErrDType)
	_, err = Eye(Float32, -1)
	require.ErrorIs(t, err, ErrShape)
}

func TestTernaryIsTwoBitsPerElement(t *testing.T) {
	x, err := FromInt8([]int8{1, 0, -1, 1, -1, 0, 0, 0, 1, -1}, 2, 5)
	require.NoError(t, err)
	packed, err := x.Cast(Ternary)
	require.NoError(t, err)
	require.Len(t, packed.Bytes(), 4, "two rows of five take two bytes each")
	require.Equal(t, byte(2|1<<2|0<<4|2<<6), packed.Bytes()[0])
	back, err := packed.Cast(Int8)
	require.NoError(t, err)
	require.Equal(t, x.Int8s(), back.Int8s())
	tail, err := packed.Slice(1, 1, None, 1)
	require.NoError(t, err)
	require.False(t, tail.IsContiguous(), "rows that do not begin on a byte")
	_, err = floats(t, []float32{0.5}, 1).Cast(Ternary)
	require.ErrorIs(t, err, ErrValue)
}

func TestBFloat16CopiesKeepNaNPayloads(t *testing.T) {
	x, err := FromBytes(BFloat16, []byte{0x81, 0x7f, 0x82, 0xff}, 2)
	require.NoError(t, err)
	y, err := x.Slice(0, None, None, -1)
	require.NoError(t, err)
	y, err = y.Contiguous()
	require.NoError(t, err)
	require.Equal(t, []byte{0x82, 0xff, 0x81, 0x7f}, y.Bytes())
}
