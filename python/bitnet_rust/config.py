"""Model configurations: read-only, with the names of a Hugging Face config.json."""

import json
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from typing import Any

from . import _bitnet
from .errors import ConfigError


class BitNetConfig(Mapping[str, Any]):
    """What fixes the shapes and the arithmetic of a model.

    >>> config = BitNetConfig(preset="bitnet-2b", num_hidden_layers=2)
    >>> config.hidden_size
    2560

    It takes the fields of a Hugging Face config.json, or those of our own form (docs/reference/config.md), of which ``preset``
    names a registered model whose fields are the defaults. It has the former, as attributes and as a mapping. What is
    impossible or unknown raises ``ConfigError`` with the field, the value and the reason.

    architectures: one of ["BitNetForCausalLM"], ["BitnetForCausalLM"], ["LlamaForCausalLM"] and ["GPT2LMHeadModel"].
    model_type: "bitnet", "llama" or "gpt2".
    vocab_size: rows of the embedding and of the head.
    hidden_size: width of the residual stream.
    intermediate_size: width of the feed-forward network.
    num_hidden_layers: transformer layers.
    num_attention_heads: heads of queries.
    num_key_value_heads: heads of keys and values; divides num_attention_heads, fewer means grouped queries.
    head_dim: width of a head.
    hidden_act: "relu2" (squared ReLU), "silu", "relu", "gelu", "gelu_new" or "gelu_pytorch_tanh".
    max_position_embeddings: longest context in tokens.
    rms_norm_eps: added to the mean square in norms, of LayerNorm to the variance.
    rope_theta: base of the rotary positions; not there where positions are learned.
    rope_scaling: how these are stretched, {"rope_type": "linear" or "llama3", "factor", ...}, or None; not there likewise.
    tie_word_embeddings: embedding and head are one table.
    attention_bias: the projections of attention have a bias.
    mlp_bias: those of the feed-forward network have one.
    bos_token_id: the token that begins a text, or None.
    eos_token_id: the token, or the tokens, that end a text, or None.
    pad_token_id: the token that fills up batches, or None.
    initializer_range: standard deviation of fresh weights.
    dtype: of the checkpoint's float tensors: "bfloat16", "float16" or "float32".
    """

    architectures: list[str]
    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_act: str
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    bos_token_id: int | None
    eos_token_id: int | list[int] | None
    pad_token_id: int | None
    initializer_range: float
    dtype: str

    _fields: dict[str, Any]

    def __init__(self, **fields: Any) -> None:
        object.__setattr__(self, "_fields", json.loads(_bitnet.config("", fields_json(fields))))

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> "BitNetConfig":
        """Reads a .json or .yaml file, Hugging Face's form or ours, or the config.json of a model directory."""
        return cls._validated(_bitnet.config(fspath(path), ""))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "BitNetConfig":
        """Takes the content of a config.json."""
        return cls._validated(_bitnet.config("", fields_json(fields)))

    @classmethod
    def _validated(cls, text: str) -> "BitNetConfig":
        return cls._of(json.loads(text))

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> "BitNetConfig":
        config = cls.__new__(cls)
        object.__setattr__(config, "_fields", fields)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The content of the model's config.json, as a fresh dictionary."""
        fields: dict[str, Any] = json.loads(self.to_json())
        return fields

    def to_json(self, indent: int | None = None) -> str:
        """The text of the model's config.json."""
        return json.dumps(self._fields, indent=indent)

    @property
    def eos_token_ids(self) -> list[int]:
        """``eos_token_id`` as a list, whichever form it has."""
        ids = self._fields.get("eos_token_id")
        return [] if ids is None else ids if isinstance(ids, list) else [ids]

    def __getattr__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise AttributeError(f"the config has no field {name!r}; it has {', '.join(self._fields)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a config cannot be changed; make another: BitNetConfig.from_dict({**config, ...})")

    def __reduce__(self) -> tuple[Any, ...]:
        return BitNetConfig._of, (self._fields,)

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._fields]

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        return f"BitNetConfig({', '.join(f'{name}={value!r}' for name, value in self._fields.items())})"


def fields_json(fields: Any) -> str:
    """A config or a dictionary of its fields as JSON. NumPy's numbers are numbers; what is none raises ConfigError."""
    if not isinstance(fields, Mapping):
        raise ConfigError(
            f"config is of type {type(fields).__name__}: expected a BitNetConfig or a dictionary of fields"
        )
    for name, value in fields.items():
        try:
            json.dumps(value, default=_plain, allow_nan=False)
        except (TypeError, ValueError) as error:
            reason = "must be a finite number" if isinstance(value, float) else f"cannot be part of a config: {error}"
            raise ConfigError(f"config: {name} = {value!r}: {reason}") from error
    return json.dumps(dict(fields), default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a number, a text, a list or a dictionary")
