"""TrainingConfig: everything that a training run is told, as one object that can be read from and written to a file."""

import dataclasses
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypedDict

from . import _bitnet
from .errors import ArgumentError
from .files import read_fields, refuse_unknown, write_fields

_MOST_TOKENS = 256  # default length of an example
_STEPS = 1000  # default number of updates


class TrainingOptions(TypedDict, total=False):
    """The fields of ``TrainingConfig``, as keyword arguments."""

    max_steps: int | None
    epochs: float | None
    batch_size: int
    context_length: int | None
    accumulation: int
    seed: int
    order: str | None
    drop_last: bool
    packing: bool | None
    isolate_documents: bool
    optimizer: Any
    learning_rate: float
    weight_decay: float | None
    betas: Sequence[float] | None
    no_decay: Sequence[str]
    scheduler: str | Mapping[str, Any]
    warmup_steps: int
    min_ratio: float
    gradient_clip: float
    gradient_clip_value: float
    gradient_normalization: str | None
    loss_scale: float | str | Mapping[str, Any] | None
    dropout: float
    attention_dropout: float
    gradient_checkpointing: bool
    ste: str
    ste_clip: float
    ste_temperature: float
    ste_temperature_end: float
    ste_temperature_steps: int
    quantization_schedule: str | None
    quantization_start: int
    quantization_end: int
    distillation_alpha: float
    distillation_temperature: float
    eval_every: int
    monitor: str
    monitor_mode: str
    early_stopping: int | Mapping[str, Any] | None
    log_every: int
    weight_changes: bool
    peak_flops: float
    checkpoint_dir: str | PathLike[str] | None
    checkpoint_every: int
    checkpoint_keep: int
    log_file: str | PathLike[str] | None
    tensorboard_dir: str | PathLike[str] | None
    progress: bool


@dataclass(kw_only=True)
class TrainingConfig:
    """How to train. Every field has a default; the names are those of ``Trainer``'s arguments and of recipes.

    >>> config = TrainingConfig(max_steps=2000, learning_rate=1e-3, early_stopping=5)
    >>> config.to_dict()["max_steps"]
    2000

    How long, on what:
        max_steps: updates of the weights in a run; 1000 if epochs does not say how many there are.
        epochs: times that the dataset is seen, instead of max_steps; may be a fraction.
        batch_size: examples in a forward pass, which has at most 131072 tokens.
        context_length: tokens in an example; by default the model's context, at most 256.
        accumulation: forward and backward passes in an update.
        seed: of the order of the examples and of dropout.

    Which examples (docs/how-to/prepare-data.md):
        order: "random" draws each anew, of a stream as a window that may start at any token; "shuffled" sees every example
            once an epoch, in another order each time; "sequential" as they stand. By default "random" for a stream whose
            run has max_steps, else "shuffled".
        drop_last: leave out examples at the end of an epoch that fill no whole update; else its last update has fewer.
        packing: True joins texts to one stream and puts as many whole examples together as fit context_length, False leaves
            each by itself; by default texts are joined and examples are not.
        isolate_documents: the documents of a stream do not see each other, nor does one predict the next one's start.

    Optimizer:
        optimizer: "adamw", "adam" or "sgd", or a mapping with that as "name" and further options under PyTorch's names, as
            {"name": "sgd", "momentum": 0.9}.
        learning_rate: the highest of the run.
        weight_decay: by default 0.1 with "adamw", where it is decoupled, and 0 otherwise. Norms and biases have none.
        betas: of "adam" and "adamw"; by default (0.9, 0.999).
        no_decay: parts of the names of matrices that have no weight decay either, as ["embed_tokens"].
        scheduler: the course of the learning rate: "constant", "linear", "cosine", "polynomial", "inverse_sqrt",
            "exponential", "step", "multi_step", "one_cycle", "wsd", "two_stage" (BitNet's recipe) or "plateau", or a mapping
            with that as "name" and further options, as {"name": "wsd", "decay_steps": 100}.
        warmup_steps: updates over which the learning rate rises to its full value.
        min_ratio: the lowest learning rate of the schedule as a share of learning_rate.

    Gradients:
        gradient_clip: largest norm of the gradient; 0 does not clip.
        gradient_clip_value: largest element of the gradient; 0 does not clip.
        gradient_normalization: "all" divides the gradient by its norm, "each" that of every parameter by its own.
        loss_scale: "dynamic", or a number for a fixed one, or a mapping with init_scale, growth_factor, backoff_factor,
            growth_interval: gradients are computed of the loss times that, and an update whose gradients are not finite is
            skipped. By default the loss is not scaled, and such a gradient raises TrainingError.

    The step (evaluation knows nothing of these):
        dropout: share of the elements of the embedding's output and of each residual branch that is dropped.
        attention_dropout: share of the attention probabilities that is dropped.
        gradient_checkpointing: compute the activations of a layer again in the backward pass instead of keeping them: the same
            gradients, for a third more work and a fraction of the memory.
        ste: how gradients pass the quantizer of ternary weights: "identity" (as in BitNet b1.58), "clipped" (none beyond
            ste_clip), "soft" (a smooth quantizer's slope) or "learned_scale".
        ste_clip: of "clipped", in scales from zero; 0 is 1.5.
        ste_temperature: of "soft", the wider the larger; 0 is 0.5.
        ste_temperature_end: what it is in the end, reached in equal ratios; 0 keeps it.
        ste_temperature_steps: the updates until then.
        quantization_schedule: progressive quantization: ternary layers compute with a mix of float and quantized numbers, and
            the share of the latter grows from 0 to 1, "linear", as a "cosine", or at once ("step"). By default it is 1.
        quantization_start: the update at which the share begins to grow, or at which it becomes 1 ("step").
        quantization_end: the update at which it is 1; not with "step".
        distillation_alpha: with a teacher, its share of the loss; 0 is 0.5.
        distillation_temperature: with a teacher, what the logits of both are divided by before they are compared; 0 is 2.

    Evaluation and records:
        eval_every: updates between evaluations; 0 evaluates after the last only.
        monitor: what makes an evaluation the best: "eval_loss", "eval_perplexity", "eval_accuracy" or a metric's name.
        monitor_mode: whether that is to be "min" or "max".
        early_stopping: evaluations without improvement that end the run, or a mapping with patience, min_delta (a change of
            less is no improvement) and restore_best (the model ends with the weights of the best evaluation). Needs eval_every.
        log_every: updates between records in the history and the log; evaluations and the last update always have one.
        weight_changes: record which share of the ternary weights changed since the last record.
        peak_flops: floating-point operations a second that "mfu" in a record is a share of; 0: what this machine's float32
            matrix kernel reaches, measured.

    Files:
        checkpoint_dir: where checkpoints are written; None writes none.
        checkpoint_every: updates between them; 0 writes the best and the last only.
        checkpoint_keep: how many of the newest stay, 0 for all. The best stays beside them.
        log_file: a file that gets each record as a line of JSON. A resumed run goes on where it left off.
        tensorboard_dir: where TensorBoard finds the records.
        progress: draw a bar with the loss and tokens a second, on stderr or in the cell of a notebook.
    """

    max_steps: int | None = None
    epochs: float | None = None
    batch_size: int = 16
    context_length: int | None = None
    accumulation: int = 1
    seed: int = 0

    order: str | None = None
    drop_last: bool = False
    packing: bool | None = None
    isolate_documents: bool = False

    optimizer: str | Mapping[str, Any] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float | None = None
    betas: Sequence[float] | None = None
    no_decay: Sequence[str] = ()
    scheduler: str | Mapping[str, Any] = "cosine"
    warmup_steps: int = 0
    min_ratio: float = 0.0

    gradient_clip: float = 1.0
    gradient_clip_value: float = 0.0
    gradient_normalization: str | None = None
    loss_scale: float | str | Mapping[str, Any] | None = None

    dropout: float = 0.0
    attention_dropout: float = 0.0
    gradient_checkpointing: bool = False
    ste: str = "identity"
    ste_clip: float = 0.0
    ste_temperature: float = 0.0
    ste_temperature_end: float = 0.0
    ste_temperature_steps: int = 0
    quantization_schedule: str | None = None
    quantization_start: int = 0
    quantization_end: int = 0
    distillation_alpha: float = 0.0
    distillation_temperature: float = 0.0

    eval_every: int = 0
    monitor: str = "eval_loss"
    monitor_mode: str = "min"
    early_stopping: int | Mapping[str, Any] | None = None
    log_every: int = 1
    weight_changes: bool = False
    peak_flops: float = 0.0

    checkpoint_dir: str | PathLike[str] | None = None
    checkpoint_every: int = 0
    checkpoint_keep: int = 2
    log_file: str | PathLike[str] | None = None
    tensorboard_dir: str | PathLike[str] | None = None
    progress: bool = False

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str = "training") -> Self:
        """Takes fields by name; an unknown one raises ConfigError, with the name that it may have meant."""
        refuse_unknown(fields, field_names(), where, elsewhere=_ELSEWHERE)
        return cls(**fields)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """Reads a .yaml or .json file."""
        return cls.from_dict(read_fields(path), str(path))

    def save(self, path: str | PathLike[str]) -> None:
        """Writes a .yaml or .json file that from_file reads."""
        write_fields(path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All fields, as a fresh dictionary of what JSON can say."""
        return {name: _plain(getattr(self, name)) for name in field_names()}

    def replace(self, **options: Any) -> Self:
        """A copy with other values of some fields; max_steps replaces epochs and the reverse."""
        refuse_unknown(options, field_names(), "TrainingConfig", TypeError, _ELSEWHERE)
        if options.get("epochs") is not None:
            options.setdefault("max_steps", None)
        elif options.get("max_steps") is not None:
            options.setdefault("epochs", None)
        return dataclasses.replace(self, **options)

    def length(self, longest: int) -> int:
        """Tokens in an example of a model whose context is longest."""
        length = min(longest, _MOST_TOKENS) if self.context_length is None else self.context_length
        return whole("context_length", length, 1, longest)

    def check(self, *, teacher: bool = False) -> None:
        """Raises ArgumentError for a value that no model and no data would make right; teacher: whether there will be one."""
        _bitnet.check_training(json.dumps(self.core_fields()), teacher)

    def core_fields(self) -> dict[str, Any]:
        """What the core is told: all but the forms that this class adds. A value that cannot be raises ArgumentError."""
        if self.max_steps is not None and self.epochs is not None:
            raise ArgumentError(f"max_steps = {self.max_steps} and epochs = {self.epochs}: expected one of them")
        fields: dict[str, Any] = {
            "batch_size": whole("batch_size", self.batch_size, 1),
            "accumulation": whole("accumulation", self.accumulation, 1),
            "seed": whole("seed", self.seed, 0, 2**64 - 1),
            "order": _text("order", self.order or ""),
            "drop_last": bool(self.drop_last),
            "optimizer": self._optimizer(),
            "no_decay": _names("no_decay", self.no_decay),
            "scheduler": {
                "warmup_steps": whole("warmup_steps", self.warmup_steps, 0),
                "min_ratio": number("min_ratio", self.min_ratio, 0, 1),
            }
            | _named(self.scheduler, "scheduler"),
            "gradient_clip": number("gradient_clip", self.gradient_clip, 0),
            "gradient_clip_value": number("gradient_clip_value", self.gradient_clip_value, 0),
            "gradient_normalization": _text("gradient_normalization", self.gradient_normalization or ""),
            "loss_scale": self._loss_scale(),
            "eval_every": whole("eval_every", self.eval_every, 0),
            "monitor": _text("monitor", self.monitor),
            "monitor_mode": _text("monitor_mode", self.monitor_mode),
            "early_stopping": self._early_stopping(),
            "log_every": whole("log_every", self.log_every, 1),
            "weight_changes": bool(self.weight_changes),
            "peak_flops": number("peak_flops", self.peak_flops, 0),
            "checkpoint": {
                "dir": "" if self.checkpoint_dir is None else _directory(self.checkpoint_dir),
                "every": whole("checkpoint_every", self.checkpoint_every, 0),
                "keep": whole("checkpoint_keep", self.checkpoint_keep, 0),
            },
        } | self._engine_options()
        if self.epochs is not None:
            epochs = number("epochs", self.epochs, 0)
            if epochs == 0:
                raise ArgumentError("epochs = 0: expected a number > 0")
            return fields | {"epochs": epochs}
        return fields | {"max_steps": _STEPS if self.max_steps is None else whole("max_steps", self.max_steps, 1)}

    def _engine_options(self) -> dict[str, Any]:
        """Those of the step, by name; the core checks their values."""
        options = {name: _plain(getattr(self, name)) for name in _ENGINE}
        for name, value in options.items():
            expected = _ENGINE[name]
            finite = not isinstance(value, float) or math.isfinite(value)
            if not finite or (value is not None and not isinstance(value, expected)):
                names = {str: "a text", bool: "true or false", int: "a whole number", int | float: "a finite number"}
                raise ArgumentError(f"{name} = {value!r}: expected {names[expected]}")
        return {name: value for name, value in options.items() if value}

    def _optimizer(self) -> dict[str, Any]:
        chosen = _named(self.optimizer, "optimizer")
        chosen.setdefault("lr", number("learning_rate", self.learning_rate, 0))
        if self.weight_decay is not None or chosen["name"] == "adamw":
            decay = 0.1 if self.weight_decay is None else self.weight_decay
            chosen.setdefault("weight_decay", number("weight_decay", decay, 0))
        if self.betas is not None:
            if len(self.betas) != 2:
                raise ArgumentError(f"betas = {self.betas!r}: expected two numbers in [0, 1)")
            chosen["betas"] = [number(f"betas[{i}]", beta, 0, 1) for i, beta in enumerate(self.betas)]
        return chosen

    def _loss_scale(self) -> dict[str, Any] | None:
        scale = self.loss_scale
        if scale is None:
            return None
        if isinstance(scale, Mapping):
            refuse_unknown(scale, _LOSS_SCALE, "loss_scale")
            return dict(scale)
        if scale == "dynamic":
            return {"mode": "dynamic"}
        if isinstance(scale, str):
            raise ArgumentError(f'loss_scale = {scale!r}: expected "dynamic", a number or a mapping')
        return {"mode": "static", "init_scale": number("loss_scale", scale, 0)}

    def _early_stopping(self) -> dict[str, Any] | None:
        rule = self.early_stopping
        if rule is None:
            return None
        fields = dict(rule) if isinstance(rule, Mapping) else {"patience": rule}
        refuse_unknown(fields, ("patience", "min_delta", "restore_best"), "early_stopping")
        if "patience" not in fields:
            raise ArgumentError(f"early_stopping = {rule!r}: expected patience in it")
        return {
            "patience": whole("early_stopping.patience", fields["patience"], 1),
            "min_delta": number("early_stopping.min_delta", fields.get("min_delta", 0), 0),
            "restore_best": bool(fields.get("restore_best", False)),
        }


# What the core's train.EngineOptions takes.
_ENGINE: dict[str, Any] = {
    "dropout": int | float,
    "attention_dropout": int | float,
    "gradient_checkpointing": bool,
    "ste": str,
    "ste_clip": int | float,
    "ste_temperature": int | float,
    "ste_temperature_end": int | float,
    "ste_temperature_steps": int,
    "quantization_schedule": str,
    "quantization_start": int,
    "quantization_end": int,
    "distillation_alpha": int | float,
    "distillation_temperature": int | float,
}
# What the trainers of Hugging Face, PyTorch Lightning and nanoGPT call some fields.
_ELSEWHERE = {
    "lr": "learning_rate",
    "steps": "max_steps",
    "max_iters": "max_steps",
    "num_train_epochs": "epochs",
    "max_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "block_size": "context_length",
    "max_length": "context_length",
    "max_seq_length": "context_length",
    "seq_len": "context_length",
    "gradient_accumulation_steps": "accumulation",
    "accumulate_grad_batches": "accumulation",
    "max_grad_norm": "gradient_clip",
    "grad_clip": "gradient_clip",
    "gradient_clip_val": "gradient_clip",
    "lr_scheduler": "scheduler",
    "lr_scheduler_type": "scheduler",
    "optim": "optimizer",
    "warmup_iters": "warmup_steps",
    "eval_steps": "eval_every",
    "eval_interval": "eval_every",
    "logging_steps": "log_every",
    "log_interval": "log_every",
    "save_steps": "checkpoint_every",
    "save_total_limit": "checkpoint_keep",
    "output_dir": "checkpoint_dir",
    "out_dir": "checkpoint_dir",
    "metric_for_best_model": "monitor",
}
_LOSS_SCALE = ("mode", "init_scale", "growth_factor", "backoff_factor", "growth_interval")


def field_names() -> list[str]:
    """The fields of TrainingConfig."""
    return [field.name for field in dataclasses.fields(TrainingConfig)]


def _directory(path: str | PathLike[str]) -> str:
    name = str(Path(path).expanduser())
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ArgumentError(f"checkpoint_dir = {name!r}: expected a name in UTF-8") from None
    return name


def _plain(value: Any) -> Any:
    """What JSON can say of a value."""
    if isinstance(value, PathLike):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    return value.item() if hasattr(value, "item") else value


def _named(choice: Any, field: str) -> dict[str, Any]:
    if isinstance(choice, str):
        return {"name": choice}
    if not isinstance(choice, Mapping) or not isinstance(choice.get("name"), str):
        raise ArgumentError(f"{field} = {choice!r}: expected a name, or a mapping that has one as 'name'")
    return _plain(choice)  # type: ignore[no-any-return]


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ArgumentError(f"{field} = {value!r}: expected a text")
    return value


def _names(field: str, value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise ArgumentError(f"{field} = {value!r}: expected a list of texts")
    return list(value)


def whole(field: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """A whole number within bounds; ArgumentError names the field, the value and the bounds."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{field} = {value!r}: expected a whole number") from None
    if not low <= number <= high:
        raise ArgumentError(f"{field} = {number}: expected a whole number from {low} to {high}")
    return number


def number(field: str, value: Any, low: float, high: float = math.inf) -> float:
    """A finite number within bounds; ArgumentError names the field, the value and the bounds."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{field} = {value!r}: expected a number") from None
    if not low <= number <= high or math.isinf(number):
        limits = f">= {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ArgumentError(f"{field} = {number}: expected a finite number {limits}")
    return number
