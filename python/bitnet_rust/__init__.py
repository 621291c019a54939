"""BitNet b1.58 language models on the CPU."""

import json
from typing import Any

from . import _bitnet

__version__ = _bitnet.__version__


def build_info() -> dict[str, Any]:
    """How this copy was built and what it found on this machine."""
    info: dict[str, Any] = json.loads(_bitnet.build_info())
    return info
