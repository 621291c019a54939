"""What all figures have in common: matplotlib when it is there, and files that appear whole."""

import io
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, FileSystemError, missing_extra
from ..files import check_place, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float = 7, height: float = 4) -> "Figure":
    """An empty figure in inches, which a notebook shows. MissingExtraError without matplotlib."""
    figure: Figure = _shown_class()(figsize=(width, height), layout="constrained")
    return figure


def write_figure(figure: "Figure", path: str | PathLike[str]) -> None:
    """Writes a figure in the format that the name ends in, by default PNG: complete or not at all.

    ArgumentError for an ending that is no format of matplotlib's, FileSystemError where the file cannot be written.
    """
    check_figure_path(path)
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format=_format(path))
    write_bytes(path, content.getvalue())


def finished(figure: "Figure", path: str | PathLike[str] | None) -> "Figure":
    """The figure, written to the path if there is one."""
    if path is not None:
        write_figure(figure, path)
    return figure


def check_figure_path(path: str | PathLike[str]) -> None:
    """Raises what write_figure would for a picture that cannot be drawn or written there."""
    kinds = new_figure().canvas.get_supported_filetypes()
    if _format(path) not in kinds:
        raise ArgumentError(f"path = {fspath(path)!r}: expected a name that ends in one of {', '.join(sorted(kinds))}")
    check_place(path)


def _format(path: str | PathLike[str]) -> str:
    if not fspath(path):
        raise FileSystemError("cannot write '': expected the name of a file")
    return Path(path).suffix.lower().removeprefix(".") or "png"


def _shown_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise missing_extra("a plot", "matplotlib", "viz") from missing
    return _subclass(Figure)


@cache
def _subclass(base: Any) -> Any:
    class Plot(base):  # type: ignore[misc]
        """A figure that a notebook shows as it is, without pyplot."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, dpi=90, format="png")
            return content.getvalue()

    return Plot
