"""The random numbers of new layers and of dropout."""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_lock = threading.Lock()
_generator: "np.random.Generator | None" = None


def manual_seed(seed: int) -> int:
    """Makes what follows reproducible: the weights of new layers and the seeds of dropout. Returns the seed."""
    global _generator
    import numpy as np

    with _lock:
        _generator = np.random.default_rng(seed)
    return seed


def uniform(bound: float, shape: tuple[int, ...]) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Numbers in [-bound, bound)."""
    with _lock:
        return (_rng().random(shape, "float32") * 2 - 1) * bound


def normal(std: float, shape: tuple[int, ...]) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Normal numbers of mean 0."""
    with _lock:
        return _rng().standard_normal(shape, "float32") * std


def seed() -> int:
    """A seed for the core."""
    with _lock:
        return int(_rng().integers(0, 2**63))


def _rng() -> "np.random.Generator":
    global _generator
    if _generator is None:
        import numpy as np

        _generator = np.random.default_rng()
    return _generator
