package tests_go

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

func loadModel(t *testing.T, path string, o model.LoadOptions) *model.Model {
	t.Helper()
	m, err := model.Load(context.Background(), path, o)
	require.NoError(t, err, path)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// logitsOf are those of a few tokens.
func logitsOf(t *testing.T, m *model.Model) []float32 {
	t.Helper()
	e := infer.NewEngine(m)
	defer e.Close()
	ids := []int32{3, 1, 4, 1, 5, 9, 2, 6}
	out := make([]float32, len(ids)*m.Config.VocabSize)
	require.NoError(t, e.Forward(context.Background(), [][]int32{ids}, out))
	return out
}

// practice makes n updates on the model.
func practice(t *testing.T, m *model.Model, n int) []float64 {
	t.Helper()
	text := make([]int32, 400)
	for i := range text {
		text[i] = int32(i * i % 61)
	}
	data, err := train.NewTokens(text, 16)
	require.NoError(t, err)
	c := train.Config{Steps: n, BatchSize: 4, Optimizer: optim.DefaultConfig("sgd"), Schedule: optim.ScheduleConfig{Name: "constant"}}
	c.Optimizer.LR = 0.05
	tr, err := train.NewTrainer(m, c, data, nil)
	require.NoError(t, err)
	defer tr.Close()
	var losses []float64
	tr.Callbacks = []train.Callback{train.StepFunc(func(r train.Record) error {
		losses = append(losses, r.Loss)
		return nil
	})}
	require.NoError(t, tr.Train(context.Background()))
	return losses
}

// Whatever a checkpoint is, packed or masters, with biases, norms or shards: what is trained begins as the function that is run.
func TestEveryCheckpointCanBeTrained(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join("testdata", "parity", "*", "config.json"))
	require.NoError(t, err)
	golden, err := filepath.Glob(filepath.Join("testdata", "golden", "*", "config.json"))
	require.NoError(t, err)
	folders = append(folders, golden...)
	require.Greater(t, len(folders), 30)
	for _, config := range folders {
		dir := filepath.Dir(config)
		plain := loadModel(t, dir, model.LoadOptions{HeadFormat: "float32"})
		trained := loadModel(t, dir, model.LoadOptions{Trainable: true})
		require.Equal(t, logitsOf(t, plain), logitsOf(t, trained), dir)
		require.Equal(t, "trainable", trained.Info.Format)
		require.Equal(t, dir, trained.Info.Path)
		if strings.Contains(dir, "parity") {
			practice(t, trained, 2)
			require.NotEqual(t, logitsOf(t, plain), logitsOf(t, trained), dir)
		}
	}
}

func TestANativeModelCanBeTrainedFurther(t *testing.T) {
	first := trainable(t, "relu2")
	practice(t, first, 5)
	for _, name := range []string{"dir", "one.bitnet"} {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, first.Save(path, nil))
		again := loadModel(t, path, model.LoadOptions{Trainable: true})
		require.Equal(t, logitsOf(t, first), logitsOf(t, again))
		require.NotEmpty(t, practice(t, again, 2))
	}
}

// shapes are models with everything that a checkpoint can have.
func shapes(t *testing.T) map[string]*model.Config {
	base := *trainable(t, "relu2").Config
	llama := base
	llama.Architecture, llama.HiddenAct, llama.TieWordEmbeddings = model.ArchLlama, "silu", false
	rich := base
	rich.AttentionBias = true
	rich.Quantization = model.Quantization{LinearClass: model.AutoBitLinear, Mode: model.ModeOffline, UseRMSNorm: true, RMSNormEps: 1e-6}
	partial := base
	partial.Quantization = model.Quantization{LinearClass: model.BitLinear, Mode: model.ModeOffline, ModulesToNotConvert: []string{"down_proj"}}
	return map[string]*model.Config{"tied": &base, "llama": &llama, "biases and norms": &rich, "not all converted": &partial}
}

// Training goes on exactly from an export of float32 masters: the same weights, and then the same losses.
func TestMasterWeightsSurviveTheirExport(t *testing.T) {
	for name, cfg := range shapes(t) {
		m, err := model.NewTrainable(cfg, 5, model.LoadOptions{})
		require.NoError(t, err)
		defer func() { require.NoError(t, m.Close()) }()
		practice(t, m, 3)
		dir := t.TempDir()
		require.NoError(t, m.SaveHFContext(context.Background(), dir, model.HFOptions{Masters: "float32"}))

		again := loadModel(t, dir, model.LoadOptions{Trainable: true})
		require.Len(t, again.Params(), len(m.Params()), name)
		for i, p := range m.Params() {
			q := again.Params()[i]
			require.Equal(t, p.Name, q.Name, name)
			require.Equal(t, p.Data, q.Data, "%s: %s", name, p.Name)
		}
		require.Equal(t, logitsOf(t, m), logitsOf(t, loadModel(t, dir, model.LoadOptions{})), "%s: as it is run", name)
		require.Equal(t, practice(t, m, 3), practice(t, again, 3), name)
	}
}

func TestMasterWeightsInBFloat16AreRounded(t *testing.T) {
	m := trainable(t, "relu2")
	dir := t.TempDir()
	require.NoError(t, m.SaveHFContext(context.Background(), dir, model.HFOptions{Masters: "bfloat16"}))
	set, err := safetensors.OpenSet(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()
	for _, v := range set.Tensors() {
		require.Equal(t, safetensors.BF16, v.DType, v.Name)
	}
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	require.Contains(t, string(config), `"quantization_mode": "online"`)
	require.Contains(t, string(config), `"dtype": "bfloat16"`)
	again := loadModel(t, dir, model.LoadOptions{Trainable: true})
	for i, p := range m.Params() {
		for j, w := range again.Params()[i].Data {
			require.InEpsilon(t, 1+p.Data[j], 1+w, 1.0/256, p.Name)
		}
	}
}

// A plain Llama has float weights and no quantization_config: it is refused until somebody says that it is to become ternary.
func TestAFloatCheckpointIsMadeTernaryWhenAsked(t *testing.T) {
	cfg := shapes(t)["llama"]
	m, err := model.NewTrainable(cfg, 5, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	dir := t.TempDir()
	require.NoError(t, m.SaveHFContext(context.Background(), dir, model.HFOptions{Masters: "float32"}))
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	cut := strings.Index(string(text), `,
  "quantization_config"`) // the last field
	require.Positive(t, cut)
	require.NoError(t, os.WriteFile(path, []byte(string(text[:cut])+"\n}\n"), 0o666))

	_, err = model.Load(context.Background(), dir, model.LoadOptions{Trainable: true})
	require.ErrorIs(t, err, model.ErrConfig)
	require.ErrorContains(t, err, "quantize=True")
	started := loadModel(t, dir, model.LoadOptions{Trainable: true, Quantize: true})
	require.Equal(t, logitsOf(t, m), logitsOf(t, started))
	require.Equal(t, logitsOf(t, m), logitsOf(t, loadModel(t, dir, model.LoadOptions{Quantize: true})))
	require.Equal(t, practice(t, m, 3), practice(t, started, 3))
}

func TestWhatHasNoMasterWeightsIsRefused(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	m := trainable(t, "relu2")
	require.ErrorIs(t, m.SaveHFContext(ctx, dir, model.HFOptions{Masters: "float16"}), model.ErrOption)
	require.ErrorContains(t, m.SaveHFContext(ctx, dir, model.HFOptions{Masters: "float16"}), `masters = "float16"`)
	require.NoError(t, m.SaveHF(dir))
	plain := loadModel(t, dir, model.LoadOptions{})
	require.ErrorIs(t, plain.SaveHFContext(ctx, t.TempDir(), model.HFOptions{Masters: "float32"}), model.ErrExport)
	_, err := model.Load(ctx, dir, model.LoadOptions{Trainable: true, HeadFormat: "int8"})
	require.ErrorIs(t, err, model.ErrOption)
	_, err = model.Load(ctx, filepath.Join(dir, "absent"), model.LoadOptions{Trainable: true})
	require.ErrorIs(t, err, os.ErrNotExist)
	m.LearnScales()
	require.ErrorIs(t, m.SaveHFContext(ctx, t.TempDir(), model.HFOptions{Masters: "float32"}), model.ErrExport)

	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = model.Load(canceled, dir, model.LoadOptions{Trainable: true})
	require.ErrorIs(t, err, context.Canceled)
}

// A validation loss is one number: as the trainer computes it while the model trains, as the trainer and the inference engine
// compute it of the model that was saved and loaded, in every format and over streams and ragged examples.
func TestTheValidationLossIsThatOfInferenceToTheBit(t *testing.T) {
	onEveryISA(t, func(t *testing.T) {
		m := trainable(t, "relu2")
		practice(t, m, 5)
		text := make([]int32, 300)
		for i := range text {
			text[i] = int32((i*i + i/7) % 61)
		}
		stream, err := train.NewTokens(text, 33)
		require.NoError(t, err)
		examples, err := train.NewExamples(train.ExamplesConfig{IDs: text, Lengths: []int{5, 150, 2, 100, 43}, Length: 120})
		require.NoError(t, err)
		dir := t.TempDir()
		places := []string{filepath.Join(dir, "native"), filepath.Join(dir, "packed"), filepath.Join(dir, "masters")}
		require.NoError(t, m.Save(places[0], nil))
		require.NoError(t, m.SaveHF(places[1]))
		require.NoError(t, m.SaveHFContext(context.Background(), places[2], model.HFOptions{Masters: "float32"}))

		for _, d := range []train.Dataset{stream, examples} {
			want := evaluated(t, trainScorer(t, m), d, 4)
			require.Equal(t, want, evaluated(t, predictor{infer.NewEngine(m)}, d, 1), "the model that trains, by inference")
			for _, place := range places {
				loaded := loadModel(t, place, model.LoadOptions{})
				require.Equal(t, want, evaluated(t, predictor{infer.NewEngine(loaded)}, d, 3), place)
				require.Equal(t, want, evaluated(t, trainScorer(t, loadModel(t, place, model.LoadOptions{Trainable: true})), d, 2), place)
			}
		}
	})
}

func trainScorer(t *testing.T, m *model.Model) train.Scorer {
	e, err := train.NewEngine(m, train.EngineOptions{})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

func evaluated(t *testing.T, by train.Scorer, d train.Dataset, batchSize int) string {
	t.Helper()
	s, err := train.Evaluate(context.Background(), by, d, batchSize)
	require.NoError(t, err)
	require.Positive(t, s.Targets)
	return fmt.Sprintf("%x of %d, %d correct", s.Nats, s.Targets, s.Correct)
}

// predictor scores by the inference engine.
type predictor struct{ *infer.Engine }

func (p predictor) Score(ctx context.Context, b train.Batch, s *train.Score) error {
	at := 0
	for _, n := range b.Lengths {
		q, err := p.Predict(ctx, b.IDs[at:at+n], b.Targets[at:at+n])
		if err != nil {
			return err
		}
		s.Nats -= q.LogLikelihood
		s.Targets += q.Targets
		s.Correct += q.Correct
		at += n
	}
	return nil
}
