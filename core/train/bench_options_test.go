package train_test

import (
	"testing"

	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// BenchmarkOptions is BenchmarkStep with each option, to be compared with the plain step.
func BenchmarkOptions(b *testing.B) {
	for _, w := range workloads {
		b.Run(w.name, w.options)
	}
}

func (w workload) options(b *testing.B) {
	for _, c := range []struct {
		name string
		o    train.EngineOptions
	}{
		{"plain", train.EngineOptions{}},
		{"dropout", train.EngineOptions{Dropout: 0.1}},
		{"attention_dropout", train.EngineOptions{AttentionDropout: 0.1}},
		{"gradient_checkpointing", train.EngineOptions{GradientCheckpointing: true}},
		{"ste=clipped", train.EngineOptions{STE: "clipped"}},
		{"ste=soft", train.EngineOptions{STE: "soft"}},
		{"ste=learned_scale", train.EngineOptions{STE: "learned_scale"}},
		{"half quantized", train.EngineOptions{QuantizationSchedule: "linear", QuantizationEnd: 2}},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := w.startWith(b, c.o)
			r.engine.SetStep(1, 1, 0)
			forward, training := r.peaks(b)
			for b.Loop() {
				r.step(b)
			}
			b.ReportMetric(float64(len(r.batch.IDs)*b.N)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric(float64(training)/1e6, "MB")
			b.ReportMetric(float64(training)/float64(forward), "x-forward")
		})
	}
}
