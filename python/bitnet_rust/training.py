"""Trainer: changes the weights of a model so that it predicts a text, in the manner of Hugging Face's class."""

import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from . import _bitnet
from .datasets import DataOptions, make_dataset
from .errors import ArgumentError, BitNetError, TokenizerError
from .model import BitNetModel
from .tokenizer import Tokenizer

Record: TypeAlias = dict[str, Any]
Callback: TypeAlias = Callable[[Record], object]

# The core's own fields of a record, in the order in which a step gives them.
_FIELDS = ("step", "loss", "gradient_norm", "learning_rate", "tokens_per_second", "eval_loss")

_MOST_TOKENS = 256  # default length of a window


class History(list[Record]):
    """The records of a run, one dictionary for each update.

    Keys: ``step`` (from 1), ``loss`` (mean cross-entropy of the update's tokens in nats), ``gradient_norm`` (before
    clipping), ``learning_rate``, ``tokens_per_second``, and ``eval_loss`` in records of steps with an evaluation.
    """

    def to_dict(self) -> dict[str, list[Any]]:
        """The same by columns; a step without evaluation has None as eval_loss."""
        return {name: [record.get(name) for record in self] for name in _FIELDS}

    def plot(self, path: str | Path | None = None) -> Any:
        """Draws the losses over the steps with matplotlib; gives the figure, and writes it to path if there is one."""
        try:
            from matplotlib.figure import Figure
        except ImportError as missing:
            raise BitNetError("History.plot() needs matplotlib: pip install matplotlib") from missing
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel="loss (nats)")
        axes.plot([r["step"] for r in self], [r["loss"] for r in self], label="training", linewidth=1)
        evaluated = [r for r in self if "eval_loss" in r]
        if evaluated:
            axes.plot(
                [r["step"] for r in evaluated], [r["eval_loss"] for r in evaluated], label="evaluation", marker="."
            )
        axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure

    def __repr__(self) -> str:
        if not self:
            return "History(no updates)"
        last = self[-1]
        evaluated = f", eval_loss {last['eval_loss']:.4f}" if "eval_loss" in last else ""
        return f"History({len(self)} updates, loss {self[0]['loss']:.4f} -> {last['loss']:.4f}{evaluated})"


class Trainer:
    """Trains a model made by ``BitNetModel.from_config(..., trainable=True)`` on texts or token ids.

    >>> text = "To be, or not to be. " * 50
    >>> model = BitNetModel.from_config({"preset": "tiny", "vocab_size": 256}, trainable=True)
    >>> model.tokenizer = Tokenizer.bytes()
    >>> history = Trainer(model, max_steps=2, batch_size=2, context_length=16).train(text)

    The forward pass of training is that of inference, to the bit. Equal seeds, data and options give equal weights,
    whatever the number of threads. While a model trains, other threads should not use it; callbacks may.
    """

    def __init__(
        self,
        model: BitNetModel,
        *,
        optimizer: str | Mapping[str, Any] = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float | None = None,
        betas: tuple[float, float] | None = None,
        scheduler: str | Mapping[str, Any] = "cosine",
        warmup_steps: int = 0,
        min_ratio: float = 0.0,
        max_steps: int = 1000,
        batch_size: int = 16,
        context_length: int | None = None,
        accumulation: int = 1,
        gradient_clip: float = 1.0,
        eval_every: int = 0,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        tokenizer: Tokenizer | None = None,
        progress: bool = False,
    ) -> None:
        """Says how to train.

        optimizer: "adamw", "adam" or "sgd"; or a mapping with that as "name" and further options under PyTorch's names,
            as {"name": "sgd", "momentum": 0.9}.
        weight_decay: for matrices only; by default 0.1 with "adamw", where it is decoupled, and 0 otherwise.
        betas: of "adam" and "adamw"; by default (0.9, 0.999).
        scheduler: the course of the learning rate: "constant", "linear", "cosine", "polynomial", "inverse_sqrt",
            "exponential", "step", "multi_step", "one_cycle", "wsd", "two_stage" (BitNet's recipe) or "plateau"; or a
            mapping with that as "name" and further options, as {"name": "wsd", "decay_steps": 100}.
        warmup_steps: updates over which the learning rate rises to its full value.
        min_ratio: the lowest learning rate of the schedule as a share of learning_rate.
        max_steps: updates of the weights in a run.
        batch_size, context_length: windows of the text in a forward pass, and tokens in a window; by default the
            model's context, at most 256.
        accumulation: forward and backward passes in an update.
        gradient_clip: largest norm of the gradient; 0 does not clip.
        eval_every: updates between evaluations; 0 evaluates after the last only.
        seed: of the order in which windows are drawn.
        callbacks: called with the record of every update. An exception in one ends the run and is raised.
        tokenizer: for texts; by default the model's.
        progress: draw a bar with the loss and tokens a second on stderr.
        """
        if not isinstance(model, BitNetModel):
            raise TypeError(f"model: expected a BitNetModel, found {type(model).__name__}")
        if not model.trainable:
            raise ArgumentError(
                f"model: {model!r} has no master weights; make one by BitNetModel.from_config(config, trainable=True)"
            )
        for callback in callbacks:
            if not callable(callback):
                raise TypeError(f"callbacks: expected callables that take a record, found {callback!r}")
        self.model = model
        self.tokenizer = tokenizer
        self.callbacks: list[Callback] = list(callbacks)
        self.progress = progress
        most = model.config.max_position_embeddings
        length = min(most, _MOST_TOKENS) if context_length is None else context_length
        self._length = _whole("context_length", length, 1, most)
        chosen = _named(optimizer, "optimizer")
        chosen.setdefault("lr", _number("learning_rate", learning_rate, 0, math.inf))
        if weight_decay is not None or chosen.get("name") == "adamw":
            decay = 0.1 if weight_decay is None else weight_decay
            chosen.setdefault("weight_decay", _number("weight_decay", decay, 0, math.inf))
        if betas is not None:
            chosen["betas"] = [_number(f"betas[{i}]", beta, 0, 1) for i, beta in enumerate(betas)]
            if len(chosen["betas"]) != 2:
                raise ArgumentError(f"betas = {betas!r}: expected two numbers in [0, 1)")
        self._options: dict[str, Any] = {
            "max_steps": _whole("max_steps", max_steps, 1),
            "batch_size": _whole("batch_size", batch_size, 1),
            "accumulation": _whole("accumulation", accumulation, 1),
            "gradient_clip": _number("gradient_clip", gradient_clip, 0, math.inf),
            "eval_every": _whole("eval_every", eval_every, 0),
            "seed": _whole("seed", seed, 0, 2**64 - 1),
            "optimizer": chosen,
            "scheduler": {
                "total_steps": max_steps,
                "warmup_steps": _whole("warmup_steps", warmup_steps, 0),
                "min_ratio": _number("min_ratio", min_ratio, 0, 1),
            }
            | _named(scheduler, "scheduler"),
        }

    def train(self, dataset: Any, eval_dataset: Any = None) -> History:
        """Makes max_steps updates on windows drawn from dataset, starting from the model's present weights.

        dataset, eval_dataset: a text, a pathlib.Path of a text file, or token ids as a list or one-dimensional array.

        Ctrl-C raises KeyboardInterrupt within half a second, a loss or gradient that is not finite TrainingError; the
        model then has the weights of the last update and can be used.
        """
        data = self._dataset(dataset, "dataset")
        check = None if eval_dataset is None else self._dataset(eval_dataset, "eval_dataset")
        run = _bitnet.training(self.model._model, json.dumps(self._options), data, check)
        history = History()
        try:
            with self._callbacks() as callbacks:
                while (values := run.step()) is not None:
                    record: Record = dict(zip(_FIELDS, values, strict=True))
                    if math.isnan(record["eval_loss"]):
                        del record["eval_loss"]
                    history.append(record)
                    for callback in callbacks:
                        callback(dict(record))
        finally:
            run.close()
        return history

    def evaluate(self, dataset: Any) -> float:
        """The mean cross-entropy in nats over all windows of a text or of token ids, one behind the other."""
        data = self._dataset(dataset, "dataset")
        run = _bitnet.training(self.model._model, json.dumps(self._options), data, data)
        try:
            return run.evaluate()
        finally:
            run.close()

    def _dataset(self, data: Any, name: str) -> _bitnet.Dataset:
        return make_dataset(data, name, DataOptions(self._length, self.model.config.vocab_size, self._tokenizer))

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is not None:
            return self.tokenizer
        try:
            return self.model.tokenizer
        except TokenizerError as missing:
            raise TokenizerError(
                "the dataset is text and the model has no tokenizer: set model.tokenizer = Tokenizer.train_bpe(...), "
                "pass tokenizer=..., or pass token ids"
            ) from missing

    @contextmanager
    def _callbacks(self) -> Iterator[list[Callback]]:
        """The callbacks of a run, with the bar as the first if there is one."""
        if not self.progress:
            yield self.callbacks
            return
        with ProgressBar(self._options["max_steps"]) as bar:
            yield [bar, *self.callbacks]

    def __repr__(self) -> str:
        options = self._options
        return (
            f"Trainer({self.model!r}, {options['optimizer']['name']}, {options['scheduler']['name']}, "
            f"{options['max_steps']} steps of {options['batch_size'] * options['accumulation']} x "
            f"{self._length} tokens)"
        )


class ProgressBar:
    """A callback that draws a bar with the loss and tokens a second on stderr."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=total)

    def __call__(self, record: Record) -> None:
        text = f"loss {record['loss']:.4f}  {record['tokens_per_second']:,.0f} tokens/s"
        self._bar.update(self._task, completed=record["step"], description=text)

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


def _named(choice: str | Mapping[str, Any], field: str) -> dict[str, Any]:
    if isinstance(choice, str):
        return {"name": choice}
    if not isinstance(choice, Mapping) or not isinstance(choice.get("name"), str):
        raise ArgumentError(f"{field} = {choice!r}: expected a name, or a mapping that has one as 'name'")
    return dict(choice)


def _whole(field: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{field} = {value!r}: expected a whole number") from None
    if not low <= number <= high:
        raise ArgumentError(f"{field} = {number}: expected a whole number from {low} to {high}")
    return number


def _number(field: str, value: Any, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{field} = {value!r}: expected a number") from None
    if not low <= number <= high or math.isinf(number):
        limits = f">= {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ArgumentError(f"{field} = {number}: expected a finite number {limits}")
    return number
