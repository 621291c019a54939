"""``bitnet bench``: a command for each benchmark."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..configuration import settings
from ..errors import ArgumentError, BitNetError
from ..files import check_place
from ..model_options import HeadDType, KVDType, Offline, Packing, Resident, Revision
from ..profile import Profile
from ..viz.figures import check_figure_path
from .batches import SIZES, batch
from .contexts import LENGTHS, context
from .decoding import decode
from .guesses import COUNTS, guess
from .loading import load
from .prompts import prefill
from .report import plot, report
from .serving import serve

Shape = Annotated[
    str | None,
    typer.Option(
        help="Shape for random weights: a registered name, such as 2b, 0.7b or 8b; from-model with --model.",
        show_default="2b",
    ),
]
Model = Annotated[str | None, typer.Option(help="Directory or name of a model to load and measure instead.")]
Threads = Annotated[int | None, typer.Option(help="Worker threads.", show_default="all physical cores")]
ISA = Annotated[
    str | None, typer.Option(help="Instruction set: scalar, avx2, avx512, amx, ...", show_default="the best one")
]
Density = Annotated[
    float | None,
    typer.Option(
        "--ffn-density",
        help="Share of feed-forward neurons that are on, up to 0.5.",
        show_default="as the weights have it",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the random weights.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Make random weights in memory; write no file.")]
Repeat = Annotated[int, typer.Option(min=1, help="Repetitions.")]
Prompt = Annotated[int, typer.Option(min=1, help="Prompt tokens, read before the clock starts.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the result there, a PNG (needs matplotlib).")]
Trace = Annotated[
    Path | None, typer.Option("--profile", help="Print where the time goes, and write a Chrome trace there.")
]

app = typer.Typer(help="Measure this machine.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure this machine."""


@app.command("decode")
def _decode(
    shape: Shape = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    isa: ISA = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    kv_dtype: KVDType = "float32",
    ffn_density: Density = None,
    tokens: Annotated[int, typer.Option(min=2, help="Decoded tokens in each repetition.")] = 64,
    prompt: Prompt = 16,
    repeat: Repeat = 5,
    burner: Annotated[
        bool, typer.Option("--burner", help="Decode beside a process that keeps one core busy, too.")
    ] = False,
    seed: Seed = 0,
    no_cache: NoCache = False,
    profile: Trace = None,
    picture: Plot = None,
    as_json: AsJSON = False,
) -> None:
    """Greedy decoding of one sequence, as a fraction of what memory allows."""
    _check_files(profile, picture)
    options = _options(
        model, revision, offline, threads, isa, head_dtype, packing, kv_dtype, ffn_density, seed, no_cache
    )
    result = decode(
        shape, tokens=tokens, prompt=prompt, repeat=repeat, burner=burner, profile=profile is not None, **options
    )
    _show(result, profile, picture, as_json)


@app.command("prefill")
def _prefill(
    shape: Shape = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    isa: ISA = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    kv_dtype: KVDType = "float32",
    ffn_density: Density = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 512,
    repeat: Repeat = 5,
    seed: Seed = 0,
    no_cache: NoCache = False,
    profile: Trace = None,
    picture: Plot = None,
    as_json: AsJSON = False,
) -> None:
    """Reading a prompt: tokens a second until the first new token."""
    _check_files(profile, picture)
    options = _options(
        model, revision, offline, threads, isa, head_dtype, packing, kv_dtype, ffn_density, seed, no_cache
    )
    _show(
        prefill(shape, tokens=tokens, repeat=repeat, profile=profile is not None, **options), profile, picture, as_json
    )


@app.command("batch")
def _batch(
    shape: Shape = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    isa: ISA = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    kv_dtype: KVDType = "float32",
    ffn_density: Density = None,
    size: Annotated[
        list[int] | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            help="Sequences at once; may be given several times.",
            show_default=" ".join(map(str, SIZES)),
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Decoded tokens of each sequence.")] = 32,
    prompt: Prompt = 16,
    repeat: Repeat = 3,
    seed: Seed = 0,
    no_cache: NoCache = False,
    profile: Trace = None,
    picture: Plot = None,
    as_json: AsJSON = False,
) -> None:
    """Greedy decoding of many sequences at once."""
    _check_files(profile, picture)
    options = _options(
        model, revision, offline, threads, isa, head_dtype, packing, kv_dtype, ffn_density, seed, no_cache
    )
    result = batch(
        shape, sizes=size or SIZES, tokens=tokens, prompt=prompt, repeat=repeat, profile=profile is not None, **options
    )
    _show(result, profile, picture, as_json)


@app.command("context")
def _context(
    shape: Shape = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    isa: ISA = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    kv_dtype: KVDType = "float32",
    ffn_density: Density = None,
    length: Annotated[
        list[int] | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            help="Tokens of context; may be given several times.",
            show_default=" ".join(map(str, LENGTHS)),
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Decoded tokens after each prompt.")] = 32,
    repeat: Repeat = 1,
    seed: Seed = 0,
    no_cache: NoCache = False,
    profile: Trace = None,
    picture: Plot = None,
    as_json: AsJSON = False,
) -> None:
    """Decoding and reading prompts as the context grows."""
    _check_files(profile, picture)
    options = _options(
        model, revision, offline, threads, isa, head_dtype, packing, kv_dtype, ffn_density, seed, no_cache
    )
    result = context(
        shape, lengths=length or LENGTHS, tokens=tokens, repeat=repeat, profile=profile is not None, **options
    )
    _show(result, profile, picture, as_json)


@app.command("guess")
def _guess(
    shape: Shape = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    isa: ISA = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    kv_dtype: KVDType = "float32",
    ffn_density: Density = None,
    count: Annotated[
        list[int] | None,
        typer.Option(
            metavar="NUMBER",
            min=0,
            max=16,
            help="Tokens guessed at a time; may be given several times.",
            show_default=" ".join(map(str, COUNTS)),
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Decoded tokens.")] = 64,
    text: Annotated[str | None, typer.Option(help="What the model quotes from, if it has a tokenizer.")] = None,
    repeat: Repeat = 3,
    seed: Seed = 0,
    no_cache: NoCache = False,
    profile: Trace = None,
    picture: Plot = None,
    as_json: AsJSON = False,
) -> None:
    """Decoding text that repeats itself, with guesses by prompt lookup."""
    _check_files(profile, picture)
    options = _options(
        model, revision, offline, threads, isa, head_dtype, packing, kv_dtype, ffn_density, seed, no_cache
    )
    result = guess(
        shape, counts=count or COUNTS, tokens=tokens, text=text, repeat=repeat, profile=profile is not None, **options
    )
    _show(result, profile, picture, as_json)


@app.command("load")
def _load(
    shape: Shape = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    isa: ISA = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    format: Annotated[
        Literal["native", "hf", "gguf"] | None,
        typer.Option(help="Of the file with random weights.", show_default="native"),
    ] = None,
    resident: Resident = "auto",
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 1,
    repeat: Repeat = 5,
    seed: Seed = 0,
    picture: Plot = None,
    as_json: AsJSON = False,
) -> None:
    """From a file to the first token, each start in a fresh process."""
    _check_files(None, picture)
    options = _options(model, revision, offline, threads, isa, head_dtype, packing, "float32", None, seed, False)
    result = load(shape, format=format, resident=resident, prompt=prompt, repeat=repeat, **options)
    _show(result, None, picture, as_json)


@app.command("serve")
def _serve(
    shape: Shape = None,
    model: Annotated[
        str | None, typer.Option(help="Directory or name of a model to serve instead; with --url its name there.")
    ] = None,
    revision: Revision = None,
    offline: Offline = False,
    url: Annotated[
        str | None,
        typer.Option(help="A server that runs already, as http://127.0.0.1:8000, in place of one that is started."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", help="What that server asks for.", envvar="OPENAI_API_KEY", hide_input=True),
    ] = None,
    clients: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 64,
    requests: Annotated[int, typer.Option(min=1, help="Different requests, sent over and over.")] = 64,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the longest prompt.")] = 128,
    tokens: Annotated[int, typer.Option(min=8, help="Tokens of the longest reply.")] = 64,
    seconds: Annotated[float, typer.Option(help="Length of a round.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the engine alone and of the server.")] = 3,
    abandon: Annotated[
        int, typer.Option(min=0, help="Leave one in so many requests alone after its first piece; 0: none.")
    ] = 0,
    no_engine: Annotated[
        bool, typer.Option("--no-engine", help="Do not measure the engine alone, as for long runs.")
    ] = False,
    min_of_engine: Annotated[
        float | None, typer.Option(min=0, help="Fail below this share of the engine's tokens per second.")
    ] = None,
    max_rss_growth: Annotated[
        int | None, typer.Option(min=0, help="Fail when the server's memory grew by more bytes than that.")
    ] = None,
    threads: Threads = None,
    isa: ISA = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    kv_dtype: KVDType = "float32",
    ffn_density: Density = None,
    seed: Seed = 0,
    as_json: AsJSON = False,
) -> None:
    """A server under load, its streams compared with what the model says alone, in turns with the engine alone.

    Exit status 1 when a request failed or got another text, or a limit was missed.
    """
    if min_of_engine is not None and (no_engine or url is not None):
        raise ArgumentError(f"--min-of-engine {min_of_engine:g}: expected neither --no-engine nor --url with it")
    if max_rss_growth is not None and url is not None:
        raise ArgumentError(f"--max-rss-growth {max_rss_growth}: expected no --url with it")
    options = _options(model, revision, offline, threads, isa, head_dtype, packing, kv_dtype, ffn_density, seed, False)
    result = serve(
        shape, url=url, api_key=api_key, clients=clients, requests=requests, prompt=prompt, tokens=tokens, seconds=seconds, rounds=rounds,
        abandon=abandon, engine=not no_engine, **options,
    )  # fmt: skip
    _show(result, None, None, as_json)
    missed = []
    if min_of_engine is not None and result["of_engine"] < min_of_engine:
        missed.append(f"of_engine = {result['of_engine']:.3f}: expected at least {min_of_engine:g} (--min-of-engine)")
    if max_rss_growth is not None and result["rss_growth_bytes"] > max_rss_growth:
        missed.append(
            f"rss_growth_bytes = {result['rss_growth_bytes']}: expected at most {max_rss_growth} (--max-rss-growth)"
        )
    if missed:
        raise BitNetError("; ".join(missed))
    if result["problems"] or result["differing"]:
        raise typer.Exit(1)


def _options(
    model: str | None, revision: str | None, offline: bool, threads: int | None, isa: str | None, head_dtype: str, packing: str, kv_dtype: str,
    ffn_density: float | None, seed: int, no_cache: bool,
) -> Any:  # fmt: skip
    return {
        "model": model, "revision": revision, "local_files_only": offline, "threads": threads, "isa": isa, "head_dtype": head_dtype, "packing": packing, "kv_dtype": kv_dtype, "ffn_density": ffn_density,
        "seed": seed, "cache": not no_cache, "progress": _say,
    }  # fmt: skip


def _say(line: str) -> None:
    if not settings.quiet:
        print(line, file=sys.stderr)


def _check_files(trace: Path | None, picture: Path | None) -> None:
    """Refuses, before anything is measured, what could not be written afterwards."""
    if trace is not None:
        check_place(trace)
    if picture is not None:
        check_figure_path(picture)


def _show(result: dict[str, Any], trace: Path | None, picture: Path | None, as_json: bool) -> None:
    """Prints a result, and then writes the files that were asked for: minutes of measuring are not lost to a full disk."""
    profile: Profile | None = result.pop("profile", None)
    if as_json:
        from ..cli.output import print_json  # here, as the package cli imports the benchmarks

        print_json(result | ({"profile": profile.to_dict()} if profile else {}))
    else:
        print(report(result), *([f"\n{profile}"] if profile is not None else []), sep="\n", flush=True)
    if trace is not None and profile is not None:
        profile.save(trace)
    if picture is not None:
        plot(result, picture)
