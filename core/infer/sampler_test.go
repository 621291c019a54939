package infer

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/stat/distuv"
	"pgregory.net/rapid"
)

// sampling returns default parameters changed by edits, with temperature 1 and a fixed seed.
func sampling(edits ...func(*SamplingParams)) SamplingParams {
	p := DefaultSamplingParams()
	p.Temperature = 1
	p.Seed = new(uint64)
	for _, edit := range edits {
		edit(&p)
	}
	return p
}

func newSampler(t require.TestingT, p SamplingParams, vocab int) *Sampler {
	s, err := NewSampler(p, vocab)
	require.NoError(t, err)
	return s
}

func sample(t require.TestingT, s *Sampler, logits []float32) Token {
	tok, err := s.Sample(slices.Clone(logits))
	require.NoError(t, err)
	return tok
}

func randomLogits(seed uint64, n int, scale float64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 7))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64() * scale)
	}
	return x
}

// naive is the distribution that the parameters describe, by sorting and in float64. margin is how near a filter came to another choice: in shares of
// the probability, or of the largest one, or in the information by which typical-p orders.
func naive(p SamplingParams, logits []float32) (prob []float64, margin float64) {
	margin = math.Inf(1)
	near := func(a, b float64) { margin = min(margin, math.Abs(a-b)) }
	prob = make([]float64, len(logits))
	order := make([]int, len(logits))
	best := float64(slices.Max(logits))
	for i, v := range logits {
		prob[i] = math.Exp((float64(v) - best) / p.Temperature)
		order[i] = i
	}
	normalize(prob)
	keep := func(order []int, share float64) (n int) {
		var sum float64
		for _, id := range order {
			if near(sum, share); sum >= share {
				prob[id] = 0
			} else {
				n++
			}
			sum += prob[id]
		}
		normalize(prob)
		return n
	}
	byProbability := func() []int {
		slices.SortStableFunc(order, func(a, b int) int {
			return compare(float64(logits[b]), float64(logits[a]), a, b)
		})
		return order
	}
	if p.TopK > 0 {
		for n, id := range byProbability() {
			if n >= p.TopK {
				prob[id] = 0
			}
		}
		normalize(prob)
	}
	if p.TopP < 1 {
		keep(byProbability(), p.TopP)
	}
	if p.MinP > 0 {
		most := slices.Max(prob)
		for i := range prob {
			if near(prob[i]/most, p.MinP); prob[i] < p.MinP*most {
				prob[i] = 0
			}
		}
		normalize(prob)
	}
	if p.TypicalP < 1 {
		var entropy float64
		for _, q := range prob {
			if q > 0 {
				entropy -= q * math.Log(q)
			}
		}
		left := slices.DeleteFunc(slices.Clone(order), func(i int) bool { return prob[i] == 0 })
		distance := func(i int) float64 { return math.Abs(-math.Log(prob[i]) - entropy) }
		slices.SortStableFunc(left, func(a, b int) int { return compare(distance(a), distance(b), a, b) })
		far := make([]float64, len(left))
		for i, id := range left {
			far[i] = distance(id)
		}
		last := keep(left, p.TypicalP) - 1
		for i := max(last, 1); i < min(last+2, len(left)); i++ { // those beside the border may change places
			near(far[i-1], far[i])
		}
	}
	return prob, margin
}

func compare(x, y float64, a, b int) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return a - b
}

func normalize(p []float64) {
	var sum float64
	for _, v := range p {
		sum += v
	}
	for i := range p {
		p[i] /= sum
	}
}

func TestFiltersKeepExactlyTheDistributionOfTheirDefinitions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 700).Draw(t, "vocab")
		logits := randomLogits(rapid.Uint64().Draw(t, "seed"), n, rapid.Float64Range(0.1, 4).Draw(t, "scale"))
		p := sampling(func(p *SamplingParams) {
			p.Temperature = rapid.Float64Range(0.3, 3).Draw(t, "temperature")
			p.TopK = rapid.IntRange(0, n+3).Draw(t, "top_k")
			p.TopP = rapid.SampledFrom([]float64{1, 0.97, 0.61, 0.2}).Draw(t, "top_p")
			p.MinP = rapid.SampledFrom([]float64{0, 0.013, 0.3}).Draw(t, "min_p")
			p.TypicalP = rapid.SampledFrom([]float64{1, 0.93, 0.41}).Draw(t, "typical_p")
		})
		want, margin := naive(p, logits)
		if margin < 1e-5 {
			return // the sampler's weights are float32: it may choose otherwise
		}
		s := newSampler(t, p, n)
		sample(t, s, logits)

		got, total := make([]float64, n), mass(s.kept)
		for i, c := range s.kept {
			got[c.id] = float64(c.weight) / total
			if i > 0 {
				require.Less(t, s.kept[i-1].id, c.id, "the draw walks ascending ids")
			}
		}
		require.InDeltaSlice(t, want, got, 1e-6)
	})
}

func TestDrawsFollowTheExactProbabilities(t *testing.T) {
	const n, draws = 24, 20000
	logits := randomLogits(11, n, 1.5)
	for name, edit := range map[string]func(*SamplingParams){
		"temperature 1":   func(*SamplingParams) {},
		"temperature 0.6": func(p *SamplingParams) { p.Temperature = 0.6 },
		"temperature 2":   func(p *SamplingParams) { p.Temperature = 2 },
		"top_k":           func(p *SamplingParams) { p.TopK = 7 },
		"top_p":           func(p *SamplingParams) { p.TopP = 0.8 },
		"min_p":           func(p *SamplingParams) { p.MinP = 0.05 },
		"typical_p":       func(p *SamplingParams) { p.TypicalP = 0.7 },
		"all":             func(p *SamplingParams) { p.Temperature, p.TopK, p.TopP, p.MinP, p.TypicalP = 1.3, 15, 0.95, 0.02, 0.9 },
	} {
		t.Run(name, func(t *testing.T) {
			p := sampling(edit)
			s := newSampler(t, p, n)
			count := make([]float64, n)
			for range draws {
				count[sample(t, s, logits).ID]++
			}
			var chi2 float64
			cells := -1.0
			probabilities, _ := naive(p, logits)
			for i, q := range probabilities {
				if q == 0 {
					require.Zero(t, count[i], "token %d has probability 0", i)
					continue
				}
				cells++
				chi2 += (count[i] - draws*q) * (count[i] - draws*q) / (draws * q)
			}
			chance := distuv.ChiSquared{K: cells}.Survival(chi2)
			assert.Greater(t, chance, 1e-3, "chi-square %.1f with %v degrees of freedom", chi2, cells)
		})
	}
}

func TestNarrowFiltersAreGreedy(t *testing.T) {
	// gap is how much less than the largest logit one may be that is drawn: for min_p what a weight rounds to 1 with, for a temperature what leaves a
	// chance below the 53 bits of a draw.
	for name, c := range map[string]struct {
		edit func(*SamplingParams)
		gap  float32
	}{
		"top_k 1":           {func(p *SamplingParams) { p.TopK = 1 }, 0},
		"top_p tiny":        {func(p *SamplingParams) { p.TopP = 1e-12 }, 0},
		"min_p 1":           {func(p *SamplingParams) { p.MinP = 1 }, 1e-7},
		"temperature tiny":  {func(p *SamplingParams) { p.Temperature = 1e-300 }, 0},
		"temperature small": {func(p *SamplingParams) { p.Temperature = 1e-6 }, 4e-5},
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				n := rapid.IntRange(1, 400).Draw(t, "vocab")
				logits := randomLogits(rapid.Uint64().Draw(t, "seed"), n, 2)
				greedy := sample(t, newSampler(t, DefaultSamplingParams(), n), logits)
				narrow := sample(t, newSampler(t, sampling(c.edit), n), logits)
				require.LessOrEqual(t, logits[greedy.ID]-logits[narrow.ID], c.gap)
			})
		})
	}
}

func TestEqualLogitsAreToldApartByTheLowestID(t *testing.T) {
	logits := []float32{0, 3, 1, 3, 3, 1}
	assert.Equal(t, int32(1), sample(t, newSampler(t, DefaultSamplingParams(), 6), logits).ID)

	s := newSampler(t, sampling(func(p *SamplingParams) { p.TopK = 2 }), 6)
	for range 200 {
		assert.Contains(t, []int32{1, 3}, sample(t, s, logits).ID)
	}
	s = newSampler(t, sampling(func(p *SamplingParams) { p.TopP = 0.3 }), 6)
	for range 20 {
		assert.Equal(t, int32(1), sample(t, s, logits).ID)
	}
	s = newSampler(t, DefaultSamplingParams(), 6)
	s.params.Logprobs = 5
	var top []int32
	for _, c := range sample(t, s, logits).Top {
		top = append(top, c.ID)
	}
	assert.Equal(t, []int32{1, 3, 4, 2, 5}, top)
}

func TestASeedGivesTheSameTokensWhateverElseIsSampled(t *testing.T) {
	const n, steps = 300, 50
	seeded := func(seed uint64) *Sampler {
		return newSampler(t, sampling(func(p *SamplingParams) { p.Seed, p.TopP, p.FrequencyPenalty = &seed, 0.95, 0.4 }), n)
	}
	alone, other := seeded(5), seeded(6)
	var first, second []int32
	for i := range steps {
		first = append(first, sample(t, alone, randomLogits(uint64(i), n, 2)).ID)
	}
	again := seeded(5)
	for i := range steps {
		sample(t, other, randomLogits(uint64(i), n, 2))
		second = append(second, sample(t, again, randomLogits(uint64(i), n, 2)).ID)
	}
	assert.Equal(t, first, second)

	third := []int32{}
	different := seeded(7)
	for i := range steps {
		third = append(third, sample(t, different, randomLogits(uint64(i), n, 2)).ID)
	}
	assert.NotEqual(t, first, third)
}

func TestASeedTakenFromTheSystemCanBeReplayed(t *testing.T) {
	const n = 1000
	p := sampling(func(p *SamplingParams) { p.Seed = nil })
	s, other := newSampler(t, p, n), newSampler(t, p, n)
	assert.NotEqual(t, s.Seed(), other.Seed())
	seed := s.Seed()
	p.Seed = &seed
	replay := newSampler(t, p, n)
	for i := range 20 {
		logits := randomLogits(uint64(i), n, 1)
		assert.Equal(t, sample(t, s, logits), sample(t, replay, logits))
	}
}

// TestPenaltiesMatchTheirFormulas replays a history with the definitions: Hugging Face's repetition penalty over prompt and
// continuation, OpenAI's presence and frequency penalties over the continuation.
func TestPenaltiesMatchTheirFormulas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 12
		p := DefaultSamplingParams()
		p.RepetitionPenalty = rapid.SampledFrom([]float64{1, 1.3, 0.7}).Draw(t, "repetition")
		p.PresencePenalty = rapid.SampledFrom([]float64{0, 0.6, -0.5}).Draw(t, "presence")
		p.FrequencyPenalty = rapid.SampledFrom([]float64{0, 0.25, -1}).Draw(t, "frequency")
		if rapid.Bool().Draw(t, "bias") {
			p.LogitBias = LogitBias{3: 1.5, 7: float32(math.Inf(-1))}
		}
		prompt := rapid.SliceOfN(rapid.Int32Range(0, n-1), 0, 8).Draw(t, "prompt")
		s := newSampler(t, p, n)
		s.Observe(prompt...)
		s.Observe(-1, n, 1<<20) // no tokens: ignored

		var made []int32
		for step := range 12 {
			logits := randomLogits(rapid.Uint64().Draw(t, "seed")+uint64(step), n, 1)
			want := slices.Clone(logits)
			for id := range want {
				want[id] += p.LogitBias[int32(id)]
				if slices.Contains(prompt, int32(id)) || slices.Contains(made, int32(id)) {
					if want[id] < 0 {
						want[id] *= float32(p.RepetitionPenalty)
					} else {
						want[id] /= float32(p.RepetitionPenalty)
					}
				}
				var times float64
				for _, m := range made {
					if m == int32(id) {
						times++
					}
				}
				if times > 0 {
					want[id] -= float32(times*p.FrequencyPenalty + p.PresencePenalty)
				}
			}
			tok, err := s.Sample(logits)
			require.NoError(t, err)
			for id := range want { // -inf is no number to take a difference from
				if math.IsInf(float64(want[id]), -1) {
					require.Equal(t, want[id], logits[id])
					want[id], logits[id] = 0, 0
				}
			}
			require.InDeltaSlice(t, want, logits, 1e-5)
			made = append(made, tok.ID)
		}
	})
}

func TestABannedTokenIsNeverDrawn(t *testing.T) {
	logits := []float32{50, 1, 1, 1}
	for _, temperature := range []float64{0, 1} {
		s := newSampler(t, sampling(func(p *SamplingParams) {
			p.Temperature, p.LogitBias = temperature, LogitBias{0: float32(math.Inf(-1))}
		}), 4)
		for range 50 {
			assert.NotZero(t, sample(t, s, logits).ID)
		}
	}
}

func TestATokenWithLogitMinusInfinityIsNeverDrawn(t *testing.T) {
	inf := float32(math.Inf(-1))
	for _, edit := range []func(*SamplingParams){
		func(*SamplingParams) {},
		func(p *SamplingParams) { p.TopK = 3 },
		func(p *SamplingParams) { p.TypicalP = 0.9 },
		func(p *SamplingParams) { p.Temperature = 1e-320 },
	} {
		s := newSampler(t, sampling(edit), 5)
		for range 50 {
			assert.Contains(t, []int32{1, 3}, sample(t, s, []float32{inf, -2, inf, -2, inf}).ID)
		}
	}
	s := newSampler(t, sampling(func(p *SamplingParams) { p.Logprobs = 5 }), 5)
	assert.Len(t, sample(t, s, []float32{inf, -2, inf, -2, inf}).Top, 2, "only tokens that have a probability")
}

func TestLogitsThatNoTokenFollowsFromAreRefusedByIndex(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, c := range map[string]struct {
		logits  []float32
		index   int
		message string
	}{
		"NaN":         {[]float32{1, 2, nan, nan}, 2, "logits[2] = NaN"},
		"first NaN":   {[]float32{nan, 2, 3, 4}, 0, "logits[0] = NaN"},
		"+inf":        {[]float32{1, 2, 3, inf}, 3, "logits[3] = +Inf"},
		"all -inf":    {[]float32{-inf, -inf, -inf, -inf}, -1, "every token has -inf"},
		"wrong count": {[]float32{1, 2}, -1, "got 2 of them for a vocabulary of 4 tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range []SamplingParams{DefaultSamplingParams(), sampling(), sampling(func(p *SamplingParams) { p.Logprobs = 2 })} {
				_, err := newSampler(t, p, 4).Sample(slices.Clone(c.logits))
				require.ErrorIs(t, err, ErrLogits)
				var bad *LogitsError
				require.ErrorAs(t, err, &bad)
				assert.Equal(t, c.index, bad.Index)
				assert.ErrorContains(t, err, c.message)
			}
		})
	}
}

func TestTheFirstBadLogitIsFoundWhereverItIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "vocab")
		logits := randomLogits(rapid.Uint64().Draw(t, "seed"), n, 5)
		for range rapid.IntRange(0, 3).Draw(t, "bans") {
			logits[rapid.IntRange(0, n-1).Draw(t, "banned")] = float32(math.Inf(-1))
		}
		at := rapid.IntRange(0, n-1).Draw(t, "first")
		bad := float32(rapid.SampledFrom([]float64{math.NaN(), math.Inf(1)}).Draw(t, "bad"))
		logits[at], logits[rapid.IntRange(at, n-1).Draw(t, "second")] = bad, bad
		_, err := argmax(logits)
		var found *LogitsError
		require.ErrorAs(t, err, &found)
		require.Equal(t, at, found.Index)
	})
}

func TestGreedyIsTheFirstOfTheLargest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logits := make([]float32, rapid.IntRange(1, 200).Draw(t, "vocab"))
		for i := range logits {
			logits[i] = float32(rapid.IntRange(-3, 3).Draw(t, "logit"))
			if logits[i] == 3 {
				logits[i] = float32(math.Inf(-1))
			}
		}
		want := -1
		for i, v := range logits {
			if v > negInf && (want < 0 || v > logits[want]) {
				want = i
			}
		}
		got, err := argmax(logits)
		if want < 0 {
			require.ErrorIs(t, err, ErrLogits)
			return
		}
		require.NoError(t, err)
		require.Equal(t, int32(want), got)
	})
}

func TestBanningEveryTokenIsAnError(t *testing.T) {
	ban := float32(math.Inf(-1))
	s := newSampler(t, sampling(func(p *SamplingParams) { p.LogitBias = LogitBias{0: ban, 1: ban} }), 2)
	_, err := s.Sample([]float32{1, 2})
	assert.ErrorIs(t, err, ErrLogits)
}

func TestLogprobsAreTheLogSoftmaxOfTheModelsOwnLogits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 900).Draw(t, "vocab")
		logits := randomLogits(rapid.Uint64().Draw(t, "seed"), n, 3)
		p := sampling(func(p *SamplingParams) {
			p.Logprobs = rapid.IntRange(0, min(n, 9)).Draw(t, "logprobs")
			p.Temperature = rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(t, "temperature")
			if rapid.Bool().Draw(t, "changed") {
				p.LogitBias, p.RepetitionPenalty = LogitBias{1: 50}, 1.5
			}
		})
		s := newSampler(t, p, n)
		s.Observe(0)
		tok := sample(t, s, logits)

		want := make([]float64, n)
		order := make([]int, n)
		for i, v := range logits {
			want[i], order[i] = math.Exp(float64(v)), i
		}
		normalize(want)
		slices.SortFunc(order, func(a, b int) int { return compare(want[b], want[a], a, b) })
		require.InDelta(t, math.Log(want[tok.ID]), tok.Logprob, 1e-5)
		require.Len(t, tok.Top, p.Logprobs)
		for i, c := range tok.Top {
			require.Equal(t, int32(order[i]), c.ID)
			require.InDelta(t, math.Log(want[c.ID]), c.Logprob, 1e-5)
		}
	})
}

func TestATokenCostsNoAllocationAfterTheFirst(t *testing.T) {
	const n = 4096
	logits := randomLogits(3, n, 2)
	work := make([]float32, n)
	for name, edit := range map[string]func(*SamplingParams){
		"greedy":  func(p *SamplingParams) { p.Temperature = 0 },
		"softmax": func(*SamplingParams) {},
		"top_k":   func(p *SamplingParams) { p.TopK = 50 },
		"top_p":   func(p *SamplingParams) { p.TopP = 0.9 },
		"everything": func(p *SamplingParams) {
			p.TopK, p.TopP, p.MinP, p.TypicalP, p.Logprobs = 400, 0.99, 0.001, 0.9, 0
			p.RepetitionPenalty, p.PresencePenalty, p.FrequencyPenalty = 1.1, 0.2, 0.1
			p.LogitBias = LogitBias{3: 1}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSampler(t, sampling(edit), n)
			s.Observe(1, 2, 3)
			assert.Zero(t, testing.AllocsPerRun(50, func() {
				copy(work, logits)
				if _, err := s.Sample(work); err != nil {
					t.Error(err)
				}
			}))
		})
	}
}

func TestASamplerRefusesInvalidParameters(t *testing.T) {
	_, err := NewSampler(SamplingParams{}, 10)
	assert.ErrorIs(t, err, ErrArgument)
}

func BenchmarkSample(b *testing.B) {
	const n = 128256
	logits := randomLogits(3, n, 2)
	for _, c := range []struct {
		name string
		edit func(*SamplingParams)
	}{
		{"greedy", func(p *SamplingParams) { p.Temperature = 0 }},
		{"softmax", func(*SamplingParams) {}},
		{"top_k=50", func(p *SamplingParams) { p.TopK = 50 }},
		{"top_k=50,top_p=0.9", func(p *SamplingParams) { p.TopK, p.TopP = 50, 0.9 }},
		{"top_p=0.9", func(p *SamplingParams) { p.TopP = 0.9 }},
		{"typical_p=0.9", func(p *SamplingParams) { p.TypicalP = 0.9 }},
		{"logprobs=5", func(p *SamplingParams) { p.Temperature, p.Logprobs = 0, 5 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newSampler(b, sampling(c.edit), n)
			b.ReportAllocs()
			for range b.N {
				if _, err := s.Sample(logits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
