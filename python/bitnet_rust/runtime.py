"""The process as the Go core sees it: build, instruction set, threads, memory."""

import json
import operator
import sys
import threading
from collections.abc import Callable
from typing import Any

from . import _bitnet
from .configuration import settings


def build_info() -> dict[str, Any]:
    """How this copy was built and what it found on this machine.

    Keys: ``version``, ``go_version``, ``os``, ``arch``, ``isa`` (the instruction set in use; ``BITNET_ISA`` chooses
    another of ``supported_isas``), ``features`` of the processor, ``threads``, ``physical_cores``, ``memory_budget`` in
    bytes, ``skip_zeros``, ``pool_debug``, ``environment_errors`` (a sentence for each ``BITNET_`` variable, and each line of the
    settings file, that cannot be honoured).
    """
    info: dict[str, Any] = json.loads(_bitnet.build_info())
    info["environment_errors"] += settings.errors
    return info


def num_threads() -> int:
    """How many threads the kernels use, the calling one included."""
    return _bitnet.num_threads()


def set_num_threads(n: int) -> None:
    """Makes the kernels use n threads, 1 to 1024; ``ArgumentError`` otherwise.

    At start it is ``BITNET_NUM_THREADS`` or the number of physical cores that the process may use. Results do not
    depend on it: each output is computed by one thread in one fixed order.
    """
    settings.set(num_threads=operator.index(n))


def memory_stats() -> dict[str, Any]:
    """The counters of the memory that holds weights, caches and scratch, in bytes.

    Among the keys: ``requested`` by live blocks, ``in_use`` for them, ``reserved`` from the system, each with its
    ``peak_``; ``budget``; ``live_blocks``; ``failures``; ``internal_fragmentation`` and ``external_fragmentation``;
    ``classes``, ``runs``, ``large_runs`` and ``histogram``. docs/memory.md explains them.
    """
    stats: dict[str, Any] = json.loads(_bitnet.memory_stats())
    return stats


def trim_memory() -> int:
    """Gives all free memory back to the operating system and returns how many bytes that were.

    Memory of closed models and finished generations is kept for the next ones, up to 128 MiB.
    """
    return _bitnet.trim_memory()


def memory_blocks() -> list[dict[str, Any]]:
    """The blocks of memory that are in use, largest first: what is listed after everything was closed has leaked.

    Each has ``tag``, ``bytes``, ``references`` and ``stack``, the place in the core that allocated it, innermost first.
    Needs ``BITNET_POOL_DEBUG=1`` in the environment before the process starts; ``ArgumentError`` otherwise.
    """
    blocks: list[dict[str, Any]] = json.loads(_bitnet.memory_blocks())
    return blocks


def on_memory_pressure(threshold: float, callback: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    """Calls callback with ``memory_stats()`` each time the memory in use rises over a share of the budget.

    threshold: the share, above 0 and at most 1; ``ArgumentError`` otherwise. The budget is ``BITNET_MEMORY_BUDGET``.
    callback: runs in a thread of its own shortly after the rise, and may close models and call ``trim_memory``. An
        exception in it is printed. It is called again only after the use fell below the share.

    Returns a function that ends the calls.
    """
    watch = _bitnet.watch_pressure(threshold)

    def run() -> None:
        while (stats := watch.wait()) is not None:
            try:
                callback(json.loads(stats))
            except Exception:
                sys.excepthook(*sys.exc_info())  # the watch goes on

    threading.Thread(target=run, name="bitnet-memory-pressure", daemon=True).start()
    return watch.close
