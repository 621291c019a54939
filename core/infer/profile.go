package infer

import "github.com/bitnet-rust/bitnet_rust/core/nn"

// StartProfile makes the steps that begin from now on record where their time goes. It fails while a profile is running, and where the model is
// closed or damaged.
func (e *Engine) StartProfile() error {
	if _, err := e.version(); err != nil {
		return err
	}
	if !e.profile.CompareAndSwap(nil, nn.NewProfile()) {
		return &ArgumentError{Field: "profile", Value: "start", Reason: "expected a model that is not being profiled"}
	}
	return nil
}

// StopProfile ends what StartProfile began and returns what was recorded. A step in flight still adds itself when it ends. Without
// a profile it returns nil.
func (e *Engine) StopProfile() *nn.Profile { return e.profile.Swap(nil) }
