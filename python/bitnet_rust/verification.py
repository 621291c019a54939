"""Whether the files of a model are what was saved."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

from . import _bitnet
from .chat_template import check
from .errors import BitNetError
from .generation import check_defaults, generation_defaults
from .hub import resolve
from .progress import Progress, progress_of
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Verification:
    """What was found in the files of a model.

    path: the file or directory that was looked at.
    format: "safetensors", "native", "gguf", "onnx", or "checkpoint" of a training run; empty of files that cannot be opened.
    tensors: how many were read: 0 where the structure of the files is wrong.
    bytes: of them, as the files have them.
    checksums: how many were compared with a checksum: all of a native file and of a checkpoint; other formats have none.
    problems: why the model will not load, or is not what was saved: "check" is "structure", "checksum" or "values";
        "tensor", which may be empty; "message".
    warnings: the same of what a trained model does not have, such as a matrix of zeros, and what loading warns of.
    norms: "name", "min", "max", "mean" and "std" of the weights of every norm.
    """

    path: str
    format: str
    tensors: int
    bytes: int
    checksums: int
    problems: list[dict[str, str]]
    warnings: list[dict[str, str]]
    norms: list[dict[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Everything, and "ok", as a dictionary that JSON takes."""
        return {"ok": self.ok} | asdict(self)


def verify_model(
    name: str | PathLike[str],
    *,
    i2s_layout: Literal["x86", "arm64", "row4"] = "x86",
    quantize: bool = False,
    revision: str | None = None,
    local_files_only: bool = False,
    progress: Progress | bool | None = None,
) -> Verification:
    """Reads all files of a model and says what is wrong with them: header, configuration, names, shapes, tokenizer and
    sampling defaults as loading reads them; every checksum of a native file; and every number, for NaN and infinities,
    ternary codes that are no weights, and scales that are not positive. It takes a few megabytes, whatever the model.
    A tensor of a wrong type or shape is not read, and none is where one is missing or the configuration is wrong.

    name: as for ``BitNetModel.from_pretrained``, or a checkpoint of a training run, which is looked at as far as numbers go.
    i2s_layout, quantize, revision, local_files_only: see ``from_pretrained``.
    progress: called as progress(bytes_done, bytes_total); True draws a bar.

    Raises ModelNotFoundError, ArgumentError, FileSystemError; what is wrong with the content is in ``problems``.
    """
    path = resolve(name, revision=revision, local_files_only=local_files_only)
    options = {"i2s_layout": i2s_layout, "quantize": bool(quantize)}
    with progress_of(progress, f"reading {fspath(name)}") as told:
        found = Verification(**json.loads(_bitnet.verify(path.absolute(), json.dumps(options), told)))
    if found.format not in ("", "checkpoint"):
        found.problems.extend(
            {"check": "structure", "tensor": "", "message": text} for text in _beside(path.absolute())
        )
    return found


def _beside(path: Path) -> Iterator[str]:
    """What is wrong with the tokenizer, its template and the sampling defaults, which loading leaves to their first use."""
    try:
        texts: dict[str, str] = json.loads(_bitnet.assets(path))
    except BitNetError:  # which is among the problems
        return
    if "tokenizer.json" in texts:
        try:
            template = Tokenizer.from_files(texts, str(path)).chat_template
        except BitNetError as error:
            yield str(error)
        else:
            try:
                check(template or "")
            except BitNetError as error:
                yield f"{path}: {error}"
    if "generation_config.json" in texts:
        try:
            check_defaults(generation_defaults(texts["generation_config.json"], str(path)), str(path))
        except BitNetError as error:
            yield str(error)
