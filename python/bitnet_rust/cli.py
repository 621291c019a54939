"""The ``bitnet`` command.

Exit status: 0 done, 1 the model or the input cannot be used (one line on stderr says why), 2 wrong usage,
130 interrupted, 143 terminated by SIGTERM. Results go to stdout, progress and errors to stderr; ``--json`` gives one JSON object (or list).
"""

import io
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import bench
from .errors import ArgumentError, BitNetError, FileSystemError, InternalError, TokenizerError
from .runtime import build_info, set_num_threads

if TYPE_CHECKING:
    from .comparison import ModelDiff
    from .generation import GenerationResult
    from .model import BitNetModel
    from .recipe import Recipe
    from .verification import Verification

app = typer.Typer(
    name="bitnet",
    help="BitNet b1.58 language models on the CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench.app, name="bench")

# Options that several commands have.
Model = Annotated[str, typer.Option("--model", "-m", help="Model directory, registered name or hub id.")]
HeadDType = Annotated[str, typer.Option(help="Embedding and head as auto, exact, float32, bfloat16, int8 or int4.")]
KVDType = Annotated[str, typer.Option(help="Keys and values as float32, float16, bfloat16 or int8.")]
Packing = Annotated[str, typer.Option(help="Ternary weights as auto, 2bit or base3 (1.6 bits).")]
Threads = Annotated[int | None, typer.Option(help="Worker threads.", show_default="physical cores")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub repository.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use local files only.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MaxNewTokens = Annotated[
    int | None,
    typer.Option("--max-new-tokens", "-n", help="Most tokens to generate.", show_default="the model's, else 128"),
]
Temperature = Annotated[float | None, typer.Option(help="Sampling temperature; greedy without any sampling option.")]
TopK = Annotated[int | None, typer.Option(help="Sample among the k most probable tokens.")]
TopP = Annotated[float | None, typer.Option(help="Sample among the most probable tokens that together reach p.")]
MinP = Annotated[float | None, typer.Option(help="Sample among tokens at least p times as probable as the best.")]
TypicalP = Annotated[float | None, typer.Option(help="Locally typical sampling.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Penalty on tokens of prompt and text; 1 is off.")]
PresencePenalty = Annotated[float | None, typer.Option(help="Subtracted once from generated tokens' logits.")]
FrequencyPenalty = Annotated[float | None, typer.Option(help="Subtracted for every time a token was generated.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the sampling.")]
PromptLookup = Annotated[
    int | None,
    typer.Option(
        "--prompt-lookup-num-tokens", help="Guess so many tokens where text repeats itself: faster, same text."
    ),
]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends the generation; may be given several times.")]


def _version(asked: bool) -> None:
    if asked:
        from . import __version__

        typer.echo(f"bitnet-rust {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """BitNet b1.58 language models on the CPU."""


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads it from stdin.")],
    model: Model = "bitnet-shakespeare",
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    typical_p: TypicalP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    seed: Seed = None,
    stop: Stop = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on after the model's end token.")] = False,
    prompt_lookup_num_tokens: PromptLookup = None,
    assistant_model: Annotated[
        str | None,
        typer.Option("--assistant-model", help="Smaller model with the same tokens, that guesses: faster, same text."),
    ] = None,
    num_assistant_tokens: Annotated[
        int | None, typer.Option("--num-assistant-tokens", help="Tokens it guesses at a time.", show_default="4")
    ] = None,
    logprobs: Annotated[int | None, typer.Option(help="With --json: log-probabilities, of n alternatives too.")] = None,
    echo: Annotated[bool, typer.Option("--echo", help="Print the prompt before the continuation.")] = False,
    head_dtype: HeadDType = "auto",
    kv_dtype: KVDType = "float32",
    packing: Packing = "auto",
    threads: Threads = None,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Continue a text; prints it as it comes."""
    if logprobs is not None and not as_json:
        raise typer.BadParameter("log-probabilities are part of the JSON: add --json", param_hint="--logprobs")
    text = sys.stdin.read() if prompt == "-" else prompt
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "typical_p": typical_p, "repetition_penalty": repetition_penalty, "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty, "seed": seed, "stop": stop, "ignore_eos": ignore_eos,
        "prompt_lookup_num_tokens": prompt_lookup_num_tokens, "logprobs": logprobs,
    }  # fmt: skip
    with _load(model, head_dtype, packing, threads, revision, offline, kv_dtype) as loaded, ExitStack() as stack:
        if assistant_model is not None:
            options["assistant_model"] = stack.enter_context(
                _load(assistant_model, "auto", "auto", None, None, offline, kv_dtype)
            )
        options["num_assistant_tokens"] = num_assistant_tokens
        if as_json:
            with _working("generating"):
                result = loaded.generate(text, details=True, return_full_text=echo, **options)
            _print_json(_result_json(result))
        else:
            _print_stream(loaded.generate(text, stream=True, return_full_text=echo, **options))


@app.command()
def chat(
    model: Model = "bitnet-b1.58-2b-4t",
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    chat_template: Annotated[Path | None, typer.Option(help="File with a Jinja chat template.")] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    stop: Stop = None,
    head_dtype: HeadDType = "auto",
    kv_dtype: KVDType = "float32",
    packing: Packing = "auto",
    threads: Threads = None,
    revision: Revision = None,
    offline: Offline = False,
) -> None:
    """Talk with a model: a line is a message, /reset forgets the conversation, /exit or Ctrl-D ends.

    Ctrl-C stops a reply, which stays part of the conversation; at the prompt it ends the program.
    """
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "seed": seed, "stop": stop,
    }  # fmt: skip
    start = [{"role": "system", "content": system}] if system else []
    template = _read_file(chat_template) if chat_template else None
    interactive = sys.stdin.isatty()
    with _load(model, head_dtype, packing, threads, revision, offline, kv_dtype) as loaded:
        if template is None and loaded.tokenizer.chat_template is None:
            raise TokenizerError(f"{model} has no chat template: pass one with --chat-template, or use bitnet generate")
        messages = list(start)
        for line in _lines(interactive):
            if line == "/exit":
                break
            if line == "/reset":
                messages = list(start)
                continue
            messages.append({"role": "user", "content": line})
            reply: list[str] = []
            try:
                _print_stream(loaded.chat(messages, stream=True, chat_template=template, **options), reply)
            except KeyboardInterrupt:
                if not interactive:
                    raise
                print()
            except ArgumentError as error:  # such as a conversation that outgrew the context
                if not interactive:
                    raise
                messages.pop()
                _fail(f"{_line(error)} (/reset forgets the conversation)", 1)
                continue
            messages.append({"role": "assistant", "content": "".join(reply)})


@app.command()
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
    i2s_layout: Annotated[str, typer.Option(help="I2_S tensors of a GGUF file as x86, arm64 or row4.")] = "x86",
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Load a model and show what it is; or list what its files hold, without loading it."""
    asked = {"--hex": dump is not None, "--tree": tree, "--stats": stats, "--tensors": tensors}
    if asked["--hex"] and sum(asked.values()) > 1:
        given = ", ".join(name for name, here in asked.items() if here and name != "--hex")
        raise typer.BadParameter(
            f"shows the bytes of one tensor: does not go together with {given}", param_hint="--hex"
        )
    if dump is not None:
        _dump(model, dump, offline, as_json)
        return
    if tensors or stats or tree:
        _inspect_files(model, stats, tree, i2s_layout, offline, as_json)
        return
    with _load(model, head_dtype, packing, None, revision, offline) as loaded:
        facts = _facts(loaded)
    if as_json:
        _print_json(facts)
        return
    config = facts.pop("config")
    shape = {k: config[k] for k in sorted(config) if isinstance(config[k], int | float | str) and k not in facts}
    _print_table(["", ""], [[name, _cell(value)] for name, value in (facts | shape).items()])


def _dump(model: str, place: str, offline: bool, as_json: bool) -> None:
    from .inspection import hex_lines, tensor_bytes

    tensor, *numbers = place.split(":")
    try:
        at, size, *rest = [*(int(number, 0) for number in numbers), *(0, 256)[len(numbers) :]]
    except ValueError:
        rest = [0]
    if rest:
        raise typer.BadParameter(f"{place!r}: expected TENSOR, TENSOR:FROM or TENSOR:FROM:BYTES", param_hint="--hex")
    data = tensor_bytes(model, tensor, at=at, size=size, local_files_only=offline)
    if as_json:
        _print_json({"name": tensor, "at": at, "hex": data.hex()})
        return
    for line in hex_lines(data, at):
        print(line)


def _inspect_files(model: str, stats: bool, tree: bool, i2s_layout: Any, offline: bool, as_json: bool) -> None:
    from .inspection import inspect_model, tree_lines

    with _working("reading"):
        info = inspect_model(model, stats=stats, i2s_layout=i2s_layout, local_files_only=offline)
    if as_json:
        _print_json(info)
        return
    _print_table(["", ""], [["path", info["path"]], ["format", info["format"]]])
    print()
    if tree:
        for line in tree_lines(info["tensors"]):
            print(line)
        return
    _print_table(["metadata", ""], [[key, _short(value)] for key, value in info["metadata"].items()])
    print()
    header = ["tensor", "type", "shape", "bytes"] + ["numbers"] * stats
    rows = [
        [t["name"], t["dtype"], " x ".join(map(str, t["shape"])), f"{t['bytes']:,}"] + [_numbers(t)] * stats
        for t in info["tensors"]
    ]
    _print_table(header, rows)
    if stats and info["summary"]["ternary"]:
        print()
        _print_table([f"{info['summary']['ternary']} ternary tensors", "", ""], _histogram(info["summary"]))


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


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="Model directory or file, registered name or hub id.")],
    i2s_layout: Annotated[str, typer.Option(help="I2_S tensors of a GGUF file as x86, arm64 or row4.")] = "x86",
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Read all files of a model and say what is wrong with them: names, shapes, checksums, every number.

    Exit status 1 when something is wrong.
    """
    from .verification import verify_model

    with _LoadBar(model, "reading") as bar:
        found = verify_model(
            model,
            i2s_layout=i2s_layout,  # type: ignore[arg-type]  # checked there
            local_files_only=offline,
            progress=bar if sys.stderr.isatty() else None,
        )
    if as_json:
        _print_json(found.to_dict())
    else:
        _print_verification(found)
    if not found.ok:
        raise typer.Exit(1)


def _print_verification(found: "Verification") -> None:
    means = [norm["mean"] for norm in found.norms]
    spread = f", means from {min(means):.4g} to {max(means):.4g}" if means else ""
    sums = f"{found.checksums} compared" if found.checksums else "the format has none"
    rows = [
        ["path", found.path],
        ["format", found.format or "unknown"],
        ["tensors", f"{found.tensors:,}, {found.bytes / 1e6:,.1f} MB"],
        ["checksums", sums],
        ["norms", f"{len(found.norms)}{spread}"],
        ["result", "sound" if found.ok else f"{len(found.problems)} problems"],
    ]
    _print_table(["", ""], rows)
    for kind, notes in (("problem", found.problems), ("warning", found.warnings)):
        for note in notes:
            about = f" {note['tensor']}:" if note["tensor"] and note["tensor"] not in note["message"] else ""
            print(f"{kind} ({note['check']}):{about} {note['message']}", file=sys.stderr)


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(help="Model directory, .bitnet, .gguf or .onnx file, registered name or hub id.")
    ],
    target: Annotated[Path, typer.Argument(help="File that ends in .bitnet, .gguf or .onnx, or a directory.")],
    to: Annotated[
        str | None, typer.Option(help="native, hf, hf-master, gguf or onnx.", show_default="what TARGET's name says")
    ] = None,
    weights_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="Ternary layers in GGUF as i2_s, tq1_0, tq2_0, f16, bf16 or f32, in ONNX as int8 or int2.",
            show_default="i2_s, int8",
        ),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="An ONNX graph without keys and values.")] = False,
    masters: Annotated[str, typer.Option(help="Master weights of hf-master as float32 or bfloat16.")] = "float32",
    derive_masters: Annotated[
        bool,
        typer.Option("--derive-masters", help="Write master weights of packed ones, which are not those of before."),
    ] = False,
    linear_class: Annotated[
        str | None, typer.Option(help="Scales of hf as autobitlinear or bitlinear.", show_default="the model's")
    ] = None,
    i2s_layout: Annotated[str, typer.Option(help="I2_S tensors of a GGUF source as x86, arm64 or row4.")] = "x86",
    compression: Annotated[str | None, typer.Option(help="zstd: a smaller native file, for shipping.")] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(help="Divide a native model among files of at most so many bytes, such as 5GB.")
    ] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not compare the logits of both models.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Write a model in another format, and check that it is still the same."""
    from .conversion import convert as run_convert

    options: Any = {
        "type": weights_type, "use_cache": not no_cache, "masters": masters, "derive_masters": derive_masters,
        "linear_class": linear_class, "i2s_layout": i2s_layout, "compression": compression, "max_shard_size": max_shard_size,
    }  # fmt: skip
    with ExitStack() as bars:
        shown: dict[str, _LoadBar] = {}

        def draw(step: str, at: int, total: int) -> None:
            if step not in shown:
                bars.close()  # the bar of the step before
                shown[step] = bars.enter_context(_LoadBar(source if step == "reading" else str(target), step))
            shown[step](at, total)

        done = run_convert(
            source,
            target,
            to,  # type: ignore[arg-type]  # checked there
            **options,
            check=not no_check,
            dry_run=dry_run,
            local_files_only=offline,
            progress=draw if sys.stderr.isatty() else None,
        )
    if as_json:
        _print_json(done.to_dict())
        return
    rows = [
        ["model", f"{done.architecture}, {done.parameters:,} parameters"],
        ["from", f"{done.source}, {done.source_bytes / 1e6:,.1f} MB"],
        ["to", f"{done.target}, {done.format}, {done.weights}"],
    ]
    size = "" if done.target_bytes is None else f"{done.target_bytes / 1e6:,.1f} MB"
    rows.append(["written", size if done.written else f"nothing: a dry run {size and 'of '}{size}".rstrip()])
    if done.same_argmax is not None and done.max_difference is not None:
        rows.append(
            [
                "check",
                f"same next token at {done.same_argmax:.1%} of positions, logits within {done.max_difference:.3g}",
            ]
        )
    _print_table(["", ""], rows)
    if done.same_argmax is not None and done.same_argmax < 1:
        raise ArgumentError(
            f"{done.target} does not compute what the source does: see the check; "
            "a type that rounds scales moves logits a little, and other causes are a defect"
        )


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="Model directory or file, registered name or hub id.")],
    b: Annotated[str, typer.Argument(help="The model to compare it with, of the same or another format.")],
    no_logits: Annotated[bool, typer.Option("--no-logits", help="Do not compute logits.")] = False,
    i2s_layout: Annotated[str, typer.Option(help="I2_S tensors of GGUF files as x86, arm64 or row4.")] = "x86",
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Compare two models: config, tensors, logits. Status 0: they compute the same; 1: they differ; 2: one cannot be read."""
    from .comparison import diff_models

    try:
        with _working("comparing"):
            found = diff_models(a, b, logits=not no_logits, i2s_layout=i2s_layout, local_files_only=offline)  # type: ignore[arg-type]  # checked there
    except (BitNetError, OSError, MemoryError) as error:
        raise typer.Exit(_fail(_line(error), 2)) from error
    if as_json:
        _print_json(found.to_dict())
    else:
        _print_diff(found)
    if not found.equal:
        raise typer.Exit(1)


def _print_diff(found: "ModelDiff") -> None:
    if found.config:
        _print_table(["config", "a", "b"], [[name, str(x), str(y)] for name, (x, y) in found.config.items()])
        print()
    rows = []
    for t in found.different:
        codes = f"{t['codes']:,}" if "codes" in t else ""
        what = [_side(t, 0), _side(t, 1), codes, f"{t['differ']:,} of {t['values']:,}", f"{t['max_difference']:.6g}"]
        rows.append([t["name"], *what])
    if rows:
        _print_table(["tensor", "a", "b", "codes", "values", "largest"], rows)
        print()
    summary = [["tensors", f"{len(found.tensors) - len(rows)} the same, {len(rows)} not"]]
    if found.same_argmax is not None:
        said = f"same next token at {found.same_argmax:.1%} of positions, logits within {found.max_difference:.3g}"
        summary.append(["logits", said])
    summary.append(["", "equal" if found.equal else "different"])
    _print_table(["", ""], summary)


def _side(tensor: dict[str, Any], side: int) -> str:
    """A tensor of one of two models: its kind, scale and shape."""
    if not tensor["kinds"][side]:
        return "none"
    shape = " x ".join(map(str, tensor["shapes"][side]))
    scale = f" scale {tensor['scales'][side]:.6g}" if tensor["scales"][side] else ""
    return f"{tensor['kinds'][side]} {shape}{scale}"


@app.command()
def perplexity(
    text: Annotated[str, typer.Argument(help="File with the text; - reads it from stdin.")],
    model: Model = "bitnet-shakespeare",
    window: Annotated[
        int | None, typer.Option(help="Tokens read together.", show_default="context, at most 2048")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens between windows.", show_default="half a window")] = None,
    head_dtype: HeadDType = "auto",
    kv_dtype: KVDType = "float32",
    packing: Packing = "auto",
    threads: Threads = None,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """How well a model predicts a text: exp of the mean negative log-likelihood."""
    content = sys.stdin.read() if text == "-" else _read_file(Path(text))
    with _load(model, head_dtype, packing, threads, revision, offline, kv_dtype) as loaded:
        ids = loaded.tokenizer.encode(content)
        with _working(f"reading {len(ids):,} tokens"):
            value = loaded.perplexity(ids, window=window, stride=stride)
    if as_json:
        _print_json({"perplexity": value, "tokens": len(ids), "model": model})
    else:
        typer.echo(f"{value:.4f}")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Directory for the model, its tokenizer, checkpoints/ and train.jsonl.")],
    data: Annotated[
        list[Path] | None, typer.Option(help="File or directory with the text to learn; may be given several times.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Recipe, .yaml or .json; the other options override it.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Shape of the model: char, tiny, small or another name.", show_default="char")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Updates of the weights.", show_default="1000")] = None,
    epochs: Annotated[float | None, typer.Option(help="Times to see the data, instead of a number of updates.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a forward pass.", show_default="16")] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Tokens in an example.", show_default="context, at most 256")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="0.001")] = None,
    eval_fraction: Annotated[
        float | None, typer.Option(help="Share of the text, its end, to validate on; 0 is off.", show_default="0.1")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Updates between checkpoints.", show_default="a tenth of the run")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the first weights and of the order of the data.", show_default="0")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.FIELD=VALUE", help="Any field of the recipe; may be given several times."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the directory, if there is one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a directory that has files.")] = False,
    threads: Threads = None,
    as_json: AsJSON = False,
) -> None:
    """Train a new model on texts; Ctrl-C and SIGTERM save the run, and --resume continues it."""
    from . import recipe

    if threads is not None:
        set_num_threads(threads)
    if config is None and resume and (out / recipe.RECIPE).exists():
        config = out / recipe.RECIPE
    chosen = recipe.Recipe() if config is None else recipe.Recipe.from_file(config)
    chosen.override(
        model={"preset": preset},
        data={"train": [str(path) for path in data] if data else None, "eval_fraction": eval_fraction},
        training={
            "max_steps": max_steps, "epochs": epochs, "batch_size": batch_size, "context_length": context_length,
            "learning_rate": learning_rate, "checkpoint_every": checkpoint_every, "seed": seed,
        },
    )  # fmt: skip
    _run_recipe("train", chosen, settings, out, resume, overwrite, as_json)


@app.command()
def finetune(
    out: Annotated[Path, typer.Option(help="Directory for the model, the exports, checkpoints/ and train.jsonl.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model to begin with: a directory, best of master weights, or a hub id."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Conversations, .jsonl or .json: messages, or prompt and completion; or texts. May be given several times."
        ),
    ] = None,
    eval_data: Annotated[
        list[Path] | None,
        typer.Option("--eval-data", help="The same, to validate on.", show_default="a part of --data"),
    ] = None,
    eval_fraction: Annotated[
        float | None, typer.Option(help="Share of --data, its end, to validate on; 0 is off.", show_default="0.1")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="File with a Jinja template.", show_default="the model's own, else BitNet's")
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(help="Formats to write at the end: hf, gguf, hf-master, with commas.", show_default="hf,gguf"),
    ] = None,
    gguf_type: Annotated[
        str | None, typer.Option("--type", help="Ternary layers in GGUF, as in bitnet convert.", show_default="i2_s")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Recipe, .yaml or .json; the other options override it.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Updates of the weights, instead of epochs.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Times to see the data.", show_default="1")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows of packed conversations in a forward pass.", show_default="16")
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option(help="Tokens in a row; longer conversations are cut.", show_default="context, at most 1024"),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="0.0003")] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Updates between checkpoints.", show_default="a tenth of the run")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the order of the data.", show_default="0")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.FIELD=VALUE", help="Any field of the recipe; may be given several times."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the directory, if there is one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a directory that has files.")] = False,
    threads: Threads = None,
    as_json: AsJSON = False,
) -> None:
    """Train a model further on conversations, of which the assistant's part is learned, and export it."""
    from . import recipe

    if threads is not None:
        set_num_threads(threads)
    if config is None and resume and (out / recipe.RECIPE).exists():
        config = out / recipe.RECIPE
    chosen = recipe.Recipe() if config is None else recipe.Recipe.from_file(config)
    chosen.override(
        model={"pretrained": model},
        data={
            "train": [str(path) for path in data] if data else None,
            "eval": [str(path) for path in eval_data] if eval_data else None,
            "eval_fraction": eval_fraction, "chat_template": None if chat_template is None else str(chat_template),
        },
        training={
            "max_steps": max_steps, "epochs": epochs, "batch_size": batch_size, "context_length": context_length,
            "learning_rate": learning_rate, "checkpoint_every": checkpoint_every, "seed": seed,
        },
        export={
            "formats": None if export is None else [name.strip() for name in export.split(",") if name.strip()],
            "gguf_type": gguf_type,
        },
    )  # fmt: skip
    _run_recipe("finetune", chosen, settings, out, resume, overwrite, as_json)


def _run_recipe(
    command: str, chosen: "Recipe", settings: list[str] | None, out: Path, resume: bool, overwrite: bool, as_json: bool
) -> None:
    """Makes the model of a recipe and says what came of it."""
    from . import recipe

    for setting in settings or ():
        chosen.set(setting)
    if command == "finetune":
        chosen.default_finetuning()
    try:
        result = recipe.run(chosen, out, resume=resume, overwrite=overwrite, progress=sys.stderr.isatty())
    except (KeyboardInterrupt, SystemExit) as end:
        for note in getattr(end, "__notes__", ()):
            print(f"{note}; continue it with bitnet {command} --out {out} --resume", file=sys.stderr)
        raise
    if as_json:
        _print_json(result)
        return
    if result["eval_loss"] is not None:
        typer.echo(f"validation loss {result['eval_loss']:.4f}, perplexity {result['perplexity']:.3f}")
    for place in (result["path"], *result["exports"].values()):
        typer.echo(f"saved {place}")
    typer.echo(f"\n{result['sample']}")


@app.command()
def tokenize(
    data: Annotated[Path, typer.Option(help="Text file, directory of text files, or .jsonl with a text in each line.")],
    out: Annotated[Path, typer.Option(help="File for the token ids, .bin; the tokenizer is written beside it.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of a model: its directory, registered name or hub id.")
    ] = None,
    train_bpe: Annotated[
        int | None, typer.Option(help="Learn a byte-level BPE vocabulary of this size from the data.")
    ] = None,
    characters: Annotated[
        bool, typer.Option("--characters", help="The characters of the data are the tokens.")
    ] = False,
    use_bytes: Annotated[bool, typer.Option("--bytes", help="The bytes of UTF-8 are the tokens.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Turn texts into a file of token ids, for training on data that are larger than memory."""
    from . import tokenize as work
    from .tokenizer import Tokenizer

    if (tokenizer is not None) + (train_bpe is not None) + characters + use_bytes != 1:
        raise typer.BadParameter(
            "pass one of --tokenizer, --train-bpe, --characters and --bytes", param_hint="--tokenizer"
        )
    if tokenizer is not None:
        chosen = Tokenizer.from_pretrained(tokenizer, local_files_only=offline)
    elif use_bytes:
        chosen = Tokenizer.bytes()
    else:
        with _working(f"learning a vocabulary from {data}"):
            chosen = work.characters(data) if train_bpe is None else work.learn(data, train_bpe)
    with _LoadBar(str(data), "tokenizing") as bar:
        shown = bar if sys.stderr.isatty() else None
        result = work.tokenize(data, out, chosen, overwrite=overwrite, progress=shown)
    if as_json:
        _print_json(result)
        return
    typer.echo(
        f"{result['path']}: {result['tokens']:,} tokens ({result['dtype']}) of {result['documents']:,} "
        f"documents, {result['bytes'] / result['tokens']:.2f} bytes a token, vocabulary of {result['vocab_size']:,}"
    )


@app.command("eval")
def evaluate(
    data: Annotated[Path, typer.Option(help="Text file, directory, .jsonl, or file of token ids (.bin, .npy).")],
    model: Model = "bitnet-shakespeare",
    context_length: Annotated[
        int | None, typer.Option(help="Tokens in an example.", show_default="context, at most 256")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of a file of token ids without a header, as uint16.")] = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    threads: Threads = None,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Loss, perplexity and accuracy of a model on data; the loss is that of training's validation, to the bit."""
    from .token_file import TokenFile

    source = data if dtype is None else TokenFile(data, dtype)
    with (
        _load(model, head_dtype, packing, threads, revision, offline) as loaded,
        _LoadBar(str(data), "evaluating", "examples") as bar,
    ):
        shown = bar if sys.stderr.isatty() else None
        result = loaded.evaluate(source, context_length=context_length, progress=shown)
    if as_json:
        _print_json(result | {"model": model, "data": str(data)})
        return
    cells = [[name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}"] for name, value in result.items()]
    _print_table(["", ""], cells)


@app.command()
def models(as_json: AsJSON = False) -> None:
    """List the registered models."""
    from .registry import list_models

    entries = list_models()
    if as_json:
        fields = ("name", "aliases", "hub_id", "parameters", "memory")
        _print_json([{f: getattr(e, f) for f in fields} | {"embedded": bool(e.embedded)} for e in entries])
        return
    rows = [
        [
            entry.name,
            ", ".join(entry.aliases),
            f"{entry.parameters / 1e6:,.1f} M",
            f"{entry.memory / 1e6:,.0f} MB",
            "in the package" if entry.embedded else entry.hub_id or "random weights only",
        ]
        for entry in entries
    ]
    _print_table(["name", "also called", "parameters", "in memory", "weights"], rows)


@app.command()
def info(as_json: AsJSON = False) -> None:
    """Show the build, the instruction set in use and the threads."""
    facts = build_info()
    if as_json:
        _print_json(facts)
    else:
        _print_table(["", ""], [[name, _cell(value)] for name, value in facts.items()])
    if facts["environment_errors"]:
        raise ArgumentError("; ".join(facts["environment_errors"]))


# --- pieces of the commands ------------------------------------------------------------------------------------------


@contextmanager
def _load(
    name: str,
    head_dtype: str,
    packing: Any,
    threads: int | None,
    revision: str | None,
    offline: bool,
    kv_dtype: Any = "float32",
) -> "Iterator[BitNetModel]":
    """The model, loaded under a progress bar when that takes long enough to see one."""
    from .model import BitNetModel

    if threads is not None:
        set_num_threads(threads)
    with _LoadBar(name) as bar:
        model = BitNetModel.from_pretrained(
            name,
            head_dtype=head_dtype,
            kv_dtype=kv_dtype,
            packing=packing,
            revision=revision,
            local_files_only=offline,
            progress=bar if sys.stderr.isatty() else None,
        )
    with model:
        yield model


class _LoadBar:
    """A progress callback that draws a bar on stderr from its first call on."""

    def __init__(self, name: str, doing: str = "loading", unit: str = "bytes") -> None:
        self._text, self._unit = f"{doing} {name}", unit
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TransferSpeedColumn,
        )

        if self._bar is None:
            if done >= total:
                return
            bytes_done: list[ProgressColumn] = [DownloadColumn(), TransferSpeedColumn()]
            counts = bytes_done if self._unit == "bytes" else [MofNCompleteColumn()]
            columns = TextColumn("{task.description}"), BarColumn(), *counts
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._text, total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)

    def __enter__(self) -> "_LoadBar":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def _working(what: str) -> Iterator[None]:
    """A spinner on stderr, for people."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def _read_file(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FileSystemError(f"{path} cannot be read as text: {reason}") from error


def _lines(interactive: bool) -> Iterator[str]:
    """The user's messages: typed at a prompt, or the lines of a file."""
    if interactive:
        with suppress(ImportError):
            import readline  # noqa: F401  input() has arrow keys and a history with it
    while True:
        try:
            line = input("> ") if interactive else input()
        except EOFError:
            if interactive:
                print()
            return
        if line.strip():
            yield line.strip()


def _print_stream(pieces: Iterator[str], shown: list[str] | None = None) -> None:
    """Prints pieces as they come, and a newline after them; shown gets those that were printed."""
    shown = [] if shown is None else shown
    with _working("reading the prompt"):
        first = next(pieces, "")
    for piece in itertools.chain([first], pieces):
        print(piece, end="", flush=True)
        shown.append(piece)
    print()


def _result_json(result: "GenerationResult") -> dict[str, Any]:
    fields = {
        "text": result.text,
        "token_ids": result.token_ids,
        "finish_reason": result.finish_reason,
        "prompt_tokens": result.prompt_tokens,
        "logprobs": result.logprobs,
        "top_logprobs": result.top_logprobs,
    }
    return {name: value for name, value in fields.items() if value is not None}


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


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False, show_header=any(header))
    for row in rows:
        table.add_row(*row)
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 1000)
    with console.capture() as text:
        console.print(table, markup=False, highlight=False)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))


def _print_json(value: Any) -> None:
    """Null stands for NaN and infinities, which JSON does not have."""
    from .callbacks import plain_numbers

    print(json.dumps(plain_numbers(value), indent=2, ensure_ascii=False, allow_nan=False))


def _line(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())


def _fail(message: str, status: int) -> int:
    print(f"bitnet: {message}", file=sys.stderr)
    return status


def _interrupted() -> int:
    if sys.stderr.isatty():
        print(file=sys.stderr)  # the terminal shows ^C at the end of a line
    return _fail("interrupted", 130)


def _terminate(number: int, frame: object) -> None:
    """SIGTERM, from batch systems and services: ends as Ctrl-C does, so that training is saved and no half file stays."""
    raise SystemExit(128 + number)


def run() -> int:
    """The command; returns the exit status."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an encoding without the character is no reason to stop
    try:
        app(prog_name="bitnet")
    except InternalError as defect:
        return _fail(str(defect), 1)  # all its lines: they belong in the report
    except (BitNetError, OSError, UnicodeDecodeError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        return _fail(_line(error), 1)
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as end:
        if end.code == 130:  # typer's word for the same
            return _interrupted()
        if end.code == 128 + signal.SIGTERM:
            return _fail("terminated", end.code)
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def main() -> None:
    """Entry point of ``bitnet`` and ``python -m bitnet_rust``."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run())
