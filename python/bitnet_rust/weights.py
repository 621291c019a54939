"""The weights of a model in memory, as it computes with them, and what it attends to."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _bitnet
from .arrays import token_ids, whole_number
from .errors import ArgumentError
from .tensor import Tensor

if TYPE_CHECKING:
    from array import array

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Weight:
    """A tensor of a model: ``BitNetModel.weights`` lists them, ``BitNetModel.weight`` reads one.

    name: as in a Hugging Face checkpoint: "model.layers.0.mlp.up_proj.weight".
    shape: [out, in] of a matrix, [n] of a bias or a norm.
    dtype: "ternary", or what floats are kept as: "float32", "bfloat16", "float16", "int8" or "int4".
    bytes: what it occupies in memory, without the master weights and gradients of a trainable model.
    scale: of a ternary tensor, what its codes are multiplied by; None of others.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    scale: float | None = None


@dataclass(frozen=True)
class QuantizationError:
    """How far a ternary weight is from the master weight that it was made of.

    mse: mean squared error.
    sqnr: signal to noise, 10 log10(sum w^2 / sum (w - w')^2), in dB; infinite without an error.
    cosine: cosine of the angle between both.
    max: largest error of one weight.
    """

    mse: float
    sqnr: float
    cosine: float
    max: float


def list_weights(model: _bitnet.Model) -> list[Weight]:
    """See BitNetModel.weights."""
    listed: list[dict[str, Any]] = json.loads(_reader(model).call("tensors", "", ())[0])
    return [Weight(**one | {"shape": tuple(one["shape"])}) for one in listed]


def read_weight(model: _bitnet.Model, name: str) -> Tensor:
    """See BitNetModel.weight."""
    found = next((one for one in list_weights(model) if one.name == name), None)
    if found is None:
        raise ArgumentError(f"name = {name!r}: expected one of the names that weights() lists")
    handle = _reader(model).call("tensor", json.dumps(name), ())[1][0]
    assert handle is not None
    return Tensor._of(handle).reshape(*found.shape)


def quantization_error(model: _bitnet.Model, name: str) -> QuantizationError:
    """See BitNetModel.quantization_error."""
    return QuantizationError(
        **{"sqnr": float("inf")} | json.loads(_reader(model).call("error", json.dumps(name), ())[0])
    )


def attention_weights(
    model: _bitnet.Model, ids: "array[int]", layers: int | Sequence[int] | None, count: int
) -> "NDArray[np.float32]":
    """See BitNetModel.attentions; count is how many layers the model has."""
    chosen = range(count) if layers is None else [layers] if isinstance(layers, int) else layers
    numbers = [whole_number(one, "layers", range(count)) for one in chosen]
    operand = _bitnet.tensor(json.dumps({"dtype": "int32", "shape": [len(ids)]}), token_ids(ids))
    handle = _bitnet.object("attention", "", (), (model,)).call("weights", json.dumps(numbers), (operand,))[1][0]
    assert handle is not None
    return Tensor._of(handle).numpy(copy=False)


def _reader(model: _bitnet.Model) -> _bitnet.Object:
    return _bitnet.object("weights", "", (), (model,))
