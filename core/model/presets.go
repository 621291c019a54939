package model

import "strings"

// builtin lists the models that have a name here. Shapes marked [mem] come from model cards and documentation, not
// from the published file: they serve random models, benchmarks and estimates, while a checkpoint that is loaded
// speaks for itself through its own config.json.
func builtin() []Preset {
	return []Preset{
		{
			Name: "bitnet-b1.58-2b-4t", HubID: "microsoft/bitnet-b1.58-2B-4T",
			Aliases: []string{"bitnet-2b", "bitnet-b1.58-2b", "bitnet-2b-4t", "2b"},
			Config: Config{
				Architecture: ArchBitNet, VocabSize: 128256, HiddenSize: 2560, IntermediateSize: 6912,
				NumHiddenLayers: 30, NumAttentionHeads: 20, NumKeyValueHeads: 5, HeadDim: 128,
				HiddenAct: ActReLU2, RMSNormEps: 1e-5, RopeTheta: 500000,
				MaxPositionEmbeddings: 4096, TieWordEmbeddings: true, // [mem]
				BOSTokenID: ptr(128000), EOSTokenIDs: []int{128001, 128009}, // [mem]
			},
		},
		// The 1bitLLM reproductions of "The Era of 1-bit LLMs" (arXiv:2402.17764). [mem]
		reproduction("bitnet-b1.58-large", "1bitLLM/bitnet_b1_58-large", 1536, 4096, 24, 16, "bitnet-0.7b", "bitnet-large", "0.7b"),
		reproduction("bitnet-b1.58-xl", "1bitLLM/bitnet_b1_58-xl", 2048, 5460, 24, 32, "bitnet-1.3b", "bitnet-xl", "1.3b"),
		reproduction("bitnet-b1.58-3b", "1bitLLM/bitnet_b1_58-3B", 3200, 8640, 26, 32, "bitnet-3b", "3b"),
		{
			Name: "llama3-8b-1.58", HubID: "HF1BitLLM/Llama3-8B-1.58-100B-tokens", // [mem]
			Aliases: []string{"llama3-8b", "llama-8b", "8b"},
			Config: Config{
				Architecture: ArchLlama, VocabSize: 128256, HiddenSize: 4096, IntermediateSize: 14336,
				NumHiddenLayers: 32, NumAttentionHeads: 32, NumKeyValueHeads: 8, HeadDim: 128,
				HiddenAct: ActSiLU, RMSNormEps: 1e-5, RopeTheta: 500000, MaxPositionEmbeddings: 8192,
				BOSTokenID: ptr(128000), EOSTokenIDs: []int{128001, 128009},
			},
		},
		falcon3("1b", 2048, 8192, 18, 8, 8192),
		falcon3("3b", 3072, 9216, 22, 12, 32768),
		falcon3("7b", 3072, 23040, 28, 12, 32768),
		falcon3("10b", 3072, 23040, 40, 12, 32768),
		gpt2Preset("gpt2", 768, 12, 12), gpt2Preset("gpt2-medium", 1024, 24, 16), gpt2Preset("gpt2-large", 1280, 36, 20), gpt2Preset("gpt2-xl", 1600, 48, 25),
		// Shapes for training from scratch, tutorials and tests.
		small("bitnet-shakespeare", 1024, 256, 768, 6, 4, 4, 256, "shakespeare"), // comes with the package: recipes/shakespeare.yaml
		small("tiny", 512, 256, 512, 4, 8, 2, 256, "bitnet-tiny"),                // the shape of the golden models
		small("small", 8192, 512, 1536, 8, 8, 4, 1024, "bitnet-small"),
		small("char", 65, 384, 1024, 6, 6, 6, 256, "bitnet-char"), // characters of Shakespeare
	}
}

func ptr(v int) *int { return &v }

func reproduction(name, hub string, hidden, intermediate, layers, heads int, aliases ...string) Preset {
	return Preset{Name: name, HubID: hub, Aliases: aliases, Config: Config{
		Architecture: ArchBitnet, VocabSize: 32002, HiddenSize: hidden, IntermediateSize: intermediate,
		NumHiddenLayers: layers, NumAttentionHeads: heads, HiddenAct: ActSiLU, RMSNormEps: 1e-5, RopeTheta: 10000,
		MaxPositionEmbeddings: 2048, TieWordEmbeddings: true, BOSTokenID: ptr(1), EOSTokenIDs: []int{2}, PadTokenID: ptr(32000),
		DType: "float16",
	}}
}

// falcon3 is the family of TII's ternary instruction models: head_dim 256 whatever the width. [mem]
func falcon3(size string, hidden, intermediate, layers, heads, context int) Preset {
	return Preset{
		Name: "falcon3-" + size + "-1.58", HubID: "tiiuae/Falcon3-" + strings.ToUpper(size) + "-Instruct-1.58bit",
		Aliases: []string{"falcon3-" + size},
		Config: Config{
			Architecture: ArchLlama, VocabSize: 131072, HiddenSize: hidden, IntermediateSize: intermediate,
			NumHiddenLayers: layers, NumAttentionHeads: heads, NumKeyValueHeads: 4, HeadDim: 256,
			HiddenAct: ActSiLU, RMSNormEps: 1e-6, RopeTheta: 1000042, MaxPositionEmbeddings: context,
			BOSTokenID: ptr(11), EOSTokenIDs: []int{11}, PadTokenID: ptr(2023),
		},
	}
}

// gpt2Preset is of the family of GPT-2 as published, in floats.
func gpt2Preset(name string, hidden, layers, heads int) Preset {
	return Preset{Name: name, HubID: "openai-community/" + name, Config: Config{
		Architecture: ArchGPT2, VocabSize: 50257, HiddenSize: hidden, IntermediateSize: 4 * hidden, NumHiddenLayers: layers, NumAttentionHeads: heads,
		HiddenAct: ActGELUNew, RMSNormEps: 1e-5, MaxPositionEmbeddings: 1024, TieWordEmbeddings: true, AttentionBias: true, MLPBias: true,
		BOSTokenID: ptr(50256), EOSTokenIDs: []int{50256}, DType: "float32", Quantization: floatLayers(),
	}}
}

func small(name string, vocab, hidden, intermediate, layers, heads, kvHeads, context int, aliases ...string) Preset {
	return Preset{Name: name, Aliases: aliases, Config: Config{
		Architecture: ArchBitNet, VocabSize: vocab, HiddenSize: hidden, IntermediateSize: intermediate,
		NumHiddenLayers: layers, NumAttentionHeads: heads, NumKeyValueHeads: kvHeads,
		MaxPositionEmbeddings: context, TieWordEmbeddings: true,
	}}
}
