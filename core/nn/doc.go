// Package nn holds the layers of a BitNet b1.58 transformer: linear layers with ternary weights and int8
// activations, RMSNorm, rotary positions, attention over a paged key/value cache and the gated feed-forward network.
//
// A layer is a struct of weights with a Forward method that reads like the paper. Everything a step needs beside
// weights and inputs comes from a [Ctx]: scratch memory, the sequence and position of every row, the caches.
// Rows of one step may belong to different sequences; a layer does not know about batching policy or files.
//
// # Numbers
//
// Ternary products are exact int32 sums, and so are those of int8 and int4 layers, whose activations become 16-bit
// integers. Every float32 reduction belongs to one output element and runs in one fixed order (see package cpu), so a
// row's result has the same bits whatever else is in the step, however a prompt is cut into chunks, and with any number
// of threads.
package nn
