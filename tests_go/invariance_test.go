package tests_go

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// The numbers contract (docs/architecture.md): a sequence's logits have the same bits alone, in a ragged batch, with its
// prompt cut into chunks, and with any number of threads.

// contractModels are shapes that meet every code path: sizes that no panel divides, grouped and plain heads, a head
// size that is no multiple of 16, sub-norms and none, tied and untied heads, all head formats; GPT-2 with an odd head size.
func contractModels(t *testing.T) map[string]*infer.Engine {
	t.Helper()
	base := model.Config{
		Architecture: "BitNetForCausalLM", VocabSize: 331, HiddenSize: 88, IntermediateSize: 264, NumHiddenLayers: 3,
		NumAttentionHeads: 4, NumKeyValueHeads: 2, HeadDim: 22, HiddenAct: "relu2", MaxPositionEmbeddings: 512,
		RMSNormEps: 1e-5, RopeTheta: 10000, TieWordEmbeddings: true, InitializerRange: 0.02,
		Quantization: model.Quantization{LinearClass: "autobitlinear", Mode: "offline"},
	}
	llama := base
	llama.Architecture, llama.HiddenAct, llama.TieWordEmbeddings = "LlamaForCausalLM", "silu", false
	llama.HiddenSize, llama.IntermediateSize, llama.HeadDim, llama.NumKeyValueHeads = 96, 200, 32, 4
	gpt2 := base
	gpt2.Architecture, gpt2.HiddenAct, gpt2.AttentionBias, gpt2.MLPBias = "GPT2LMHeadModel", "gelu_new", true, true
	gpt2.HiddenSize, gpt2.HeadDim, gpt2.NumAttentionHeads, gpt2.NumKeyValueHeads = 75, 15, 5, 5
	gpt2.Quantization.Mode = "online"
	engines := map[string]*infer.Engine{}
	for name, cfg := range map[string]model.Config{"bitnet": base, "llama": llama, "gpt2": gpt2} {
		for _, head := range []string{"float32", "bfloat16", "float16", "int8", "int4"} {
			if name == "gpt2" && head != "bfloat16" { // the head is that of the others
				continue
			}
			m, err := model.NewRandom(&cfg, 7, model.LoadOptions{HeadFormat: head})
			require.NoError(t, err)
			e := infer.NewEngine(m)
			t.Cleanup(func() { e.Close(); require.NoError(t, m.Close()) })
			engines[name+" "+head] = e
		}
	}
	return engines
}

func randomIDs(r *rand.Rand, n, vocab int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(vocab))
	}
	return ids
}

// chunked reads ids in pieces of size and returns the logits of every position.
func chunked(t *testing.T, e *infer.Engine, ids []int32, size int) []float32 {
	t.Helper()
	v := e.Model().Config.VocabSize
	out := make([]float32, len(ids)*v)
	seq := e.NewSequence()
	defer seq.Close()
	for i := 0; i < len(ids); i += size {
		n := min(size, len(ids)-i)
		require.NoError(t, e.Step(context.Background(), []infer.Chunk{{Seq: seq, IDs: ids[i : i+n], Logits: n}}, out[i*v:(i+n)*v]))
	}
	return out
}

func requireSameBits(t *testing.T, want, got []float32, msg string) {
	t.Helper()
	require.Equal(t, len(want), len(got), msg)
	for i := range want {
		if math.Float32bits(want[i]) != math.Float32bits(got[i]) {
			t.Fatalf("%s: logit %d is %v, want %v", msg, i, got[i], want[i])
		}
	}
}

// onEveryISA runs f with each set of kernels that the machine has, unless the environment chose one for the process.
func onEveryISA(t *testing.T, f func(t *testing.T)) {
	if isa := os.Getenv("BITNET_ISA"); isa != "" {
		t.Skipf("runs on every instruction set where BITNET_ISA is not set, and it is %s", isa)
	}
	active := cpu.Active()
	t.Cleanup(func() { require.NoError(t, cpu.SetISA(active)) })
	for _, isa := range cpu.Supported() {
		require.NoError(t, cpu.SetISA(isa))
		t.Run(isa.String(), f)
	}
}

func TestASequenceHasTheSameLogitsAloneBatchedChunkedAndThreaded(t *testing.T) {
	threads := cpu.NumThreads()
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	engines := contractModels(t)
	alone := map[string][]float32{} // of the first ISA: float kernels have one order on all of them
	onEveryISA(t, func(t *testing.T) {
		for name, e := range engines {
			r := rand.New(rand.NewPCG(1, 2))
			v := e.Model().Config.VocabSize
			ids := randomIDs(r, 150, v)
			require.NoError(t, cpu.SetNumThreads(1))
			want := chunked(t, e, ids, len(ids))
			for _, x := range want {
				require.False(t, math.IsNaN(float64(x)) || math.IsInf(float64(x), 0))
			}
			if first, ok := alone[name]; ok {
				requireSameBits(t, first, want, name+": another ISA")
			}
			alone[name] = want

			for _, n := range []int{1, 2, 3} {
				require.NoError(t, cpu.SetNumThreads(n))
				for _, size := range []int{1, 3, 64, len(ids)} {
					requireSameBits(t, want, chunked(t, e, ids, size), fmt.Sprintf("%s: %d threads, chunks of %d", name, n, size))
				}
				requireSameBits(t, want, raggedBatch(t, e, ids, r), fmt.Sprintf("%s: %d threads, in a batch of 7", name, n))
			}
		}
	})
}

// raggedBatch reads ids in random pieces while six other sequences read theirs in the same steps.
func raggedBatch(t *testing.T, e *infer.Engine, ids []int32, r *rand.Rand) []float32 {
	t.Helper()
	v := e.Model().Config.VocabSize
	var seqs [7]*infer.Sequence
	for i := range seqs {
		seqs[i] = e.NewSequence()
		defer seqs[i].Close()
	}
	var out []float32
	for at := 0; at < len(ids); {
		chunks := make([]infer.Chunk, 0, len(seqs))
		skip, n := 0, min(1+r.IntN(40), len(ids)-at)
		for i := range seqs {
			ch := infer.Chunk{Seq: seqs[i], IDs: ids[at : at+n], Logits: n}
			if i != 3 { // the sequence under test is the fourth
				ch.IDs = randomIDs(r, 1+r.IntN(9), v)
				ch.Logits = r.IntN(2)
			}
			if i < 3 {
				skip += ch.Logits
			}
			chunks = append(chunks, ch)
		}
		total := 0
		for _, ch := range chunks {
			total += ch.Logits
		}
		logits := make([]float32, total*v)
		require.NoError(t, e.Step(context.Background(), chunks, logits))
		out = append(out, logits[skip*v:(skip+n)*v]...)
		at += n
	}
	return out
}

func TestForwardEqualsSteps(t *testing.T) {
	for name, e := range contractModels(t) {
		r := rand.New(rand.NewPCG(3, 4))
		v := e.Model().Config.VocabSize
		batch := [][]int32{randomIDs(r, 5, v), randomIDs(r, 300, v), randomIDs(r, 1, v), randomIDs(r, 255, v)}
		var want []float32
		for _, ids := range batch {
			want = append(want, chunked(t, e, ids, 17)...)
		}
		got := make([]float32, len(want))
		require.NoError(t, e.Forward(context.Background(), batch, got))
		requireSameBits(t, want, got, name)
	}
}

func TestGenerationInABatchEqualsGenerationAlone(t *testing.T) {
	for name, e := range contractModels(t) {
		r := rand.New(rand.NewPCG(5, 6))
		v := e.Model().Config.VocabSize
		params := infer.DefaultSamplingParams()
		params.MaxNewTokens, params.Temperature, params.TopK = 20, 0.8, 50
		seed := uint64(11)
		params.Seed = &seed
		prompts := make([][]int32, 40) // more than run at once
		for i := range prompts {
			prompts[i] = randomIDs(r, 1+r.IntN(60), v)
		}
		together := generate(t, e, prompts, params)
		for i := 0; i < len(prompts); i += 13 {
			alone := generate(t, e, prompts[i:i+1], params)
			require.Equal(t, alone[0], together[i], "%s: prompt %d", name, i)
			require.LessOrEqual(t, len(alone[0]), params.MaxNewTokens)
		}
	}
}

func generate(t *testing.T, e *infer.Engine, prompts [][]int32, p infer.SamplingParams) [][]int32 {
	t.Helper()
	g, err := e.Generate(prompts, []infer.SamplingParams{p}, infer.Draft{})
	require.NoError(t, err)
	defer g.Close()
	out := make([][]int32, len(prompts))
	finished := 0
	for !g.Done() {
		tokens, err := g.Step(context.Background())
		require.NoError(t, err)
		for _, tok := range tokens {
			out[tok.Sequence] = append(out[tok.Sequence], tok.ID)
			if tok.Finish != "" {
				finished++
			}
		}
	}
	require.Equal(t, len(prompts), finished)
	return out
}

func TestACanceledStepCanBeTriedAgain(t *testing.T) {
	e := contractModels(t)["bitnet bfloat16"]
	ids := randomIDs(rand.New(rand.NewPCG(7, 8)), 30, e.Model().Config.VocabSize)
	want := chunked(t, e, ids, 30)
	v := e.Model().Config.VocabSize
	seq := e.NewSequence()
	defer seq.Close()
	got := make([]float32, len(want))
	require.NoError(t, e.Step(context.Background(), []infer.Chunk{{Seq: seq, IDs: ids[:10], Logits: 10}}, got[:10*v]))
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	err := e.Step(gone, []infer.Chunk{{Seq: seq, IDs: ids[20:], Logits: 10}}, make([]float32, 10*v))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 10, seq.Len())
	require.NoError(t, e.Step(context.Background(), []infer.Chunk{{Seq: seq, IDs: ids[10:], Logits: 20}}, got[10*v:]))
	requireSameBits(t, want, got, "after a canceled step")
}

func TestStepRefusesWhatTheModelCannotRead(t *testing.T) {
	e := contractModels(t)["bitnet float32"]
	cfg := e.Model().Config
	step := func(ids []int32) error {
		seq := e.NewSequence()
		defer seq.Close()
		return e.Step(context.Background(), []infer.Chunk{{Seq: seq, IDs: ids}}, nil)
	}
	for name, ids := range map[string][]int32{
		"token id out of range":   {0, int32(cfg.VocabSize)},
		"token id out of range: ": {-1},
		"at least one token":      {},
		"max_position_embeddings": make([]int32, cfg.MaxPositionEmbeddings+1),
	} {
		err := step(ids)
		require.ErrorIs(t, err, infer.ErrArgument, name)
		require.ErrorContains(t, err, name[:min(len(name), 21)])
	}
}

func TestLikelihoodIsTheSumOfLogSoftmax(t *testing.T) {
	e := contractModels(t)["llama float32"]
	v := e.Model().Config.VocabSize
	ids := randomIDs(rand.New(rand.NewPCG(9, 10)), 200, v)
	logits := chunked(t, e, ids, len(ids))
	want := 0.0
	for i := range ids[1:] {
		row := logits[i*v : (i+1)*v]
		sum := 0.0
		for _, x := range row {
			sum += math.Exp(float64(x))
		}
		want += float64(row[ids[i+1]]) - math.Log(sum)
	}
	got, n, err := e.LogLikelihood(context.Background(), ids, 256, 128)
	require.NoError(t, err)
	require.Equal(t, len(ids)-1, n)
	require.InEpsilon(t, want, got, 1e-5)

	_, n, err = e.LogLikelihood(context.Background(), ids, 50, 25) // several windows
	require.NoError(t, err)
	require.Equal(t, len(ids)-1, n)
}

// Neurons that are off are left out where a step has few rows: nothing changes when they are not.
func TestLogitsDoNotDependOnSkippedNeurons(t *testing.T) {
	t.Cleanup(func() { cpu.SetSkipZeros(true) })
	e := contractModels(t)["bitnet bfloat16"]
	ids := randomIDs(rand.New(rand.NewPCG(21, 1)), 20, e.Model().Config.VocabSize)
	for _, size := range []int{1, 3} {
		cpu.SetSkipZeros(true)
		want := chunked(t, e, ids, size)
		cpu.SetSkipZeros(false)
		requireSameBits(t, want, chunked(t, e, ids, size), fmt.Sprint("chunks of ", size))
	}
}

// The contract holds for every type of keys and values.
func TestStoredKeysAndValuesDoNotDependOnTheBatch(t *testing.T) {
	onEveryISA(t, func(t *testing.T) {
		engines := contractModels(t)
		for _, name := range []string{"bitnet bfloat16", "gpt2 bfloat16"} {
			e := engines[name]
			r := rand.New(rand.NewPCG(31, 1))
			v := e.Model().Config.VocabSize
			long, short := randomIDs(r, 150, v), randomIDs(r, 70, v)
			exact := chunked(t, e, long, len(long))
			for _, kv := range []nn.KVType{nn.KVFloat16, nn.KVBFloat16, nn.KVInt8} {
				e.UseKV(kv)
				want := chunked(t, e, long, len(long))
				require.NotEqual(t, exact, want, kv)
				for _, size := range []int{1, 3, 64} {
					requireSameBits(t, want, chunked(t, e, long, size), fmt.Sprint(name, ", ", kv, " chunks of ", size))
				}
				a, b := e.NewSequence(), e.NewSequence()
				out := make([]float32, (len(long)+len(short))*v)
				require.NoError(t, e.Step(context.Background(), []infer.Chunk{
					{Seq: a, IDs: short, Logits: len(short)}, {Seq: b, IDs: long, Logits: len(long)}}, out))
				requireSameBits(t, want, out[len(short)*v:], fmt.Sprint(name, ", ", kv, " in a batch"))
				a.Close()
				b.Close()
			}
		}
	})
}

// Scores choose which logits are computed: greedy decoding and sampling among the top k give the tokens of the full head.
func TestTheExactHeadGivesTheTokensOfTheFullHead(t *testing.T) {
	cfg := model.Config{
		Architecture: "BitNetForCausalLM", VocabSize: 5000, HiddenSize: 96, IntermediateSize: 264, NumHiddenLayers: 2,
		NumAttentionHeads: 4, HiddenAct: "relu2", MaxPositionEmbeddings: 256, TieWordEmbeddings: true, DType: "bfloat16", InitializerRange: 0.02,
	}
	tokens := func(head string, edit func(*infer.SamplingParams)) (ids []int32) {
		m, err := model.NewRandom(&cfg, 7, model.LoadOptions{HeadFormat: head})
		require.NoError(t, err)
		e := infer.NewEngine(m)
		defer func() { e.Close(); require.NoError(t, m.Close()) }()
		require.NoError(t, e.StartProfile())
		p := infer.DefaultSamplingParams()
		p.MaxNewTokens, p.IgnoreEOS = 60, true
		edit(&p)
		g, err := e.Generate([][]int32{{1, 2, 3}, {4, 5}, {6}}, []infer.SamplingParams{p}, infer.Draft{})
		require.NoError(t, err)
		defer g.Close()
		for !g.Done() {
			list, err := g.Step(context.Background())
			require.NoError(t, err)
			for _, s := range list {
				ids = append(ids, s.ID)
			}
		}
		require.Equal(t, head == "exact", m.Head.Scores != nil)
		if head == "exact" && p.RepetitionPenalty == 1 && (p.Greedy() || p.TopK > 0) {
			text, err := json.Marshal(e.StopProfile())
			require.NoError(t, err)
			var read struct {
				Rescored float64 `json:"head_rescored"`
			}
			require.NoError(t, json.Unmarshal(text, &read))
			require.Positive(t, read.Rescored)
			require.Less(t, read.Rescored, 0.5)
		}
		return ids
	}
	seed := uint64(5)
	for name, edit := range map[string]func(*infer.SamplingParams){
		"greedy":        func(*infer.SamplingParams) {},
		"top_k":         func(p *infer.SamplingParams) { p.Temperature, p.TopK, p.Seed = 1, 20, &seed },
		"top_k, top_p":  func(p *infer.SamplingParams) { p.Temperature, p.TopK, p.TopP, p.Seed = 0.8, 50, 0.9, &seed },
		"all":           func(p *infer.SamplingParams) { p.Temperature, p.Seed = 1, &seed },
		"with penalty":  func(p *infer.SamplingParams) { p.RepetitionPenalty = 1.2 },
		"with lookup":   func(p *infer.SamplingParams) { p.PromptLookup = 8 },
		"top_k, lookup": func(p *infer.SamplingParams) { p.Temperature, p.TopK, p.Seed, p.PromptLookup = 1, 5, &seed, 4 },
	} {
		require.Equal(t, tokens("auto", edit), tokens("exact", edit), name)
	}
}
