"""``python -m bench peers``: decoding, prompts and batches beside other programs, in turns."""

import json
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bitnet_rust import bench as measuring
from bitnet_rust import build_info
from bitnet_rust.bench.loading import exported
from bitnet_rust.bench.machine import ReadLimit
from bitnet_rust.bench.subject import cached

from .environment import HERE, PeerError, config_file, default_place, gguf, python, quantized, version
from .sides import LlamaBench, Server, Side

OURS = "bitnet_rust"
FORMATS = ("TQ2_0", "TQ1_0")
OWN_FORMATS = {"bitnet.cpp": "I2_S", "ik_llama.cpp": "IQ2_BN"}
PACKAGES = ("llama.cpp", "litespark", "transformers")
ROOT = HERE.parent.parent
Say = Callable[[str], object]


def measure(
    shape: str = "2b",
    *,
    threads: int = 2,
    head_dtype: str = "int8",
    packing: str = "auto",
    tokens: int = 64,
    prompt: int = 512,
    sequences: int = 16,
    rounds: int = 3,
    packages: Sequence[str] = PACKAGES,
    formats: Sequence[str] = FORMATS,
    place: Path | None = None,
    binaries: Sequence[tuple[str, str, Path | None]] = (),
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Runs all sides in turns, task by task; bench/peers/README.md explains the result.

    A side that cannot take part, or fails, stays in the result with its reason.

    Args:
        shape: a registered name.
        threads: of every side.
        head_dtype: of this package's side; the others have Q6_K.
        packing: of this package's ternary weights: "auto", "2bit" or "base3".
        tokens, prompt, sequences: decoded tokens, tokens of the prompt, and sequences of the batch.
        rounds: turns of every side.
        packages: programs from PyPI: of "llama.cpp", "litespark" and "transformers".
        formats: of llama.cpp's files.
        place: the environment of the other programs; by default one in the user's cache directory.
        binaries: (name, command of a llama-bench with its options, its GGUF file), one for each program that was built by hand. Without a
            file the llama-quantize beside llama-bench makes one.
    """
    tasks: dict[str, dict[str, Any]] = {
        "decode": {"task": "decode", "tokens": tokens, "prompt": 16},
        "prompt": {"task": "prompt", "tokens": prompt},
        "batch": {"task": "decode", "tokens": max(2, tokens // 4), "prompt": 16, "sequences": sequences},
    }
    sides: dict[str, Side] = {}
    absent: dict[str, str] = {}
    notes: dict[str, str] = {}
    speeds: dict[str, dict[str, list[float | None]]] = {}
    peak: dict[str, float] = {}
    limit = ReadLimit()
    limit.threads = threads
    try:
        for name, make in _makers(
            shape,
            threads,
            head_dtype,
            packing,
            _context(tasks),
            packages,
            formats,
            place or default_place(),
            binaries,
            notes,
            say,
        ).items():
            say(f"{name} starts")
            try:
                sides[name] = make()
                speeds[name] = {task: [] for task in tasks}
                for task in tasks.values():  # warm up
                    sides[name].run(task if task["task"] == "prompt" else task | {"tokens": min(8, task["tokens"])})
            except PeerError as error:
                absent[name] = str(error)
                if (side := sides.pop(name, None)) is not None:
                    side.close()
        for n in limit.around(rounds):
            for label, task in tasks.items():
                say(f"round {n + 1} of {rounds}: {label}")
                for name, side in list(sides.items()):
                    try:
                        answer = side.run(task)
                    except PeerError as error:
                        absent[name] = str(error)
                        side.close()
                        del sides[name]
                        continue
                    speeds[name][label].append(answer["tokens_per_second"] if answer else None)
                    peak[name] = max(peak.get(name, 0), (answer or {}).get("peak_rss", 0))
    finally:
        for side in sides.values():
            side.close()
    return {
        "benchmark": "peers",
        "shape": shape,
        "threads": threads,
        "isa": build_info()["isa"],
        "head_dtype": head_dtype,
        "packing": packing,
        "rounds": rounds,
        "tasks": tasks,
        "read_limit_gb_s": statistics.median(limit.measured),
        "sides": [_row(name, tasks, speeds, peak, notes) for name in sides],
        "absent": absent,
        "machine": {"processor": measuring.processor(), "bitnet_rust": build_info()["version"]},
    }


def _context(tasks: dict[str, dict[str, Any]]) -> int:
    """Tokens that programs which keep room for a whole context need, and a few more."""
    return 64 + max(
        t["tokens"] * t.get("sequences", 1) + t.get("prompt", 0) * t.get("sequences", 1) for t in tasks.values()
    )


def _row(
    name: str, tasks: dict[str, Any], speeds: dict[str, dict[str, list[float | None]]], peak: dict[str, float],
    notes: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    row: dict[str, Any] = {"name": name, "note": notes.get(name, ""), "peak_rss": peak.get(name) or None}
    for task in tasks:
        values = [v for v in speeds[name][task] if v is not None]
        ours = [v for v in speeds.get(OURS, {}).get(task, []) if v is not None]
        ratios = [a / b for a, b in zip(ours, values, strict=False)]
        row[task] = statistics.median(values) if values else None
        row[f"{task}_values"] = values
        row[f"{task}_ours_over_this"] = statistics.median(ratios) if ratios else None
    return row


def _makers(
    shape: str, threads: int, head_dtype: str, packing: Any, context: int, packages: Sequence[str], formats: Sequence[str], place: Path,
    binaries: Sequence[tuple[str, str, Path | None]], notes: dict[str, str], say: Say,
) -> dict[str, Callable[[], Side]]:  # fmt: skip
    """What starts each side, by name."""

    def ours() -> Side:
        file = cached(shape, head_dtype=head_dtype, packing=packing, progress=say)
        command = [sys.executable, "-m", "bench.peers.ours", str(file), str(threads), head_dtype, packing]
        return Server(OURS, command, ROOT, threads)

    def llama_cpp(kind: str) -> Side:
        interpreter = python(place, ["gguf", "llama-cpp-python"], say)
        name = f"llama.cpp {kind}"
        notes[name] = f"llama-cpp-python {version(interpreter, 'llama-cpp-python')}"
        file = gguf(interpreter, shape, kind, say)
        return Server(
            name, [str(interpreter), "llama_cpp_side.py", str(file), str(threads), str(context)], HERE, threads
        )

    def litespark() -> Side:
        interpreter = python(
            place, ["numpy", "tokenizers", "safetensors", "huggingface_hub"], say, bare="litespark-inference"
        )
        notes["litespark"] = f"litespark-inference {version(interpreter, 'litespark-inference')}, int8 head"
        return Server(
            "litespark", [str(interpreter), "litespark_side.py", str(config_file(shape)), str(context)], HERE, threads
        )

    def transformers() -> Side:
        interpreter = python(place, ["torch", "transformers", "accelerate"], say)
        notes["transformers"] = f"transformers {version(interpreter, 'transformers')}, bfloat16"
        checkpoint = exported(cached(shape, progress=say), "hf")
        command = [str(interpreter), "transformers_side.py", str(checkpoint), str(threads)]
        return Server("transformers", command, HERE, threads)

    def binary(name: str, command: str, model: Path | None) -> Side:
        first, *options = shlex.split(command) or [""]
        if model is None:
            if name not in OWN_FORMATS:
                raise PeerError("expected a GGUF file for it")
            quantizer = Path(first).with_name("llama-quantize")
            model = quantized(python(place, ["gguf"], say), shape, quantizer, OWN_FORMATS[name], say)
        notes[name] = model.name
        return LlamaBench(name, Path(first), model, threads, options)

    makers: dict[str, Callable[[], Side]] = {OURS: ours}
    for kind in formats if "llama.cpp" in packages else ():
        makers[f"llama.cpp {kind}"] = lambda kind=kind: llama_cpp(kind)  # type: ignore[misc]
    makers |= {
        name: make for name, make in (("litespark", litespark), ("transformers", transformers)) if name in packages
    }
    for name, command, model in binaries:
        makers[name] = lambda args=(name, command, model): binary(*args)  # type: ignore[misc]
    return makers


def report(r: dict[str, Any]) -> str:
    """The result for people: a row for each program, also for those that did not take part."""
    tasks = r["tasks"]
    head = {
        "decode": "decode",
        "prompt": f"prompt {tasks['prompt']['tokens']}",
        "batch": f"{tasks['batch']['sequences']} sequences",
    }
    rows = [("", *(cell for name in head.values() for cell in (f"{name}, tokens/s", "ours/this")), "peak MB")]
    for side in r["sides"]:
        cells = [f"{side['name']}"]
        for task in head:
            value, ratio = side[task], side[f"{task}_ours_over_this"]
            cells += [f"{value:.1f}" if value else "-", f"{ratio:.2f}" if ratio and side["name"] != OURS else ""]
        rows.append((*cells, f"{side['peak_rss'] / 1e6:.0f}" if side["peak_rss"] else "-"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{r['shape']}, {r['threads']} threads, {r['rounds']} rounds, {r['isa']}, {r['head_dtype']} head, {r['packing']} packing, "
        f"{r['machine']['processor']}, memory reads {r['read_limit_gb_s']:.1f} GB/s"
    ]
    lines += [
        "  ".join(text.rjust(w) if i else text.ljust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines += [f"{side['name']}: {side['note']}" for side in r["sides"] if side["note"]]
    lines += [f"{name}: {reason}" for name, reason in r["absent"].items()]
    return "\n".join(lines)


def command(
    shape: Annotated[str, typer.Option(help="A registered name.")] = "2b",
    threads: Annotated[int, typer.Option(min=1, help="Threads of every side.")] = 2,
    head_dtype: Annotated[str, typer.Option(help="This package's head; the others have Q6_K.")] = "int8",
    packing: Annotated[str, typer.Option(help="This package's ternary weights: auto, 2bit or base3.")] = "auto",
    tokens: Annotated[int, typer.Option(min=2, help="Decoded tokens of a turn.")] = 64,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 512,
    sequences: Annotated[int, typer.Option(min=1, max=32, help="Sequences of the batch.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every side.")] = 3,
    package: Annotated[
        list[str] | None, typer.Option(help=f"Programs from PyPI, repeatable: {', '.join(PACKAGES)}; all.")
    ] = None,
    format: Annotated[list[str] | None, typer.Option(help="Of llama.cpp's files, repeatable; TQ2_0 and TQ1_0.")] = None,
    venv: Annotated[Path | None, typer.Option(help="Environment of the others.", show_default="in the cache")] = None,
    bitnet_cpp: Annotated[str | None, typer.Option(help="llama-bench of bitnet.cpp, with options of its own.")] = None,
    bitnet_cpp_model: Annotated[Path | None, typer.Option(help="GGUF file for it.", show_default="made")] = None,
    ik_llama: Annotated[str | None, typer.Option(help="llama-bench of ik_llama.cpp, with options of its own.")] = None,
    ik_llama_model: Annotated[Path | None, typer.Option(help="GGUF file for it.", show_default="made")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decode, read prompts and run batches beside other programs, in turns."""
    for name in package or ():
        if name not in PACKAGES:
            raise typer.BadParameter(f"--package {name}: expected one of {', '.join(PACKAGES)}")
    for name in format or ():
        if name not in FORMATS:
            raise typer.BadParameter(f"--format {name}: expected one of {', '.join(FORMATS)}")
    missing = "not given: see bench/peers/README.md"
    binaries = [
        (name, binary, model)
        for name, binary, model in (
            ("bitnet.cpp", bitnet_cpp, bitnet_cpp_model),
            ("ik_llama.cpp", ik_llama, ik_llama_model),
        )
        if binary is not None
    ]
    result = measure(
        shape, threads=threads, head_dtype=head_dtype, packing=packing, tokens=tokens, prompt=prompt, sequences=sequences, rounds=rounds,
        packages=package or PACKAGES, formats=format or FORMATS, place=venv, binaries=binaries, say=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    for name, given in (("bitnet.cpp", bitnet_cpp), ("ik_llama.cpp", ik_llama)):
        if given is None:
            result["absent"][name] = missing
    print(json.dumps(result, indent=2) if as_json else report(result))
