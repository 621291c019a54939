// Package functional has the operations that users build their own models and training loops from, over values with a
// history ([autograd.GradTensor]): everything of core/tensor, the operations inside the layers of core/nn, and a whole model.
//
// Nothing is computed here. An operation of core/nn becomes one node of the graph: it runs in a step of its own with a tape
// attached, and the step stays open, in memory of the pool, until the gradient of its result arrives and walks the tape. A
// graph that is dropped before gives the memory back. So a BitLinear in a user's loop is the integer kernel that inference
// runs, and a model's loss is that of train.Engine, bit for bit.
//
// A node of a graph that is walked twice runs its operation again, to the same bits, as the tape is used up. Operations that cost
// little, such as norms and gates, are always run again: what they would keep is larger than their work.
package functional
