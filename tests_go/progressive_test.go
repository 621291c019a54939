package tests_go

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

func TestQuantizationFollowsItsSchedule(t *testing.T) {
	for name, c := range map[string]struct {
		o    train.EngineOptions
		want map[int]float64
	}{
		"none":   {train.EngineOptions{}, map[int]float64{0: 1, 7: 1}},
		"linear": {train.EngineOptions{QuantizationSchedule: "linear", QuantizationStart: 10, QuantizationEnd: 30}, map[int]float64{0: 0, 10: 0, 15: 0.25, 30: 1, 99: 1}},
		"cosine": {train.EngineOptions{QuantizationSchedule: "cosine", QuantizationEnd: 20}, map[int]float64{0: 0, 5: 0.14644660940672624, 10: 0.5, 20: 1, 21: 1}},
		"step":   {train.EngineOptions{QuantizationSchedule: "step", QuantizationStart: 10}, map[int]float64{0: 0, 9: 0, 10: 1, 11: 1}},
	} {
		require.NoError(t, c.o.Validate())
		for step, want := range c.want {
			require.InDelta(t, want, c.o.Quantized(step), 1e-12, "%s, step %d", name, step)
		}
	}
	for message, o := range map[string]train.EngineOptions{
		`quantization_schedule = "slow": expected "linear", "cosine" or "step"`:   {QuantizationSchedule: "slow"},
		"quantization_start = -1: expected a number of updates":                   {QuantizationStart: -1, QuantizationSchedule: "step"},
		"quantization_start = 3: expected none without":                           {QuantizationStart: 3},
		`quantization_end = 3: expected none with quantization_schedule = "step"`: {QuantizationSchedule: "step", QuantizationEnd: 3},
		"quantization_end = 3: expected more than quantization_start = 3":         {QuantizationSchedule: "linear", QuantizationStart: 3, QuantizationEnd: 3},
		`quantization_end = 3: expected none with quantization_schedule = ""`:     {QuantizationEnd: 3},
		"quantization_end = 0: expected more than quantization_start = 0":         {QuantizationSchedule: "cosine"},
	} {
		err := o.Validate()
		require.ErrorIs(t, err, train.ErrConfig)
		require.ErrorContains(t, err, message)
	}
}

// At the start of a schedule the step is that of a model with float layers, at its end that of the ternary model, both to the bit.
func TestProgressiveQuantizationBeginsAtFloatAndEndsAtTernary(t *testing.T) {
	o := train.EngineOptions{QuantizationSchedule: "linear", QuantizationStart: 2, QuantizationEnd: 10}
	b := someBatch(70, 9)
	e := engineFor(t, o)
	ternary, ternaryGrads := gradients(t, engineFor(t, train.EngineOptions{}), b)

	cfg := *trainable(t, "relu2").Config
	cfg.Quantization.ModulesToNotConvert = []string{"model"}
	m, err := model.NewTrainable(&cfg, 3, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	require.Nil(t, m.Blocks[0].FFN.Up.Ternary)
	float, err := train.NewEngine(m, train.EngineOptions{})
	require.NoError(t, err)
	defer float.Close()
	floatLoss, floatGrads := gradients(t, float, b)

	for _, step := range []int{0, 2} {
		e.SetStep(1, step, 0)
		loss, grads := gradients(t, e, b)
		require.Equal(t, floatLoss, loss)
		require.Equal(t, floatGrads, grads)
	}
	e.SetStep(1, 6, 0)
	half, _ := gradients(t, e, b)
	require.NotEqual(t, floatLoss, half)
	require.NotEqual(t, ternary, half)
	for _, step := range []int{10, 11} {
		e.SetStep(1, step, 0)
		loss, grads := gradients(t, e, b)
		require.Equal(t, ternary, loss)
		require.Equal(t, ternaryGrads, grads)
	}
	e.SetStep(1, 0, 0)
	var plain, score train.Score
	require.NoError(t, e.Score(context.Background(), b, &score))
	require.NoError(t, engineFor(t, train.EngineOptions{}).Score(context.Background(), b, &plain))
	require.Equal(t, plain, score, "evaluation is of the ternary model at any step")
}

// Some layers ternary, others float: each has its gradients, with recomputation and dropout as without.
func TestLayersThatStayFloatAreTrainedBesideTernaryOnes(t *testing.T) {
	cfg := *trainable(t, "relu2").Config
	cfg.Quantization.ModulesToNotConvert = []string{"model.layers.0", "q_proj"}
	run := func(o train.EngineOptions, step int) (float64, [][]float32) {
		m, err := model.NewTrainable(&cfg, 3, model.LoadOptions{})
		require.NoError(t, err)
		defer func() { require.NoError(t, m.Close()) }()
		require.Nil(t, m.Blocks[0].FFN.Up.Ternary)
		require.Nil(t, m.Blocks[1].Attn.Q.Ternary)
		require.NotNil(t, m.Blocks[1].Attn.K.Ternary)
		e, err := train.NewEngine(m, o)
		require.NoError(t, err)
		defer e.Close()
		e.SetStep(1, step, 0)
		return gradients(t, e, someBatch(33, 20))
	}
	for _, step := range []int{0, 3, 8} {
		o := train.EngineOptions{Dropout: 0.1, QuantizationSchedule: "cosine", QuantizationEnd: 6}
		loss, grads := run(o, step)
		for _, g := range grads {
			require.NotZero(t, maxAbs(g))
		}
		o.GradientCheckpointing = true
		l, again := run(o, step)
		require.Equal(t, loss, l)
		require.Equal(t, grads, again)
	}
}

// What was trained with some float layers is saved and loaded as it is.
func TestModelsWithFloatLayersAreSaved(t *testing.T) {
	cfg := *trainable(t, "relu2").Config
	cfg.Quantization.ModulesToNotConvert = []string{"model.layers.0", "q_proj"}
	m, err := model.NewTrainable(&cfg, 3, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	ids := someBatch(99).IDs
	likelihood := func(m *model.Model) float64 {
		e := infer.NewEngine(m)
		defer e.Close()
		sum, _, err := e.LogLikelihood(context.Background(), ids, 200, 100)
		require.NoError(t, err)
		return sum
	}
	for format, save := range map[string]func(path string) error{
		"bitnet": func(path string) error { return m.Save(path, nil) }, "hf": m.SaveHF,
	} {
		path := filepath.Join(t.TempDir(), "model."+format)
		require.NoError(t, save(path))
		saved, err := model.Load(context.Background(), path, model.LoadOptions{HeadFormat: "float32"})
		require.NoError(t, err)
		require.Nil(t, saved.Blocks[1].Attn.Q.Ternary)
		require.NotNil(t, saved.Blocks[1].Attn.K.Ternary)
		require.Equal(t, likelihood(m), likelihood(saved), format)
		require.NoError(t, saved.Close())
	}
}

func maxAbs(x []float32) (m float32) {
	for _, v := range x {
		m = max(m, v, -v)
	}
	return m
}
