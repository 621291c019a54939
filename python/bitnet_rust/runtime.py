"""The process as the Go core sees it: build, instruction set, threads."""

import json
from typing import Any

from . import _bitnet


def build_info() -> dict[str, Any]:
    """How this copy was built and what it found on this machine.

    Keys: ``version``, ``go_version``, ``os``, ``arch``, ``isa`` (the instruction set in use; ``BITNET_ISA`` chooses
    another of ``supported_isas``), ``features`` of the processor, ``threads``, ``physical_cores``.
    """
    info: dict[str, Any] = json.loads(_bitnet.build_info())
    return info


def num_threads() -> int:
    """How many threads the kernels use, the calling one included."""
    return _bitnet.num_threads()


def set_num_threads(n: int) -> None:
    """Makes the kernels use n threads, 1 to 1024; ``ArgumentError`` otherwise.

    At start it is ``BITNET_NUM_THREADS`` or the number of physical cores that the process may use. Results do not
    depend on it: each output is computed by one thread in one fixed order.
    """
    _bitnet.set_num_threads(n)
