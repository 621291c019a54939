//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"encoding/json"
	"fmt"
	"runtime/cgo"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
)

// generation is what a Python Generation object owns; that object lets in one
// thread at a time. Tokens cross in C memory that stays here and grows at need.
type generation struct {
	g      *infer.Generation
	tokens cArray[C.bn_token]
	tops   cArray[C.bn_top]
}

// cArray is a growing array in C memory.
type cArray[T any] struct {
	p   *T
	cap int
}

// take returns room for n elements; what an earlier take returned is gone.
func (a *cArray[T]) take(n int) []T {
	if n > a.cap {
		var zero T
		C.free(unsafe.Pointer(a.p))
		a.p, a.cap = (*T)(C.malloc(C.size_t(n)*C.size_t(unsafe.Sizeof(zero)))), n // C.malloc never returns nil
	}
	return unsafe.Slice(a.p, n)
}

func (a *cArray[T]) free() {
	C.free(unsafe.Pointer(a.p))
	a.p, a.cap = nil, 0
}

// parseSampling reads one JSON object, or a list of one for each prompt.
func parseSampling(text []byte, vocab int) ([]infer.SamplingParams, error) {
	if len(text) == 0 || text[0] != '[' {
		p, err := infer.ParseSamplingParams(text, vocab)
		return []infer.SamplingParams{p}, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%w: sampling parameters: %w", errArgument, err)
	}
	out := make([]infer.SamplingParams, len(list))
	for i, one := range list {
		p, err := infer.ParseSamplingParams(one, vocab)
		if err != nil {
			return nil, fmt.Errorf("prompt %d: %w", i, err)
		}
		out[i] = p
	}
	return out, nil
}

// bn_generation_new makes a generation; assistant is the model that guesses so many tokens at a time, or 0.
//
//export bn_generation_new
func bn_generation_new(model, assistant C.uintptr_t, assistantTokens C.int, ids *C.int32_t, total C.int64_t, lengths *C.int64_t, n C.int64_t, params *C.char,
	out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		r := value[*runner](model)
		views, err := batch(ids, total, lengths, n)
		if err != nil {
			return err
		}
		prompts := make([][]int32, len(views)) // the generation outlives Python's buffer
		for i, v := range views {
			prompts[i] = append([]int32(nil), v...)
		}
		p, err := parseSampling([]byte(C.GoString(params)), r.model.Config.VocabSize)
		if err != nil {
			return err
		}
		draft := infer.Draft{Tokens: int(assistantTokens)}
		if assistant != 0 {
			draft.Engine = value[*runner](assistant).engine
		}
		g, err := r.engine.Generate(prompts, p, draft)
		if err != nil {
			return err
		}
		*out = C.uintptr_t(cgo.NewHandle(&generation{g: g}))
		return nil
	})
}

// with runs body unless the generation is closed.
func (g *generation) with(body func(*infer.Generation) error) error {
	if g.g == nil {
		return fmt.Errorf("%w: the generation is closed", errArgument)
	}
	return body(g.g)
}

// tokenOut is a token as C has it; its alternatives go to tops[*at:].
func tokenOut(sequence int, t infer.Token, finish string, tops []C.bn_top, at *int) C.bn_token {
	out := C.bn_token{
		sequence: C.int32_t(sequence), id: C.int32_t(t.ID), finish: finishCodes[finish], logprob: C.float(t.Logprob),
		top_start: C.int32_t(*at), top_count: C.int32_t(len(t.Top)),
	}
	for _, alt := range t.Top {
		tops[*at] = C.bn_top{id: C.int32_t(alt.ID), logprob: C.float(alt.Logprob)}
		*at++
	}
	return out
}

var finishCodes = map[string]C.int32_t{"": 0, infer.FinishStop: 1, infer.FinishLength: 2}

// bn_generation_step takes one step. tokens and tops stay valid until the next step or close.
//
//export bn_generation_step
func bn_generation_step(h C.uintptr_t, poll C.bn_poll, state unsafe.Pointer, tokens **C.bn_token, n *C.int64_t, tops **C.bn_top, errOut **C.char) C.int {
	return guard(errOut, func() error {
		g := value[*generation](h)
		return g.with(func(gen *infer.Generation) error {
			list, err := gen.Step(newInterrupts(poll, state))
			if err != nil {
				return err
			}
			alternatives := 0
			for i := range list {
				alternatives += len(list[i].Top)
			}
			ct, cp := g.tokens.take(len(list)), g.tops.take(alternatives)
			at := 0
			for i, t := range list {
				ct[i] = tokenOut(t.Sequence, t.Token, t.Finish, cp, &at)
			}
			*tokens, *tops, *n = g.tokens.p, g.tops.p, C.int64_t(len(list))
			return nil
		})
	})
}

//export bn_generation_finish
func bn_generation_finish(h C.uintptr_t, sequence C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		return value[*generation](h).with(func(g *infer.Generation) error { return g.Finish(int(sequence)) })
	})
}

// bn_generation_progress tells whether all sequences are finished, and how many prompt tokens of how many are read.
//
//export bn_generation_progress
func bn_generation_progress(h C.uintptr_t, done *C.int32_t, read, total *C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		return value[*generation](h).with(func(g *infer.Generation) error {
			r, t := g.Progress()
			*done, *read, *total = 0, C.int64_t(r), C.int64_t(t)
			if g.Done() {
				*done = 1
			}
			return nil
		})
	})
}

// Closing twice does nothing.
//
//export bn_generation_close
func bn_generation_close(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error { value[*generation](h).close(); return nil })
}

func (g *generation) close() {
	if g.g != nil {
		g.g.Close()
		g.g = nil
	}
	g.tokens.free()
	g.tops.free()
}

//export bn_generation_free
func bn_generation_free(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		g := value[*generation](h)
		cgo.Handle(h).Delete()
		g.close()
		return nil
	})
}
