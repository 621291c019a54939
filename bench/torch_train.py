"""PyTorch's side of bench.train: trains a shape of bench.torch_bitnet in the windows it is given."""

import argparse
from pathlib import Path

import torch

from bench.torch_bitnet import SHAPES, Run, characters
from bench.windows import Windows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--linear", choices=("ternary", "float"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    o = parser.parse_args()

    torch.set_num_threads(o.threads)
    ids, vocab = characters(o.data.read_text("utf-8"))
    run = Run(
        SHAPES[o.shape], ids, vocab, ternary=o.linear == "ternary", steps=100_000, seed=1, compiled=o.compile,
        bf16=o.bf16,
    )  # fmt: skip
    windows, step = Windows(o.warmup), 0
    while True:
        run.step(step)
        step += 1
        if not windows.update():
            return


if __name__ == "__main__":
    main()
