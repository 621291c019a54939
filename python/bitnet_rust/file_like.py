"""Models from file objects: whatever can read and seek."""

import io
import json
from collections.abc import Callable
from typing import Any

from . import _bitnet
from .errors import ArgumentError


def is_file(name: Any) -> bool:
    """Whether it is a file object rather than a name or a path."""
    return hasattr(name, "read") and hasattr(name, "seek")


def load(file: Any, options: dict[str, Any], progress: Callable[[int, int], object] | None) -> _bitnet.Model:
    """The model in a native file, read from its beginning whatever its position is; afterwards it has that position again."""
    name = file_name(file)
    before, size = _extent(file, name)
    try:
        return _bitnet.load_stream(_reader(file, name), name, size, json.dumps(options), progress)
    finally:
        if not getattr(file, "closed", False):
            file.seek(before)


def file_name(file: Any) -> str:
    """What errors call it."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) and name else f"a {type(file).__name__}"


def _extent(file: Any, name: str) -> tuple[int, int]:
    """Where a file is, and its size."""
    if getattr(file, "closed", False):
        raise ArgumentError(f"{name} is closed: expected an open file")
    try:
        if hasattr(file, "seekable") and not file.seekable():
            raise io.UnsupportedOperation("seek")
        before = file.tell()
        file.seek(0, 2)
        return before, file.tell()
    except (io.UnsupportedOperation, AttributeError) as error:
        raise ArgumentError(
            f"{name} cannot tell and seek positions ({error}): expected a file, or io.BytesIO of what a pipe gives"
        ) from error


def _reader(file: Any, name: str) -> Callable[[int, int], bytes]:
    def read(at: int, size: int) -> bytes:
        file.seek(at)
        pieces, missing = [], size
        while missing:
            piece = file.read(missing)
            if isinstance(piece, str):
                raise ArgumentError(f"{name} gives text: expected a file that was opened in binary mode")
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise ArgumentError(f"{name}.read({missing}) gives {type(piece).__name__}: expected bytes")
            if len(piece) > missing:
                raise ArgumentError(f"{name}.read({missing}) gives {len(piece)} bytes: expected {missing} at most")
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 and isinstance(pieces[0], bytes) else b"".join(pieces)

    return read
