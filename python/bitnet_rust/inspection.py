"""What is in the files of a model."""

import json
from os import PathLike
from typing import Any, Literal

from . import _bitnet
from .hub import resolve


def inspect_model(
    name: str | PathLike[str],
    *,
    stats: bool = False,
    i2s_layout: Literal["x86", "arm64", "row4"] = "x86",
    local_files_only: bool = False,
) -> dict[str, Any]:
    """Lists what the files of a model hold, as they stand there: nothing is converted, and no model is built.

    name: as for ``BitNetModel.from_pretrained``.
    stats: read every tensor and describe its numbers.
    i2s_layout: of I2_S tensors in a GGUF file, see ``from_pretrained``.

    Returns a dictionary with "path", "format" ("safetensors", "native", "gguf" or "onnx"), "metadata" and "tensors", a list of
    dictionaries: "name", "dtype" (of a native file the layout), "shape" (of packed weights that of the matrix), "bytes",
    "offset" in the file's data, "file", and with stats one of

    - "ternary": how many weights are "minus", "zero" and "plus", and their "scale",
    - "float": "min", "max", "mean", "std", "zeros", and "not_finite", the number of NaN and infinities,
    - "error": why the tensor has none.

    Raises ModelNotFoundError, FormatError, ArgumentError.
    """
    path = resolve(name, local_files_only=local_files_only)
    info: dict[str, Any] = json.loads(_bitnet.inspect(path.absolute(), bool(stats), i2s_layout))
    return info
