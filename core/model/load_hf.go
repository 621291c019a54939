package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// loadHF loads a Hugging Face checkpoint: config.json beside model.safetensors or an index of shards.
func loadHF(ctx context.Context, path string, l *loader) (*Model, error) {
	dir := hfDir(path)
	cfg, err := hfConfigOf(dir, l.opts.Quantize)
	if err != nil {
		return nil, err
	}
	set, err := safetensors.OpenSet(path)
	if err != nil {
		return nil, err
	}
	m, err := l.copyOut(ctx, set, func() (*Model, findMasters, error) {
		return planHF(ctx, set, cfg, l)
	})
	if err != nil {
		return nil, err
	}
	m.Info.Path, m.Info.Format = path, "hf"
	if cfg.namesCode {
		m.Info.Warnings = append(m.Info.Warnings, fmt.Sprintf("%s names code of its own (auto_map), which is not run: the model is a %s as built here",
			filepath.Join(dir, "config.json"), cfg.Architecture))
	}
	return m, nil
}

// planHF assembles the model, and leaves the weights to the loader. The result also finds master weights.
func planHF(ctx context.Context, set container.Set, cfg *Config, l *loader) (*Model, findMasters, error) {
	hf := &hfSource{newTensorSource(l, set, cfg)}
	var src interface {
		source
		masterRows(name string, out, in int) (masterRows, error)
		ignored(tensor string) bool
	} = hf
	embed := "model.embed_tokens"
	if cfg.Architecture == ArchGPT2 && !set.Has(embed+".weight") {
		gpt2 := newGPT2Source(hf)
		embed, _ = gpt2.name(embed)
		src = gpt2
	}
	if err := hf.resolveTie(ctx, embed+".weight"); err != nil {
		return nil, nil, err
	}
	m, err := build(cfg, src)
	if name := filepath.Base(set.Path()); errors.Is(err, container.ErrTensorMissing) && name != safetensors.SingleName && safetensors.IsShard(name, ".safetensors") {
		return nil, nil, otherError(set.Path(), "one of several files of a model", "its directory, or its "+safetensors.IndexName)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := l.checkUse(set, "safetensors", cfg.quantized); err != nil {
		return nil, nil, err
	}
	return m, src.masterRows, hf.settle("a "+cfg.Architecture, src.ignored)
}

// hfDir is the directory of a checkpoint's config.
func hfDir(path string) string {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return filepath.Dir(path)
	}
	return path
}

func hfConfigOf(dir string, quantize bool) (*Config, error) {
	path := filepath.Join(dir, "config.json")
	data, err := readLimited(path, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	return parseConfig(data, path, quantize)
}

// hfSource is a Hugging Face checkpoint as a source. What a linear layer is, packed, master weights or float, is read off
// its tensor's dtype; the config says what its weight_scale means.
type hfSource struct{ tensorSource }

// ignored are the frequencies that old Llama checkpoints carry.
func (s *hfSource) ignored(tensor string) bool {
	return strings.HasSuffix(tensor, ".rotary_emb.inv_freq")
}

// oldNames are the names that the 1bitLLM checkpoints have for the sub-norms.
var oldNames = map[string]string{
	"self_attn.attn_sub_norm": "self_attn.inner_attn_ln",
	"mlp.ffn_sub_norm":        "mlp.ffn_layernorm",
}

// resolveTie settles whether embedding and head are one table. A config that does not say leaves it to the file; a
// head that is stored although the config ties it counts only when it differs from the embedding, as in transformers.
func (s *hfSource) resolveTie(ctx context.Context, embed string) error {
	const head = "lm_head.weight"
	stored := s.set.Has(head)
	switch {
	case s.cfg.tieUnstated:
		s.cfg.TieWordEmbeddings, s.cfg.tieUnstated = !stored, false
	case s.cfg.TieWordEmbeddings && stored && s.set.Has(embed):
		same, err := s.sameTensor(ctx, head, embed)
		if err != nil {
			return err
		}
		s.cfg.TieWordEmbeddings = same
		s.used[head] = same
	}
	return nil
}

// sameTensor compares two tensors bit by bit, holding a piece of each at a time.
func (s *hfSource) sameTensor(ctx context.Context, a, b string) (bool, error) {
	x, err := s.set.Tensor(a)
	if err != nil {
		return false, err
	}
	y, err := s.set.Tensor(b)
	if err != nil {
		return false, err
	}
	if x.DType != y.DType || !slices.Equal(x.Shape, y.Shape) {
		return false, nil
	}
	for at := 0; at < len(x.Data); at += s.piece {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		p, q := part(x, at, at+s.piece), part(y, at, at+s.piece)
		same := bytes.Equal(p.Data, q.Data)
		if err := errors.Join(p.ReleasePages(), q.ReleasePages()); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func (s *hfSource) linear(name string, out, in int) (*nn.Linear, error) {
	w, err := s.view(name+".weight", out, in)
	if err != nil {
		return nil, err
	}
	l := &nn.Linear{Out: out, In: in}
	biasScale := float32(1)
	switch {
	case !s.converts(name):
		if l.Dense, err = s.floatMatrix(w, out, in, natural(w.DType)); err != nil {
			return nil, err
		}
	case w.DType == safetensors.U8:
		if err := s.packed(l, name, w); err != nil {
			return nil, err
		}
		if s.cfg.Quantization.LinearClass == AutoBitLinear { // (acc/s + bias) * weight_scale
			biasScale = l.Ternary.Scale
		}
	case s.storesCodes(name, w.DType):
		if err := s.unpacked(l, name, w); err != nil {
			return nil, err
		}
		biasScale = l.Ternary.Scale
	default:
		if err := s.masters(l, name, w); err != nil {
			return nil, err
		}
	}
	if err := s.bias(l, name, biasScale); err != nil {
		return nil, err
	}
	return l, s.cfg.ownNorm(l, func() ([]float32, error) { return s.norm(name+".rms_norm", "weight", in) })
}

// floatMatrix plans a matrix that stays float.
func (s *hfSource) floatMatrix(w container.View, rows, cols int, format cpu.DenseFormat) (*quant.Dense, error) {
	if err := w.Check([]int{rows, cols}, floats...); err != nil {
		return nil, err
	}
	return s.dense(w, rows, cols, format, nil)
}

// packed plans a linear whose ternary codes the checkpoint stores four to a byte.
func (s *hfSource) packed(l *nn.Linear, name string, w container.View) error {
	if l.Out%4 != 0 {
		return &container.Error{Kind: container.ErrMismatch, Path: w.Path(), Tensor: w.Name, Field: "shape",
			Found: fmt.Sprintf("packed rows of a matrix with %d rows", l.Out), Expected: "a multiple of 4 rows"}
	}
	if err := w.Check([]int{l.Out / 4, l.In}, safetensors.U8); err != nil {
		return err
	}
	scale, err := s.weightScale(name)
	if err != nil {
		return err
	}
	l.Ternary = s.ternary(name, l.Out, l.In)
	l.Ternary.Scale = scale
	fill := s.codes(l.Ternary)
	s.plan(w, 0, func() error {
		return fill(func(panels []byte) error { return quant.PackHF(panels, w.Data, l.Out, l.In) })
	})
	return nil
}

// storesCodes says whether a linear's ternary codes are stored as floats beside their scale: an autobitlinear layer as it
// is in memory in transformers, which reads that form as well as the packed one.
func (s *hfSource) storesCodes(name, dtype string) bool {
	q := &s.cfg.Quantization
	return q.LinearClass == AutoBitLinear && q.Mode == ModeOffline && slices.Contains(floats, dtype) && s.set.Has(name+".weight_scale")
}

// unpacked plans a linear whose codes are floats.
func (s *hfSource) unpacked(l *nn.Linear, name string, w container.View) error {
	scale, err := s.weightScale(name)
	if err != nil {
		return err
	}
	if err := w.Check([]int{l.Out, l.In}, floats...); err != nil {
		return err
	}
	l.Ternary = s.ternary(name, l.Out, l.In)
	l.Ternary.Scale = scale
	fill := s.codes(l.Ternary)
	s.plan(w, 0, func() error {
		size := len(w.Data) / (l.Out * l.In)
		for i := range l.Out * l.In {
			if x := decodeFloat(w.DType, w.Data[i*size:]); x != 0 && x != 1 && x != -1 {
				return &quant.ValueError{Row: i / l.In, Col: i % l.In, Found: fmt.Sprint(x), Expected: "-1, 0 or 1 beside a weight_scale"}
			}
		}
		return fill(func(panels []byte) error {
			_, err := quant.Ternarize(panels, w.DType, w.Data, l.Out, l.In)
			return err
		})
	})
	return nil
}

// weightScale reads mean|W|. The file's weight_scale is that number or its inverse, depending on the linear class.
func (s *hfSource) weightScale(name string) (float32, error) {
	v, stored, err := s.number(name + ".weight_scale")
	if err != nil {
		return 0, err
	}
	scale := stored
	if s.cfg.Quantization.LinearClass == BitLinear {
		scale = 1 / stored
	}
	return scale, checkScale(v, scale, stored)
}

// masters plans a linear that is ternarized at load.
func (s *hfSource) masters(l *nn.Linear, name string, w container.View) error {
	if err := w.Check([]int{l.Out, l.In}, append([]string{safetensors.U8}, floats...)...); err != nil {
		return err
	}
	s.ternarize(l, name, fileMatrix{View: w, width: l.Out})
	return nil
}

func (s *hfSource) bias(l *nn.Linear, name string, scale float32) error {
	if !s.cfg.hasBias(name) {
		return nil
	}
	v, err := s.vector(name+".bias", l.Out)
	if err != nil {
		return err
	}
	for i := range v {
		v[i] *= scale
	}
	l.Bias = v
	return nil
}

func (s *hfSource) norm(name, part string, dim int) ([]float32, error) {
	if !s.set.Has(name + ".weight") {
		for current, old := range oldNames {
			if base, found := strings.CutSuffix(name, current); found && s.set.Has(base+old+".weight") {
				name = base + old
			}
		}
	}
	return s.vector(name+"."+part, dim)
}

func (s *hfSource) table(name string, rows, cols int) (*nn.Linear, error) {
	return s.tableAt(name+".weight", name, rows, cols)
}

// tableAt is the table of a module that the file has as the given tensor.
func (s *hfSource) tableAt(tensor, module string, rows, cols int) (*nn.Linear, error) {
	w, err := s.view(tensor, rows, cols)
	if err != nil {
		return nil, err
	}
	format := natural(w.DType)
	if s.cfg.isHead(module) {
		format = s.head.or(format)
	}
	d, err := s.floatMatrix(w, rows, cols, format)
	if err != nil {
		return nil, err
	}
	return &nn.Linear{Out: rows, In: cols, Dense: d}, nil
}
