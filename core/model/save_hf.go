package model

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// maxShard is the size from which an exported checkpoint is split by default, that of transformers.
const maxShard = 5_000_000_000

// HFOptions steers SaveHFContext. The zero value is a packed checkpoint with the model's own convention.
type HFOptions struct {
	// Masters, "float32" or "bfloat16", writes a trainable model's master weights in place of packed ones: in the form
	// (quantization_mode "online") of which transformers derives the ternary weights at every step, so that training can go on there or
	// here. Training here goes on exactly from float32; bfloat16 rounds, and a weight beside a threshold may fall to its other side.
	Masters string `json:"masters"`
	// Derived allows Masters of layers whose own are lost: the codes times one magnitude, which quantize to the same codes and scale, but of
	// which all are equally far from another code.
	Derived bool `json:"derived_masters"`
	// Whole refuses a directory that holds other files than a checkpoint's, in which a new one could not appear in one step (ErrOption).
	Whole bool `json:"whole"`
	// LinearClass is what weight_scale of packed layers means: AutoBitLinear, which multiplies by it, or BitLinear, which divides; ""
	// keeps what the model's config says. Master weights are always AutoBitLinear's.
	LinearClass string `json:"linear_class"`
	// MaxShard is the most bytes of tensors in a file; more make several files and an index. 0 is 5 GB. A tensor is never divided.
	MaxShard int64 `json:"max_shard_size"`
}

func (o HFOptions) check() error {
	if o.Masters != "" && hfMasters[o.Masters] == "" {
		return fmt.Errorf("%w: masters = %q: expected \"float32\" or \"bfloat16\"", ErrOption, o.Masters)
	}
	if o.LinearClass != "" && o.LinearClass != AutoBitLinear && o.LinearClass != BitLinear {
		return fmt.Errorf("%w: linear_class = %q: expected %q or %q", ErrOption, o.LinearClass, AutoBitLinear, BitLinear)
	}
	if o.Masters != "" && o.LinearClass == BitLinear {
		return fmt.Errorf("%w: linear_class = %q: expected %q with master weights, as transformers' %[2]s has packed ones only", ErrOption, BitLinear, AutoBitLinear)
	}
	if o.MaxShard < 0 {
		return fmt.Errorf("%w: max_shard_size = %d: expected at least 1 byte", ErrOption, o.MaxShard)
	}
	return nil
}

// hfMasters are the dtypes of master weights.
var hfMasters = map[string]string{"float32": safetensors.F32, "bfloat16": safetensors.BF16}

// ErrExport is what errors about a model that has no form in a format of others match with errors.Is.
var ErrExport = errors.New("model has no form in this format")

// SaveHF writes the model into a directory (made if need be) as a packed checkpoint that transformers reads: config.json,
// safetensors, generation_config.json, the files that belong to the place the model was loaded from, and README.md with model card and
// licence, unless there is one. Float matrices
// are written as they are, vectors as bfloat16 where that holds every value and as float32 otherwise; an int8 or int4 head becomes float32. The lower-case
// BitnetForCausalLM becomes a BitNetForCausalLM with its activation, which is the same network.
//
// A GPT-2 has the names of GPT2LMHeadModel, matrices [in, out], and float layers: ternary ones have master weights there, and no packed form
// (ErrExport).
//
// A directory that holds a model.bitnet is refused, since Load would go on to prefer that (ErrOption). A matrix whose rows
// are no multiple of 4 cannot be packed, and BitNetForCausalLM has no place for an mlp_bias (ErrExport).
func (m *Model) SaveHF(dir string) error {
	return m.SaveHFContext(context.Background(), dir, HFOptions{})
}

// SaveHFContext is SaveHF with options, until ctx ends; then the error is that of ctx, and nothing has changed, but for whole files
// in a directory that holds others than a checkpoint's. A model without master weights, or with learned scales, has no form with Masters (ErrExport).
func (m *Model) SaveHFContext(ctx context.Context, dir string, o HFOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := m.acquireSound(ctx); err != nil {
		return err
	}
	defer m.Release()
	if native := nativeIn(dir); native != "" {
		return fmt.Errorf("%w: directory %s holds %s, which would hide the checkpoint", ErrOption, dir, filepath.Base(native))
	}
	files, err := m.assets(nil)
	if err != nil {
		return err
	}
	cfg := m.hfConfig(o)
	if o.Masters != "" {
		if err := m.checkMasters(); err != nil {
			return err
		}
	}
	if cfg.MLPBias && cfg.SubNorms() {
		return fmt.Errorf("%w: mlp_bias = true, and transformers' %s passes over the biases of its feed-forward network", ErrExport, cfg.Architecture)
	}
	if o.LinearClass != "" && (cfg.Architecture == ArchGPT2 || !cfg.hasTernary()) {
		return fmt.Errorf("%w: linear_class = '%s': a %s has no packed layers here: expected it to be left out", ErrOption, o.LinearClass, cfg.Architecture)
	}
	w := &hfWriter{ctx: ctx, model: m, class: cfg.Quantization.LinearClass, masters: hfMasters[o.Masters], derived: o.Derived}
	linear, norm := w.linear, w.norm
	if cfg.Architecture == ArchGPT2 {
		gpt2 := &gpt2Writer{hfWriter: w}
		linear, norm = gpt2.linear, gpt2.norm
	}
	if err := m.eachWeight(linear, norm); err != nil {
		return err
	}
	if o.Derived && !w.lost {
		return fmt.Errorf("%w: derive_masters = True: the model has master weights of its own: expected it to be left out", ErrOption)
	}
	if files, err = withGenerationConfig(files, &cfg); err != nil {
		return err
	}
	weights := shardsOf(".safetensors")
	if o.Whole {
		if err := refuseOthers(dir, weights); err != nil {
			return err
		}
	}
	if planned(ctx, w.tensors) {
		return nil
	}
	if text := card(m.notes()); text != "" && (o.Whole || !exists(filepath.Join(dir, cardName))) {
		files = maps.Clone(files)
		files[cardName] = text
	}
	return writeDirectory(dir, weights, func(dir string) error {
		if _, err := safetensors.WriteSharded(dir, stoppable(ctx, w.tensors), map[string]string{"format": "pt"}, cmp.Or(o.MaxShard, maxShard)); err != nil {
			return err
		}
		return writeTexts(dir, &cfg, files)
	})
}

// withGenerationConfig adds the generation_config.json that transformers would make of the config, where there is none.
func withGenerationConfig(files map[string]string, c *Config) (map[string]string, error) {
	if _, there := files[generationName]; there {
		return files, nil
	}
	text, err := json.MarshalIndent(struct {
		FromConfig bool `json:"_from_model_config"`
		BOS        *int `json:"bos_token_id,omitempty"`
		EOS        any  `json:"eos_token_id,omitempty"`
		Pad        *int `json:"pad_token_id,omitempty"`
	}{true, c.BOSTokenID, c.eosValue(), c.PadTokenID}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	all := map[string]string{generationName: string(text) + "\n"}
	maps.Copy(all, files)
	return all, nil
}

// hfConfig is the config of the exported checkpoint.
func (m *Model) hfConfig(o HFOptions) Config {
	cfg := m.Config.clone()
	cfg.TieWordEmbeddings = m.tied()
	cfg.Quantization.Mode = ModeOffline
	cfg.Quantization.LinearClass = cmp.Or(o.LinearClass, cfg.Quantization.LinearClass)
	// transformers computes packed layers in the type that the config names, and the rest in that of the tables in the file.
	cfg.DType = map[string]string{safetensors.BF16: "bfloat16", safetensors.F16: "float16", safetensors.F32: "float32"}[floatType(m.Embed.Table)]
	if o.Masters != "" {
		cfg.Quantization.Mode, cfg.Quantization.LinearClass, cfg.DType = ModeOnline, AutoBitLinear, o.Masters
	}
	if cfg.Architecture == ArchGPT2 {
		cfg.Quantization.Mode, cfg.Quantization.LinearClass = ModeOnline, AutoBitLinear
	}
	if cfg.Architecture == ArchBitnet {
		cfg.Architecture = ArchBitNet
	}
	// transformers leaves the head alone only as long as nobody says what else to leave alone.
	if q := &cfg.Quantization; len(q.ModulesToNotConvert) > 0 && cfg.hasTernary() && q.Converts("lm_head") {
		q.ModulesToNotConvert = append(q.ModulesToNotConvert, "lm_head")
	}
	return cfg
}

// hfWriter collects the tensors of a checkpoint.
type hfWriter struct {
	ctx     context.Context
	model   *Model
	class   string
	masters string // dtype of master weights; "": packed
	derived bool
	lost    bool // there are layers whose masters have to be derived
	tensors []container.Tensor
}

func (w *hfWriter) linear(name string, l *nn.Linear) error {
	bias := l.Bias
	if t := l.Ternary; t != nil && w.masters != "" {
		open, err := w.masterOf(name, l)
		if err != nil {
			return err
		}
		w.float(name, name, w.masters, l.Out, l.In, open)
	} else if t != nil {
		if l.Out%4 != 0 {
			return fmt.Errorf("%w: %s has %d rows, which four to a byte do not divide", ErrExport, name, l.Out)
		}
		w.tensors = append(w.tensors, container.Tensor{Name: name + ".weight", DType: safetensors.U8, Shape: []int{l.Out / 4, l.In},
			Stream: func(out io.Writer) error {
				return w.model.with(w.ctx, name, func() error {
					packed := make([]byte, quant.HFBytes(l.Out, l.In))
					if err := quant.ToHF(packed, t.Panels(), l.Out, l.In); err != nil {
						return err
					}
					_, err := out.Write(packed)
					return err
				})
			}})
		w.vector(name+".weight_scale", []float32{w.storedScale(t.Scale)})
		if w.class == AutoBitLinear { // the reader multiplies the bias by weight_scale
			bias = make([]float32, len(l.Bias))
			for i, b := range l.Bias {
				bias[i] = b / t.Scale
			}
		}
	} else {
		w.dense(name, name, l.Dense)
	}
	if len(bias) > 0 {
		w.vector(name+".bias", bias)
	}
	if l.Norm != nil {
		w.vector(name+".rms_norm.weight", l.Norm.Weight)
	}
	return nil
}

// storedScale is what weight_scale holds for a scale: itself, or for bitlinear the number whose inverse it is, the
// shorter one where two would do.
func (w *hfWriter) storedScale(scale float32) float32 {
	if w.class == AutoBitLinear {
		return scale
	}
	if short := tensor.ToBFloat16(1 / scale).Float32(); 1/short == scale {
		return short
	}
	return 1 / scale
}

func (w *hfWriter) norm(name string, n *nn.Norm) error {
	w.vector(name+".weight", n.Weight)
	if n.Bias != nil {
		w.vector(name+".bias", n.Bias)
	}
	return nil
}

// vector writes values as bfloat16 when that loses nothing.
func (w *hfWriter) vector(name string, values []float32) {
	dtype := safetensors.BF16
	for _, v := range values {
		if math.Float32bits(v)&0xffff != 0 {
			dtype = safetensors.F32
		}
	}
	w.tensors = append(w.tensors, container.Tensor{Name: name, DType: dtype, Shape: []int{len(values)}, Data: appendFloats(nil, dtype, values)})
}

// dense streams a float matrix of a module under a name.
func (w *hfWriter) dense(name, module string, d *quant.Dense) {
	w.float(name, module, w.denseType(d), d.Rows, d.Cols, func() (masterRows, error) { return d.Row, nil })
}

// denseType is the type of a float matrix that loses nothing, unless master weights have a shorter one.
func (w *hfWriter) denseType(d *quant.Dense) string {
	dtype := floatType(d)
	if dtype == safetensors.F32 {
		return cmp.Or(w.masters, dtype)
	}
	return dtype
}

// floatType is the shortest float type that loses nothing of a dense matrix.
func floatType(d *quant.Dense) string {
	switch d.Format {
	case cpu.DenseBF16:
		return safetensors.BF16
	case cpu.DenseF16:
		return safetensors.F16
	}
	return safetensors.F32
}

// masterOf opens the master weights of a ternary layer: those of a model that is trained or of the file it comes from, or derived ones.
func (w *hfWriter) masterOf(name string, l *nn.Linear) (func() (masterRows, error), error) {
	open := func() (masterRows, error) {
		return func(row []float32, r int) { copy(row, l.Weight.Data[r*l.In:]) }, nil
	}
	if l.Weight == nil {
		stored := false
		if w.model.masters != nil {
			rows, err := w.model.masters(name, l.Out, l.In)
			if err != nil {
				return nil, err
			}
			stored = rows != nil
		}
		w.lost = w.lost || !stored
		if !stored && !w.derived {
			return nil, fmt.Errorf("%w: %s is packed: the master weights that its codes were made of are not in the model "+
				"(derive_masters of a conversion makes others, which compute the same)", ErrExport, name)
		}
		open = func() (masterRows, error) {
			if stored {
				return w.model.masters(name, l.Out, l.In)
			}
			return derivedMasters(l.Ternary), nil
		}
	}
	return open, nil
}

// float streams the weights of a module, under a name, row by row; open is called when the module is in memory.
func (w *hfWriter) float(name, module, dtype string, rows, cols int, open func() (masterRows, error)) {
	w.tensors = append(w.tensors, container.Tensor{Name: name + ".weight", DType: dtype, Shape: []int{rows, cols}, Stream: func(out io.Writer) error {
		return w.model.with(w.ctx, module, func() error {
			read, err := open()
			if err != nil {
				return err
			}
			row, text := make([]float32, cols), []byte(nil)
			for r := range rows {
				read(row, r)
				text = appendFloats(text[:0], dtype, row)
				if _, err := out.Write(text); err != nil {
					return err
				}
			}
			return nil
		})
	}})
}

// appendFloats encodes values, rounding to the nearest where dtype does not hold them.
func appendFloats(dst []byte, dtype string, values []float32) []byte {
	for _, v := range values {
		switch dtype {
		case safetensors.BF16:
			dst = binary.LittleEndian.AppendUint16(dst, uint16(tensor.ToBFloat16(v)))
		case safetensors.F16:
			dst = binary.LittleEndian.AppendUint16(dst, uint16(tensor.ToFloat16(v)))
		default:
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
		}
	}
	return dst
}
