package train

import (
	"encoding/json"
	"math"
	"time"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Record is what is known after an update. In JSON it is one flat object, without what was not measured, and with null for what is
// no finite number.
type Record struct {
	Step         int     `json:"step"`          // updates made
	Epoch        float64 `json:"epoch"`         // times that the dataset was seen
	Tokens       int64   `json:"tokens"`        // that the updates so far have read
	Loss         float64 `json:"loss"`          // mean cross-entropy of the update's targets, in nats
	Perplexity   float64 `json:"perplexity"`    // exp of it
	Accuracy     float64 `json:"accuracy"`      // share of the targets that had the highest logit
	GradientNorm float64 `json:"gradient_norm"` // before clipping

	Divergence *float64 `json:"divergence,omitempty"` // with a teacher: mean KL(teacher || model) of the targets in nats, at the temperature

	LearningRate  float64            `json:"learning_rate"`  // of the first group of parameters
	LearningRates map[string]float64 `json:"learning_rates"` // by group

	LossScale float64 `json:"loss_scale,omitempty"` // that the gradients were computed with
	Skipped   bool    `json:"skipped,omitempty"`    // a gradient was not finite, or no target counted, and nothing was updated

	Logged bool `json:"logged"` // to be kept: Config.LogEvery; callbacks hear of the others too

	*WeightChanges         // nil unless Config.WeightChanges and Logged
	*EvalRecord            // nil unless there was an evaluation after this update
	Metrics        Metrics `json:"metrics,omitempty"` // what callbacks made of the evaluation, by name
	Resources
}

// EvalRecord is what an evaluation says.
type EvalRecord struct {
	EvalLoss       float64 `json:"eval_loss"`       // mean cross-entropy of all targets, in nats
	EvalPerplexity float64 `json:"eval_perplexity"` // exp of it
	EvalAccuracy   float64 `json:"eval_accuracy"`   // share of the targets that had the highest logit
}

// NewEvalRecord renders a score.
func NewEvalRecord(s Score) *EvalRecord {
	return &EvalRecord{s.Loss(), Perplexity(s.Loss()), s.Accuracy()}
}

// Metrics are numbers by name.
type Metrics map[string]float64

// Resources is what an update took; it is different in every run.
type Resources struct {
	Seconds         float64 `json:"seconds"`           // of the update, without its evaluation
	TokensPerSecond float64 `json:"tokens_per_second"` // read by the update
	MFU             float64 `json:"mfu"`               // model FLOPS utilization: see flopsPerToken
	PoolBytes       int64   `json:"pool_bytes"`        // in use of the memory pool after the update: weights, gradients, optimizer, scratch
	RSSBytes        int64   `json:"rss_bytes"`         // resident memory of the process; 0 where the system does not say
}

// jsonRecord is a Record in JSON; its outer fields hide the inner ones of the same names.
type jsonRecord struct {
	plainRecord
	Loss         *float64            `json:"loss"`
	Perplexity   *float64            `json:"perplexity"`
	GradientNorm *float64            `json:"gradient_norm"`
	Metrics      map[string]*float64 `json:"metrics,omitempty"`
}

type plainRecord Record

// MarshalJSON writes null for numbers that JSON does not have.
func (r Record) MarshalJSON() ([]byte, error) {
	metrics := make(map[string]*float64, len(r.Metrics))
	for name, value := range r.Metrics {
		metrics[name] = finite(value)
	}
	return json.Marshal(jsonRecord{plainRecord(r), finite(r.Loss), finite(r.Perplexity), finite(r.GradientNorm), metrics})
}

// UnmarshalJSON reads NaN where MarshalJSON wrote null.
func (r *Record) UnmarshalJSON(data []byte) error {
	var in jsonRecord
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*r = Record(in.plainRecord)
	r.Loss, r.Perplexity, r.GradientNorm = orNaN(in.Loss), orNaN(in.Perplexity), orNaN(in.GradientNorm)
	if len(in.Metrics) > 0 {
		r.Metrics = Metrics{}
	}
	for name, value := range in.Metrics {
		r.Metrics[name] = orNaN(value)
	}
	return nil
}

func finite(x float64) *float64 {
	if !isFinite(x) {
		return nil
	}
	return &x
}

func orNaN(x *float64) float64 {
	if x == nil {
		return math.NaN()
	}
	return *x
}

// metric is what an evaluation said, by its name in JSON.
func (r *Record) metric(name string) (value float64, ok bool) {
	switch name {
	case monitorLoss:
		return r.EvalLoss, true
	case "eval_perplexity":
		return r.EvalPerplexity, true
	case "eval_accuracy":
		return r.EvalAccuracy, true
	}
	value, ok = r.Metrics[name]
	return value, ok
}

// measure notes what an update took, and how far the run is.
func (t *Trainer) measure(r *Record, start time.Time) {
	r.Epoch = float64(r.Step) / float64(t.updatesPerEpoch())
	r.Seconds = time.Since(start).Seconds()
	r.TokensPerSecond = float64(r.Tokens-t.tokens) / max(r.Seconds, 1e-9) // of a clock that is coarse
	peak := t.config.PeakFLOPS
	if peak == 0 {
		peak = cpu.PeakFLOPS()
	}
	if peak > 0 && r.Tokens > t.tokens {
		r.MFU = r.TokensPerSecond * flopsPerToken(t.engine.model.Config, len(t.batch.IDs)/t.engine.sequences()) / peak
	}
	r.PoolBytes, r.RSSBytes = pool.Default().InUse(), pool.ResidentBytes()
}

// flopsPerToken counts what a forward and a backward pass cannot do without, a multiplication and an addition being two: for each weight
// that a token is multiplied with (all projections and the head) two forward and four backward, and for causal attention over
// sequences of length tokens the same for the products of queries and keys, and of probabilities and values, with half of the
// sequence. It is the definition of PaLM (Chowdhery et al. 2022, appendix B) with the causal mask taken into account. What is computed
// again, as by gradient checkpointing, does not count.
func flopsPerToken(c *model.Config, length int) float64 {
	weights := float64(float64(c.NumHiddenLayers)*float64(c.LayerWeights())) + float64(float64(c.VocabSize)*float64(c.HiddenSize))
	attention := float64(c.NumHiddenLayers) * float64(c.NumAttentionHeads*c.HeadDim) * float64(length)
	return float64(6*weights) + float64(6*attention)
}
