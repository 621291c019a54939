package train

import (
	"context"
	"fmt"
)

// Scorer computes losses without gradients: an Engine of this package, or what runs the same model elsewhere.
type Scorer interface {
	// Score adds how well the batch's targets are predicted to s, sequence by sequence.
	Score(ctx context.Context, b Batch, s *Score) error
}

// Evaluate scores all examples of a dataset in order, batchSize at a time. The size does not show in the result.
func Evaluate(ctx context.Context, by Scorer, d Dataset, batchSize int) (s Score, err error) {
	var b Batch
	for first := 0; first < d.Len(); first += batchSize {
		b.reset()
		for i := first; i < min(first+batchSize, d.Len()); i++ {
			if err := d.Example(&b, i); err != nil {
				return s, err
			}
		}
		if b.CountTargets() == 0 { // as in a window of separators
			continue
		}
		if err := by.Score(ctx, b, &s); err != nil {
			return s, err
		}
	}
	if s.Targets == 0 {
		return s, fmt.Errorf("%w: no example has a target", ErrBatch)
	}
	return s, nil
}
