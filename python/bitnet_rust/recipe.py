"""Recipes: one file that says how a model is made from data; what ``bitnet train`` does."""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Self, get_args

from ._bitnet import Dataset
from .callbacks import Callback, PrintProgress
from .config import BitNetConfig
from .conversations import (
    DEFAULT_CHAT_TEMPLATE,
    conversations,
    first_prompt,
    hold_conversations,
    is_conversation,
)
from .errors import ArgumentError, BitNetError, ConfigError, DTypeError, FileSystemError
from .files import read_fields, refuse_unknown, write_fields
from .generation import SamplingOptions
from .hub import is_local, refuse_revision
from .model import BitNetModel, GGUFType, I2SLayout, LinearClass
from .registry import find_model
from .texts import documents
from .token_file import SUFFIXES, TokenFile
from .tokenizer import Tokenizer
from .training import Trainer
from .training_config import TrainingConfig, field_names

# Files of a run in its directory, beside those of the model.
RECIPE, LOG, CHECKPOINTS = "recipe.yaml", "train.jsonl", "checkpoints"

_SECTIONS = {
    "model": "a registered name as preset, and fields of a configuration",
    "tokenizer": ("kind", "path", "revision", "vocab_size", "special_tokens"),
    "teacher": ("path", "revision"),
    "data": ("train", "eval", "eval_fraction", "dtype", "chat_template"),
    "training": "fields of TrainingConfig",
    "sample": ("prompt", *SamplingOptions.__annotations__),
    "export": ("formats", "gguf_type", "linear_class", "masters"),
}
# Fields without which a configuration has no shape, and those that Hugging Face's form has.
_SHAPE = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}
_HUGGING_FACE = {"architectures", "model_type", "quantization_config"}
# Fields beside model.pretrained, which say how it is loaded.
_LOADING = ("quantize", "i2s_layout", "revision")
_KINDS = ("characters", "bytes", "bpe")
_EVAL_FRACTION = 0.1
_DEFAULT_PRESET = "char"
_SAMPLE_TOKENS = 200
_PACKED = "note: the model has packed weights, of which all begin equally far from changing; from master weights training moves sooner"
_MOST_CHAT_TOKENS = 1024
# Formats that a run may write beside its model, and their places in its directory.
_EXPORTS = {"hf": "hf", "hf-master": "hf-master", "gguf": "model.gguf"}
_EXPORT_OPTIONS = {"gguf_type": "gguf", "linear_class": "hf", "masters": "hf-master"}
_CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja")  # of hf and hf-master


@dataclass
class Recipe:
    """What a run is made of: the sections of a recipe file, see docs/reference/recipes.md.

    model: a preset or fields of a BitNetConfig, or the pretrained model to begin with, and how to load it.
    tokenizer: the tokenizer to take, or how to make one of the data.
    teacher: a model whose predictions are learned beside the text, and how to load it.
    data: where the examples come from, and which share of them is held out.
    training: fields of TrainingConfig.
    sample: what is generated after the run, to show it.
    export: the formats that the model is written in, beside its own.
    """

    model: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    sample: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """Reads a recipe. Paths in it are relative to its directory."""
        where, fields = str(path), read_fields(path)
        if fields and not set(fields) & set(_SECTIONS) and set(fields) <= set(BitNetConfig(preset="tiny")) | {"preset"}:
            raise ConfigError(f"{where}: these are the fields of a model: expected them under `model:`")
        refuse_unknown(fields, _SECTIONS, where)
        for name, section in fields.items():
            if not isinstance(section, Mapping):
                raise ConfigError(f"{where}: {name} = {section!r}: expected a mapping of fields")
            known = _SECTIONS[name]
            if isinstance(known, tuple):
                refuse_unknown(section, known, f"{where}: {name}")
        refuse_unknown(fields.get("training", {}), field_names(), f"{where}: training")
        recipe = cls(**{name: dict(section) for name, section in fields.items()})
        home = Path(path).expanduser().parent
        recipe._move_paths(lambda there: str(home / Path(there).expanduser()), lambda there: (home / there).exists())
        return recipe

    def override(self, **sections: Mapping[str, Any]) -> None:
        """Replaces fields by those that are not None. A preset replaces the model; a length of the run replaces the other."""
        for name, fields in sections.items():
            stated = {field: value for field, value in fields.items() if value is not None}
            if "preset" in stated:
                self.model = {}
            if "pretrained" in stated:
                self.model.pop("revision", None)  # of another repository
            if name == "export" and isinstance(stated.get("formats"), list):  # what the others were to have
                self.export = {
                    f: v for f, v in self.export.items() if _EXPORT_OPTIONS.get(f) in (None, *stated["formats"])
                }
            if "max_steps" in stated or "epochs" in stated:
                self.training = {f: v for f, v in self.training.items() if f not in ("max_steps", "epochs")}
            getattr(self, name).update(stated)

    def set(self, setting: str) -> None:
        """Replaces one field, as "training.dropout=0.1"; the value is JSON, or else a text as it stands."""
        path, equals, text = setting.partition("=")
        section, dot, name = path.strip().partition(".")
        if not equals or not dot or not name:
            raise ArgumentError(f"--set {setting}: expected SECTION.FIELD=VALUE, as training.dropout=0.1")
        refuse_unknown([section], _SECTIONS, f"--set {setting}")
        known = field_names() if section == "training" else _SECTIONS[section]
        if not isinstance(known, str):
            refuse_unknown([name], known, f"--set {setting}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        self.override(**{section: {name: value}})

    def default_finetuning(self) -> None:
        """What `bitnet finetune` says where the recipe says nothing: one epoch of packed rows, at a lower learning rate, and files for
        other programs."""
        if "pretrained" not in self.model:
            raise ArgumentError("model.pretrained is missing: expected the model to begin with")
        defaults: dict[str, Any] = {"learning_rate": 3e-4, "packing": True, "weight_decay": 0.0}
        if "max_steps" not in self.training:
            defaults["epochs"] = 1
        self.training = defaults | self.training
        self.export = {"formats": ["hf", "gguf"]} | self.export

    def save(self, path: Path) -> None:
        """Writes the recipe, its paths relative to the file's directory."""
        copy = Recipe(**json.loads(json.dumps(self.__dict__)))
        copy._move_paths(lambda there: os.path.relpath(there, path.parent), lambda there: Path(there).exists())
        sections = {name: section for name, section in copy.__dict__.items() if section}
        write_fields(path, sections, "What made this model. `bitnet train --config` makes it again.")

    def _move_paths(self, move: Callable[[str], str], exists: Callable[[str], bool]) -> None:
        for name in ("train", "eval"):
            if (paths := self.data.get(name)) is not None:
                if not isinstance(paths, str | list) or not all(isinstance(one, str) for one in paths):
                    raise ConfigError(f"data: {name} = {paths!r}: expected a path or a list of paths")
                self.data[name] = move(paths) if isinstance(paths, str) else [move(one) for one in paths]
        for section, name in (
            (self.tokenizer, "path"), (self.teacher, "path"), (self.model, "pretrained"), (self.data, "chat_template"),
        ):  # fmt: skip
            path = section.get(name)
            if isinstance(path, str) and exists(path):  # else a name or a hub id
                section[name] = move(path)


def run(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    progress: bool,
    quiet: bool = False,
    local_files_only: bool = False,
) -> dict[str, Any]:
    """Makes the model of a recipe in the directory out: the model, its tokenizer, checkpoints, a log, the recipe. With local_files_only
    nothing is downloaded.

    With progress a bar is drawn, without it a line on stderr says now and then how far it is, and with quiet nothing does.

    Gives path, steps, parameters, loss, eval_loss, eval_accuracy and perplexity (None without evaluation), a sample, and the paths of
    exports by format.
    """

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    _refuse(out, resume, overwrite)
    _refuse_own_exports(recipe, out, resume)
    exports = _exports(recipe.export)
    layouts = (None, *get_args(I2SLayout))
    if (layout := recipe.model.get("i2s_layout")) not in layouts:
        raise ArgumentError(f"model.i2s_layout = {layout!r}: expected one of {', '.join(layouts[1:])}")
    stated = TrainingConfig.from_dict({"eval_every": 1} | recipe.training, "training")
    stated.check(teacher=bool(recipe.teacher))  # before anything that takes long
    train, held_out = _data(recipe.data)
    with ExitStack() as open_models:
        model = open_models.enter_context(_model(recipe, out, train, held_out, resume, local_files_only))
        if _are_conversations(train):
            _give_template(model, recipe.data.get("chat_template"))
        elif (template := recipe.data.get("chat_template")) is not None:
            raise ArgumentError(f"data.chat_template = {template!r}: expected conversations with it, found texts")
        _check_gpt2(model, exports)
        if "gguf" in exports:
            place, options = exports["gguf"]
            _check_gguf(model, out / place, options["gguf_type"])
        teacher = None
        if recipe.teacher:
            _check_revision("teacher", recipe.teacher)
            teacher = open_models.enter_context(
                BitNetModel.from_pretrained(
                    recipe.teacher.get("path", ""),
                    revision=recipe.teacher.get("revision"),
                    local_files_only=local_files_only,
                )
            )
        if stated.early_stopping is not None and not held_out:
            raise ArgumentError("training.early_stopping: expected data.eval or data.eval_fraction with it")
        if _are_conversations(train) and stated.context_length is None:
            longest = min(model.config.max_position_embeddings, _MOST_CHAT_TOKENS)
            stated, recipe.training["context_length"] = stated.replace(context_length=longest), longest
        probe = Trainer(model, stated, teacher=teacher)
        quantization = model.config.get("quantization_config", {})  # a GPT-2 of floats has none
        if quantization.get("quantization_mode") == "offline" and "pretrained" in recipe.model:
            say(_PACKED)
        dataset = probe.dataset(train, "data.train")
        check = probe.dataset(held_out, "data.eval", evaluation=True) if held_out else None
        training = _training(recipe.training, out, dataset, check)
        recipe.training = {name: value for name, value in training.to_dict().items() if _stated(name, value)}
        sample = _sample_options(recipe.sample, model.tokenizer, train, recipe.training["seed"])
        output = _Output(recipe, out, dataset, check, say)
        trainer = Trainer(model, training, teacher=teacher, progress=progress, callbacks=[output])
        if not progress and not quiet:
            trainer.callbacks.append(PrintProgress())
        if not resume:
            _clear(out)
        try:
            history = trainer.train(dataset, check, resume_from=resume)
        except (KeyboardInterrupt, SystemExit):
            if trainer.step > 0:
                model.save_pretrained(out)  # what it has learned so far can be used
            raise
        model.save_pretrained(out)
        for place, options in exports.values():
            model.save_pretrained(out / place, **options)
        scores = trainer.evaluate() if check else {}
        loss = scores.get("eval_loss")
        return {
            "path": str(out),
            "steps": trainer.step,
            "parameters": model.num_parameters(),
            "loss": history[-1]["loss"] if history else None,
            "eval_loss": loss,
            "eval_accuracy": scores.get("eval_accuracy"),
            "perplexity": None if loss is None else math.exp(min(loss, 700.0)),
            "sample": model.generate(**sample),
            "exports": {name: str(out / place) for name, (place, _) in exports.items()},
        }


class _Output(Callback):
    """The directory of a run: what it is made of when it begins, so that a mistake leaves all as it was, and with each
    checkpoint the model, so that a run that was killed, and one that is under way, can be tried."""

    def __init__(
        self, recipe: Recipe, out: Path, train: Dataset, check: Dataset | None, say: Callable[[str], object]
    ) -> None:
        self._recipe, self._out, self._say = recipe, out, say
        learn, validate = (0 if data is None else json.loads(data.info())["tokens"] for data in (train, check))
        checked = f"{validate:,}" if validate else "none"
        self._data = f"{learn:,} tokens to learn from, {checked} to validate on"

    def on_run_start(self, trainer: Trainer) -> None:
        # A resumed run reads the tokenizer, since learning it again may give another.
        trainer.model.tokenizer.save_pretrained(self._out)
        self._recipe.save(self._out / RECIPE)
        parameters, vocabulary = trainer.model.num_parameters(), trainer.model.config.vocab_size
        how_far = f" from update {trainer.step}" if trainer.step else ""
        model = f"{parameters:,} parameters, vocabulary of {vocabulary:,}"
        self._say(f"training{how_far}: {model}; {self._data}")

    def on_checkpoint(self, trainer: Trainer, path: str) -> None:
        trainer.model.save_pretrained(self._out)


def _refuse(out: Path, resume: bool, overwrite: bool) -> None:
    """Refuses a place that is in use, or cannot be."""
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise ArgumentError(f"out = {out}: expected a directory, found a file{f' {place}' if place != out else ''}")
    if any(out.glob("*.safetensors")):
        raise ArgumentError(
            f"out = {out}: the directory has a Hugging Face checkpoint, which would stay beside the new model"
        )
    if not resume and out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ArgumentError(f"out = {out}: the directory has files; choose another, or pass --overwrite or --resume")


def _refuse_own_exports(recipe: Recipe, out: Path, resume: bool) -> None:
    """Refuses to begin with a model that the new run takes away: if it were interrupted, there would be none."""
    own = [(out / place).resolve() for place in _EXPORTS.values()]
    for name, path in (
        ("model.pretrained", recipe.model.get("pretrained")),
        ("teacher.path", recipe.teacher.get("path")),
    ):
        if not resume and isinstance(path, str) and Path(path).exists() and Path(path).resolve() in own:
            raise ArgumentError(f"{name} = {path}: expected another place for --out than the run that it comes from")


def _clear(out: Path) -> None:
    """Makes the directory, and takes away what another run left there: its model, checkpoints and exports."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for left in (out / "model.bitnet", out / _EXPORTS["gguf"], *(out / CHECKPOINTS).glob("step-*.ckpt")):
            left.unlink(missing_ok=True)
        for export in (out / _EXPORTS["hf"], out / _EXPORTS["hf-master"]):
            for left in (file for pattern in _CHECKPOINT_FILES for file in export.glob(pattern)):
                left.unlink()
            if export.is_dir() and not export.is_symlink() and not any(export.iterdir()):
                export.rmdir()
    except OSError as error:
        raise FileSystemError(f"out = {out}: {error.strerror}") from error


def _data(section: dict[str, Any]) -> tuple[Any, Any]:
    """What to learn, and what to validate on or None: lists of texts, or a file of token ids."""
    if not section.get("train"):
        raise ArgumentError("data.train is missing: expected a file or a directory")
    train = _read(section, "train")
    if section.get("eval"):
        if section.get("eval_fraction"):
            raise ArgumentError("data.eval and data.eval_fraction: expected one of them")
        return train, _read(section, "eval")
    fraction = section.setdefault("eval_fraction", _EVAL_FRACTION)
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction < 1:
        raise ArgumentError(f"data.eval_fraction = {fraction!r}: expected a number in [0, 1)")
    if fraction == 0:
        return train, None
    if isinstance(train, TokenFile):
        return train.split(fraction)
    if _are_conversations(train):
        kept = len(train) - round(len(train) * fraction)
        if not 0 < kept < len(train):
            raise ArgumentError(
                f"data.eval_fraction = {fraction}: of {len(train)} conversations it leaves {kept} to learn from and "
                f"{len(train) - kept} to validate on: expected another fraction, or 0"
            )
        return train[:kept], train[kept:]
    left = round(sum(map(len, train)) * (1 - fraction))
    learned, held_out = [], []
    for text in train:
        learned += [text[:left]] if left > 0 else []
        held_out += [text[left:]] if left < len(text) else []
        left = max(0, left - len(text))
    return learned, held_out


def _read(section: dict[str, Any], field: str) -> list[Any] | TokenFile:
    """The texts or conversations of some paths, or the token file that the only one is."""
    paths, name = section[field], f"data.{field}"
    places = [Path(paths)] if isinstance(paths, str) else list(map(Path, paths))
    if len(places) == 1 and places[0].suffix in SUFFIXES:
        try:
            return TokenFile(places[0], section.get("dtype"))
        except DTypeError as error:
            raise DTypeError(f"{error}, as data.dtype (on the command line --set data.dtype=uint16)") from error
    if hold_conversations(places[0]):
        return [record for place in places for record in conversations(place, name)]
    texts = [text for place in places for text in documents(place, name)]
    if not any(texts):
        raise ArgumentError(f"{name} = {paths}: there is no text in it")
    return texts


def _are_conversations(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and is_conversation(data[0])


def _give_template(model: BitNetModel, template: Any) -> None:
    """The chat template of a file or, where the tokenizer has none, ours; it is saved with the model."""
    tokenizer = model.tokenizer
    if template is not None:
        try:
            tokenizer.chat_template = Path(template).read_text("utf-8")
        except (OSError, UnicodeDecodeError, TypeError) as error:
            raise ArgumentError(
                f"data.chat_template = {template!r}: expected a file with a template: {error}"
            ) from error
    elif not tokenizer.chat_template:
        tokenizer.chat_template = DEFAULT_CHAT_TEMPLATE
    model.tokenizer = tokenizer


def _exports(section: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Where in the directory of a run the formats of its section "export" go, and how they are saved."""
    formats = section.get("formats", [])
    if not isinstance(formats, list) or not all(name in tuple(_EXPORTS) for name in formats):
        raise ArgumentError(f"export.formats = {formats!r}: expected a list of {', '.join(_EXPORTS)}")
    stated = {"linear_class": None, "masters": "float32", "gguf_type": "i2_s"} | dict(section)
    for name, known in (
        ("linear_class", (None, *get_args(LinearClass))),
        ("masters", ("float32", "bfloat16")),
        ("gguf_type", get_args(GGUFType)),
    ):
        if stated[name] not in known:
            expected = ", ".join(filter(None, known))
            raise ArgumentError(f"export.{name} = {stated[name]!r}: expected one of {expected}")
    for name, form in _EXPORT_OPTIONS.items():
        if section.get(name) is not None and form not in formats:
            found = ", ".join(formats) or "none"
            raise ArgumentError(
                f"export.{name} = {section[name]!r}: expected {form} among export.formats, found {found}"
            )
    options = {
        "hf": {"format": "hf", "linear_class": stated["linear_class"]},
        "hf-master": {"format": "hf", "masters": stated["masters"]},
        "gguf": {"format": "gguf", "gguf_type": stated["gguf_type"]},
    }
    return {name: (_EXPORTS[name], options[name]) for name in formats}


def _check_gpt2(model: BitNetModel, exports: Mapping[str, Any]) -> None:
    """Refuses before training the formats that have no place for a GPT-2."""
    if model.config.architectures[0] != "GPT2LMHeadModel":
        return
    ternary = "quantization_config" in model.config
    for name in exports:
        if name == "gguf" or (name == "hf" and ternary):
            layers = "ternary" if ternary else "float"
            forms = "hf-master" if ternary else "hf, hf-master"
            raise ArgumentError(f"export.formats: {name}: expected {forms} for a GPT-2 of {layers} layers")


def _check_gguf(model: BitNetModel, path: Path, gguf_type: str) -> None:
    """Refuses before training what GGUF has no place for."""
    try:  # its warnings come with the file
        model._model.save(path, "gguf", json.dumps({"gguf_type": gguf_type, "dry_run": True}), None)
    except ArgumentError as error:
        raise ArgumentError(f"export.formats: gguf: {error}") from error


def _model(recipe: Recipe, out: Path, train: Any, held_out: Any, resume: bool, offline: bool) -> BitNetModel:
    """The model that training begins with, and its tokenizer."""
    if "pretrained" in recipe.model:
        refuse_unknown(recipe.model, ("pretrained", *_LOADING), "model with pretrained")
        model = BitNetModel.from_pretrained(
            recipe.model["pretrained"],
            trainable=True,
            local_files_only=offline,
            **{name: recipe.model[name] for name in _LOADING if name in recipe.model},
        )
        if recipe.tokenizer:
            model.tokenizer = _tokenizer(recipe.tokenizer, {}, model.config.vocab_size, train, held_out, offline)
        return model
    config, tokenizer = _config(recipe, out, train, held_out, resume, offline)
    model = BitNetModel.from_config(config, seed=recipe.training.get("seed", 0), trainable=True)
    model.tokenizer = tokenizer
    return model


def _config(
    recipe: Recipe, out: Path, train: Any, held_out: Any, resume: bool, offline: bool
) -> tuple[BitNetConfig, Tokenizer]:
    """The model's configuration, whose vocabulary is the tokenizer's, and the tokenizer."""
    fields = recipe.model
    if "preset" not in fields and not set(fields) & _HUGGING_FACE:
        fields = {"vocab_size": 256, **fields} if set(fields) >= _SHAPE else {"preset": _DEFAULT_PRESET, **fields}
    base = BitNetConfig.from_dict(fields)
    recipe.model = fields
    if resume and (out / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_pretrained(out)
    else:
        tokenizer = _tokenizer(recipe.tokenizer, fields, base.vocab_size, train, held_out, offline)
    shape = {**base, "vocab_size": len(tokenizer)}
    for token in ("bos", "eos", "pad"):
        shape[f"{token}_token_id"] = getattr(tokenizer, f"{token}_token_id")
    return BitNetConfig.from_dict({name: value for name, value in shape.items() if value is not None}), tokenizer


def _check_revision(name: str, section: Mapping[str, Any]) -> None:
    """Refuses the revision of a section whose path is of something that is here."""
    if is_local(section.get("path", "")):
        refuse_revision(section.get("revision"), f"{section['path']} is here", f"{name}.revision")


def _tokenizer(
    section: dict[str, Any], model: Mapping[str, Any], vocab: int, train: Any, held_out: Any, offline: bool
) -> Tokenizer:
    """By default the characters of all texts for the character model and small vocabularies, else byte-level BPE."""
    refuse_unknown(section, _SECTIONS["tokenizer"], "tokenizer")
    _refuse_unused(section, ("kind", "vocab_size", "special_tokens") if section.get("path") else ("revision",))
    if section.get("path"):
        _check_revision("tokenizer", section)
        return Tokenizer.from_pretrained(section["path"], revision=section.get("revision"), local_files_only=offline)
    preset = model.get("preset")
    small = vocab < 256 or (preset is not None and find_model(preset).name == _DEFAULT_PRESET)
    kind = section.setdefault("kind", "characters" if small else "bpe")
    if kind not in _KINDS:
        raise ArgumentError(f"tokenizer.kind = {kind!r}: expected one of {', '.join(_KINDS)}, or a path")
    _refuse_unused(section, () if kind == "bpe" else ("vocab_size", "special_tokens"))
    if kind == "bytes":
        return Tokenizer.bytes()
    if _are_conversations(train) or _are_conversations(held_out):
        raise ArgumentError(
            "data are conversations: expected model.pretrained, or a tokenizer.path with a chat template"
        )
    if isinstance(train, TokenFile) or isinstance(held_out, TokenFile):
        raise ArgumentError("data are token ids: expected tokenizer.path, the tokenizer that made them")
    if kind == "characters":
        return Tokenizer.characters("".join([*train, *(held_out or ())]))
    size = section.setdefault("vocab_size", vocab)
    return Tokenizer.train_bpe(train, size, special_tokens=section.get("special_tokens", ()))


def _refuse_unused(section: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuses fields of a tokenizer that say nothing about the one that is taken or made."""
    for name in names:
        if section.get(name) is not None:
            expected = "a path with it"
            if name != "revision":
                other = "path" if section.get("path") else "kind"
                expected = f"none with {other} = {section[other]!r}"
            raise ArgumentError(f"tokenizer.{name} = {section[name]!r}: expected {expected}")


def _training(fields: dict[str, Any], out: Path, train: Dataset, check: Dataset | None) -> TrainingConfig:
    """What the recipe says, and for what it does not say the defaults of recipes."""
    for name, there in (("checkpoint_dir", CHECKPOINTS), ("log_file", LOG), ("progress", "a bar or lines, on stderr")):
        if name in fields:
            raise ArgumentError(f"training.{name} = {fields[name]!r}: expected none, it is always {there}")
    config = TrainingConfig.from_dict(fields, "training")
    optimizer, scheduler = _name(config.optimizer), _name(config.scheduler)
    defaults: dict[str, Any] = {}
    if optimizer in ("adam", "adamw") and not isinstance(config.optimizer, Mapping):
        defaults["betas"] = [0.9, 0.95]
    if scheduler in ("cosine", "linear", "polynomial", "wsd", "two_stage") and not isinstance(
        config.scheduler, Mapping
    ):
        defaults["min_ratio"] = 0.1
    facts = json.loads(train.info())
    in_update = config.batch_size * config.accumulation
    if config.epochs is None:
        steps = defaults["max_steps"] = 1000 if config.max_steps is None else config.max_steps
    else:
        updates = facts["examples"] / in_update
        steps = math.ceil(config.epochs * (math.floor(updates) if config.drop_last else math.ceil(updates)))
    if scheduler != "one_cycle":
        defaults["warmup_steps"] = steps // 20
    defaults |= dict.fromkeys(("eval_every", "checkpoint_every"), max(steps // 10, 1))
    if check is not None:
        # In the time of an update three times its tokens are evaluated: evaluations take no longer than what is between them.
        tokens = in_update * facts["tokens"] / facts["examples"]
        defaults["eval_every"] = max(
            defaults["eval_every"], math.ceil(json.loads(check.info())["tokens"] / (3 * tokens))
        )
    config = config.replace(**{name: value for name, value in defaults.items() if name not in fields})
    return config.replace(checkpoint_dir=str(out / CHECKPOINTS), log_file=str(out / LOG))


def _name(choice: Any) -> Any:
    """Of an optimizer or a schedule."""
    return choice.get("name") if isinstance(choice, Mapping) else choice


def _stated(name: str, value: Any) -> bool:
    """What of a TrainingConfig belongs into the recipe that a run leaves."""
    return value is not None and name not in ("checkpoint_dir", "log_file", "progress")


def _sample_options(section: Mapping[str, Any], tokenizer: Tokenizer, train: Any, seed: int) -> dict[str, Any]:
    """What the model is to write at the end: a continuation of the recipe's prompt, or of the first line of the texts."""
    refuse_unknown(section, _SECTIONS["sample"], "sample")
    if _are_conversations(train):
        prompt, special = first_prompt(train[0], tokenizer)
        kind = {"add_special_tokens": special}
    else:
        text = "\n" if isinstance(train, TokenFile) else train[0]
        prompt, kind = next((line for line in text.splitlines() if line), text)[:40], {}
    options: dict[str, Any] = {"prompt": prompt, "max_new_tokens": _SAMPLE_TOKENS, "temperature": 0.8, "seed": seed}
    options |= {**kind, **section}
    try:
        tokenizer.encode(options["prompt"])
    except (BitNetError, TypeError) as error:
        raise ArgumentError(f"sample.prompt = {options['prompt']!r}: {error}") from error
    return options | {"return_full_text": True}
