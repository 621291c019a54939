package train_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// Trains a small model on the bytes of a text until it knows the alphabet, and lets it go on from the first letters.
func Example() {
	ctx := context.Background()
	text := strings.Repeat("abcdefghijklmnopqrstuvwxyz ", 60)
	ids := make([]int32, len(text))
	for i := range ids {
		ids[i] = int32(text[i])
	}
	data, err := train.NewTokens(ids, 64)
	if err != nil {
		log.Fatal(err)
	}

	config := model.Config{
		Architecture: model.ArchBitNet, HiddenAct: model.ActReLU2, VocabSize: 256,
		HiddenSize: 64, IntermediateSize: 128, NumHiddenLayers: 1, NumAttentionHeads: 2, MaxPositionEmbeddings: 128, TieWordEmbeddings: true,
	}
	m, err := model.NewTrainable(&config, 1, model.LoadOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	run := train.Config{
		Steps: 60, BatchSize: 4, GradientClip: 1, Seed: 1, Optimizer: optim.DefaultConfig("adamw"),
		Schedule: optim.ScheduleConfig{Name: "cosine", WarmupSteps: 10},
	}
	run.Optimizer.LR = 1e-2
	trainer, err := train.NewTrainer(m, run, data, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer trainer.Close()
	var first, last float64
	trainer.Callbacks = []train.Callback{train.StepFunc(func(r train.Record) error {
		if r.Step == 1 {
			first = r.Loss
		}
		last = r.Loss
		return nil
	})}
	if err := trainer.Train(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("the loss fell to less than a tenth:", last < first/10)

	engine := infer.NewEngine(m)
	defer engine.Close()
	params := infer.DefaultSamplingParams()
	params.MaxNewTokens = 22
	g, err := engine.Generate([][]int32{ids[:4]}, []infer.SamplingParams{params}, infer.Draft{})
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	out := text[:4]
	for !g.Done() {
		tokens, err := g.Step(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for _, t := range tokens {
			out += string(rune(t.ID))
		}
	}
	fmt.Println(out)
	// Output:
	// the loss fell to less than a tenth: true
	// abcdefghijklmnopqrstuvwxyz
}
