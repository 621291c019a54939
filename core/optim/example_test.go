package optim_test

import (
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/optim"
)

// Fits y = w*x to points of y = 3*x.
func Example() {
	w := &optim.Param{Name: "w", Shape: []int{1}, Data: []float32{0}, Grad: make([]float32, 1)}
	config := optim.DefaultConfig("adamw")
	config.LR, config.WeightDecay = 0.2, 0
	opt, err := optim.New(nil, config, optim.Group{Params: []*optim.Param{w}})
	if err != nil {
		panic(err)
	}
	defer opt.Close()
	schedule := optim.ScheduleConfig{Name: "cosine", TotalSteps: 100, WarmupSteps: 5}
	sched, err := optim.NewScheduler(opt, schedule)
	if err != nil {
		panic(err)
	}
	for range 100 {
		for _, x := range []float32{-1, 0.5, 2} { // loss: the mean of (w*x - 3*x)^2 / 2
			w.Grad[0] += (w.Data[0] - 3) * x * x / 3
		}
		factor, _, err := opt.Grads().ClipFactor(1)
		if err != nil {
			panic(err)
		}
		if err := opt.StepScaled(factor); err != nil {
			panic(err)
		}
		sched.Step()
		if err := opt.ZeroGrad(); err != nil {
			panic(err)
		}
	}
	fmt.Printf("%.2f\n", w.Data[0])
	// Output: 3.00
}
