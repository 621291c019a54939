package model

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Model is a causal language model in the layout of BitNet b1.58, Llama or GPT-2: the one definition that inference and training run.
type Model struct {
	Config *Config // what fixes shapes and arithmetic; not to be changed

	Embed     nn.Embedding  // the table of tokens
	RoPE      *nn.RoPE      // nil where positions are learned
	Positions *nn.Embedding // the table of learned positions, or nil
	Blocks    []Block       // the layers, the first first
	Head      nn.Head       // the last norm and the output layer

	Info  Info                              // where the weights came from and what they occupy
	files atomic.Pointer[map[string]string] // tokenizer and other texts that SetAssets gave; nil: those at Info.Path

	origin atomic.Pointer[map[string]string] // what describe said of Info.Path, once somebody has asked

	use     sync.RWMutex  // held for reading by steps, for writing by whoever moves or frees weights
	stale   atomic.Bool   // the master weights have changed since the last Refresh
	version atomic.Uint64 // how often Refresh was called
	closed  bool
	close   []func() error // gives weight memory and file mappings back
	arena   *pool.Block    // most of the weight memory, or nil

	damage  atomic.Pointer[error] // what is wrong with the file, once that is known
	masters findMasters           // from the file of a deferred model

	deferred *deferred // nil unless weights come into memory when they are needed
	promoter *promoter // nil unless the weights of a mapped file are moved into memory
}

// ErrClosed is the error of using a model after Close.
var ErrClosed = errors.New("model is closed")

// Info describes a model in memory.
type Info struct {
	Path        string `json:"path"`         // directory or file the model was loaded from; "" for a random model
	Format      string `json:"format"`       // "hf", "native", "gguf", "onnx", "memory", "random" or "trainable"
	Parameters  int64  `json:"parameters"`   // number of weights, a tied table counted once
	WeightBytes int64  `json:"weight_bytes"` // bytes the weights occupy in memory
	HeadFormat  string `json:"head_dtype"`   // "float32", "bfloat16", "float16", "int8", "int4" or HeadExact
	Packing     string `json:"packing"`      // of ternary weights: "2bit" or "base3"

	Metadata map[string]string `json:"metadata,omitempty"` // free-form entries of the native format
	Warnings []string          `json:"warnings,omitempty"` // what a user should know about the checkpoint, a sentence each
	Unused   []string          `json:"unused,omitempty"`   // options that say nothing about the files, with LoadOptions.Lenient
}

// Block is one transformer layer.
type Block struct {
	InputNorm *nn.Norm       // input_layernorm
	Attn      nn.Attention   // self_attn
	PostNorm  *nn.Norm       // post_attention_layernorm
	FFN       nn.FeedForward // mlp
}

// Forward takes the residual stream x [rows, hidden_size] and returns it with the layer's attention and feed-forward
// outputs added.
func (b *Block) Forward(c *nn.Ctx, x *tensor.Tensor, angles nn.Angles) *tensor.Tensor {
	attn := b.Attn.Forward(c, x, b.InputNorm, angles)
	b.inspect(c, "self_attn", attn)
	x = nn.Add(c, x, nn.Dropout(c, attn))
	ffn := b.FFN.Forward(c, x, b.PostNorm)
	b.inspect(c, "mlp", ffn)
	return nn.Add(c, x, nn.Dropout(c, ffn))
}

func (b *Block) inspect(c *nn.Ctx, module string, x *tensor.Tensor) {
	if c.Inspect != nil {
		c.Inspect(layerName(b.Attn.Layer)+module, x)
	}
}

// Forward runs the step c over ids, one token a row, and returns the residual stream after the last layer,
// [rows, hidden_size], before the final norm (the head applies it). The only errors are that of a canceled step, and of a model whose
// weights are read meanwhile.
func (m *Model) Forward(c *nn.Ctx, ids []int32) (*tensor.Tensor, error) {
	if err := m.deferred.keepTables(context.Background()); err != nil {
		return nil, err
	}
	x := m.Embed.Forward(c, ids)
	var angles nn.Angles
	if m.Positions != nil {
		x = nn.Add(c, x, m.Positions.Forward(c, c.Positions()))
	} else {
		angles = m.RoPE.Angles(c)
	}
	x = nn.Dropout(c, x)
	for i := range m.Blocks {
		if err := c.Err(); err != nil {
			return nil, err
		}
		var err error
		if x, err = m.layer(c, i, x, angles); err != nil {
			return nil, err
		}
	}
	angles.Free(c)
	return x, nil
}

// layer runs block i while its weights are in memory.
func (m *Model) layer(c *nn.Ctx, i int, x *tensor.Tensor, angles nn.Angles) (*tensor.Tensor, error) {
	leave, err := m.deferred.enter(context.Background(), i)
	if err != nil {
		return nil, err
	}
	defer leave()
	return nn.Recompute(c, &m.Blocks[i], x, angles), nil
}

// Acquire keeps the weights where they are until Release. It derives them anew from master weights that MarkChanged has
// told of. It fails once the model is closed, or once its file turned out to be damaged.
func (m *Model) Acquire() error {
	for {
		if err := m.Damage(); err != nil {
			return err
		}
		m.use.RLock()
		if !m.closed && !m.stale.Load() {
			return nil
		}
		closed := m.closed
		m.use.RUnlock()
		if closed {
			return ErrClosed
		}
		if err := m.refreshStale(); err != nil {
			return err
		}
	}
}

func (m *Model) refreshStale() error {
	m.use.Lock()
	defer m.use.Unlock()
	if m.closed || !m.stale.Load() {
		return nil
	}
	if err := m.Refresh(); err != nil {
		return err
	}
	m.stale.Store(false)
	return nil
}

// MarkChanged tells that master weights were changed: whoever acquires the model next derives the weights of forward passes
// anew. Callers that train the model step by step call Refresh instead.
func (m *Model) MarkChanged() { m.stale.Store(true) }

// Version changes whenever the weights of forward passes do: keys and values that were computed before are of another model.
func (m *Model) Version() uint64 { return m.version.Load() }

// Release ends what Acquire began.
func (m *Model) Release() { m.use.RUnlock() }

// Close waits for whoever uses the weights and gives their memory back. Closing twice does nothing.
func (m *Model) Close() error {
	m.promoter.stop()
	m.use.Lock()
	defer m.use.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	m.Blocks, m.Embed, m.Positions, m.Head = nil, nn.Embedding{}, nil, nn.Head{}
	var err error
	for _, f := range m.close {
		err = errors.Join(err, f())
	}
	return err
}

// Hold keeps the memory of the weights where it is, also after Close, for as long as the result is reachable: for tensors
// over master weights that users keep. The model must be acquired.
func (m *Model) Hold() *Hold {
	h := &Hold{}
	if m.arena != nil {
		runtime.AddCleanup(h, (*pool.Block).Release, m.arena.Retain())
	}
	return h
}

// Hold is a claim on memory that ends with the last reference to it. The pointer keeps it out of blocks that small values share, which live
// as long as the last of them.
type Hold struct{ _ *byte }

// Release makes it a tensor.Releaser; it does nothing.
func (*Hold) Release() {}

// source supplies a model's weights by module name ("model.layers.0.self_attn.q_proj"). Checkpoints, the native format
// and random initialization are sources.
type source interface {
	// linear returns the layer [out, in]: ternary or dense as the checkpoint has it.
	linear(name string, out, in int) (*nn.Linear, error)
	// norm returns a vector [dim] of a norm: its "weight" or "bias".
	norm(name, part string, dim int) ([]float32, error)
	// table returns the dense matrix [rows, cols] of the embedding, the learned positions or the output head.
	table(name string, rows, cols int) (*nn.Linear, error)
}

// build assembles the model that cfg describes from the weights of src. Tensor names are those of Hugging Face's
// BitNetForCausalLM and LlamaForCausalLM, whatever the architecture, and "model.embed_positions"; sources translate other spellings.
func build(cfg *Config, src source) (*Model, error) {
	m := &Model{Config: cfg, Blocks: make([]Block, cfg.NumHiddenLayers)}
	b := builder{src: src, cfg: cfg}

	table := b.table("model.embed_tokens", cfg.VocabSize, cfg.HiddenSize)
	if cfg.LearnedPositions() {
		positions := b.table("model.embed_positions", cfg.MaxPositionEmbeddings, cfg.HiddenSize)
		if b.err == nil {
			m.Positions = &nn.Embedding{Table: positions.Dense, Param: positions.Weight}
		}
	} else {
		m.RoPE = b.rope()
	}
	for i := range m.Blocks {
		m.Blocks[i] = b.block(i)
	}
	norm := b.norm("model.norm", cfg.HiddenSize)
	head := table
	if !cfg.TieWordEmbeddings {
		head = b.table("lm_head", cfg.VocabSize, cfg.HiddenSize)
	}
	if b.err != nil {
		return nil, b.err
	}
	m.Embed = nn.Embedding{Table: table.Dense, Param: table.Weight}
	m.Head = nn.Head{Norm: norm, Proj: head}
	return m, nil
}

// builder remembers the first error, so that the model's structure reads without interruption.
type builder struct {
	src source
	cfg *Config
	err error
}

func (b *builder) block(i int) Block {
	cfg, p := b.cfg, layerName(i)
	d, f := cfg.HiddenSize, cfg.IntermediateSize
	q, kv := cfg.NumAttentionHeads*cfg.HeadDim, cfg.NumKeyValueHeads*cfg.HeadDim
	blk := Block{
		InputNorm: b.norm(p+"input_layernorm", d),
		Attn: nn.Attention{
			Layer: i, Heads: cfg.NumAttentionHeads, KVHeads: cfg.NumKeyValueHeads, Dim: cfg.HeadDim,
			Q: b.linear(p+"self_attn.q_proj", q, d),
			K: b.linear(p+"self_attn.k_proj", kv, d),
			V: b.linear(p+"self_attn.v_proj", kv, d),
			O: b.linear(p+"self_attn.o_proj", d, q),
		},
		PostNorm: b.norm(p+"post_attention_layernorm", d),
		FFN: nn.FeedForward{
			Act:  activations[cfg.HiddenAct],
			Gate: b.gate(p+"mlp.gate_proj", f, d),
			Up:   b.linear(p+"mlp.up_proj", f, d),
			Down: b.linear(p+"mlp.down_proj", d, f),
		},
	}
	if cfg.SubNorms() {
		blk.Attn.SubNorm = b.norm(p+"self_attn.attn_sub_norm", q)
		blk.FFN.SubNorm = b.norm(p+"mlp.ffn_sub_norm", f)
	}
	return blk
}

// activations are the values of hidden_act that Validate accepts, under the names of transformers.
var activations = map[string]nn.Activation{
	ActReLU2: nn.ReLU2, ActSiLU: nn.SiLU, ActReLU: nn.ReLU, ActGELU: nn.GELU, ActGELUNew: nn.GELUTanh, ActGELUTanh: nn.GELUTanh,
}

func (b *builder) linear(name string, out, in int) *nn.Linear {
	if b.err != nil {
		return nil
	}
	b.begin(name)
	var l *nn.Linear
	l, b.err = b.src.linear(name, out, in)
	return l
}

// gate is linear in a network that has one.
func (b *builder) gate(name string, out, in int) *nn.Linear {
	if !b.cfg.Gated() {
		return nil
	}
	return b.linear(name, out, in)
}

func (b *builder) rope() *nn.RoPE {
	rope, err := nn.NewRoPE(b.cfg.HeadDim, b.cfg.RopeTheta, b.cfg.RopeScaling.nn())
	if b.err == nil && err != nil {
		b.err = &ConfigError{Field: "rope_scaling", Value: b.cfg.RopeScaling, Reason: err.Error()}
	}
	return rope
}

// nn is the scaling as the layer takes it.
func (s *RopeScaling) nn() *nn.RopeScaling {
	if s == nil {
		return nil
	}
	return &nn.RopeScaling{Type: s.Type, Factor: s.Factor, LowFreqFactor: s.LowFreqFactor, HighFreqFactor: s.HighFreqFactor,
		OriginalMaxPositionEmbeddings: s.OriginalMaxPositionEmbeddings}
}

func (b *builder) table(name string, rows, cols int) *nn.Linear {
	if b.err != nil {
		return nil
	}
	b.begin(name)
	var l *nn.Linear
	l, b.err = b.src.table(name, rows, cols)
	return l
}

// begin tells a source that plans its work whose weights come next.
func (b *builder) begin(module string) {
	if l, plans := b.src.(interface{ begin(module string) }); plans {
		l.begin(module)
	}
}

func (b *builder) norm(name string, dim int) *nn.Norm {
	if b.err != nil {
		return nil
	}
	n := &nn.Norm{Center: b.cfg.LayerNorm(), Eps: float32(b.cfg.RMSNormEps)}
	if n.Weight, b.err = b.src.norm(name, "weight", dim); n.Center && b.err == nil {
		n.Bias, b.err = b.src.norm(name, "bias", dim)
	}
	return n
}
