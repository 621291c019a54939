"""Texts in files: one file, the files of a directory, or the lines of a JSONL file."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import ArgumentError, FileSystemError, ModelNotFoundError, printable

PIECE = 1 << 18  # characters that are tokenized at a time


def text_files(path: Path, name: str = "data") -> list[Path]:
    """The files of a path, a directory's with those of its directories, by name; hidden ones do not count."""
    if not path.exists():
        raise ModelNotFoundError(f"{name}: there is no {path}")
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise ArgumentError(f"{name}: the directory {path} has no files")
    return files


def read_text(file: Path, name: str) -> str:
    """The whole text of a file."""
    return "".join(_read(file, name, -1))


def documents(path: Path, name: str = "data") -> Iterator[str]:
    """The texts in a path: each file is one, and each line of a .jsonl file, whose objects have it as "text"."""
    for file in text_files(path, name):
        if file.suffix == ".jsonl":
            yield from _lines(file, name)
        else:
            yield from _read(file, name, -1)


def pieces(path: Path, name: str, size: int) -> Iterator[tuple[str, bool]]:
    """The same texts in pieces of about size characters, for what is larger than memory; True marks the last of a text.

    A piece ends before white space, where byte-level tokenizers and those of words begin a token anyway: the tokens of the
    pieces are those of the text.
    """
    for file in text_files(path, name):
        if file.suffix == ".jsonl":
            for line in _lines(file, name):
                yield from cut(line, size)
        else:
            yield from _cut(_read(file, name, size), size)


def cut(text: str, size: int) -> Iterator[tuple[str, bool]]:
    """The pieces of a text in memory."""
    return _cut((text[at : at + size] for at in range(0, len(text), size)), size)


def _cut(parts: Iterable[str], size: int) -> Iterator[tuple[str, bool]]:
    rest, found = "", False
    for part in parts:
        rest, found = rest + part, True
        at = _border(rest) if len(rest) > size else 0
        if at:
            yield rest[:at], False
            rest = rest[at:]
    if found:
        yield rest, True


def _border(text: str) -> int:
    """The last place between what is no white space and what is; 0 if there is none."""
    for at in range(len(text) - 1, 0, -1):
        if text[at].isspace() and not text[at - 1].isspace():
            return at
    return 0


def _read(file: Path, name: str, size: int) -> Iterator[str]:
    """A file's text, to the byte: line ends stay as they are. Pieces of size characters; -1: the whole, in one."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            while part := stream.read(size):
                yield part
                if size < 0:
                    return
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{name}: {file} is not a UTF-8 text: {error}") from error
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{name}: there is no {file}") from error
    except OSError as error:
        raise FileSystemError(f"{name}: {file} cannot be read: {error.strerror}") from error


def _lines(file: Path, name: str) -> Iterator[str]:
    for number, value in json_records(file, name):
        text = value.get("text") if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise ArgumentError(
                f'{name}: line {number} of {file}: expected an object with a "text", found {printable(json.dumps(value), 200)}'
            )
        yield text


def json_records(file: Path, name: str) -> Iterator[tuple[int, Any]]:
    """The values of a .jsonl file with the numbers of their lines, or of the list in a .json file with theirs, from 1."""
    if file.suffix == ".json":
        try:
            values = json.loads(read_text(file, name))
        except (ValueError, RecursionError) as error:
            expected = "expected a list of records; a file with one in each line ends in .jsonl"
            raise ArgumentError(f"{name}: {file} is not JSON: {error}: {expected}") from error
        if not isinstance(values, list):
            raise ArgumentError(f"{name}: {file}: expected a list of records, found {type(values).__name__}")
        yield from enumerate(values, 1)
        return
    for number, line in enumerate(_physical_lines(file, name), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"{name}: line {number} of {file} is not JSON: {error}") from error
        yield number, value


def _physical_lines(file: Path, name: str) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8") as stream:
            yield from stream
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{name}: {file} is not a UTF-8 text: {error}") from error
    except OSError as error:
        raise FileSystemError(f"{name}: {file} cannot be read: {error.strerror}") from error
