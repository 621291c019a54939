"""How two models differ, whatever formats their files have."""

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from typing import Any

from . import _bitnet
from .configuration import settings
from .conversion import compare_logits, fixed_logits
from .errors import ArgumentError
from .hub import is_local, refuse_revision, resolve
from .model import BitNetModel, I2SLayout

# What a config says of files and not of what the model computes.
_OF_FILES = {"dtype", "torch_dtype", "initializer_range", "use_cache"}
_OF_FILES_IN_QUANTIZATION = {"quant_method", "linear_class", "quantization_mode"}


@dataclass(frozen=True)
class ModelDiff:
    """How model b differs from model a.

    a: where the one model came from.
    b: where the other came from.
    config: the fields of config.json that are not the same, with both values; None for one that is not there.
    tensors: every tensor of either: "name", and of a and b each, "shapes", "kinds" ("ternary" or "float"), "scales" (of
        ternary ones); then "values", how many "differ", how many "codes" do where both are ternary, "max_difference" of
        two values and where it is ("at": row, column). A ternary weight is its code times the scale.
    same_argmax: share of the positions of a fixed prompt at which the most probable next token is the same; None when
        it was not computed, or the vocabularies are not of one size.
    max_difference: largest difference of a logit there, or None likewise.
    """

    a: str
    b: str
    config: dict[str, tuple[Any, Any]]
    tensors: list[dict[str, Any]]
    same_argmax: float | None
    max_difference: float | None

    @property
    def different(self) -> list[dict[str, Any]]:
        """The tensors that are not the same to the bit."""
        return [
            t for t in self.tensors if t["differ"] or t["shapes"][0] != t["shapes"][1] or t["kinds"][0] != t["kinds"][1]
        ]

    @property
    def equal(self) -> bool:
        """Whether both compute the same: no tensor differs, no logit, and no field of the config but those that say how files
        store it."""
        config = all(_computes(name, a) == _computes(name, b) for name, (a, b) in self.config.items())
        return config and not self.different and not self.max_difference

    def to_dict(self) -> dict[str, Any]:
        """Everything as a dictionary that JSON takes."""
        return asdict(self) | {"equal": self.equal}


def diff_models(
    a: str | PathLike[str] | BitNetModel,
    b: str | PathLike[str] | BitNetModel,
    *,
    logits: bool = True,
    i2s_layout: I2SLayout = "x86",
    quantize: bool = False,
    revision: str | None = None,
    revision_b: str | None = None,
    local_files_only: bool = False,
) -> ModelDiff:
    """Compares two models: their configs, every tensor, and the logits of a fixed prompt.

    a, b: as for ``BitNetModel.from_pretrained``, files of any two formats, or models.
    logits: compute them; otherwise only files are read.
    i2s_layout, quantize, revision: of both, or of the one that they say something about, see ``from_pretrained``.
    revision_b: of b, where it is another one.
    local_files_only: download nothing.

    Raises what loading raises, and ArgumentError for an option that is about neither.
    """
    settings.check()
    local = [isinstance(one, BitNetModel) or is_local(one) for one in (a, b)]
    if all(local):
        refuse_revision(revision, f"{_name(a)} and {_name(b)} are here")
    if local[1]:
        refuse_revision(revision_b, f"{_name(b)} is here", "revision_b")
    revisions = (None if local[0] else revision, revision_b if revision_b is not None or local[1] else revision)
    loading = json.dumps({"i2s_layout": i2s_layout, "quantize": bool(quantize), "lenient": True})
    with ExitStack() as stack:
        models, unused = [], []
        for one, its in zip((a, b), revisions, strict=True):
            if isinstance(one, BitNetModel):
                models.append(one)
                unused.append({"i2s_layout", "quantize"})
                continue
            path = resolve(one, revision=its, local_files_only=local_files_only).absolute()
            models.append(stack.enter_context(BitNetModel(_bitnet.load(path, loading, None), path)))
            unused.append(set(models[-1].info.get("unused", ())))
        left, right = models
        for name, value, stated in (("i2s_layout", i2s_layout, i2s_layout != "x86"), ("quantize", True, quantize)):
            if stated and all(name in its for its in unused):
                raise ArgumentError(
                    f"{name} = {value!r}: it says nothing about {_name(a)} and {_name(b)}: expected it to be left out"
                )
        tensors: list[dict[str, Any]] = json.loads(left._model.diff(right._model))
        fields = {name: (left.config.get(name), right.config.get(name)) for name in [*left.config, *right.config]}
        same = difference = None
        if logits and left.config.vocab_size == right.config.vocab_size:
            same, difference = compare_logits(fixed_logits(left), fixed_logits(right))
    return ModelDiff(
        a=_name(a),
        b=_name(b),
        config={name: pair for name, pair in fields.items() if pair[0] != pair[1]},
        tensors=tensors,
        same_argmax=same,
        max_difference=difference,
    )


def _computes(name: str, value: Any) -> Any:
    """A field of a config without what says how files store the model."""
    if name in _OF_FILES:
        return None
    if name == "quantization_config" and value is not None:
        return {key: one for key, one in value.items() if key not in _OF_FILES_IN_QUANTIZATION}
    return value


def _name(model: str | PathLike[str] | BitNetModel) -> str:
    return repr(model) if isinstance(model, BitNetModel) else fspath(model)
