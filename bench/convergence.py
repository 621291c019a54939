"""Does training converge as PyTorch does? ``python -m bench convergence`` trains config B on Shakespeare on both sides.

Both train the same shape on the same text with the same recipe (:class:`bench.torch_bitnet.Run` states it), from weights
of the same distribution and with windows drawn at random, each from its own generator: what is compared are means over
seeds. The figure is the loss over the whole held-out tenth of the text, window by window, after the last step.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bitnet_rust import BitNetModel, Tokenizer, Trainer, set_num_threads

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CURVES = HERE / "curves"
DATA = ROOT / "recipes" / "data" / "tinyshakespeare.txt"
PICTURE = ROOT / "docs" / "images" / "convergence.png"
LINEARS = ("ternary", "float")
SIDES = ("bitnet_rust", "pytorch")
# The mean over seeds may lie this far above that of PyTorch, in nats.
MARGIN = 0.015

# The configs of bench.torch_bitnet in the names of a config.json, and their batches: windows and tokens in a window.
SHAPES = {
    "A": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6},
    "B": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4},
}
BATCHES = {"A": (16, 256), "B": (12, 64)}
BATCH, CONTEXT = BATCHES["B"]


def shape_of(config: str, linear: str, vocab: int) -> tuple[dict[str, Any], int]:
    """A config.json for a vocabulary, and the windows of a batch."""
    batch, context = BATCHES[config]
    shape: dict[str, Any] = SHAPES[config] | {
        "architecture": "BitNetForCausalLM", "vocab_size": vocab, "max_position_embeddings": context,
        "num_key_value_heads": SHAPES[config]["num_attention_heads"], "hidden_act": "relu2", "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": True,
    }  # fmt: skip
    if linear == "float":
        shape["quantization"] = {"modules_to_not_convert": ["model"]}
    return shape, batch


def ours(data: Path, out: Path, *, linear: str, seed: int, steps: int, eval_every: int) -> dict[str, Any]:
    """One run of this package; writes its curve as CSV."""
    text = data.read_text("utf-8")
    split = int(0.9 * len(text))
    tokenizer = Tokenizer.characters(text)
    shape, _ = shape_of("B", linear, len(tokenizer))
    model = BitNetModel.from_config(shape, seed=seed, trainable=True)
    model.tokenizer = tokenizer
    trainer = Trainer(
        model, optimizer="adamw", learning_rate=1e-3, betas=(0.9, 0.95), weight_decay=0.1, scheduler="cosine",
        warmup_steps=100, min_ratio=0.1, gradient_clip=1.0, max_steps=steps, batch_size=BATCH, context_length=CONTEXT,
        eval_every=eval_every, seed=seed,
    )  # fmt: skip
    start = time.perf_counter()
    history = trainer.train(text[:split], eval_dataset=text[split:])
    seconds = time.perf_counter() - start
    spent = 0.0
    with out.open("w", newline="") as f:
        curve = csv.writer(f)
        curve.writerow(["step", "loss", "eval_loss", "seconds"])
        for r in history:
            spent += BATCH * CONTEXT / r["tokens_per_second"]
            if "eval_loss" in r or r["step"] % 10 == 0:
                evaluated = f"{r['eval_loss']:.5f}" if "eval_loss" in r else ""
                curve.writerow([r["step"], f"{r['loss']:.5f}", evaluated, f"{spent:.2f}"])
    model.close()
    return {"eval_loss": history[-1]["eval_loss"], "seconds": seconds}


def peer(
    python: str, data: Path, out: Path, *, linear: str, seed: int, steps: int, eval_every: int, threads: int
) -> Any:
    """One run of PyTorch in a process of its own."""
    command = [
        python, "-m", "bench.torch_convergence", "--data", str(data), "--out", str(out), "--linear", linear,
        "--seed", str(seed), "--steps", str(steps), "--eval-every", str(eval_every), "--threads", str(threads),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, env=dict(os.environ))
    if done.returncode != 0:
        raise typer.BadParameter(
            f"{python} could not run the PyTorch side (exit status {done.returncode}); does it have torch?"
        )
    return json.loads(done.stdout.splitlines()[-1])


def final_losses(curves: Path) -> dict[tuple[str, str], dict[int, float]]:
    """The last evaluation of every curve that is there, by (side, linear) and seed."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for side in SIDES:
        for linear in LINEARS:
            for path in sorted(curves.glob(f"{side}-{linear}-seed*.csv")):
                seed = int(path.stem.rsplit("seed", 1)[1])
                found.setdefault((side, linear), {})[seed] = read_curve(path)[-1][2]
    return found


def read_curve(path: Path) -> list[tuple[int, float, float, float]]:
    """Step, loss, evaluation loss (NaN where there was none) and seconds of training."""
    with path.open(newline="") as f:
        return [
            (int(r["step"]), float(r["loss"]), float(r["eval_loss"] or "nan"), float(r["seconds"]))
            for r in csv.DictReader(f)
        ]


def draw(curves: Path, picture: Path) -> None:
    """The evaluation losses of both sides over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, linear in zip(figure.subplots(1, 2, sharey=True), LINEARS, strict=True):
        for side, color in zip(SIDES, ("tab:red", "tab:gray"), strict=True):
            for n, path in enumerate(sorted(curves.glob(f"{side}-{linear}-seed*.csv"))):
                points = [(step, loss) for step, _, loss, _ in read_curve(path) if loss == loss]
                axes.plot(
                    *zip(*points, strict=True), color=color, marker=".", linewidth=1, label=side if n == 0 else None
                )
        axes.set_title(f"{linear} weights")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.axes[0].set_ylabel("validation loss (nats a character)")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


def table(losses: dict[tuple[str, str], dict[int, float]]) -> str:
    lines = []
    for linear in LINEARS:
        means = {}
        for side in SIDES:
            seeds = losses.get((side, linear), {})
            if seeds:
                means[side] = statistics.mean(seeds.values())
                each = "  ".join(f"seed {s}: {v:.4f}" for s, v in sorted(seeds.items()))
                lines.append(f"{linear:8} {side:12} mean {means[side]:.4f}   {each}")
        if len(means) == len(SIDES):
            above = means["bitnet_rust"] - means["pytorch"]
            verdict = "within" if above <= MARGIN else "NOT within"
            lines.append(f"{linear:8} {above:+.4f} against PyTorch, {verdict} the {MARGIN} allowed")
    return "\n".join(lines)


def command(
    data: Annotated[Path, typer.Option(help="The text.")] = DATA,
    curves: Annotated[Path, typer.Option(help="Directory of the curves.")] = CURVES,
    picture: Annotated[Path, typer.Option(help="Where to draw the curves (matplotlib).")] = PICTURE,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "1,2,3",
    linear: Annotated[str, typer.Option(help="ternary, float or both.")] = "both",
    steps: Annotated[int, typer.Option(help="Updates.")] = 2000,
    eval_every: Annotated[int, typer.Option(help="Updates between evaluations.")] = 250,
    threads: Annotated[int, typer.Option(help="Threads of both sides.")] = 2,
    torch_python: Annotated[
        str | None, typer.Option(help="Interpreter with torch: runs PyTorch again; else its committed curves are used.")
    ] = None,
    skip_ours: Annotated[bool, typer.Option("--skip-ours", help="Leave our curves as they are.")] = False,
) -> None:
    """Train config B on both sides and compare the losses on the held-out text."""
    set_num_threads(threads)
    curves.mkdir(parents=True, exist_ok=True)
    for seed in (int(s) for s in seeds.split(",")):
        for kind in LINEARS if linear == "both" else (linear,):
            options = {"linear": kind, "seed": seed, "steps": steps, "eval_every": eval_every}
            if not skip_ours:
                result = ours(data, curves / f"bitnet_rust-{kind}-seed{seed}.csv", **options)
                typer.echo(f"bitnet_rust {kind} seed {seed}: {result}", err=True)
            if torch_python is not None:
                out = curves / f"pytorch-{kind}-seed{seed}.csv"
                typer.echo(
                    f"pytorch {kind} seed {seed}: {peer(torch_python, data, out, threads=threads, **options)}", err=True
                )
    typer.echo(table(final_losses(curves)))
    try:
        draw(curves, picture)
    except ImportError:
        print("no picture: it needs matplotlib", file=sys.stderr)
