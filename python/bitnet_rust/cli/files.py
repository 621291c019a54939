"""The commands about a model's files: inspect, verify, convert, diff."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ArgumentError, BitNetError, printable
from .options import AsJSON, HeadDType, I2SLayout, Offline, Packing, Quantize, Revision
from .output import cell, fail, load_model, one_line, print_json, print_table, quiet, watched, working

if TYPE_CHECKING:
    from ..comparison import ModelDiff
    from ..conversion import Conversion
    from ..model import BitNetModel
    from ..verification import Verification


def inspect(
    model: Annotated[
        str, typer.Argument(help="Model directory or file, registered name or hub id.")
    ] = "bitnet-shakespeare",
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List the tensors and metadata of its files instead.")
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="With the numbers of every tensor.")] = False,
    tree: Annotated[bool, typer.Option("--tree", help="Show its modules as a tree instead.")] = False,
    dump: Annotated[
        str | None, typer.Option("--hex", help="Dump bytes of a tensor instead: TENSOR, or TENSOR:FROM:BYTES.")
    ] = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    i2s_layout: I2SLayout = "x86",
    quantize: Quantize = False,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Load a model and show what it is; or list what its files hold, without loading it."""
    about_loading = {
        "--head-dtype": head_dtype != "auto", "--packing": packing != "auto", "--quantize": quantize,
        "--i2s-layout": i2s_layout != "x86" and not stats,
    }  # fmt: skip
    shows = {"--hex": dump is not None, "--tree": tree, "--stats": stats, "--tensors": tensors}
    for option, what, others in (
        ("--hex", "shows the bytes of one tensor", {"--tree", "--stats", "--tensors"}),
        ("--tree", "shows neither numbers nor metadata", {"--stats", "--tensors"}),
        ("--stats", "loads no model", set()),
        ("--tensors", "loads no model", set()),
    ):
        given = [
            name for name, here in (shows | about_loading).items() if here and name in others | about_loading.keys()
        ]
        if shows[option] and given:
            raise typer.BadParameter(f"{what}: does not go together with {', '.join(given)}", param_hint=option)
    place: Any = {"revision": revision, "local_files_only": offline}
    if dump is not None:
        _dump(model, dump, place, as_json)
        return
    if tensors or stats or tree:
        _inspect_files(model, stats, tree, place | {"i2s_layout": i2s_layout}, as_json)
        return
    loading: Any = {"head_dtype": head_dtype, "packing": packing, "i2s_layout": i2s_layout, "quantize": quantize}
    with load_model(model, offline=offline, revision=revision, **loading) as loaded:
        facts = _facts(loaded)
    if as_json:
        print_json(facts)
        return
    config = facts.pop("config")
    shape = {k: config[k] for k in sorted(config) if isinstance(config[k], int | float | str) and k not in facts}
    print_table(["", ""], [[name, cell(value)] for name, value in (facts | shape).items()])


def _facts(model: "BitNetModel") -> dict[str, Any]:
    info = model.info
    facts: dict[str, Any] = {
        "path": info["path"],
        "format": info["format"],
        "architecture": model.config.architectures[0],
        "parameters": model.num_parameters(),
        "memory_bytes": model.memory_footprint(),
        "head_dtype": model.head_dtype,
        "packing": model.packing,
    }
    try:
        facts |= {"tokenizer_vocab": len(model.tokenizer), "chat_template": bool(model.tokenizer.chat_template)}
    except BitNetError as error:
        facts |= {"tokenizer_vocab": None, "chat_template": False, "tokenizer_error": str(error)}
    return facts | {"config": model.config.to_dict()}


def _dump(model: str, what: str, place: Any, as_json: bool) -> None:
    from ..inspection import hex_lines, tensor_bytes

    tensor, *numbers = re.split("(?<!:):(?!:)", what)  # two colons are part of a name: onnx::MatMul_656
    try:
        at, size = [*(int(number, 0) for number in numbers), *(0, 256)[len(numbers) :]]
    except ValueError:  # no numbers, or too many
        at, size = 0, 0
    if at < 0 or size < 1:
        raise typer.BadParameter(f"{what!r}: expected TENSOR, TENSOR:FROM or TENSOR:FROM:BYTES", param_hint="--hex")
    data = tensor_bytes(model, tensor, at=at, size=size, **place)
    if as_json:
        print_json({"name": tensor, "at": at, "hex": data.hex()})
        return
    for line in hex_lines(data, at):
        print(line)


def _inspect_files(model: str, stats: bool, tree: bool, reading: Any, as_json: bool) -> None:
    from ..inspection import inspect_model, tree_lines

    info = inspect_model(model, stats=stats, progress=watched(), **reading)
    if as_json:
        print_json(info)
        return
    print_table(["", ""], [["path", info["path"]], ["format", _FORMATS.get(info["format"], info["format"])]])
    print()
    if tree:
        for line in tree_lines(info["tensors"]):
            print(printable(line))
        return
    print_table(["metadata", ""], [[key, _short(value)] for key, value in info["metadata"].items()])
    print()
    header = ["tensor", "type", "shape", "bytes"] + ["numbers"] * stats
    rows = [
        [t["name"], t["dtype"], " x ".join(map(str, t["shape"])), f"{t['bytes']:,}"] + [_numbers(t)] * stats
        for t in info["tensors"]
    ]
    print_table(header, rows)
    if stats and info["summary"]["ternary"]:
        print()
        print_table([f"{info['summary']['ternary']} ternary tensors", "", ""], _histogram(info["summary"]))


def _histogram(summary: dict[str, Any]) -> list[list[str]]:
    """The shares of the codes of all ternary weights as bars, and how their scales and shares of zeros are spread."""
    count = max(1, summary["minus"] + summary["zero"] + summary["plus"])
    shares = [(code, summary[name] / count) for code, name in (("-1", "minus"), ("0", "zero"), ("1", "plus"))]
    rows = [[code, f"{share:.1%}", "#" * round(40 * share)] for code, share in shares]
    scale, zeros = summary["scale"], summary["zeros"]
    spread = f"{scale['min']:.6g} to {scale['max']:.6g}, median {scale['median']:.6g}"
    rows.append(["scale", spread, ""])
    rows.append(["zeros", f"{zeros['min']:.1%} to {zeros['max']:.1%}, median {zeros['median']:.1%}", ""])
    return rows


def _short(value: Any) -> str:
    """A metadata value on part of a line."""
    if isinstance(value, list) and len(value) > 4:
        return f"[{', '.join(map(repr, value[:4]))}, ...], {len(value):,} entries"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 100 else f"{text[:100]}..., {len(text):,} characters"


def _numbers(tensor: dict[str, Any]) -> str:
    """The statistics of a tensor on one line."""
    if "ternary" in tensor:
        t = tensor["ternary"]
        count = max(1, t["minus"] + t["zero"] + t["plus"])
        return (
            f"-1 {t['minus'] / count:.1%}, 0 {t['zero'] / count:.1%}, 1 {t['plus'] / count:.1%}, scale {t['scale']:.6g}"
        )
    if "float" in tensor:
        f = tensor["float"]
        bad = f", {f['not_finite']} NaN or infinite" if f["not_finite"] else ""
        return f"{f['min']:.4g} to {f['max']:.4g}, mean {f['mean']:.4g}, std {f['std']:.4g}{bad}"
    return str(tensor.get("error", ""))


def verify(
    model: Annotated[str, typer.Argument(help="Model directory or file, registered name or hub id.")],
    i2s_layout: I2SLayout = "x86",
    quantize: Quantize = False,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Read all files of a model and say what is wrong with them: names, shapes, checksums, every number.

    Exit status 1 when something is wrong.
    """
    from ..verification import verify_model

    found = verify_model(
        model,
        i2s_layout=i2s_layout,
        quantize=quantize,
        revision=revision,
        local_files_only=offline,
        progress=watched(),
    )
    if as_json:
        print_json(found.to_dict())
    else:
        _print_verification(found)
    if not found.ok:
        raise typer.Exit(1)


_FORMATS = {"": "unknown", "checkpoint": "a checkpoint of a training run, which --resume goes on with"}


def _print_verification(found: "Verification") -> None:
    means = [norm["mean"] for norm in found.norms]
    spread = f", means from {min(means):.4g} to {max(means):.4g}" if means else ""
    sums = f"{found.checksums} compared" if found.checksums else "the format has none"
    problems, warnings = len(found.problems), len(found.warnings)
    warned = f", {warnings} warning{'s' * (warnings > 1)}" if warnings else ""
    rows = [
        ["path", found.path],
        ["format", _FORMATS.get(found.format, found.format)],
        ["tensors", f"{found.tensors:,}, {found.bytes / 1e6:,.1f} MB"],
        ["checksums", sums],
        ["norms", f"{len(found.norms)}{spread}"],
        ["result", ("sound" if found.ok else f"{problems} problem{'s' * (problems > 1)}") + warned],
    ]
    print_table(["", ""], rows)
    for kind, notes in (("problem", found.problems), ("warning", found.warnings)):
        for note in notes if kind == "problem" or not quiet() else ():
            about = f" {note['tensor']}:" if note["tensor"] and note["tensor"] not in note["message"] else ""
            print(printable(f"{kind} ({note['check']}):{about} {note['message']}"), file=sys.stderr)


def convert(
    source: Annotated[
        str, typer.Argument(help="Model directory, .bitnet, .gguf or .onnx file, registered name or hub id.")
    ],
    target: Annotated[Path, typer.Argument(help="File that ends in .bitnet, .gguf or .onnx, or a directory.")],
    to: Annotated[
        Literal["native", "hf", "hf-master", "gguf", "onnx"] | None,
        typer.Option(help="Format of the target.", show_default="what TARGET's name says"),
    ] = None,
    weights_type: Annotated[
        Literal["i2_s", "tq1_0", "tq2_0", "f16", "bf16", "f32", "int8", "int2"] | None,
        typer.Option(
            "--type",
            help="Ternary layers: int8 and int2 in ONNX, the others in GGUF.",
            show_default="i2_s, int8",
        ),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="An ONNX graph without keys and values.")] = False,
    masters: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(help="How hf-master has master weights.", show_default="float32"),
    ] = None,
    derive_masters: Annotated[
        bool,
        typer.Option("--derive-masters", help="Write master weights of packed ones, which are not those of before."),
    ] = False,
    linear_class: Annotated[
        Literal["autobitlinear", "bitlinear"] | None,
        typer.Option(help="How hf has scales.", show_default="the model's"),
    ] = None,
    i2s_layout: I2SLayout = "x86",
    quantize: Quantize = False,
    head_dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"],
        typer.Option(help="How a native target has embedding and head."),
    ] = "auto",
    packing: Annotated[
        Literal["auto", "2bit", "base3"],
        typer.Option(help="How a native target has ternary weights; base3 takes 1.6 bits each."),
    ] = "auto",
    compression: Annotated[
        Literal["zstd"] | None, typer.Option(help="Makes a native file smaller, for shipping.")
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(help="Divide tensors among files of at most so many bytes, such as 5GB; not of ONNX.")
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not compare logits and tokenizers of both models.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Write a model in another format, and check that it is still the same."""
    from ..conversion import convert as run_convert

    options: Any = {
        "type": weights_type, "use_cache": not no_cache, "masters": masters, "derive_masters": derive_masters,
        "linear_class": linear_class, "i2s_layout": i2s_layout, "quantize": quantize, "head_dtype": head_dtype, "packing": packing,
        "compression": compression, "max_shard_size": max_shard_size, "revision": revision,
    }  # fmt: skip
    done = run_convert(
        source,
        target,
        to,
        **options,
        check=not no_check,
        dry_run=dry_run,
        local_files_only=offline,
        progress=watched(),
    )
    if as_json:
        print_json(done.to_dict())
    else:
        _show_conversion(done)
    if done.different_text is not None:
        raise ArgumentError(
            f"the tokenizer of {done.target} is not the source's: it makes other ids of {done.different_text!r}, please report it as a defect"
        )
    if done.agrees is False:
        raise ArgumentError(
            f"{done.target} does not compute what the source does: same next token at {done.same_argmax:.1%} of positions; "
            + (f"rounding {done.rounding} does not explain that" if done.rounding else "the format keeps every number")
            + ", please report it as a defect"
        )


def _show_conversion(done: "Conversion") -> None:
    rows = [
        ["model", f"{done.architecture}, {done.parameters:,} parameters"],
        ["from", f"{done.source}, {done.source_bytes / 1e6:,.1f} MB"],
        ["to", f"{done.target}, {done.format}, {done.weights}"],
    ]
    size = f"{done.target_bytes / 1e6:,.1f} MB"
    rows.append(["written", size if done.written else f"nothing: a dry run of {size}"])
    rows += [["warning", warning] for warning in done.warnings]
    if done.same_argmax is not None and done.max_difference is not None:
        rows.append(
            [
                "check",
                f"same next token at {done.same_argmax:.1%} of positions, logits within {done.max_difference:.3g}"
                + (f"; the format rounds {done.rounding}" if done.rounding else ""),
            ]
        )
        if done.different_text is not None:
            rows.append(["", f"the tokenizers make other ids of {done.different_text!r}"])
    print_table(["", ""], rows)


def diff(
    a: Annotated[str, typer.Argument(help="Model directory or file, registered name or hub id.")],
    b: Annotated[str, typer.Argument(help="The model to compare it with, of the same or another format.")],
    no_logits: Annotated[bool, typer.Option("--no-logits", help="Do not compute logits.")] = False,
    i2s_layout: I2SLayout = "x86",
    quantize: Quantize = False,
    revision: Revision = None,
    revision_b: Annotated[
        str | None, typer.Option("--revision-b", help="Of B, where it is another one.", show_default="that of A")
    ] = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Compare two models: config, tensors, logits. Status 0: they compute the same; 1: they differ; 2: one cannot be read."""
    from ..comparison import diff_models

    options: Any = {
        "i2s_layout": i2s_layout, "quantize": quantize, "revision": revision, "revision_b": revision_b, "local_files_only": offline,
    }  # fmt: skip
    try:
        with working("comparing"):
            found = diff_models(a, b, logits=not no_logits, **options)
    except (BitNetError, OSError, MemoryError) as error:
        raise typer.Exit(fail(one_line(error), 2, error)) from error
    if as_json:
        print_json(found.to_dict())
    else:
        _print_diff(found)
    if not found.equal:
        raise typer.Exit(1)


def _print_diff(found: "ModelDiff") -> None:
    if found.config:
        print_table(["config", "a", "b"], [[name, str(x), str(y)] for name, (x, y) in found.config.items()])
        print()
    rows = []
    for t in found.different:
        codes = f"{t['codes']:,}" if "codes" in t else ""
        what = [_side(t, 0), _side(t, 1), codes, f"{t['differ']:,} of {t['values']:,}", f"{t['max_difference']:.6g}"]
        rows.append([t["name"], *what])
    if rows:
        print_table(["tensor", "a", "b", "codes", "values", "largest"], rows)
        print()
    summary = [["tensors", f"{len(found.tensors) - len(rows)} the same, {len(rows)} not"]]
    if found.same_argmax is not None:
        said = f"same next token at {found.same_argmax:.1%} of positions, logits within {found.max_difference:.3g}"
        summary.append(["logits", said])
    summary.append(["", "equal" if found.equal else "different"])
    print_table(["", ""], summary)


def _side(tensor: dict[str, Any], side: int) -> str:
    """A tensor of one of two models: its kind, scale and shape."""
    if not tensor["kinds"][side]:
        return "none"
    shape = " x ".join(map(str, tensor["shapes"][side]))
    scale = f" scale {tensor['scales'][side]:.6g}" if tensor["scales"][side] else ""
    return f"{tensor['kinds'][side]} {shape}{scale}"
