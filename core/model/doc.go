// Package model holds the one definition of a causal language model, which inference and training run, and reads and writes it in every
// file format.
//
//	Config                                  what fixes shapes and arithmetic: of a config.json, the registry of names, or code
//	Model                                   embedding, Blocks, head; Forward is a step over any rows of any sequences
//	Load, LoadReader, FromTensors           a directory or a .bitnet, .gguf or .onnx file; a .bitnet file from a reader; arrays
//	NewRandom, NewTrainable                 fresh weights of a Config, the second with masters to train
//	Save, SaveHF, SaveGGUF, SaveONNXWeights the native format; packed or master checkpoints; files for other programs
//	Inspect, Verify, Diff                   what is in files, what is wrong with them, how two models differ
//	Snapshot                                the state of a training run as a file: package train says what is in it
//
// Layers are those of core/nn; formats those of core/format, which know nothing of models. An architecture is a few methods of [Config]
// (SubNorms, LayerNorm, LearnedPositions, Gated), and a source of tensors where its checkpoints have other names.
//
// Weights are in memory of core/pool or in a file's mapping: a [Model] is closed when it is no longer used. One that can be trained has float32
// master weights beside its ternary ones, and [Model.Refresh] makes the second follow the first.
package model
