package cpu

// SumSquares is sum_i x[i]*x[i] in the order of [Lanes], for RMSNorm.
func SumSquares(x []float32) float32 {
	var lanes [Lanes]float32
	body := len(x) &^ (Lanes - 1)
	if body > 0 {
		sumSquares(&lanes, x[:body])
	}
	sumSquaresRef(&lanes, x[body:])
	return sumLanes(&lanes)
}

// AbsMax is the largest |x[i]|, 0 for an empty x and NaN if x holds one.
func AbsMax(x []float32) float32 {
	body := len(x) &^ (Lanes - 1)
	m := float32(0)
	if body > 0 {
		m = absMax(x[:body])
	}
	return absMaxRef(m, x[body:])
}

// ScaleMul is dst[i] = (x[i]*s) * w[i], or x[i]*s when w is nil; dst may be x.
func ScaleMul(dst, x, w []float32, s float32) {
	n := len(x)
	need("ScaleMul", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	if w == nil {
		if body > 0 {
			scale(dst[:body], x[:body], s)
		}
		scaleRef(dst[body:n], x[body:], s)
		return
	}
	need("ScaleMul", "w", len(w), n)
	if body > 0 {
		scaleMul(dst[:body], x[:body], w[:body], s)
	}
	scaleMulRef(dst[body:n], x[body:], w[body:n], s)
}

// QuantizeInt8 is dst[i] = clamp(roundHalfEven(x[i]*s), -128, 127) and returns the sum of dst: with s = 127/max|x| the
// activation quantizer of BitNet b1.58 (https://arxiv.org/abs/2402.17764). NaN becomes -128.
func QuantizeInt8(dst []int8, x []float32, s float32) int32 {
	n := len(x)
	need("QuantizeInt8", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	sum := int32(0)
	if body > 0 {
		sum = quantizeInt8(dst[:body], x[:body], s)
	}
	return sum + quantizeInt8Ref(dst[body:n], x[body:], s)
}

// Silu is dst[i] = x[i] / (1+exp(-x[i])) with the exponential of [ExpSum]; dst may be x.
func Silu(dst, x []float32) {
	n := len(x)
	need("Silu", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		silu(dst[:body], x[:body])
	}
	siluRef(dst[body:n], x[body:])
}

// ReLU2 is dst[i] = max(x[i], 0)^2, the squared ReLU of BitNet b1.58 2B4T (https://arxiv.org/abs/2504.12285); dst may be x.
func ReLU2(dst, x []float32) {
	n := len(x)
	need("ReLU2", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		relu2(dst[:body], x[:body])
	}
	relu2Ref(dst[body:n], x[body:])
}

// Mul is dst[i] = a[i]*b[i]; dst may be a or b.
func Mul(dst, a, b []float32) {
	n := len(a)
	need("Mul", "dst", len(dst), n)
	need("Mul", "b", len(b), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		mul(dst[:body], a[:body], b[:body])
	}
	mulRef(dst[body:n], a[body:], b[body:n])
}

// SubMul is dst[i] = (a[i]-s) * b[i]; dst may be a or b.
func SubMul(dst, a, b []float32, s float32) {
	n := len(a)
	need("SubMul", "dst", len(dst), n)
	need("SubMul", "b", len(b), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		subMul(dst[:body], a[:body], b[:body], s)
	}
	subMulRef(dst[body:n], a[body:], b[body:n], s)
}

// Add is dst[i] = a[i]+b[i]; dst may be a or b.
func Add(dst, a, b []float32) {
	n := len(a)
	need("Add", "dst", len(dst), n)
	need("Add", "b", len(b), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		add(dst[:body], a[:body], b[:body])
	}
	addRef(dst[body:n], a[body:], b[body:n])
}

// DequantRow is dst[i] = float32(acc[i])*scale, the end of a quantized matrix product.
func DequantRow(dst []float32, acc []int32, scale float32) {
	n := len(acc)
	need("DequantRow", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		dequantRow(dst[:body], acc[:body], scale)
	}
	dequantRowRef(dst[body:n], acc[body:], scale)
}
