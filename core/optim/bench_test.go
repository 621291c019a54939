package optim

import "testing"

// Benchmarks give nanoseconds a parameter for tensors of 4 million, which do not stay in the cache.
func BenchmarkStep(b *testing.B) {
	for _, name := range []string{"sgd", "sgd momentum", "adam", "adamw", "adamw amsgrad"} {
		b.Run(name, func(b *testing.B) {
			o := optimizerFor(b, everyKind()[name], testParams(1, []int{2048, 2048}))
			perParam(b, 1<<22, func() error { return o.StepScaled(0.5) })
		})
	}
}

func BenchmarkGradients(b *testing.B) {
	g, err := NewGradients(testParams(1, []int{2048, 2048}))
	if err != nil {
		b.Fatal(err)
	}
	for _, job := range []struct {
		name string
		run  func() error
	}{
		{"norm", func() error { _, err := g.Norm(); return err }},
		{"scale", func() error { return g.Scale(1) }},
		{"clip value", func() error { return g.ClipValue(100) }},
		{"zero", g.Zero},
	} {
		b.Run(job.name, func(b *testing.B) { perParam(b, 1<<22, job.run) })
	}
}

func perParam(b *testing.B, params int, f func() error) {
	b.Helper()
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(params), "ns/param")
	b.ReportMetric(0, "ns/op")
}
