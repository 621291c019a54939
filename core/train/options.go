package train

import (
	"fmt"
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// EngineOptions change what a training step computes. The zero value trains the model as it is run. Evaluation knows none of
// them: a loss that is reported for a text is that of the model which is saved.
//
// The JSON names are those of the Trainer's arguments in Python.
type EngineOptions struct {
	// Share of the elements of the embedding's output and of each residual branch that is dropped (Srivastava et al. 2014).
	Dropout float64 `json:"dropout,omitempty"`
	// Share of the attention probabilities that is dropped.
	AttentionDropout float64 `json:"attention_dropout,omitempty"`
	// Compute the activations of a transformer layer again in the backward pass instead of keeping them (Chen et al. 2016): the same
	// gradients to the bit, for a third more work and a fraction of the memory.
	GradientCheckpointing bool `json:"gradient_checkpointing,omitempty"`

	// How gradients pass the quantizer of ternary weights: "identity" (the default, as in BitNet b1.58), "clipped", "soft" or
	// "learned_scale"; see nn.STE for the formulas.
	STE string `json:"ste,omitempty"`
	// Of "clipped": a weight more than this many scales away from zero gets no gradient. 0 means 1.5, the border of what rounds to -1,
	// 0 or 1 without being clamped.
	STEClip float64 `json:"ste_clip,omitempty"`
	// Of "soft": the temperature at the first step, 0 meaning 0.5, and the one that it goes to in equal ratios within
	// STETemperatureSteps, 0 meaning that it stays.
	STETemperature      float64 `json:"ste_temperature,omitempty"`
	STETemperatureEnd   float64 `json:"ste_temperature_end,omitempty"`
	STETemperatureSteps int     `json:"ste_temperature_steps,omitempty"`

	// Progressive quantization: ternary layers compute with a mix of float and quantized weights and activations, and the share of
	// the latter grows from 0 at update QuantizationStart to 1 at QuantizationEnd, "linear" or as a "cosine", or at once at
	// QuantizationStart ("step"). At 1 the step is the integer kernels'. "": it always is.
	QuantizationSchedule string `json:"quantization_schedule,omitempty"`
	QuantizationStart    int    `json:"quantization_start,omitempty"`
	QuantizationEnd      int    `json:"quantization_end,omitempty"`

	// Teacher, when not nil, is a model with the same vocabulary whose distribution is learned beside the text's (Hinton et al.
	// 2015, nn.Distillation): DistillationAlpha is its share of the loss, in (0, 1], 0 meaning 0.5, and DistillationTemperature
	// softens both distributions, 0 meaning 2. The teacher reads each batch in the same step; it stays as it is.
	Teacher                 *model.Model `json:"-"`
	DistillationAlpha       float64      `json:"distillation_alpha,omitempty"`
	DistillationTemperature float64      `json:"distillation_temperature,omitempty"`
}

// OptionError is an option with a value that cannot be. It matches ErrConfig.
type OptionError struct {
	Field    string // "dropout"
	Value    any    // what was found
	Expected string // "a number in [0, 1)"
}

// Error has the field, its value and what was expected.
func (e *OptionError) Error() string {
	return fmt.Sprintf("%v: %s = %v: expected %s", ErrConfig, e.Field, e.Value, e.Expected)
}

// Unwrap gives the sentinel.
func (e *OptionError) Unwrap() error { return ErrConfig }

// Validate returns an *OptionError for the first option that cannot be.
func (o EngineOptions) Validate() error {
	for _, f := range []struct {
		name  string
		value float64
	}{{"dropout", o.Dropout}, {"attention_dropout", o.AttentionDropout}} {
		if !(f.value >= 0 && f.value < 1) {
			return &OptionError{f.name, f.value, "a number in [0, 1)"}
		}
	}
	if err := o.validateSTE(); err != nil {
		return err
	}
	if err := o.validateSchedule(); err != nil {
		return err
	}
	return o.validateDistillation()
}

func (o EngineOptions) validateSTE() error {
	if _, ok := nn.Estimators[o.STE]; !ok && o.STE != "" {
		return &OptionError{"ste", fmt.Sprintf("%q", o.STE), `"identity", "clipped", "soft" or "learned_scale"`}
	}
	for _, f := range []struct {
		name  string
		value float64
		of    string
	}{{"ste_clip", o.STEClip, "clipped"}, {"ste_temperature", o.STETemperature, "soft"}, {"ste_temperature_end", o.STETemperatureEnd, "soft"},
		{"ste_temperature_steps", float64(o.STETemperatureSteps), "soft"}} {
		switch {
		case !(f.value >= 0) || math.IsInf(f.value, 0):
			return &OptionError{f.name, f.value, "a number > 0, or 0 for the default"}
		case f.value > 0 && o.STE != f.of:
			return &OptionError{f.name, f.value, fmt.Sprintf("none with ste = %q: it belongs to %q", o.STE, f.of)}
		}
	}
	if (o.STETemperatureEnd > 0) != (o.STETemperatureSteps > 0) {
		return &OptionError{"ste_temperature_end", o.STETemperatureEnd,
			fmt.Sprintf("a temperature and ste_temperature_steps (now %d) together, or neither", o.STETemperatureSteps)}
	}
	return nil
}

func (o EngineOptions) validateSchedule() error {
	name, start, end := o.QuantizationSchedule, o.QuantizationStart, o.QuantizationEnd
	switch {
	case !slices.Contains([]string{"", "linear", "cosine", "step"}, name):
		return &OptionError{"quantization_schedule", fmt.Sprintf("%q", name), `"linear", "cosine" or "step"`}
	case start < 0:
		return &OptionError{"quantization_start", start, "a number of updates >= 0"}
	case name == "" && start > 0:
		return &OptionError{"quantization_start", start, "none without a quantization_schedule"}
	case (name == "" || name == "step") && end != 0:
		return &OptionError{"quantization_end", end, fmt.Sprintf("none with quantization_schedule = %q", name)}
	case (name == "linear" || name == "cosine") && end <= start:
		return &OptionError{"quantization_end", end, fmt.Sprintf("more than quantization_start = %d", start)}
	}
	return nil
}

func (o EngineOptions) validateDistillation() error {
	alpha, temperature := o.DistillationAlpha, o.DistillationTemperature
	switch {
	case !(alpha >= 0 && alpha <= 1):
		return &OptionError{"distillation_alpha", alpha, "a number in (0, 1], or 0 for the default"}
	case !(temperature >= 0) || math.IsInf(temperature, 0):
		return &OptionError{"distillation_temperature", temperature, "a number > 0, or 0 for the default"}
	case o.Teacher == nil && alpha > 0:
		return &OptionError{"distillation_alpha", alpha, "none without a teacher"}
	case o.Teacher == nil && temperature > 0:
		return &OptionError{"distillation_temperature", temperature, "none without a teacher"}
	}
	return nil
}

// Quantized is the share of quantized weights and activations in the update after step updates, [0, 1].
func (o EngineOptions) Quantized(step int) float64 {
	done := 0.0
	if step >= o.QuantizationStart {
		done = min(float64(step-o.QuantizationStart)/float64(max(o.QuantizationEnd-o.QuantizationStart, 1)), 1)
	}
	switch o.QuantizationSchedule {
	case "linear":
		return done
	case "cosine":
		return (1 - math.Cos(math.Pi*done)) / 2
	case "step":
		if step < o.QuantizationStart {
			return 0
		}
	}
	return 1
}

// temperature is that of the update after step updates.
func (o EngineOptions) temperature(step int) float64 {
	from := o.STETemperature
	if from == 0 {
		from = nn.DefaultTemperature
	}
	if o.STETemperatureSteps == 0 {
		return from
	}
	done := min(float64(step)/float64(o.STETemperatureSteps), 1)
	return from * math.Pow(o.STETemperatureEnd/from, done)
}

// training is what the options make of one forward pass.
func (o EngineOptions) training(seed uint64, step, micro int) nn.Training {
	clip := o.STEClip
	if clip == 0 {
		clip = nn.DefaultClip
	}
	return nn.Training{
		Dropout: float32(o.Dropout), AttentionDropout: float32(o.AttentionDropout), Seed: nn.StepSeed(seed, uint64(step), uint64(micro)),
		STE: nn.Estimators[o.STE], Clip: float32(clip), Temperature: float32(o.temperature(step)),
		Float: float32(1 - o.Quantized(step)), Recompute: o.GradientCheckpointing,
	}
}

// memoryKind tells forward passes apart whose steps differ in what memory they take.
func memoryKind(t nn.Training) uint64 {
	kind := uint64(t.STE)
	for _, on := range []bool{t.Dropout > 0, t.AttentionDropout > 0, t.Float > 0, t.Recompute} {
		kind <<= 1
		if on {
			kind |= 1
		}
	}
	return kind
}
