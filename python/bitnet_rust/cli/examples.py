"""The examples at the end of each command's --help; tests parse all of them, and run those that need no download."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "generate": (
        'bitnet generate "First Citizen:" --max-new-tokens 40',
        'bitnet generate "First Citizen:" -n 40 --temperature 0.8 --top-p 0.9 --seed 7',
        'echo "ROMEO:" | bitnet generate - -n 40 --json',
    ),
    "chat": (
        "bitnet chat --model bitnet-2b",
        'echo "Who is there?" | bitnet chat --model bitnet-shakespeare --chat-template template.jinja -n 40',
    ),
    "serve": (
        "bitnet serve --model bitnet-shakespeare",
        "bitnet serve --model bitnet-2b --port 8080 --api-key-file keys.txt",
    ),
    "inspect": (
        "bitnet inspect bitnet-shakespeare",
        "bitnet inspect bitnet-shakespeare --tree",
        "bitnet inspect bitnet-shakespeare --tensors --stats --json",
    ),
    "verify": ("bitnet verify bitnet-shakespeare",),
    "convert": (
        "bitnet convert bitnet-shakespeare shakespeare.bitnet",
        "bitnet convert bitnet-shakespeare shakespeare.gguf --type tq2_0",
        "bitnet convert bitnet-shakespeare checkpoint --to hf --dry-run",
    ),
    "diff": ("bitnet diff bitnet-shakespeare bitnet-shakespeare",),
    "perplexity": ("bitnet perplexity text.txt", "bitnet perplexity text.txt --window 64 --stride 32 --json"),
    "train": (
        "bitnet train --data text.txt --preset char --out my-model --max-steps 20 --batch-size 2 --context-length 32",
        "bitnet train --out my-model --resume --max-steps 30",
    ),
    "finetune": ("bitnet finetune --config recipe.yaml --data talks.jsonl --out tuned",),
    "tokenize": (
        "bitnet tokenize --data text.txt --out text.bin --tokenizer bitnet-shakespeare",
        "bitnet tokenize --data text.txt --out bpe/text.bin --train-bpe 300",
    ),
    "eval": ("bitnet eval --data text.txt --context-length 32",),
    "models": ("bitnet models", "bitnet models --json"),
    "info": ("bitnet info", "bitnet info --json"),
    "doctor": ("bitnet doctor", "bitnet doctor --json"),
    "config show": ("bitnet config show", "BITNET_LOG_LEVEL=info bitnet config show --json"),
    "config path": ("bitnet config path", "bitnet config path --json"),
    "bench decode": ("bitnet bench decode --shape tiny --tokens 4 --repeat 1 --no-cache",),
    "bench prefill": ("bitnet bench prefill --shape tiny --tokens 16 --repeat 1 --no-cache",),
    "bench batch": ("bitnet bench batch --shape tiny --size 1 --size 2 --tokens 4 --repeat 1 --no-cache",),
    "bench context": ("bitnet bench context --shape tiny --length 64 --tokens 4 --repeat 1 --no-cache",),
    "bench guess": ("bitnet bench guess --shape tiny --tokens 8 --repeat 1 --no-cache",),
    "bench serve": (
        "bitnet bench serve --shape tiny --seconds 5 --rounds 1",
        "bitnet bench serve --url http://127.0.0.1:8000 --model my-model",
    ),
    "bench load": ("bitnet bench load --shape tiny --repeat 1",),
}
