"""How fast and how lean is training? ``python -m bench train`` trains on Shakespeare beside PyTorch, in turns.

Every side is a process of its own with the same shape, batch, text, recipe and number of threads. They warm up, and then
train one after the other, round by round, while the others wait: a machine that is slow for a while is slow for all, and
a ratio is taken within a round.
"""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bitnet_rust import bench as measuring
from bitnet_rust import build_info

from .convergence import BATCHES, DATA, ROOT
from .windows import Side, SideError

OURS = "bitnet_rust"
# PyTorch's modes: options of bench.torch_train.
MODES: dict[str, list[str]] = {
    "float32": [],
    "float32-compile": ["--compile"],
    "bf16-compile": ["--compile", "--bf16"],
}


def measure(
    config: str = "B",
    *,
    data: Path = DATA,
    linear: str = "ternary",
    threads: int = 2,
    rounds: int = 5,
    seconds: float = 4.0,
    modes: tuple[str, ...] = tuple(MODES),
    torch_python: str = sys.executable,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train one config on all sides, in turns; bench/README.md explains the result. SideError when a side fails."""
    common = [
        "--data", str(data.resolve()), "--shape", config, "--linear", linear, "--threads", str(threads), "--warmup", "3",
    ]  # fmt: skip
    env = dict(os.environ) | {"OMP_NUM_THREADS": str(threads)}
    commands = {OURS: [sys.executable, "-m", "bench.our_train", *common]}
    for mode in modes:
        commands[f"torch {mode}"] = [torch_python, "-m", "bench.torch_train", *common, *MODES[mode]]
    sides: dict[str, Side] = {}
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    try:
        for name, command in commands.items():
            say(f"{config}: {name} warms up")
            sides[name] = Side(name, command, ROOT, env)
            sides[name].result()
        for n in range(rounds):
            say(f"{config}: round {n + 1} of {rounds}")
            for name, side in sides.items():
                reports[name].append(side.window(seconds))
    finally:
        for side in sides.values():
            side.close()
    batch, context = BATCHES[config]
    tokens = batch * context
    speeds = {name: [tokens * r["updates"] / r["seconds"] for r in rs] for name, rs in reports.items()}
    costs = {name: [tokens * r["updates"] / r["cpu_seconds"] for r in rs] for name, rs in reports.items()}
    info = build_info()
    return {
        "config": config,
        "linear": linear,
        "threads": threads,
        "isa": info["isa"],
        "rounds": rounds,
        "sides": [
            {
                "name": name,
                "tokens_per_second": statistics.median(speeds[name]),
                "tokens_per_second_min": min(speeds[name]),
                "tokens_per_second_max": max(speeds[name]),
                "ours_over_this": statistics.median(a / b for a, b in zip(speeds[OURS], speeds[name], strict=True)),
                "tokens_per_cpu_second": statistics.median(costs[name]),
                "peak_rss": reports[name][-1]["peak_rss"],
                "our_rss_over_this": reports[OURS][-1]["peak_rss"] / reports[name][-1]["peak_rss"],
                "windows": speeds[name],
            }
            for name in commands
        ],
        "machine": {"processor": measuring.processor(), "system": platform.platform(), **_versions(info)},
    }


def _versions(info: dict[str, Any]) -> dict[str, Any]:
    return {"physical_cores": info["physical_cores"], "bitnet_rust": info["version"], "go": info["go_version"]}


def report(r: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"config {r['config']}, {r['linear']} weights, {r['threads']} threads, {r['rounds']} rounds, {r['isa']} on "
        f"{r['machine']['processor']}",
        f"{'':24}{'tokens/s':>10}  {'(range)':20}{'ours/this':>10}{'tokens/CPU s':>14}{'peak RSS MB':>13}{'ours/this':>11}",
    ]
    for s in r["sides"]:
        spread = f"({s['tokens_per_second_min']:.0f} to {s['tokens_per_second_max']:.0f})"
        lines.append(
            f"{s['name']:24}{s['tokens_per_second']:>10.0f}  {spread:20}{s['ours_over_this']:>10.2f}"
            f"{s['tokens_per_cpu_second']:>14.0f}"
            f"{s['peak_rss'] / 1e6:>13.0f}{s['our_rss_over_this']:>11.2f}"
        )
    return "\n".join(lines)


def command(
    config: Annotated[list[str] | None, typer.Option(help="A, B or both (twice the option).")] = None,
    data: Annotated[Path, typer.Option(help="The text.")] = DATA,
    linear: Annotated[str, typer.Option(help="ternary (BitLinear) or float (nn.Linear).")] = "ternary",
    threads: Annotated[int, typer.Option(help="Threads of every side.")] = 2,
    rounds: Annotated[int, typer.Option(help="Turns of every side.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a turn.")] = 4.0,
    mode: Annotated[list[str] | None, typer.Option(help=f"Of PyTorch, repeatable: {', '.join(MODES)}; all.")] = None,
    torch_python: Annotated[str, typer.Option(help="Interpreter that has torch.")] = sys.executable,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list on standard output.")] = False,
) -> None:
    """Train beside PyTorch, in turns: tokens a second and peak memory."""
    for name, value, known in (
        ("--config", config or ["A", "B"], BATCHES),
        ("--mode", mode or list(MODES), MODES),
        ("--linear", [linear], ("ternary", "float")),
    ):
        for v in value:
            if v not in known:
                raise typer.BadParameter(f"{name} {v}: expected one of {', '.join(known)}")
    if not data.is_file():
        raise typer.BadParameter(f"--data {data}: there is no such file")
    results = []
    for c in config or ["A", "B"]:
        try:
            r = measure(
                c, data=data, linear=linear, threads=threads, rounds=rounds, seconds=seconds,
                modes=tuple(mode or MODES), torch_python=torch_python, say=lambda line: typer.echo(line, err=True),
            )  # fmt: skip
        except SideError as failure:
            hint = f" (--torch-python names an interpreter with torch; now it is {torch_python})"
            typer.echo(f"{failure}{hint if 'torch' in str(failure) else ''}", err=True)
            raise typer.Exit(1) from failure
        results.append(r)
        if not as_json:
            typer.echo(report(r))
    if as_json:
        typer.echo(json.dumps(results, indent=1))
