package cpu

// Sigmoid is dst[i] = 1 / (1+exp(-x[i])) with the exponential of [ExpSum]; dst may be x.
func Sigmoid(dst, x []float32) {
	n := len(x)
	need("Sigmoid", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		sigmoid(dst[:body], x[:body])
	}
	sigmoidRef(dst[body:n], x[body:])
}

// Tanh is dst[i] = tanh(x[i]), with a relative error of at most 3e-7; dst may be x.
func Tanh(dst, x []float32) {
	n := len(x)
	need("Tanh", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		tanh(dst[:body], x[:body])
	}
	tanhRef(dst[body:n], x[body:])
}

// NormalCDF is dst[i] = P(N <= x[i]) of a standard normal variable, which is (1 + erf(x/sqrt 2))/2, with an error of at most
// 4e-7; dst may be x.
func NormalCDF(dst, x []float32) {
	n := len(x)
	need("NormalCDF", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		normalCDF(dst[:body], x[:body])
	}
	normalCDFRef(dst[body:n], x[body:])
}
