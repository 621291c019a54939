package train

// Callback hears what happens in a run, on the goroutine of Train, between updates: the model may be used meanwhile. An error
// ends the run and is what Train returns; [Trainer.Stop] ends it without one. [NoCallback] has all methods, for those who
// want to hear some things only; several callbacks are called in their order.
type Callback interface {
	// RunStart comes before the first update, and before the first of a resumed run.
	RunStart(t *Trainer) error
	// Evaluation comes after an evaluation. What it puts into r.Metrics is part of the record, and may be what the run
	// watches (Config.Monitor).
	Evaluation(t *Trainer, r *Record) error
	// Step comes after an update and its evaluation.
	Step(t *Trainer, r Record) error
	// Checkpoint comes when the run was saved, after Step of the update.
	Checkpoint(t *Trainer, path string) error
	// RunEnd comes last, with what Train is about to return; also after an error, except that of RunStart.
	RunEnd(t *Trainer, cause error) error
}

// NoCallback hears everything and does nothing.
type NoCallback struct{}

// RunStart implements Callback.
func (NoCallback) RunStart(*Trainer) error { return nil }

// Evaluation implements Callback.
func (NoCallback) Evaluation(*Trainer, *Record) error { return nil }

// Step implements Callback.
func (NoCallback) Step(*Trainer, Record) error { return nil }

// Checkpoint implements Callback.
func (NoCallback) Checkpoint(*Trainer, string) error { return nil }

// RunEnd implements Callback.
func (NoCallback) RunEnd(*Trainer, error) error { return nil }

// StepFunc is a Callback of Step alone.
type StepFunc func(r Record) error

// RunStart implements Callback.
func (StepFunc) RunStart(*Trainer) error { return nil }

// Evaluation implements Callback.
func (StepFunc) Evaluation(*Trainer, *Record) error { return nil }

// Step implements Callback.
func (f StepFunc) Step(_ *Trainer, r Record) error { return f(r) }

// Checkpoint implements Callback.
func (StepFunc) Checkpoint(*Trainer, string) error { return nil }

// RunEnd implements Callback.
func (StepFunc) RunEnd(*Trainer, error) error { return nil }

// tell calls every callback and stops at the first error.
func (t *Trainer) tell(event func(Callback) error) error {
	for _, c := range t.Callbacks {
		if err := event(c); err != nil {
			return err
		}
	}
	return nil
}
