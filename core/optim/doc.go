// Package optim turns gradients into weight updates: SGD, Adam and AdamW, learning-rate schedules, gradient clipping and
// loss scaling, with the arithmetic, the names and the saved state of PyTorch.
//
// An [Optimizer] works on [Param] values: slices of weights and gradients that somebody else owns. Parameters come in
// groups with hyperparameters of their own, for instance without weight decay for norms and biases ([DecayGroups]).
// One training step reads:
//
//	grads := opt.Grads()
//	factor, norm, err := grads.ClipFactor(1.0) // reads the gradients once
//	err = opt.StepScaled(factor)               // clips and updates in one pass
//	sched.Step()                               // learning rate of the next step
//	err = opt.ZeroGrad()
//
// [GradScaler] stands between for half-precision training, [Gradients] has what may be done with gradients in place.
//
// # Schedules
//
// A [Schedule] is a pure function from the number of the update to factors of the learning rate and the weight decay;
// [NewSchedule] builds one by name from a [ScheduleConfig]. A [Scheduler] applies it to an optimizer and counts steps. The
// only schedule with a memory is "plateau", which listens to a metric.
//
// # Numbers
//
// Updates are float32 in the order of operations of torch.optim, each operation rounded by itself; scalars such as bias
// corrections are float64 and rounded once. PyTorch's CPU kernels contract some products and sums (FMA), so single elements
// differ in the last bits: over 100 steps within 1e-6 of the value, or of its tensor's root mean square where the value is
// smaller. Recorded values in tests_go/testdata/optim hold that.
//
// Work is cut into chunks of a fixed size, and a sum over gradients adds chunk sums in order, in float64. Results do not
// depend on the number of threads, and resuming from a [StateDict] continues bit for bit. After the first step, which
// allocates state from the memory pool, steps allocate nothing.
//
// # State
//
// [Optimizer.StateDict] has PyTorch's structure, {"state": {0: {"step", "exp_avg", ...}}, "param_groups": [...]}: tensors by
// name, everything else as JSON that torch.optim understands, and the reverse.
//
// Nothing here is safe for concurrent use: an optimizer belongs to one training loop, which uses all cores for it.
package optim
