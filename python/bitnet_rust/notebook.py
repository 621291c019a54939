"""Jupyter: whether we are in a notebook, and places in its output that change."""

import importlib
import sys
from typing import Any


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel, whose output shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Display:
    """A place in a cell's output."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, html: str, text: str) -> None:
        """Puts HTML there, in the place of what was; text is for viewers without HTML."""
        display: Any = importlib.import_module("IPython.display").display
        bundle = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
