"""What do the options of a training step do to the model? ``python -m bench options`` trains config B on Shakespeare with each.

The recipe is that of :mod:`bench.convergence`; runs differ in one option, and each has the mean over seeds of the loss over the
held-out tenth of the text after the last step. The evaluated model is always the ternary one, as it is saved.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from bitnet_rust import BitNetModel, Tokenizer, Trainer, set_num_threads

from .convergence import BATCH, CONTEXT, DATA, shape_of


def options_of(name: str, steps: int) -> dict[str, Any]:
    """The arguments of Trainer for one of NAMES."""
    return {
        "dropout": {"dropout": 0.1},
        "attention_dropout": {"attention_dropout": 0.1},
        "clipped": {"ste": "clipped"},
        "soft": {"ste": "soft"},
        "soft, annealed": {
            "ste": "soft", "ste_temperature": 1.0, "ste_temperature_end": 0.3, "ste_temperature_steps": steps
        },
        "learned_scale": {"ste": "learned_scale"},
        "linear to half": {"quantization_schedule": "linear", "quantization_end": steps // 2},
        "cosine to half": {"quantization_schedule": "cosine", "quantization_end": steps // 2},
        "step at a quarter": {"quantization_schedule": "step", "quantization_start": steps // 4},
        "float teacher": {"distillation_alpha": 0.5, "distillation_temperature": 2.0},
    }.get(name, {})  # fmt: skip


NAMES = (
    "plain", "dropout", "attention_dropout", "clipped", "soft", "soft, annealed", "learned_scale", "linear to half",
    "cosine to half", "step at a quarter", "first layer float", "float teacher", "float",
)  # fmt: skip


def one(name: str, seed: int, steps: int, data: Path) -> dict[str, Any]:
    """Trains with one option and returns the last record."""
    text = data.read_text("utf-8")
    split = int(0.9 * len(text))
    tokenizer = Tokenizer.characters(text)

    def trained(
        linear: str, options: dict[str, Any], kept: list[str], teacher: BitNetModel | None = None
    ) -> tuple[BitNetModel, Any]:
        shape, _ = shape_of("B", linear, len(tokenizer))
        if kept:
            shape["quantization"] = {"modules_to_not_convert": kept}
        model = BitNetModel.from_config(shape, seed=seed, trainable=True)
        model.tokenizer = tokenizer
        trainer = Trainer(
            model, optimizer="adamw", learning_rate=1e-3, betas=(0.9, 0.95), weight_decay=0.1, scheduler="cosine", warmup_steps=min(100, steps // 10),
            min_ratio=0.1, gradient_clip=1.0, max_steps=steps, batch_size=BATCH, context_length=CONTEXT, seed=seed, teacher=teacher,
            **options,
        )  # fmt: skip
        history = trainer.train(text[:split], eval_dataset=text[split:])
        trainer.close()
        return model, history[-1]

    teacher = trained("float", {}, [])[0] if name == "float teacher" else None
    kept = ["model.layers.0"] if name == "first layer float" else []
    start = time.perf_counter()
    model, record = trained("float" if name == "float" else "ternary", options_of(name, steps), kept, teacher)
    model.close()
    return {"option": name, "seed": seed, "eval_loss": record["eval_loss"], "seconds": time.perf_counter() - start}


def command(
    option: Annotated[list[str] | None, typer.Option(help=f"Some of: {', '.join(NAMES)}. All by default.")] = None,
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = "1,2,3",
    steps: Annotated[int, typer.Option(help="Updates of each run.")] = 2000,
    threads: Annotated[int, typer.Option(help="Of each run.")] = 2,
    jobs: Annotated[int, typer.Option(help="Runs at the same time.")] = 1,
    data: Annotated[Path, typer.Option(help="The text.")] = DATA,
    worker: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Validation loss of a small model trained with each option."""
    names, numbers = option or list(NAMES), [int(s) for s in seeds.split(",")]
    for name in names:
        if name not in NAMES:
            raise typer.BadParameter(f"option = {name!r}: expected one of {', '.join(NAMES)}")
    if worker:
        set_num_threads(threads)
        print(json.dumps(one(names[0], numbers[0], steps, data)))
        return

    def run(job: tuple[str, int]) -> dict[str, Any]:
        arguments = ["--option", job[0], "--seeds", str(job[1]), "--steps", str(steps), "--threads", str(threads)]
        process = subprocess.run(
            [sys.executable, "-m", "bench", "options", *arguments, "--data", str(data), "--worker"],
            capture_output=True, text=True, check=False, env=os.environ,
        )  # fmt: skip
        if process.returncode:
            sys.stderr.write(process.stderr)
            raise SystemExit(f"{job[0]}, seed {job[1]} failed")
        result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
        print(f"{job[0]}, seed {job[1]}: {result['eval_loss']:.4f}, {result['seconds']:.0f} s", file=sys.stderr)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(run, [(name, seed) for name in names for seed in numbers]))
    print("| option | validation loss | lowest to highest | seconds |\n| --- | --- | --- | --- |")
    for name in names:
        losses = [r["eval_loss"] for r in results if r["option"] == name]
        seconds = statistics.median(r["seconds"] for r in results if r["option"] == name)
        print(f"| {name} | {statistics.mean(losses):.4f} | {min(losses):.4f} to {max(losses):.4f} | {seconds:.0f} |")
