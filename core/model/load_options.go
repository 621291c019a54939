package model

import (
	"fmt"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
)

// unused refuses an option that says nothing about the files at path, for a reason, or notes it where LoadOptions.Lenient asks for that.
func (l *loader) unused(option, stated, path, reason string) error {
	if l.opts.Lenient {
		l.passed = append(l.passed, option)
		return nil
	}
	return unusedError(option, stated, path, reason)
}

func unusedError(option, stated, path, reason string) error {
	return fmt.Errorf("%w: %s = %s: %s %s: expected it to be left out", ErrOption, option, stated, path, reason)
}

// checkUse refuses options that say nothing about a file of a format, which is planned with or without layers that LoadOptions.Quantize makes ternary.
func (l *loader) checkUse(set container.Set, format string, quantized bool) error {
	if given := l.opts.I2SLayout; statesLayout(given) && !hasI2S(set, format) {
		if err := l.unused("i2s_layout", "'"+given+"'", set.Path(), noI2S(format)); err != nil {
			return err
		}
	}
	if l.opts.Quantize && !quantized {
		return l.unused("quantize", "True", set.Path(), "has no float layers that it would make ternary")
	}
	return nil
}

// statesLayout says whether a layout of I2_S is another than that of every file of which nobody says anything.
func statesLayout(given string) bool { return given != "" && given != gguf.I2SX86 }

func hasI2S(set container.Set, format string) bool {
	return format == "gguf" && slices.ContainsFunc(set.Tensors(), func(t container.Info) bool { return t.DType == gguf.I2_S })
}

// noI2S is why a file of a format has no layout of I2_S.
func noI2S(format string) string {
	if format == "gguf" {
		return "is a GGUF file without I2_S tensors, whose layout it is"
	}
	return "is no GGUF file, whose I2_S tensors have a layout"
}

// checkResident refuses to map files that have to be converted.
func (o *LoadOptions) checkResident(path string) error {
	if o.Resident != ResidentMap {
		return nil
	}
	return fmt.Errorf("%w: resident = '%s': %s is converted into memory, as only the weights of a native file are mapped: expected '%s' or '%s', or a file that ends in %s",
		ErrOption, ResidentMap, path, ResidentAuto, ResidentCopy, NativeExt)
}

// checkTernary refuses a packing of ternary weights for a model that has none.
func (o *LoadOptions) checkTernary(c *Config) error {
	if o.plain || o.Packing == "" || o.Packing == PackingAuto || c.hasTernary() {
		return nil
	}
	return fmt.Errorf("%w: packing = '%s': the model has no ternary weights to pack: expected '%s'", ErrOption, o.Packing, PackingAuto)
}
