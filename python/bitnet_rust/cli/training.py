"""The commands that train: train, finetune, and tokenize for data larger than memory."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ArgumentError
from ..files import check_place
from ..progress import Bar
from ..runtime import set_num_threads
from .options import AsJSON, Offline, Quantize, Revision, Threads
from .output import print_json, quiet, watched, working

if TYPE_CHECKING:
    from ..recipe import Recipe


# Options of both kinds of training.
RecipeFile = Annotated[Path | None, typer.Option(help="Recipe, .yaml or .json; the other options override it.")]
CheckpointEvery = Annotated[
    int | None, typer.Option(help="Updates between checkpoints.", show_default="a tenth of the run")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Any field of the recipe; may be given several times."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the directory, if there is one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write into a directory that has files.")]


def train(
    out: Annotated[Path, typer.Option(help="Directory for the model, its tokenizer, checkpoints/ and train.jsonl.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="File or directory with the text to learn; may be given several times."),
    ] = None,
    config: RecipeFile = None,
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
    checkpoint_every: CheckpointEvery = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the first weights and of the order of the data.", show_default="0")
    ] = None,
    settings: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    threads: Threads = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Train a new model on texts; Ctrl-C and SIGTERM save the run, and --resume continues it."""
    if threads is not None:
        set_num_threads(threads)
    chosen = _recipe(config, out, resume, data)
    chosen.override(
        model={"preset": preset},
        data={"train": [str(path) for path in data] if data else None, "eval_fraction": eval_fraction},
        training={
            "max_steps": max_steps, "epochs": epochs, "batch_size": batch_size, "context_length": context_length,
            "learning_rate": learning_rate, "checkpoint_every": checkpoint_every, "seed": seed,
        },
    )  # fmt: skip
    _run_recipe("train", chosen, settings, out, resume, overwrite, offline, as_json)


def finetune(
    out: Annotated[Path, typer.Option(help="Directory for the model, the exports, checkpoints/ and train.jsonl.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model to begin with: a directory, best of master weights, or a hub id."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Conversations, .jsonl or .json: messages, or prompt and completion; or texts. May be given several times.",
        ),
    ] = None,
    eval_data: Annotated[
        list[Path] | None,
        typer.Option("--eval-data", metavar="PATH", help="The same, to validate on.", show_default="a part of --data"),
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
        Literal["i2_s", "tq1_0", "tq2_0", "f16", "bf16", "f32"] | None,
        typer.Option("--type", help="Ternary layers in GGUF.", show_default="i2_s"),
    ] = None,
    config: RecipeFile = None,
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
    checkpoint_every: CheckpointEvery = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the order of the data.", show_default="0")] = None,
    settings: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    i2s_layout: Annotated[
        Literal["x86", "arm64", "row4"] | None,
        typer.Option(help="How I2_S tensors lie in the GGUF file that is read.", show_default="x86"),
    ] = None,
    quantize: Quantize = False,
    threads: Threads = None,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Train a model further on conversations, of which the assistant's part is learned, and export it."""
    if threads is not None:
        set_num_threads(threads)
    chosen = _recipe(config, out, resume, data)
    chosen.override(
        model={"pretrained": model, "i2s_layout": i2s_layout, "quantize": quantize or None, "revision": revision},
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
    _run_recipe("finetune", chosen, settings, out, resume, overwrite, offline, as_json)


def _recipe(config: Path | None, out: Path, resume: bool, data: list[Path] | None) -> "Recipe":
    """The recipe in a file, of the run that is to be resumed, or an empty one."""
    from ..recipe import RECIPE, Recipe

    if config is None and resume and (out / RECIPE).exists():
        config = out / RECIPE
    elif config is None and resume and not data:
        raise ArgumentError(f"--resume: there is no run in {out}: expected its directory, or --data to begin one there")
    return Recipe() if config is None else Recipe.from_file(config)


def _run_recipe(
    command: str, chosen: "Recipe", settings: list[str] | None, out: Path, resume: bool, overwrite: bool, offline: bool, as_json: bool,
) -> None:  # fmt: skip
    """Makes the model of a recipe and says what came of it."""
    from .. import recipe

    for setting in settings or ():
        chosen.set(setting)
    if command == "finetune":
        chosen.default_finetuning()
    try:
        result = recipe.run(
            chosen, out, resume=resume, overwrite=overwrite, local_files_only=offline, progress=watched(), quiet=quiet()
        )
    except (KeyboardInterrupt, SystemExit) as end:
        for note in () if quiet() else getattr(end, "__notes__", ()):
            print(f"{note}; continue it with bitnet {command} --out {out} --resume", file=sys.stderr)
        raise
    if as_json:
        print_json(result)
        return
    if result["eval_loss"] is not None:
        typer.echo(f"validation loss {result['eval_loss']:.4f}, perplexity {result['perplexity']:.3f}")
    for place in (result["path"], *result["exports"].values()):
        typer.echo(f"saved {place}")
    typer.echo(f"\n{result['sample']}")


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
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Turn texts into a file of token ids, for training on data that are larger than memory."""
    from .. import tokenize as work
    from ..tokenizer import Tokenizer

    if (tokenizer is not None) + (train_bpe is not None) + characters + use_bytes != 1:
        raise typer.BadParameter(
            "pass one of --tokenizer, --train-bpe, --characters and --bytes", param_hint="--tokenizer"
        )
    if revision is not None and tokenizer is None:
        raise typer.BadParameter("expected a --tokenizer from the hub with it", param_hint="--revision")
    check_place(out)  # before a vocabulary is learned
    if tokenizer is not None:
        chosen = Tokenizer.from_pretrained(tokenizer, revision=revision, local_files_only=offline)
    elif use_bytes:
        chosen = Tokenizer.bytes()
    else:
        with working(f"learning a vocabulary from {data}"):
            chosen = work.characters(data) if train_bpe is None else work.learn(data, train_bpe)
    with Bar(f"tokenizing {data}") as bar:
        shown = bar if watched() else None
        result = work.tokenize(data, out, chosen, overwrite=overwrite, progress=shown)
    if as_json:
        print_json(result)
        return
    typer.echo(
        f"{result['path']}: {result['tokens']:,} tokens ({result['dtype']}) of {result['documents']:,} "
        f"document{'s' * (result['documents'] != 1)}, {result['bytes'] / result['tokens']:.2f} bytes a token, vocabulary of {result['vocab_size']:,}"
    )
