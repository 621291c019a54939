"""One run of PyTorch, in a process of its own: ``python -m bench.torch_convergence``, started by bench.convergence."""

import argparse
import csv
import json
import time
from pathlib import Path

import torch

from bench.torch_bitnet import SHAPES, Run, characters


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="CSV of the curve")
    parser.add_argument("--shape", choices=SHAPES, default="B")
    parser.add_argument("--linear", choices=("ternary", "float"), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--eval-every", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    o = parser.parse_args()

    torch.set_num_threads(o.threads)
    ids, vocab = characters(o.data.read_text("utf-8"))
    split = int(0.9 * len(ids))
    train, held_out = ids[:split], ids[split:]
    run = Run(SHAPES[o.shape], train, vocab, ternary=o.linear == "ternary", steps=o.steps, seed=o.seed)
    seconds, eval_loss = 0.0, float("nan")
    with o.out.open("w", newline="") as f:
        curve = csv.writer(f)
        curve.writerow(["step", "loss", "eval_loss", "seconds"])
        for step in range(1, o.steps + 1):
            start = time.perf_counter()
            loss = run.step(step - 1)
            seconds += time.perf_counter() - start
            evaluated = step % o.eval_every == 0 or step == o.steps
            if evaluated:
                eval_loss = run.evaluate(held_out)
            if evaluated or step % 10 == 0:
                curve.writerow([step, f"{loss:.5f}", f"{eval_loss:.5f}" if evaluated else "", f"{seconds:.2f}"])
                f.flush()
    print(json.dumps({"eval_loss": eval_loss, "seconds": seconds, "version": torch.__version__}))


if __name__ == "__main__":
    main()
