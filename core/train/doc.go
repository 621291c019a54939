// Package train trains models: it runs forward and backward passes over batches of token sequences.
//
// The forward pass is the one of inference, kernel for kernel: ternary weights, int8 activations, exact integer sums.
// Gradients pass the quantizers straight through (see package nn) and reach float32 master weights, from which the
// ternary weights are derived again after every change.
//
// An Engine computes losses and gradients of one model; its EngineOptions change what a step computes: dropout, the
// straight-through estimator, progressive quantization, a teacher, recomputation. A Dataset gives examples, a Loader makes
// the batches of each update ahead of time. The Trainer's loop (loop.go) puts these together with an optimizer and its
// schedule, evaluates, tells Callbacks, and saves checkpoints from which a run continues to the same bits.
package train
