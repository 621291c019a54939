package model

import (
	"context"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// FromTensors builds a model from the text of a config.json and from tensors that are in memory already, such as those of a module of another
// library: what a Hugging Face checkpoint has in its files. It copies all that it needs of them. Of the options it uses HeadFormat, Packing,
// Trainable, Pool and Progress. Errors are those of Load.
func FromTensors(ctx context.Context, config []byte, set container.Set, o LoadOptions) (*Model, error) {
	head, err := o.check()
	if err != nil {
		return nil, err
	}
	load := func(ctx context.Context, o LoadOptions) (*Model, error) {
		cfg, err := ParseConfig(config, set.Path())
		if err != nil {
			return nil, err
		}
		l := newLoader(o, head)
		m, masters, err := planHF(ctx, set, cfg, l)
		if err != nil {
			return nil, err
		}
		if err := l.finish(ctx, m); err != nil {
			return nil, err
		}
		if o.Deferred {
			m.masters = masters
		}
		m.Info.Format = "memory"
		return m, nil
	}
	if o.Trainable {
		return loadTrainable(ctx, o, load)
	}
	return load(ctx, o)
}
