"""Names for models: the presets of the Go core, the models that come with the package, and the user's own."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _bitnet
from .config import BitNetConfig, fields_json
from .errors import ArgumentError

# A Hugging Face repository, "owner/name".
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

# Models whose weights are package data.
_EMBEDDED = Path(__file__).parent / "models"


@dataclass(frozen=True)
class ModelEntry:
    """A registered model.

    name: what ``from_pretrained`` and ``from_config`` take.
    aliases: other names for it.
    hub_id: Hugging Face repository of the weights; None if they are not published.
    parameters: how many weights it has.
    memory: bytes of the weights when loaded, with an int8 head.
    config: its shape.
    """

    name: str
    aliases: tuple[str, ...]
    hub_id: str | None
    parameters: int
    memory: int
    config: BitNetConfig

    @property
    def embedded(self) -> Path | None:
        """Directory of the weights, if they come with the package."""
        found = (_EMBEDDED / name for name in (self.name, *self.aliases))
        return next((path for path in found if path.is_dir()), None)


def _entry(fields: dict[str, Any]) -> ModelEntry:
    return ModelEntry(
        name=fields["name"],
        aliases=tuple(fields["aliases"]),
        hub_id=fields["hub_id"] or None,
        parameters=fields["parameters"],
        memory=fields["bytes"],
        config=BitNetConfig._of(fields["config"]),
    )


def list_models() -> list[ModelEntry]:
    """All registered models, the built-in ones first."""
    return [_entry(fields) for fields in json.loads(_bitnet.presets())]


def find_model(name: str) -> ModelEntry:
    """The model with this name, alias or hub id; ``ArgumentError`` that proposes close names if there is none."""
    return _entry(json.loads(_bitnet.find_preset(name)))


def register_model(name: str, config: BitNetConfig | Mapping[str, Any], hub_id: str | None = None) -> None:
    """Gives a model shape a name, for this process, and says where its weights are on the hub.

    A name that is taken raises ``ArgumentError``, an impossible config ``ConfigError``.
    """
    if hub_id is not None and not HUB_ID.fullmatch(hub_id):
        raise ArgumentError(f"hub_id = {hub_id!r}: expected a Hugging Face repository, 'owner/name'")
    _bitnet.register_preset(name, hub_id or "", fields_json(config))
