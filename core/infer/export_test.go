package infer

import "github.com/bitnet-rust/bitnet_rust/core/pool"

// StepTokens is how many rows a step of a model has at most.
var StepTokens = stepTokens

// UsePool makes an engine take scratch memory and caches from p.
func (e *Engine) UsePool(p *pool.HybridMemoryPool) { e.mem = p }

// NewSchedulerAt is NewScheduler with a clock.
var NewSchedulerAt = newScheduler
