// Package nn holds the layers of a BitNet b1.58 transformer: linear layers with ternary weights and int8
// activations, norms, rotary or learned positions, attention over a paged key/value cache and the feed-forward network.
//
// A layer is a struct of weights with a Forward method that reads like the paper. Everything a step needs beside
// weights and inputs comes from a [Ctx]: scratch memory, the sequence and position of every row, the caches.
// Rows of one step may belong to different sequences; a layer does not know about batching policy or files.
//
// # Single operations
//
// What lies inside of the layers can be called alone, by whoever puts a model together himself (core/functional does). Each takes
// and returns tensors [rows, dim] of a step that has begun, and records itself when a tape is attached:
//
//	Embedding.Forward, Linear through Project, Norm.Forward
//	Activate(c, act, x)                  relu2, silu, relu, gelu, gelu_tanh, tanh, sigmoid (see Activation)
//	Gate(c, act, gate, up)               act(gate) * up: SwiGLU with SiLU
//	Attention.Attend(c, q, k, v)         causal or Bidirectional, grouped queries, ragged sequences in place of a padding mask
//	Rotate, Dropout, Ctx.Drop, Add, Ctx.CrossEntropy, Head.Loss (with a teacher: Distillation)
//
// # Training
//
// [Training] is what a step does beside inference: dropout, the straight-through estimator ([STE]), the mix of float and
// ternary weights, recomputation ([Recompute]), a teacher. It belongs to the step and not to layers, of which there is one
// definition. Random numbers are hashes of the step's seed and of the place of an element.
//
// # Numbers
//
// Ternary products are exact int32 sums, and so are those of int8 layers and of each group of columns of int4 ones, whose activations become
// 16-bit integers. Every float32 reduction belongs to one output element and runs in one fixed order (see package cpu), so a
// row's result has the same bits whatever else is in the step, however a prompt is cut into chunks, and with any number
// of threads.
package nn
