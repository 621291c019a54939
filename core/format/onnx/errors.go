package onnx

import "github.com/bitnet-rust/bitnet_rust/core/format/container"

// The ways in which a file can be no model. Each matches container.ErrFormat too.
var (
	ErrMessage   = container.NewKind("not an ONNX model")
	ErrCount     = container.NewKind("more parts than a model has")
	ErrText      = container.NewKind("not a text")
	ErrDuplicate = container.NewKind("name occurs twice")
	ErrDType     = container.NewKind("unknown tensor type")
	ErrShape     = container.NewKind("impossible shape")
	ErrSize      = container.NewKind("byte size does not follow from shape and type")
	ErrDataFile  = container.NewKind("data file cannot be used")
)
