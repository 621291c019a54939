"""The exceptions of bitnet_rust: one tree, each also a subclass of the built-in that fits.

``except BitNetError`` catches everything this package raises on purpose; ``except ValueError`` catches bad files, bad
configurations and bad arguments, as with the rest of the Python world.
"""

import re
import sys
import warnings


class BitNetError(Exception):
    """Base of every exception below."""


class FormatError(BitNetError, ValueError):
    """A file is damaged or not what it says: the message names the file, the tensor or field, found and expected."""


class ConfigError(BitNetError, ValueError):
    """A model configuration has an impossible or unknown value: the message names the field, the value and why."""


class ShapeError(BitNetError, ValueError):
    """Array shapes do not fit together: the message names both."""


class DTypeError(BitNetError, TypeError):
    """An array has a dtype that the operation does not take."""


class ArgumentError(BitNetError, ValueError):
    """An argument of a call is out of its range: a token id, a temperature, an empty prompt, a closed model."""


class DeviceError(BitNetError, ValueError):
    """A device that there are no kernels for: the message has its name and what is missing."""


class OutOfRangeError(BitNetError, ValueError, IndexError):
    """An index or an axis does not exist in a tensor: the message has it and the shape."""


class OutOfMemoryError(BitNetError, MemoryError):
    """The memory budget would be exceeded: the message has the bytes asked for, in use and allowed."""


class ModelNotFoundError(BitNetError, FileNotFoundError):
    """No model at that path or under that name: the message says which directory or name to pass."""


class FileSystemError(BitNetError, OSError):
    """The operating system refused to read or write a file: a permission, a full disk. The message names the file."""


class LogitsError(BitNetError, ArithmeticError):
    """No token can be chosen: a logit is NaN or infinite, as damaged weights make it, or every token is banned."""


class QueueFullError(BitNetError, RuntimeError):
    """An engine has as many requests waiting as it may: try again later. The message has how many."""


class DeadlineError(BitNetError, TimeoutError):
    """A request was not finished by its deadline."""


class RequestCanceledError(BitNetError, RuntimeError):
    """A request was canceled, or its engine was closed before it was done."""


class TrainingError(BitNetError, ArithmeticError):
    """Training diverged: a loss or a gradient is NaN or infinite. The message names step, layer and tensor."""


class CheckpointError(BitNetError, ValueError):
    """No training run can continue from there: no readable checkpoint, one of another run, or a directory that another run is
    writing to. The message has the file and why."""


class AutogradError(BitNetError, RuntimeError):
    """A backward pass that cannot be: no gradient is required, the graph was freed, or a value it needs was changed in
    place. The message names the operation."""


class GradCheckError(AutogradError, AssertionError):
    """A gradient disagrees with central differences: the message names the input and its worst element."""


class TokenizerError(BitNetError, ValueError):
    """The model has no tokenizer, or one that cannot be read, or no chat template."""


class MissingExtraError(BitNetError, ImportError):
    """An optional part was used and the packages for it are not installed: the message has the pip command that brings them."""


def missing_extra(what: str, needs: str, extra: str) -> MissingExtraError:
    """What to raise when importing a package that only an extra of this distribution names has failed.

    >>> str(missing_extra("History.plot()", "matplotlib", "viz"))
    "History.plot() needs matplotlib: pip install 'bitnet-rust[viz]'"
    """
    return MissingExtraError(f"{what} needs {needs}: {pip_command(extra)}")


def pip_command(extra: str | None = None) -> str:
    """What brings the packages of an extra, or those that every part needs."""
    return f"pip install 'bitnet-rust[{extra}]'" if extra else "pip install bitnet-rust"


class InternalError(BitNetError, RuntimeError):
    """A defect of this package: a panic of the Go core, contained and reported with its stack."""


class ForkError(BitNetError, RuntimeError):
    """Used in a process made by fork(): Go's threads do not survive it; use multiprocessing's spawn or forkserver."""


class CheckpointWarning(UserWarning):
    """A training checkpoint is damaged and was passed over for an older one: the message has the file and why."""


class ModelWarning(UserWarning):
    """A model was loaded or saved, and there is something to know about it: code of its own that is not run, weights that look as if they
    were read in the wrong order, layers that the type of a GGUF file has no form for. The message names the file."""


def printable(text: object, most: int | None = None) -> str:
    """Somebody's text as a message or a terminal may have it: on one line, what is no visible character escaped as Python does, and
    cut after so many characters.

    A file may hold line breaks, and what a terminal takes for orders.

    >>> printable("a\x1b[2J\n")
    'a\\x1b[2J\\n'
    """
    whole = str(text)
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in whole[:most])
    return shown if most is None or len(whole) <= most else f"{shown}..."


_ORDERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def without_orders(text: str) -> str:
    """Somebody's text of several lines with all that a terminal would obey escaped, such as what sets its title or somebody's clipboard."""
    return _ORDERS.sub(lambda found: repr(found[0])[1:-1], text)


def json_without_orders(text: str) -> str:
    """JSON with the orders escaped that it may have as they are, DEL and those from U+0080 on; it means the same."""
    return _ORDERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the line of the user's program that led here, however deep below it we are."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("bitnet_rust", "contextlib"):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)
