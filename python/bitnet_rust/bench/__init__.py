"""Speed of this machine, measured so that the figures explain themselves.

Each benchmark measures how fast memory can be read in the same run, between its repetitions, and states its result as a fraction of
that. ``python -m bench`` in the repository and ``bitnet bench`` are this package.
"""

from .batches import batch
from .commands import app
from .contexts import context
from .decoding import decode
from .guesses import guess
from .loading import load
from .machine import processor
from .prompts import prefill
from .report import plot, report
from .serving import serve
from .subject import SubjectOptions

__all__ = [
    "SubjectOptions",
    "app",
    "batch",
    "context",
    "decode",
    "guess",
    "load",
    "plot",
    "prefill",
    "processor",
    "report",
    "serve",
]
