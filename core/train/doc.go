// Package train trains models: it runs forward and backward passes over batches of token sequences.
//
// The forward pass is the one of inference, kernel for kernel: ternary weights, int8 activations, exact integer sums.
// Gradients pass the quantizers straight through (see package nn) and reach float32 master weights, from which the
// ternary weights are derived again after every change.
package train
