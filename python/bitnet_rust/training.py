"""Trainer: changes the weights of a model so that it predicts a text, in the manner of Hugging Face's class."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Unpack

from . import _bitnet
from .callbacks import (
    Callback,
    JSONLog,
    ProgressBar,
    Record,
    TensorBoard,
    as_callback,
    check_callbacks,
    check_metrics,
    plain_numbers,
)
from .datasets import DataOptions, make_dataset
from .errors import ArgumentError, BitNetError, CheckpointWarning, TokenizerError, warn
from .logs import delivered
from .metadata import add_run
from .model import BitNetModel
from .optim import Optimizer, optimizer_fields
from .tokenizer import Tokenizer
from .training_config import TrainingConfig, TrainingOptions

# Fields of a record that a metric cannot have as its name.
_FIELDS = (
    "step", "epoch", "tokens", "loss", "perplexity", "accuracy", "divergence", "gradient_norm", "learning_rate",
    "learning_rates",
    "loss_scale", "skipped", "weights_flipped", "weights_zeroed", "weights_zero", "eval_loss", "eval_perplexity",
    "eval_accuracy", "metrics", "seconds", "tokens_per_second", "mfu", "pool_bytes", "rss_bytes",
)  # fmt: skip

# What of the settings a model's training history has.
_SETTINGS = ("optimizer", "scheduler", "batch_size", "accumulation", "max_steps", "epochs", "seed")

_MONITORS = ("eval_loss", "eval_perplexity", "eval_accuracy")


class History(list[Record]):
    """The records of a run, one dictionary for each update (or every log_every-th) since it began or was resumed.

    ``step`` from 1, ``epoch``, ``tokens`` read so far; ``loss`` (mean cross-entropy of the update's targets in nats),
    ``perplexity``, ``accuracy`` (share of the targets that had the highest logit), ``gradient_norm`` (before clipping), and
    with a teacher ``divergence`` (mean KL(teacher || model) in nats);
    ``learning_rate`` and ``learning_rates`` by group of parameters; ``seconds``, ``tokens_per_second``, ``mfu``,
    ``pool_bytes`` and ``rss_bytes``. Where there was an evaluation: ``eval_loss``, ``eval_perplexity``, ``eval_accuracy`` and
    the metrics. With a loss scale ``loss_scale``; ``skipped``, True, where nothing was updated: the loss scale found a
    gradient that is not finite, or no target counted (then the loss is NaN); with weight_changes ``weights_flipped``,
    ``weights_zeroed`` and ``weights_zero``.

    best: {"step", "value"} of the best evaluation; None without one.
    stopped_early: whether early_stopping ended the run.
    resumed_from: the checkpoint that the run continued from, or None.
    skipped: {"path", "error"} of each damaged checkpoint that was passed over.
    """

    best: dict[str, Any] | None = None
    stopped_early: bool = False
    resumed_from: str | None = None

    def __init__(self, records: Sequence[Record] = ()) -> None:
        super().__init__(records)
        self.skipped: list[dict[str, str]] = []

    def to_dict(self) -> dict[str, list[Any]]:
        """The same by columns; a record that lacks a field has None there."""
        names = dict.fromkeys(name for record in self for name in record)
        return {name: [record.get(name) for record in self] for name in names}

    def plot(self, path: str | PathLike[str] | None = None) -> Any:
        """Draws the losses over the steps with matplotlib; gives the figure, and writes it to path if there is one.
        ``viz.training_curves`` draws more."""
        from .viz.curves import training_curves

        return training_curves(self, panels=False, path=path)

    def _repr_html_(self) -> str:
        from .viz.html import history_html

        return history_html(self)

    def __repr__(self) -> str:
        if not self:
            return "History(no updates)"
        last = self[-1]
        evaluated = f", eval_loss {last['eval_loss']:.4f}" if "eval_loss" in last else ""
        early = ", stopped early" if self.stopped_early else ""
        return f"History({len(self)} updates, loss {self[0]['loss']:.4f} -> {last['loss']:.4f}{evaluated}{early})"


class Trainer:
    """Trains a model made by ``BitNetModel.from_config(..., trainable=True)`` on texts or token ids.

    >>> text = "To be, or not to be. " * 50
    >>> model = BitNetModel.from_config({"preset": "tiny", "vocab_size": 256}, trainable=True)
    >>> model.tokenizer = Tokenizer.bytes()
    >>> history = Trainer(model, optimizer="adam", learning_rate=1e-4, max_steps=2, batch_size=2).train(text)

    The forward pass of training is that of inference, to the bit. Equal seeds, data and options give equal weights,
    whatever the number of threads, and whether or not the run was interrupted and resumed. While a model trains, other
    threads should not use it; callbacks may.

    model: what is trained.
    optimizer: the Optimizer that was passed; None where the config names one.
    config: how, with the options that were given.
    tokenizer: for texts; None is the model's.
    teacher: the model that is learned from, or None.
    callbacks: as given.
    metrics: functions of the model by name.
    resume_from: as given.
    history: the records of the last run, or of the one under way.
    """

    def __init__(
        self,
        model: BitNetModel,
        config: TrainingConfig | None = None,
        *,
        callbacks: Sequence[Any] = (),
        metrics: Mapping[str, Callable[[BitNetModel], float]] | None = None,
        tokenizer: Tokenizer | None = None,
        teacher: BitNetModel | None = None,
        resume_from: str | PathLike[str] | bool | None = None,
        **options: Unpack[TrainingOptions],
    ) -> None:
        """Says how to train.

        config: a TrainingConfig; by default one with every field's default.
        callbacks: ``Callback`` objects, objects with some of their methods, or functions that take the record of every
            update.
        metrics: functions of the model by name; they are called after every evaluation, and their values are part of the
            record.
        tokenizer: for texts; by default the model's.
        teacher: a model with the same vocabulary whose predictions are learned beside the text (distillation).
        resume_from: what ``train`` resumes from when it is not told itself.
        options: any field of TrainingConfig (learning_rate, optimizer, max_steps, ...), which takes the place of config's.
            optimizer may also be an Optimizer of bitnet_rust.optim over the model's parameters: the run begins with its groups
            and its state, trains no other parameter, and leaves it with the state of the end.
        """
        if not isinstance(model, BitNetModel):
            raise TypeError(f"model: expected a BitNetModel, found {type(model).__name__}")
        if not model.trainable:
            raise ArgumentError(
                f"model: {model!r} has no master weights; load it by BitNetModel.from_pretrained(name, trainable=True), "
                "or make one by BitNetModel.from_config(config, trainable=True)"
            )
        if config is not None and not isinstance(config, TrainingConfig):
            raise TypeError(f"config: expected a TrainingConfig, found {type(config).__name__}")
        self.model = model
        self.optimizer: Optimizer | None = None
        if isinstance(options.get("optimizer"), Optimizer):
            self.optimizer = _own_optimizer(options)
        self.config = (config or TrainingConfig()).replace(**options)
        if teacher is not None and not isinstance(teacher, BitNetModel):
            raise TypeError(f"teacher: expected a BitNetModel, found {type(teacher).__name__}")
        self.tokenizer = tokenizer
        self.teacher = teacher
        self.callbacks = check_callbacks(callbacks)
        self.metrics = check_metrics(metrics, _FIELDS)
        if self.config.monitor not in (judged := (*_MONITORS, *self.metrics)):
            raise ArgumentError(f"monitor = {self.config.monitor!r}: expected one of {', '.join(judged)}")
        self.resume_from = resume_from
        self.history = History()
        self._length = self.config.length(model.config.max_position_embeddings)
        self._fields = self.config.core_fields()
        if self.optimizer is not None:
            self._fields |= optimizer_fields(self.optimizer, model.named_parameters())
        _bitnet.check_training(json.dumps(self._fields), teacher is not None)
        self._run: _bitnet.TrainingRun | None = None
        self._listeners: list[Callback] = []
        self._eval: _bitnet.Dataset | None = None
        self._stop = self._running = False
        self._at: dict[str, int] = {"step": 0, "next": 1, "steps": self._fields.get("max_steps", 0)}

    # --- a run -------------------------------------------------------------------------------------------------------

    def train(
        self, dataset: Any, eval_dataset: Any = None, *, resume_from: str | PathLike[str] | bool | None = None
    ) -> History:
        """Makes the updates, on examples drawn from dataset, and gives their records.

        dataset, eval_dataset: a text or a list of them; a pathlib.Path of a text file, a directory of them or a .jsonl file,
            or a list of such; a pathlib.Path of a file of token ids; a TokenFile; token ids as a list or one-dimensional array; examples as a list of ids, a two-dimensional
            array, or dictionaries with input_ids, labels and attention_mask, or text; a PyTorch Dataset or DataLoader; a
            Hugging Face dataset. An iterable without a length is read as far as max_steps needs.
        resume_from: a checkpoint, or a directory of which the newest readable one is taken; True is checkpoint_dir, and a
            run without a checkpoint there begins. Without it a run begins, from the model's present weights.

        The run is the one that wrote the checkpoint: CheckpointError if model, options or data are not the same. Damaged
        checkpoints are passed over with a CheckpointWarning and are listed in ``history.skipped``.

        Ctrl-C writes a checkpoint, if there is a checkpoint_dir, and raises KeyboardInterrupt within half a second; a signal
        handler that raises SystemExit does the same. A loss or gradient that is not finite raises TrainingError, which names
        the step, the layer and the tensor. The model then has the weights of the last update and can be used.
        """
        if self._running:
            raise ArgumentError("train() is under way: a callback cannot start it again")
        self.close()
        data = self.dataset(dataset, "dataset")
        self._eval = None if eval_dataset is None else self.dataset(eval_dataset, "eval_dataset", evaluation=True)
        run = self._run = self._new_run(self._fields, data, self._eval)
        self.history, self._stop = History(), False
        if self.optimizer is not None:
            run.optimizer(self.optimizer._object, True)
        self._resume(run, self.resume_from if resume_from is None else resume_from)
        self._listeners = [*self._own_callbacks(), *map(as_callback, self.callbacks)]
        self._running = True
        try:
            with delivered():
                run.train(self._hear)
        except (KeyboardInterrupt, SystemExit) as end:
            self._save_before(end)
            raise
        finally:
            self._running = False
            self._finish(run)
        return self.history

    def evaluate(self, dataset: Any = None) -> dict[str, float]:
        """How well the model predicts a dataset, by default the last run's eval_dataset.

        Gives ``eval_loss`` (mean cross-entropy in nats over all its examples), ``eval_perplexity``, ``eval_accuracy``, and
        the metrics.
        """
        data = self._eval if dataset is None else self.dataset(dataset, "dataset", evaluation=True)
        if data is None:
            raise ArgumentError(
                "evaluate() without a dataset needs a run with an eval_dataset before it: pass a dataset"
            )
        run = self._new_run(self._fields | {"checkpoint": {}}, data, data)
        try:
            scores: dict[str, float] = json.loads(run.evaluate())
        finally:
            run.close()
        return scores | self._measure()

    def save_checkpoint(self, path: str | PathLike[str] | None = None) -> str:
        """Writes the state of the run, during or after ``train``, to path, by default into checkpoint_dir; gives the path.

        The file is complete or not there. ``train(..., resume_from=path)`` continues from it.
        """
        if self._run is None:
            raise ArgumentError("save_checkpoint() needs a run: call it after train(), or in a callback")
        if path is None and self.config.checkpoint_dir is None:
            raise ArgumentError("save_checkpoint() without a path needs a checkpoint_dir")
        saved: str = json.loads(self._run.save("" if path is None else Path(path).expanduser()))
        return saved

    def stop(self) -> None:
        """Ends the run after the update under way; for callbacks."""
        self._stop = True

    def close(self) -> None:
        """Gives the memory of the last run's optimizer back; save_checkpoint needs another run then."""
        if self._run is not None:
            self._run.close()
            self._run = None

    def dataset(self, data: Any, name: str = "dataset", *, evaluation: bool = False) -> _bitnet.Dataset:
        """What ``train`` and ``evaluate`` make of data, which they also take: for data that several calls use.

        name: the argument's, for errors. evaluation: data without a length are refused, since all is evaluated.
        """
        config, most = self.config, None if evaluation else self._examples_needed()
        vocab = self.model.config.vocab_size
        options = DataOptions(self._length, vocab, self._tokenizer, config.packing, config.isolate_documents, most)
        return make_dataset(data, name, options)

    @property
    def step(self) -> int:
        """Updates made in the run."""
        return self._at["step"]

    @property
    def total_steps(self) -> int:
        """Updates that the run has if nothing ends it before; 0 when only the dataset will tell."""
        return self._at["steps"]

    @property
    def next_record(self) -> int:
        """The step of the record that comes next."""
        return self._at["next"]

    # --- pieces of a run ---------------------------------------------------------------------------------------------

    def _new_run(
        self, fields: dict[str, Any], data: _bitnet.Dataset, check: _bitnet.Dataset | None
    ) -> _bitnet.TrainingRun:
        teacher = None if self.teacher is None else self.teacher._model
        return _bitnet.training(self.model._model, json.dumps(fields), data, check, teacher)

    def _resume(self, run: _bitnet.TrainingRun, source: str | PathLike[str] | bool | None) -> None:
        if source is None or source is False:
            return
        directory = self._fields["checkpoint"]["dir"]
        if source is True and not directory:
            raise ArgumentError("resume_from = True: expected a checkpoint_dir to resume from")
        path = directory if source is True else fspath(Path(source).expanduser())
        resumed = json.loads(run.resume(path, source is True))
        self.history.resumed_from, self.history.skipped = resumed["path"] or None, resumed["skipped"]
        for damaged in resumed["skipped"]:
            warn(f"{damaged['path']} is damaged and was skipped: {damaged['error']}", CheckpointWarning)

    def _own_callbacks(self) -> list[Callback]:
        own: list[Callback] = []
        if self.config.log_file is not None:
            own.append(JSONLog(self.config.log_file))
        if self.config.tensorboard_dir is not None:
            own.append(TensorBoard(self.config.tensorboard_dir))
        if self.config.progress:
            own.append(ProgressBar())
        return own

    def _hear(self, kind: str, text: str) -> str | None:
        """What the core tells, and what it is to know in return."""
        what = json.loads(text)
        answer: dict[str, Any] = {}
        if kind == "start":
            self._at = what
            for callback in self._listeners:
                callback.on_run_start(self)
        elif kind == "checkpoint":
            for callback in self._listeners:
                callback.on_checkpoint(self, what["path"])
        else:
            record, logged = _record(what), what["logged"]
            self._at |= {"step": record["step"], "next": record["step"] + 1}
            if kind == "evaluation":
                answer["metrics"] = metrics = self._measure()
                record |= metrics
                for callback in self._listeners:
                    callback.on_evaluation(self, dict(record))
            else:
                if logged:
                    self.history.append(record)
                for callback in self._listeners:
                    if logged or not isinstance(callback, JSONLog | TensorBoard):
                        callback.on_step(self, dict(record))
        if self._stop:
            answer["stop"] = True
        return json.dumps(plain_numbers(answer)) if answer else None

    def _measure(self) -> dict[str, float]:
        values = {}
        for name, function in self.metrics.items():
            value = function(self.model)
            try:
                values[name] = float(value)
            except (TypeError, ValueError):
                raise ArgumentError(f"metrics: {name} = {value!r}: expected a number") from None
        return values

    def _save_before(self, end: BaseException) -> None:
        """Ctrl-C, or a signal handler that exits: the run can go on later. How that went is a note to the exception."""
        if self.config.checkpoint_dir is None:
            return
        try:
            end.add_note(f"the run was saved as {self.save_checkpoint()}")
        except BitNetError as error:
            end.add_note(f"the run could not be saved: {error}")

    def _finish(self, run: _bitnet.TrainingRun) -> None:
        with suppress(ArgumentError):  # a callback has closed the model or the run
            state = json.loads(run.state())
            self.history.best, self.history.stopped_early = state["best"], state["stopped_early"]
            self._note_history()
            if self.optimizer is not None:
                run.optimizer(self.optimizer._object, False)
                self.optimizer._pull()
        for callback in self._listeners:
            callback.on_run_end(self, self.history)

    def _note_history(self) -> None:
        """The model says how it was trained when it is saved."""
        if not self.history:
            return
        history, last = self.history, self.history[-1]
        settings = {name: self._fields[name] for name in _SETTINGS if name in self._fields}
        run = {
            "settings": settings | {"context_length": self._length},
            "steps": last["step"],
            "tokens": last["tokens"],
            "best": history.best,
            "stopped_early": history.stopped_early,
        }
        notes = self.model._notes
        notes["training_history"] = add_run(self.model.metadata.get("training_history"), run, history)

    def _examples_needed(self) -> int | None:
        """How many examples the run sees; None when that depends on how many there are."""
        fields = self._fields
        if "max_steps" not in fields:
            return None
        seen: int = fields["max_steps"] * fields["batch_size"] * fields["accumulation"]
        return seen

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

    def __repr__(self) -> str:
        fields = self._fields
        how_long = f"{fields['max_steps']} steps" if "max_steps" in fields else f"{fields['epochs']:g} epochs"
        return (
            f"Trainer({self.model!r}, {fields['optimizer']['name']}, {fields['scheduler']['name']}, {how_long} of "
            f"{fields['batch_size'] * fields['accumulation']} x {self._length} tokens)"
        )


def _own_optimizer(options: Any) -> Optimizer:
    """Takes an optimizer object, which has all that is said of optimizers, out of the options."""
    for name in ("learning_rate", "weight_decay", "betas", "no_decay"):
        if name in options:
            raise ArgumentError(
                f"{name} = {options[name]!r}: expected none with an Optimizer object, whose groups have it"
            )
    optimizer: Optimizer = options["optimizer"]
    options["optimizer"] = optimizer._name
    return optimizer


def _record(fields: dict[str, Any]) -> Record:
    """A record of the core: in order, metrics beside its own fields, and NaN for what JSON could not say."""
    record: Record = {name: _number(name, fields[name]) for name in _FIELDS if name in fields}
    metrics = record.pop("metrics", {})
    return record | {name: _number(name, value) for name, value in metrics.items()}


def _number(name: str, value: Any) -> Any:
    if value is None:
        return math.nan
    return float(value) if isinstance(value, int) and name not in _WHOLE else value


_WHOLE = ("step", "tokens", "skipped", "pool_bytes", "rss_bytes")
