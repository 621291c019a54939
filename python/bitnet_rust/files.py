"""Small text files: read as a mapping of fields, written whole or not at all."""

import difflib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import takewhile
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from . import _bitnet
from .errors import ConfigError, FileSystemError, ModelNotFoundError


def read_fields(path: str | PathLike[str]) -> dict[str, Any]:
    """The content of a .yaml, .yml or .json file whose top is a mapping; ConfigError names the file and the line."""
    name = fspath(path)
    if not name.lower().endswith((".yaml", ".yml", ".json")):
        raise ConfigError(f"{name}: expected a file that ends in .yaml, .yml or .json")
    try:
        text = Path(path).expanduser().read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not a UTF-8 text: {error}") from error
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{name}: there is no such file") from error
    except OSError as error:
        raise FileSystemError(f"{name}: {error.strerror}") from error
    try:
        fields = json.loads(text) if name.lower().endswith(".json") else _numbers(json.loads(_bitnet.yaml(text, name)))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{name}: expected a mapping of fields at the top, found {type(fields).__name__}")
    return fields


_EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")


def _numbers(value: Any) -> Any:
    """Reads 1e-3 as a number, which for YAML 1.1 is a text, having no point."""
    if isinstance(value, dict):
        return {name: _numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def write_fields(path: str | PathLike[str], fields: Mapping[str, Any], comment: str = "") -> None:
    """Writes a mapping that read_fields gives back, as YAML or, to a name that ends in .json, as JSON."""
    if fspath(path).lower().endswith(".json"):
        write_text(path, json.dumps(fields, indent=2, ensure_ascii=False) + "\n")
    else:
        head = f"# {comment}\n" if comment else ""
        write_text(path, head + "".join(_yaml_lines(fields, "")))


def _yaml_lines(fields: Mapping[str, Any], indent: str) -> Iterable[str]:
    """Mappings line by line, and everything in them as JSON, which YAML includes."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:\n"
            yield from _yaml_lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}\n"


@contextmanager
def place_of(path: str | PathLike[str], *, make: bool = True) -> Iterator[Path]:
    """The place to write to, with the user's home for `~`. The directories above it are made, unless make says otherwise, and go again
    if they were not there and nothing comes of the writing."""
    place = expanded(path)
    new, _ = _missing(place, path)
    if not make:
        yield place
        return
    try:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileSystemError(f"cannot write {fspath(path)}: {error}") from error
        yield place
    except BaseException:
        with suppress(OSError):  # what is not empty, and what contains it, stays
            for folder in new:
                folder.rmdir()
        raise


def expanded(path: str | PathLike[str]) -> Path:
    """A path to write to, with the user's home for `~`."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # the home of nobody
        raise FileSystemError(f"cannot write {fspath(path)}: {error}") from error


def _missing(place: Path, path: str | PathLike[str]) -> tuple[list[Path], Path | None]:
    """The directories above a place that are not there, the innermost first, and the one that they would be made in, if any is there;
    FileSystemError if they cannot be, or if the place is one that a file must not take, as that of /dev/null, which whoever is root could
    replace."""
    new = list(takewhile(lambda folder: not os.path.lexists(folder), place.parents))
    above = next(iter(place.parents[len(new) :]), None)
    if above is not None and not os.path.isdir(above):  # which raises nothing where one may not look
        raise FileSystemError(f"cannot write {fspath(path)}: {above} is not a directory")
    if os.path.exists(place) and not (os.path.isfile(place) or os.path.isdir(place)):
        raise FileSystemError(f"cannot write {fspath(path)}: it is no regular file")
    return new, above


def write_text(path: str | PathLike[str], text: str) -> None:
    """Creates or replaces a file, and the directories above it: whatever happens meanwhile, the name has the old content or the new one."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | PathLike[str], content: bytes) -> None:
    """write_text of bytes."""
    with place_of(path) as place:
        beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, place)
        except OSError as error:
            raise FileSystemError(f"cannot write {fspath(path)}: {error}") from error
        finally:
            with suppress(OSError):
                beside.unlink()


def check_place(path: str | PathLike[str]) -> None:
    """Refuses a file name that could not be written to, before there is something to write."""
    place = expanded(path)
    _, above = _missing(place, path)
    if os.path.isdir(place):
        reason = "it is a directory"
    elif above is not None and not os.access(above, os.W_OK):
        reason = f"the directory {above} may not be written to"
    else:
        return
    raise FileSystemError(f"cannot write {fspath(path)}: {reason}")


def refuse_unknown(
    fields: Iterable[str],
    known: Iterable[str],
    where: str,
    error: type[Exception] = ConfigError,
    elsewhere: Mapping[str, str] | None = None,
) -> None:
    """Raises an error for the first field that is not known, with the name that it may have meant.

    elsewhere: what fields are called here that other libraries call otherwise.
    """
    names = list(known)
    for field in fields:
        if field in names:
            continue
        other = (elsewhere or {}).get(str(field))
        close = [other] if other else difflib.get_close_matches(str(field), names, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}"
        raise error(f"{where}: unknown field {field!r}: {hint}")
