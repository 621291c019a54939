package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/atomicfile"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
)

// SaveOptions steers SaveContext. The zero value writes one file that loads by mapping it.
type SaveOptions struct {
	// Files are tokenizer and other texts by plain file name, which go into the native file too; nil takes those of the place that
	// the model was loaded from.
	Files map[string]string

	// Compression is "" or CompressionZstd: for shipping. Matrices become about four fifths as large and texts a fifth; they are
	// decompressed into memory when the model is loaded instead of being mapped.
	Compression string

	// MaxShard, when not 0, divides the tensors among files of at most so many bytes of them, unless one tensor alone has more; the
	// path is a directory then.
	MaxShard int64

	// Metadata are texts by key, beside and instead of those that the model was loaded with, such as KeyCard; "" removes one.
	Metadata map[string]string
}

func (o *SaveOptions) check() error {
	if o.Compression != "" && o.Compression != CompressionZstd {
		return fmt.Errorf("%w: compression %q: must be %s or nothing", ErrOption, o.Compression, CompressionZstd)
	}
	if o.MaxShard < 0 {
		return fmt.Errorf("%w: max_shard_size %d: must be a number of bytes above 0", ErrOption, o.MaxShard)
	}
	return checkMetadata(o.Metadata)
}

// Save writes the model in the native format. To a path ending in .bitnet it writes that one file; any other path is a directory
// (made if need be) that gets model.bitnet, and beside it config.json and the files, for people and programs that look
// for them. files are those of SaveOptions. Each file appears complete or not at all.
func (m *Model) Save(path string, files map[string]string) error {
	return m.SaveContext(context.Background(), path, SaveOptions{Files: files})
}

// SaveContext is Save with options, until ctx ends; then the error is that of ctx, and the file that was being written does not appear.
//
// A model is saved to the same bytes each time, but for the time in the metadata's "created".
func (m *Model) SaveContext(ctx context.Context, path string, o SaveOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := m.acquireSound(ctx); err != nil {
		return err
	}
	defer m.Release()
	files, err := m.assets(o.Files)
	if err != nil {
		return err
	}
	if strings.EqualFold(filepath.Ext(path), NativeExt) && !isDir(path) {
		if o.MaxShard > 0 {
			return fmt.Errorf("%w: path %s: must be a directory with max_shard_size", ErrOption, path)
		}
		return m.saveNative(ctx, path, files, o)
	}
	if o.MaxShard == 0 {
		o.MaxShard = math.MaxInt64
	}
	return writeDirectory(path, shardsOf(NativeExt), func(dir string) error {
		if err := m.saveNative(ctx, dir, files, o); err != nil {
			return err
		}
		if hasHF(dir) {
			return nil // config and files are those of the checkpoint that lies there
		}
		return writeTexts(dir, m.Config, files)
	})
}

// writeDirectory makes a directory of what write puts into one. A new directory, and one that holds nothing but a model whose weights
// are in files with such names, appears complete or stays as it was; what is no weights and write makes no file of, such as a
// tokenizer, is kept. In one that holds other files too each file is replaced by itself.
func writeDirectory(dir string, isWeights func(name string) bool, write func(dir string) error) error {
	if other, err := otherFile(dir, isWeights); err != nil {
		return err
	} else if other != "" {
		return write(dir)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o755); err != nil {
		return fmt.Errorf("model: %w", err)
	}
	return atomicfile.WriteDir(dir, func(made string) error {
		if err := write(made); err != nil {
			return err
		}
		return keepOthers(dir, made, isWeights)
	})
}

// refuseOthers is an error for a directory in which a model could not appear in one step.
func refuseOthers(dir string, isWeights func(name string) bool) error {
	other, err := otherFile(dir, isWeights)
	if err == nil && other != "" {
		err = fmt.Errorf("%w: directory %s holds %s, which belongs to no checkpoint: expected a new directory, or one with a checkpoint alone", ErrOption, dir, other)
	}
	return err
}

// otherFile is the first of a directory that belongs to no model with such weights, "" if there is none.
func otherFile(dir string, isWeights func(name string) bool) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("model: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || name != "config.json" && name != cardName && assetSizes[name] == 0 && !isWeights(name) {
			return name, nil
		}
	}
	return "", nil
}

// shardsOf says whether a file has a name that safetensors.WriteShards gives to files with this suffix.
func shardsOf(suffix string) func(name string) bool {
	return func(name string) bool { return safetensors.IsShard(name, suffix) }
}

// keepOthers gives the directory made, which takes the place of old, the files of old that are no weights and that it has none of.
func keepOthers(old, made string, isWeights func(name string) bool) error {
	entries, err := os.ReadDir(old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("model: %w", err)
	}
	for _, e := range entries {
		from, to := filepath.Join(old, e.Name()), filepath.Join(made, e.Name())
		if isWeights(e.Name()) || exists(to) || os.Link(from, to) == nil {
			continue
		}
		if err := copyFile(from, to); err != nil { // on a file system without links
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	return atomicfile.Write(to, func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// assets is files, or what SetAssets said, or what belongs to the place the model came from. Names are checked.
func (m *Model) assets(files map[string]string) (map[string]string, error) {
	if own := m.files.Load(); files == nil && own != nil {
		files = *own
	}
	if files == nil && m.Info.Path != "" {
		found, err := Assets(m.Info.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the place may be gone, the model is not
			return nil, err
		}
		files = found
	}
	for name := range files {
		if !plainFileName(name) {
			return nil, fmt.Errorf("%w: file name %q: must be a name without directories", ErrOption, name)
		}
	}
	return files, nil
}

// writeTexts writes config.json and the files into a directory.
func writeTexts(dir string, c *Config, files map[string]string) error {
	compact, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	indented, err := json.MarshalIndent(json.RawMessage(compact), "", "  ")
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	write := func(name, text string) error {
		return atomicfile.Write(filepath.Join(dir, name), func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		})
	}
	for name, text := range files {
		if err := write(name, text); err != nil {
			return err
		}
	}
	return write("config.json", string(indented)+"\n")
}

// stoppable makes the tensors' streams fail once ctx has ended, and tell how far they are to whoever asked WithProgress.
func stoppable(ctx context.Context, tensors []container.Tensor) []container.Tensor {
	tensors = slices.Clone(tensors) // those of a caller that writes twice stay as they are
	w := contextWriter{ctx: ctx}
	if report, asked := ctx.Value(progressKey{}).(func(done, total int64)); asked {
		w.progress = &written{report: report, total: totalSize(tensors)}
	}
	for i := range tensors {
		t := &tensors[i]
		stream, data := t.Stream, t.Data
		if stream == nil { // small
			t.Stream, t.Data = func(out io.Writer) error { _, err := contextWriter{ctx, out, w.progress}.Write(data); return err }, nil
			continue
		}
		t.Stream = func(out io.Writer) error { return stream(contextWriter{ctx, out, w.progress}) }
	}
	return tensors
}

type progressKey struct{}

// DryRun is a ctx with which Save functions find out whether the model can be saved so, note in size how many bytes its tensors would
// take, and write nothing.
func DryRun(ctx context.Context, size *int64) context.Context {
	return context.WithValue(ctx, dryRunKey{}, size)
}

type dryRunKey struct{}

// planned says whether ctx is that of a dry run, and notes what would be written.
func planned(ctx context.Context, tensors []container.Tensor) bool {
	size, dry := ctx.Value(dryRunKey{}).(*int64)
	if dry {
		*size = totalSize(tensors)
	}
	return dry
}

// totalSize adds up tensors of any format.
func totalSize(tensors []container.Tensor) (total int64) {
	for _, t := range tensors {
		size, err := safetensors.Size(t)
		if err != nil {
			size, _ = gguf.Size(t) // a type that it does not know is an error of the writer
		}
		total += size
	}
	return total
}

// WithProgress is a ctx of which Save functions report as they write, with the bytes of matrices done and their total.
func WithProgress(ctx context.Context, report func(done, total int64)) context.Context {
	return context.WithValue(ctx, progressKey{}, report)
}

// written counts bytes.
type written struct {
	report      func(done, total int64)
	done, total int64
}

// contextWriter writes in pieces, as long as ctx has not ended.
type contextWriter struct {
	ctx      context.Context
	w        io.Writer
	progress *written // may be nil
}

func (c contextWriter) Write(p []byte) (n int, err error) {
	const piece = 4 << 20
	for n < len(p) && err == nil {
		if err = c.ctx.Err(); err == nil {
			var k int
			k, err = c.w.Write(p[n:min(n+piece, len(p))])
			n += k
			if c.progress != nil {
				c.progress.done += int64(k)
				c.progress.report(c.progress.done, c.progress.total)
			}
		}
	}
	return n, err
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
