package model_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/bitnet-rust/bitnet_rust/core/model"
)

// Reads a checkpoint of any format and writes it as one file that maps into memory.
func ExampleLoad() {
	ctx := context.Background()
	m, err := model.Load(ctx, "../../python/bitnet_rust/models/bitnet-shakespeare", model.LoadOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	fmt.Println(m.Config.NumHiddenLayers, m.Config.HiddenSize, m.Config.VocabSize)

	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "shakespeare.bitnet")
	if err := m.Save(path, nil); err != nil {
		log.Fatal(err)
	}
	again, err := model.Load(ctx, path, model.LoadOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer again.Close()
	fmt.Println(again.Checksum() == m.Checksum()) // the same weights

	_, err = model.Load(ctx, filepath.Join(dir, "none"), model.LoadOptions{})
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// 6 256 1024
	// true
	// true
}

// Makes a model of a known shape with random weights, changed to a vocabulary of its own.
func ExampleFind() {
	preset, err := model.Find("tiny")
	if err != nil {
		log.Fatal(err)
	}
	config := preset.Config
	config.VocabSize = 256
	m, err := model.NewTrainable(&config, 1, model.LoadOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	count := 0
	for _, p := range m.Params() {
		count += len(p.Data)
	}
	fmt.Println(count, "parameters")
	_, err = model.Find("tiney")
	fmt.Println(err)
	// Output:
	// 2299136 parameters
	// model registry: no model named "tiney"; did you mean tiny?
}
