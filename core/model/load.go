package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/logs"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// HeadAuto is the head format that keeps a table at its own precision.
const HeadAuto = "auto"

// HeadExact keeps the checkpoint's precision and has int8 scores beside it: greedy decoding and sampling among the top k give what the head of
// full precision gives, at about the speed of int8. It takes the memory of both.
const HeadExact = "exact"

// LoadOptions steers Load and NewRandom. The zero value is right for most.
type LoadOptions struct {
	// HeadFormat is the form of the output head in memory: "float32", "bfloat16", "float16", "int8", "int4", HeadExact, or "auto" (also ""),
	// which keeps the checkpoint's precision: bfloat16 stays, and so does what bfloat16 holds of a float16 table; others become float32. The head is read for
	// every token; int8 halves that against bfloat16, and int4 quarters it. A tied embedding is the same table, so it changes with the head;
	// an untied one keeps its precision.
	HeadFormat string

	// Verify says when the checksums of a native file are compared: VerifyBackground (also ""), VerifyNow or VerifyNever.
	Verify string

	// Resident says where the weights of a native file are kept: ResidentAuto (also ""), ResidentMap or ResidentCopy. The
	// weights of other checkpoints are always converted into huge-page memory.
	Resident string

	// Packing says how ternary weights are packed in memory: PackingAuto (also ""), Packing2Bit or PackingBase3. The integers are the same. The
	// up and down projections of networks that skip neurons keep two bits: see nn.Activation.ByLines.
	Packing string

	// I2SLayout is the order of codes in I2_S tensors of a GGUF file, one of gguf.I2SLayouts; "" means gguf.I2SX86. Files do not say
	// which one they have. Another one is refused (ErrOption) of files without such tensors.
	I2SLayout string

	// Trainable gives the model float32 master weights, see LoadTrainable. HeadFormat must be auto then.
	Trainable bool

	// Quantize takes the float linears of a Hugging Face checkpoint whose config has no quantization_config as master weights of
	// ternary ones. Such a model computes something else than the checkpoint did until it is trained. A native file whose layers are all float
	// is refused (ErrOption), and so are files whose layers are ternary anyway.
	Quantize bool

	// Lenient passes over an I2SLayout or a Quantize that says nothing about the files, which is an error else (ErrOption): for several models of
	// which an option is about some. Info.Unused lists them.
	Lenient bool

	// FFNDensity, when not 0, is the share of feed-forward neurons that a random model has open for a token, above 0 and at most 0.5:
	// that many rows of each gate's weights, twice over, are not zero, and half of those come out positive. For NewRandom, of models
	// whose activation is zero for negative gates.
	FFNDensity float64

	// Deferred leaves the weights in their file and brings those of one layer after the other into memory, when Forward or a Save function
	// needs them: for conversions, whose memory is then that of the largest tensors. A native file is read in place, unless Resident is
	// ResidentCopy. No model to generate with: each step would read everything anew.
	Deferred bool

	// Progress, when not nil, is called as loading proceeds with the bytes done and their total. Calls do not overlap,
	// and the last one has done == total.
	Progress func(done, total int64)

	// Pool gives the memory; nil means pool.Default().
	Pool *pool.HybridMemoryPool

	plain bool // for loadTrainable, which states a packing itself
}

// ErrOption is what errors about a bad option of loading or saving match with errors.Is.
var ErrOption = errors.New("invalid option")

// What can be wrong with a checkpoint whose container is sound. They match container.ErrFormat too, and come as
// *container.Error with file, tensor, found and expected.
var (
	// ErrUnexpected is a tensor that the model has no place for.
	ErrUnexpected = container.NewKind("unexpected tensor")
	// ErrPickle is a file of Python objects: reading it may run any code, so nothing here does.
	ErrPickle = container.NewKind("a pickle can run any code and is never read")
	// ErrValue is a tensor whose numbers cannot be weights: a scale that is not positive, an undefined ternary code.
	ErrValue = container.NewKind("impossible value")
)

// Load builds a model from
//
//   - a directory with model.bitnet or model.bitnet.index.json (our own format), or with config.json and model.safetensors or
//     model.safetensors.index.json (Hugging Face),
//   - a file ending in .bitnet, or an index file of several,
//   - a .safetensors file or an index file with a config.json beside it,
//   - a .gguf file, or any file of a split one, or a directory with one such model and no other weights,
//   - an .onnx file, with the data file that it may name beside it, or a directory with model.onnx and no other weights.
//
// Errors: one that matches fs.ErrNotExist when nothing loadable is there, ErrConfig for the config, container.ErrFormat
// for files and tensors, pool.ErrOutOfMemory when the weights do not fit, ErrOption for a bad option, and ctx.Err() when
// ctx ends first. After an error nothing is left in memory.
func Load(ctx context.Context, path string, o LoadOptions) (*Model, error) {
	start := time.Now()
	m, err := loadPath(ctx, path, o)
	if err == nil {
		m.logLoaded(path, start)
	}
	return m, err
}

// loadPath is Load without its log record.
func loadPath(ctx context.Context, path string, o LoadOptions) (*Model, error) {
	head, err := o.check()
	if err != nil {
		return nil, err
	}
	if o.Trainable {
		return loadTrainable(ctx, o, func(ctx context.Context, o LoadOptions) (*Model, error) { return loadPath(ctx, path, o) })
	}
	l := newLoader(o, head)
	if native, err := nativePath(path); err != nil {
		return nil, err
	} else if native != "" {
		return loadNative(ctx, native, l)
	}
	if err := o.checkResident(path); err != nil {
		return nil, err
	}
	if file := onnxPath(path); file != "" {
		return loadONNX(ctx, file, l)
	}
	if file, err := ggufPath(path); err != nil {
		return nil, err
	} else if file != "" {
		return loadGGUF(ctx, file, l)
	}
	return loadHF(ctx, path, l)
}

// logLoaded says what was loaded, and once in a process with what it will be run.
func (m *Model) logLoaded(path string, start time.Time) {
	logs.Get().Info("model loaded", "path", path, "format", m.Info.Format, "parameters", m.Info.Parameters, "bytes", m.Info.WeightBytes,
		"seconds", time.Since(start).Seconds())
	logKernels()
}

var logKernels = sync.OnceFunc(func() {
	for _, r := range cpu.Refused() {
		logs.Get().Warn("instruction set not used", "isa", r.ISA.String(), "reason", r.Reason)
	}
	logs.Get().Debug("kernels chosen", "isa", cpu.Active().String(), "threads", cpu.NumThreads())
})

// check refuses options that cannot be, and gives the wanted form of the head.
func (o *LoadOptions) check() (tableFormat, error) {
	none := tableFormat{}
	if err := cpu.InitError(); err != nil {
		return none, fmt.Errorf("model: %w", err)
	}
	head, err := parseHeadFormat(o.HeadFormat)
	if err != nil {
		return none, err
	}
	switch o.Resident {
	case "", ResidentAuto, ResidentMap, ResidentCopy:
	default:
		return none, fmt.Errorf("%w: resident %q: must be one of %s, %s, %s", ErrOption, o.Resident, ResidentAuto, ResidentMap, ResidentCopy)
	}
	switch o.Verify {
	case "", VerifyBackground, VerifyNow, VerifyNever:
	default:
		return none, fmt.Errorf("%w: verify %q: must be one of %s, %s, %s", ErrOption, o.Verify, VerifyBackground, VerifyNow, VerifyNever)
	}
	if o.I2SLayout != "" && !slices.Contains(gguf.I2SLayouts(), o.I2SLayout) {
		return none, fmt.Errorf("%w: i2s_layout %q: must be one of %s", ErrOption, o.I2SLayout, strings.Join(gguf.I2SLayouts(), ", "))
	}
	if err := o.checkPacking(); err != nil {
		return none, err
	}
	if o.Deferred && head.scores {
		return none, fmt.Errorf("%w: head_dtype %q: must not be %s for deferred weights, which have no scores beside them", ErrOption, o.HeadFormat, HeadExact)
	}
	if o.Trainable && (head.fixed || head.scores) {
		return none, fmt.Errorf("%w: head_dtype %q: must be auto in a model that is trained, whose head is float32", ErrOption, o.HeadFormat)
	}
	return head, nil
}

// nativePath returns the native file, or the index of several, that path means, "" when it means a Hugging Face checkpoint, and an error when there is nothing.
func nativePath(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("model: %w", err)
	}
	if !info.IsDir() {
		if err := checkName(path); err != nil {
			return "", err
		}
		if isNative(path) {
			return path, nil
		}
		switch strings.ToLower(filepath.Ext(path)) {
		case ".safetensors", ".json", GGUFExt, ONNXExt:
			return "", nil
		}
		if isPickle(path) {
			return "", pickleError(path)
		}
		return "", container.Worded(ErrOption, "model: %s is no model: expected a directory, or a file that ends in %s, .safetensors, %s or %s", path, NativeExt, GGUFExt, ONNXExt)
	}
	if file := nativeIn(path); file != "" {
		return file, nil
	}
	if hasHF(path) || exists(filepath.Join(path, ONNXName)) {
		return "", nil
	}
	if file, err := ggufPath(path); file != "" || err != nil {
		return "", err
	}
	return "", noModelIn(path)
}

// onnxPath returns the ONNX file that path, of something that is no native model, means; "" when it means a Hugging Face checkpoint.
func onnxPath(path string) string {
	if strings.EqualFold(filepath.Ext(path), ONNXExt) && !isDir(path) {
		return path
	}
	file := filepath.Join(path, ONNXName)
	if hasHF(path) || !exists(file) {
		return ""
	}
	return file
}

// ggufPath returns the GGUF file that path, of something that is no native or ONNX model, means: of a directory the first file of the one
// model in it, unless that has a Hugging Face checkpoint; "" when it means none. Several models are an error.
func ggufPath(path string) (string, error) {
	if !isDir(path) {
		if strings.EqualFold(filepath.Ext(path), GGUFExt) {
			return path, nil
		}
		return "", nil
	}
	if hasHF(path) {
		return "", nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", fmt.Errorf("model: %w", err)
	}
	var models, seen []string
	for _, e := range entries { // in the order of their names
		whole := cmp.Or(gguf.SplitPrefix(e.Name()), e.Name())
		if strings.EqualFold(filepath.Ext(e.Name()), GGUFExt) && !slices.Contains(seen, whole) {
			models, seen = append(models, e.Name()), append(seen, whole)
		}
	}
	switch len(models) {
	case 0:
		return "", nil
	case 1:
		return filepath.Join(path, models[0]), nil
	}
	return "", container.Worded(ErrOption, "model: directory %s holds several models, %s: expected one of these files", path, strings.Join(models[:min(len(models), 20)], ", "))
}

// isNative says whether a file's name is that of a native file or index.
func isNative(path string) bool {
	name := strings.ToLower(path)
	return strings.HasSuffix(name, NativeExt) || strings.HasSuffix(name, NativeExt+indexExt)
}

// nativeIn is the native file or index in a directory, or "".
func nativeIn(dir string) string {
	for _, name := range []string{NativeName, NativeIndex} {
		if file := filepath.Join(dir, name); exists(file) {
			return file
		}
	}
	return ""
}

// hasHF says whether a directory has the weights of a Hugging Face checkpoint.
func hasHF(dir string) bool {
	return exists(filepath.Join(dir, safetensors.SingleName)) || exists(filepath.Join(dir, safetensors.IndexName))
}

// isPickle says whether a file has a name that PyTorch's checkpoints have: pytorch_model.bin, model.pt, last.ckpt, ...
func isPickle(name string) bool {
	return slices.Contains([]string{".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}, strings.ToLower(filepath.Ext(name)))
}

func pickleError(path string) error {
	return &container.Error{Kind: ErrPickle, Path: path, Field: "type", Found: "a file of PyTorch",
		Expected: "safetensors, which most repositories have too: torch.load(file, weights_only=True) and safetensors.torch.save_file make them"}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Every hidden size that a config may have fits an integer head.
const _ = uint(cpu.MaxDenseIntCols - maxHidden)

// headFormats are the accepted head formats and what they mean to the kernels.
var headFormats = []struct {
	name   string
	format cpu.DenseFormat
}{{"float32", cpu.DenseF32}, {"bfloat16", cpu.DenseBF16}, {"float16", cpu.DenseF16}, {"int8", cpu.DenseInt8}, {"int4", cpu.DenseInt4}}

// tableFormat is a wanted dense format, or none: keep what the checkpoint has.
type tableFormat struct {
	format cpu.DenseFormat
	fixed  bool
	scores bool // HeadExact
}

func (t tableFormat) or(natural cpu.DenseFormat) cpu.DenseFormat {
	if t.fixed {
		return t.format
	}
	return natural
}

func parseHeadFormat(name string) (tableFormat, error) {
	if name == "" || name == HeadAuto {
		return tableFormat{}, nil
	}
	if name == HeadExact {
		return tableFormat{scores: true}, nil
	}
	for _, f := range headFormats {
		if f.name == name {
			return tableFormat{format: f.format, fixed: true}, nil
		}
	}
	return tableFormat{}, fmt.Errorf("%w: head_dtype %q: must be one of %s", ErrOption, name, strings.Join(headNames(HeadAuto, HeadExact), ", "))
}

// headNames are some names and those of headFormats.
func headNames(names ...string) []string {
	for _, f := range headFormats {
		names = append(names, f.name)
	}
	return names
}

func headFormatName(f cpu.DenseFormat) string {
	for _, h := range headFormats {
		if h.format == f {
			return h.name
		}
	}
	panic(fmt.Sprintf("model: no name for format %v", f))
}

// copyOut makes the model that plan assembles of open files. They are closed when everything has been copied out of them, or together with a model
// whose weights are deferred.
func (l *loader) copyOut(ctx context.Context, files container.Set, plan func() (*Model, findMasters, error)) (_ *Model, err error) {
	closing := files.Close
	defer func() { _ = closing() }() // nothing of them is kept
	defer container.CatchFault(&err)
	m, masters, err := plan()
	if err != nil {
		return nil, err
	}
	if err := l.finish(ctx, m); err != nil {
		return nil, err
	}
	if l.opts.Deferred {
		m.masters, m.close, closing = masters, append(m.close, files.Close), func() error { return nil }
	}
	return m, nil
}

// finish brings the weights of a model that was just built into memory and describes them.
func (l *loader) finish(ctx context.Context, m *Model) error {
	if err := l.opts.checkTernary(m.Config); err != nil {
		return err
	}
	m.Info.Unused = l.passed
	if l.opts.Deferred {
		if err := l.deferWeights(ctx, m); err != nil {
			return errors.Join(err, m.deferred.close())
		}
		m.close = append(m.close, m.deferred.close)
	} else {
		if err := l.run(ctx); err != nil {
			return err
		}
		m.close = append(m.close, l.release)
		m.arena = l.arena
	}
	if l.head.scores {
		if err := m.addScores(l.opts.Pool); err != nil {
			_ = l.release() // the first error says more
			return err
		}
	}
	m.Info.Parameters = m.Config.ParameterCount()
	m.Info.WeightBytes = m.weightBytes()
	m.Info.Packing = m.packing()
	if m.Info.Packing == PackingBase3 && !l.opts.Deferred && !cpu.Base3Ready() {
		m.Info.Warnings = append(m.Info.Warnings, fmt.Sprintf("packing %q: instruction set %v has no kernels for it, and unpacks weights for every step: a token takes ten times as long or more; "+
			"%q computes the same", PackingBase3, cpu.Active(), Packing2Bit))
	}
	m.Info.HeadFormat = headFormatName(m.Head.Proj.Dense.Format)
	if m.Head.Scores != nil {
		m.Info.HeadFormat = HeadExact
	}
	return nil
}

// addScores puts int8 scores beside the head.
func (m *Model) addScores(p *pool.HybridMemoryPool) error {
	w := m.Head.Proj.Dense
	if w.Format.Integer() || m.Head.Proj.Bias != nil {
		return fmt.Errorf("%w: head_dtype %q: must be one of %s for a head that is %s in the file, whose full precision is not known", ErrOption, HeadExact,
			strings.Join(headNames(HeadAuto), ", "), headFormatName(w.Format))
	}
	b, err := p.AllocUninit(cpu.DenseBytes(cpu.DenseInt8, w.Rows, w.Cols), "weights")
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	if m.Head.Scores, err = quant.NewScores(w, b.Bytes()); err != nil {
		b.Release()
		return fmt.Errorf("model: %w", err)
	}
	m.close = append(m.close, func() error { b.Release(); return nil })
	return nil
}
