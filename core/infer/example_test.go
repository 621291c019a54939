package infer_test

import (
	"cmp"
	"context"
	"fmt"
	"log"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

// Continues a prompt token by token. The core knows ids; what they spell is up to a tokenizer.
func Example() {
	ctx := context.Background()
	m, err := model.Load(ctx, "../../python/bitnet_rust/models/bitnet-shakespeare", model.LoadOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	engine := infer.NewEngine(m)
	defer engine.Close()

	params := infer.DefaultSamplingParams() // greedy
	params.MaxNewTokens = 8
	prompt := []int32{640, 417, 891, 25} // "First Citizen:"
	g, err := engine.Generate([][]int32{prompt}, []infer.SamplingParams{params}, infer.Draft{})
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	for !g.Done() {
		tokens, err := g.Step(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for _, t := range tokens {
			fmt.Print(t.ID, " ")
		}
	}
	// Output: 198 40 358 815 258 268 387 262
}

// Serves requests that come and go as one batch. Any goroutine may submit them, and each hears its own tokens.
func ExampleScheduler() {
	ctx := context.Background()
	m, err := model.Load(ctx, "../../python/bitnet_rust/models/bitnet-shakespeare", model.LoadOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	engine := infer.NewEngine(m)
	defer engine.Close()
	s, err := infer.NewScheduler(engine, infer.SchedulerOptions{MaxSequences: 8})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	// serve sends the tokens of one request to a channel, which it closes.
	serve := func(prompt ...int32) <-chan int32 {
		params := infer.DefaultSamplingParams()
		params.MaxNewTokens = 3
		h, err := s.Submit(infer.Request{Prompt: prompt, Params: params})
		if err != nil {
			log.Fatal(err) // a bad parameter, or infer.ErrQueueFull
		}
		tokens := make(chan int32)
		go func() {
			defer close(tokens)
			for done := false; !done; {
				e, err := h.Next(ctx)
				if err = cmp.Or(err, e.Err); err != nil {
					log.Fatal(err)
				}
				tokens <- e.Token.ID
				done = e.Last()
			}
		}()
		return tokens
	}

	first, second := serve(640, 417, 891, 25), serve(813, 25)
	for id := range first {
		fmt.Println("first", id)
	}
	for id := range second {
		fmt.Println("second", id)
	}
	// Output:
	// first 198
	// first 40
	// first 358
	// second 198
	// second 40
	// second 457
}
