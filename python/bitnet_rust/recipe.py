"""What ``bitnet train`` does: from a text file to a directory with a model."""

import json
import math
import sys
from pathlib import Path
from typing import Any

from .callbacks import Record
from .config import BitNetConfig
from .errors import ArgumentError
from .model import BitNetModel
from .registry import find_model
from .tokenizer import Tokenizer
from .training import Trainer

_SAMPLE_TOKENS = 100
_CHARACTER_PRESET = "char"
_LINES = 20  # progress lines of a run without a terminal


def run(
    data: Path,
    out: Path,
    *,
    shape: str | Path,
    max_steps: int,
    batch_size: int,
    context_length: int | None,
    learning_rate: float,
    eval_fraction: float,
    seed: int,
    overwrite: bool,
    progress: bool,
) -> dict[str, Any]:
    """Trains a new model of a shape (a registered name or a config file) on a text and saves it, with a log, in out.

    Gives path, steps, parameters, loss, eval_loss and perplexity (None without evaluation), and a sample.
    """
    if not 0 <= eval_fraction < 1:
        raise ArgumentError(f"eval_fraction = {eval_fraction}: expected a number in [0, 1)")
    if out.exists() and not out.is_dir():
        raise ArgumentError(f"out = {out}: expected a directory, found a file")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ArgumentError(f"out = {out}: the directory has files; choose another, or pass --overwrite")
    if any(out.glob("*.safetensors")):
        raise ArgumentError(
            f"out = {out}: the directory has a Hugging Face checkpoint, which would stay beside the new model"
        )
    try:
        text = data.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"data = {data}: not a UTF-8 text: {error}") from error
    if not text:
        raise ArgumentError(f"data = {data}: the file is empty")
    config = BitNetConfig.from_file(shape) if isinstance(shape, Path) else find_model(shape).config
    cut = round(len(text) * (1 - eval_fraction))
    tokenizer = _tokenizer(shape, config, text, text[:cut])
    fields = {**config, "vocab_size": len(tokenizer)}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        fields.pop(name, None)  # the tokenizer has none
    with BitNetModel.from_config(BitNetConfig.from_dict(fields), seed=seed, trainable=True) as model:
        model.tokenizer = tokenizer
        trainer = Trainer(
            model, learning_rate=learning_rate, betas=(0.9, 0.95), min_ratio=0.1, warmup_steps=max_steps // 20,
            max_steps=max_steps, batch_size=batch_size, context_length=context_length,
            eval_every=max(max_steps // 10, 1), seed=seed, progress=progress,
        )  # fmt: skip
        if not progress:
            trainer.callbacks.append(_print_progress(max_steps))
        out.mkdir(parents=True, exist_ok=True)
        with (out / "train.jsonl").open("w", encoding="utf-8", buffering=1) as log:
            trainer.callbacks.append(lambda record: log.write(json.dumps(record) + "\n"))
            history = trainer.train(text[:cut], text[cut:] or None)
        model.save_pretrained(out)
        loss = history[-1].get("eval_loss")
        return {
            "path": str(out),
            "steps": len(history),
            "parameters": model.num_parameters(),
            "loss": history[-1]["loss"],
            "eval_loss": loss,
            "perplexity": None if loss is None else math.exp(min(loss, 700.0)),
            "sample": _sample(model, text, seed),
        }


def _tokenizer(shape: str | Path, config: BitNetConfig, text: str, learned: str) -> Tokenizer:
    """Characters of the whole text for the character model and small vocabularies, else byte-level BPE."""
    named = isinstance(shape, str) and find_model(shape).name == _CHARACTER_PRESET
    if named or config.vocab_size < 256:
        return Tokenizer.characters(text)
    return Tokenizer.train_bpe(learned, config.vocab_size)


def _sample(model: BitNetModel, text: str, seed: int) -> str:
    """What the model makes of the text's first line."""
    prompt = (text.lstrip().splitlines() or [text])[0][:40] or text[:1]
    sample: str = model.generate(
        prompt, max_new_tokens=_SAMPLE_TOKENS, temperature=0.8, seed=seed, return_full_text=True
    )
    return sample


def _print_progress(steps: int) -> Any:
    every = max(steps // _LINES, 1)

    def show(record: Record) -> None:
        if record["step"] % every == 0 or "eval_loss" in record:
            validation = f"  validation {record['eval_loss']:.4f}" if "eval_loss" in record else ""
            line = f"step {record['step']}/{steps}  loss {record['loss']:.4f}{validation}  {record['tokens_per_second']:,.0f} tokens/s"
            print(line, file=sys.stderr, flush=True)

    return show
