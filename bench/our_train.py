"""This package's side of bench.train: the same shapes and recipe through Trainer, in the windows it is given."""

import argparse
from pathlib import Path

from bench.convergence import shape_of
from bench.windows import Windows
from bitnet_rust import BitNetModel, Tokenizer, Trainer, set_num_threads


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--linear", choices=("ternary", "float"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    o = parser.parse_args()

    set_num_threads(o.threads)
    text = o.data.read_text("utf-8")
    tokenizer = Tokenizer.characters(text)
    shape, batch = shape_of(o.shape, o.linear, len(tokenizer))
    model = BitNetModel.from_config(shape, seed=1, trainable=True)
    model.tokenizer = tokenizer
    windows = Windows(o.warmup)

    def update(record: object) -> None:
        if not windows.update():
            trainer.stop()

    trainer = Trainer(
        model, optimizer="adamw", learning_rate=1e-3, betas=(0.9, 0.95), weight_decay=0.1, scheduler="cosine",
        warmup_steps=100, min_ratio=0.1, gradient_clip=1.0, max_steps=100_000, batch_size=batch,
        context_length=shape["max_position_embeddings"], seed=1, callbacks=[update],
    )  # fmt: skip
    trainer.train(text)


if __name__ == "__main__":
    main()
