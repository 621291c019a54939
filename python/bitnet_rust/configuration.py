"""The settings of a process: arguments, environment, file, defaults, in this order; the only reader of ``BITNET_*`` variables in Python.

The core reads its own variables when it is loaded and this module tells it what the file says where they are silent. Kept light, as
importing the package imports it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

from . import _bitnet
from .errors import ArgumentError

Source = Literal["argument", "environment", "file", "default"]
Level = Literal["debug", "info", "warning", "error", "critical"]
Format = Literal["text", "json"]
LOG_LEVELS: tuple[str, ...] = get_args(Level)
LOG_FORMATS: tuple[str, ...] = get_args(Format)
PREFIX = "BITNET_"


class Setting(NamedTuple):
    """What a setting is.

    name: as an attribute of ``Settings``, a key of the file, and in capitals after BITNET_ a variable.
    kind: what its value is.
    default: None is the machine's choice.
    help: what it does, a sentence or two.
    choices: of the kind "choice".
    numbers: that one of the kind "number" may be.
    core: the core has it.
    fixed: only the environment can say it, before the process starts.
    secret: its value is not shown.
    """

    name: str
    kind: Literal["number", "text", "switch", "choice"]
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    numbers: range = range(0)
    core: bool = False
    fixed: bool = False
    secret: bool = False

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper()


class Value(NamedTuple):
    """A setting in force.

    setting: what it is a value of.
    value: in force.
    source: who said it.
    place: the variable or the file; None for arguments and defaults.
    error: why what stands there cannot be used; the value is then the default.
    """

    setting: Setting
    value: Any
    source: Source
    place: str | None
    error: str | None = None


SETTINGS = (
    Setting(
        "num_threads", "number", None, "Worker threads; by default the physical cores that the process may use.", numbers=range(1, 1025), core=True
    ),
    Setting(
        "isa", "text", None, "Instruction set of the kernels, such as scalar, avx2, avxvnni, avx512, amx, neon or neon-dotprod; by default the best there is.", core=True,
    ),
    Setting("memory_budget", "text", None, "Most memory for weights, caches and scratch, as 8GiB or 50%; by default the machine's or the control group's.", core=True),
    Setting("skip_zeros", "switch", True, "Leave the weights of neurons that are off unread; off is for comparing speeds.", core=True),
    Setting("pool_debug", "switch", False, "Find mistakes in the use of memory.", core=True, fixed=True),
    Setting("config", "text", None, "The settings file, instead of bitnet/config.toml in the user's configuration directory.", fixed=True),
    Setting("log_level", "choice", "warning", "Least level of log records that the command prints.", LOG_LEVELS),
    Setting("log_format", "choice", "text", "How the command prints log records: a line of text or of JSON each.", LOG_FORMATS),
    Setting("quiet", "switch", False, "No progress, warnings or notes on standard error; errors alone."),
    Setting("debug", "switch", False, "Errors of the command with their traceback."),
    Setting("api_keys", "text", None, "Keys that clients of `bitnet serve` have to send, with commas between them.", secret=True),
)  # fmt: skip
_BY_NAME = {setting.name: setting for setting in SETTINGS}


class Settings:
    """The settings of this process, as attributes: ``settings.num_threads``, ``settings.log_level``.

    A setting's value is what ``set`` or an option of the command said, else its variable in the environment, else the settings file,
    else the default. The file is TOML: settings at the top, then a table for each command with defaults of its options.

    >>> from bitnet_rust import settings
    >>> settings.set(num_threads=2)
    >>> settings.num_threads
    2

    num_threads: worker threads; by default the physical cores that the process may use.
    isa: instruction set of the kernels: scalar, avx2, avxvnni, avx512, amx, neon or neon-dotprod; by default the best
        there is.
    memory_budget: bytes that weights, caches and scratch may take, also said as "8GiB" or "50%"; by default what the
        machine or the control group has.
    skip_zeros: leave the weights of neurons that are off unread; off is for comparing speeds.
    pool_debug: find mistakes in the use of memory; only the environment can say it.
    config: path of the settings file, where it is not in the user's configuration directory; only the environment can
        say it.
    log_level: least level of the records that the command prints: "debug", "info", "warning" (the default), "error" or
        "critical".
    log_format: how it prints them, a line each: "text" (the default) or "json".
    quiet: no progress, warnings or notes on standard error; errors alone.
    debug: errors of the command with their traceback.
    api_keys: keys that clients of ``bitnet serve`` have to send, with commas between them.
    errors: what cannot be honoured in the settings file, a sentence each.
    """

    num_threads: int
    isa: str
    memory_budget: int
    skip_zeros: bool
    pool_debug: bool
    config: str | None
    log_level: str
    log_format: str
    quiet: bool
    debug: bool
    api_keys: str | None

    def __init__(self) -> None:
        self._arguments: dict[str, Any] = {}
        self.errors: list[str] = []
        self._file: dict[str, Any] = {}
        self._usable: dict[str, Any] = {}  # settings in the file, less those that are errors
        self._path = self._find()
        self._read()

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """The settings file, be there one or not; None where no user has a home."""
        return self._path

    def __getattr__(self, name: str) -> Any:
        if name not in _BY_NAME:
            raise AttributeError(f"there is no setting {name!r}: known are {', '.join(_BY_NAME)}")
        return self.look(name).value

    def look(self, name: str, *, strict: bool = True) -> Value:
        """A setting's value and where it comes from; ArgumentError for an unknown name, and with strict for an unusable variable."""
        found = self._look(_setting(name))
        if found.error and strict:
            raise ArgumentError(found.error)
        return found

    def show(self) -> list[Value]:
        """All settings, in the order of the reference, also those whose variable is unusable."""
        return [self._look(setting) for setting in SETTINGS]

    def command(self, *names: str) -> dict[str, Any]:
        """What the file has for the options of a command: the table of its name; () is the whole file."""
        table: Any = self._file
        for name in names:
            table = table.get(name) if isinstance(table, dict) else None
        return dict(table) if isinstance(table, dict) else {}

    def check(self) -> None:
        """Raises ArgumentError for what cannot be honoured in the settings file."""
        if self.errors:
            raise ArgumentError("; ".join(self.errors))

    # --- changing ----------------------------------------------------------------------------------------------------

    def set(self, **values: Any) -> None:
        """Changes settings of this process, from now on.

        Raises ArgumentError for a name that is unknown or a value that cannot be honoured.
        """
        checked = {name: _checked(_setting(name), value) for name, value in values.items()}
        for name, value in checked.items():
            setting = _BY_NAME[name]
            if setting.fixed:
                raise ArgumentError(
                    f"{name} is decided when the process starts: set {setting.variable} in its environment"
                )
            if setting.core:
                _tell_core(name, value)
            self._arguments[name] = value

    @contextmanager
    def override(self, **values: Any) -> Iterator[None]:
        """``set`` for the time of a with statement; for settings that the core does not have."""
        before = dict(self._arguments)
        for name in values:
            if _setting(name).core:
                raise ArgumentError(f"{name} is the core's: use settings.set")
        self.set(**values)
        try:
            yield
        finally:
            self._arguments = before

    # --- where values come from --------------------------------------------------------------------------------------

    def _look(self, setting: Setting) -> Value:
        value, source, place, error = setting.default, "default", None, None
        text = os.environ.get(setting.variable, "")
        if setting.name in self._arguments:
            value, source = self._arguments[setting.name], "argument"
        elif text != "":
            source, place = "environment", setting.variable
            try:
                value = text if setting.core else _checked(setting, _from_text(setting, text))
            except ArgumentError as unusable:
                error = f"{setting.variable} in the environment: {unusable}"
        elif setting.name in self._usable:
            value, source, place = self._usable[setting.name], "file", self._path
        if setting.core:
            value = _of_core(setting)
        return Value(setting, value, source, place, error)  # type: ignore[arg-type]  # a source

    def _find(self) -> str | None:
        named = os.environ.get(_BY_NAME["config"].variable)
        if named:
            return os.path.expanduser(named)
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        return os.path.join(home, "bitnet", "config.toml") if os.path.isabs(home) else None

    def _read(self) -> None:
        """Reads the file and tells the core what it says; what is wrong with it becomes errors, as importing must not fail."""
        if self._path is None or not (os.path.exists(self._path) or os.environ.get(_BY_NAME["config"].variable)):
            return
        try:
            self._file = _parse(self._path)
        except ArgumentError as error:
            self.errors.append(str(error))
            return
        for name, value in self._file.items():
            if isinstance(value, dict):
                continue  # a command's; the command knows its options
            try:
                setting = _setting(name)
                if setting.fixed:
                    raise ArgumentError(
                        f"{name} cannot be set in a file: set {setting.variable} before the process starts"
                    )
                checked = _checked(setting, value)
                if setting.core and not os.environ.get(setting.variable):
                    _tell_core(name, checked)
                self._usable[name] = checked
            except ArgumentError as error:
                self.errors.append(f"{self._path}: {error}")


def in_environment(name: str) -> str:
    """The text of one of our variables, "" where it is not set."""
    return os.environ.get(name, "")


def unknown_variables(known: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Variables that begin as ours and are none; known are those of commands' options."""
    names = {setting.variable for setting in SETTINGS} | set(known)
    return sorted(
        name
        for name in environment
        if name.startswith(PREFIX) and name not in names and not name.startswith(PREFIX + "TEST_")
    )


def near(name: str, names: Sequence[str]) -> str:
    """Words that suggest what a name was meant to be, or none."""
    import difflib

    found = difflib.get_close_matches(name, names, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _setting(name: str) -> Setting:
    if name not in _BY_NAME:
        raise ArgumentError(
            f"there is no setting {name!r}{near(name, list(_BY_NAME)) or ': known are ' + ', '.join(_BY_NAME)}"
        )
    return _BY_NAME[name]


def _checked(setting: Setting, value: Any) -> Any:
    """A value as its kind has it. What texts the core takes it says itself."""
    if setting.kind == "choice" and isinstance(value, str) and value.lower() in setting.choices:
        return value.lower()
    if setting.kind == "switch" and (isinstance(value, bool) or value in (0, 1)):
        return bool(value)
    if setting.kind == "number" and isinstance(value, int) and not isinstance(value, bool) and value in setting.numbers:
        return value
    if setting.kind == "text" and isinstance(value, str) and value:
        return value
    if setting.name == "memory_budget" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # bytes
    expected = {
        "choice": f"one of {', '.join(setting.choices)}", "switch": "true or false", "text": "a text",
        "number": f"a whole number from {setting.numbers.start} to {setting.numbers.stop - 1}",
    }[setting.kind]  # fmt: skip
    shown = "..." if setting.secret else repr(value)
    raise ArgumentError(f"{setting.name} = {shown}: expected {expected}")


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _from_text(setting: Setting, text: str) -> Any:
    """A variable's text as its kind's value, or as it is where that is none."""
    if setting.kind == "switch":
        return _SWITCH.get(text.lower(), text)
    if setting.kind == "number":
        try:
            return int(text)
        except ValueError:
            return text
    return text


def _of_core(setting: Setting) -> Any:
    """The value that the core works with."""
    import json

    names = {"num_threads": "threads"}
    return json.loads(_bitnet.build_info())[names.get(setting.name, setting.name)]


def _tell_core(name: str, value: Any) -> None:
    try:
        if name == "num_threads":
            _bitnet.set_num_threads(value)
        elif name == "isa":
            _bitnet.set_isa(value)
        elif name == "memory_budget":
            _bitnet.set_memory_budget(value)
        elif name == "skip_zeros":
            _bitnet.set_skip_zeros(value)
    except ArgumentError as error:
        raise ArgumentError(f"{name} = {value!r}: {error}") from error


def _parse(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise ArgumentError(
            f"{path}: there is no such settings file ({_BY_NAME['config'].variable} names it)"
        ) from error
    except OSError as error:
        raise ArgumentError(f"{path}: the settings file cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path}: not a settings file in TOML: {error}") from error


settings = Settings()
"""The settings of this process."""
