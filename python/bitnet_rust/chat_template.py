"""Chat templates: Jinja code that comes with a model, run where it can do nothing but make a text, and that within bounds.

Jinja's sandbox keeps a template from everything that is not its business: attributes that begin with an underscore, files, other
templates. It does not keep one from taking all memory or never ending, so a template has *room* here, in characters, which whatever
it does takes from: passes of loops, calls, texts and lists that it makes. Room grows with the conversation.
"""

import itertools
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache, wraps
from types import CodeType
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.utils
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from .errors import TokenizerError, printable

LONGEST = 128 << 10
"""Characters of a template: published ones have at most twenty thousand."""

# What any template has room for, for each character of what it is given, and what a step takes. A template that uses its room up takes half a second.
_ROOM, _ROOM_FOR_EACH, _STEP = 4 << 20, 64, 64

# Filters that take no time, however long the text or list is.
_INSTANT = {"length", "count", "first", "last", "default", "d"}

# Tests that take no time.
_INSTANT_TESTS = {
    "defined", "undefined", "filter", "test", "none", "boolean", "false", "true", "integer", "float", "string", "mapping", "number", "sequence",
    "iterable", "callable", "sameas", "escaped",
}  # fmt: skip

# Filters that compare what is in a list, all the way down.
_ORDER = {"sort", "unique", "groupby", "min", "max", "dictsort"}

# Bits of a number that is calculated with: products, quotients and powers take the square of them.
_BITS = 4096

_SEQUENCES = (str, bytes, list, tuple)
_NESTED = (list, tuple, set, Mapping)


def render(template: str, variables: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """The text that a template makes of variables, and from where to where in it reach the parts that the template marks as
    generated, by {% generation %}; TokenizerError says why there is none."""
    with _explained(), _sandbox() as sandbox:
        sandbox.room = _ROOM + _ROOM_FOR_EACH * _size_of(variables, 1 << 40)
        pieces = sandbox.template(template).render(variables).split(sandbox.mark)
    if len(pieces) % 2 == 0:
        raise TokenizerError("the chat template cuts what it marks as generated apart")
    places = list(itertools.accumulate(map(len, pieces)))
    return "".join(pieces), list(zip(places[:-1:2], places[1:-1:2], strict=True))


def check(template: str) -> None:
    """Raises TokenizerError for a template that is malformed."""
    with _explained():
        _compiled(template)


# Sandboxes that serve no rendering just now. They keep nothing of one but compiled templates.
_idle: "list[_Sandbox]" = []


@contextmanager
def _sandbox() -> "Iterator[_Sandbox]":
    """A sandbox for one rendering; making one takes longer than a short conversation does."""
    try:
        sandbox = _idle.pop()
    except IndexError:
        sandbox = _Sandbox()
    sandbox.mark = secrets.token_hex(16)  # no message has it
    try:
        yield sandbox
    finally:
        _idle.append(sandbox)


@contextmanager
def _explained() -> Iterator[None]:
    """Turns what templates raise into a TokenizerError."""
    try:
        yield
    except TokenizerError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise TokenizerError(
            f"line {error.lineno} of the chat template is malformed: {printable(error.message, 1000)}"
        ) from error
    except jinja2.TemplateError as error:
        raise TokenizerError(f"the chat template refuses these messages: {printable(error, 1000)}") from error
    except (RecursionError, SyntaxError, MemoryError) as error:  # the last two from Python's compiler
        raise TokenizerError(f"the chat template is nested too deep: {type(error).__name__}") from error
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise TokenizerError(f"the chat template fails on these messages: {printable(error, 1000)}") from error


@lru_cache(maxsize=16)
def _compiled(template: str) -> CodeType:
    if len(template) > LONGEST:
        raise TokenizerError(f"the chat template has {len(template)} characters: expected at most {LONGEST}")
    sandbox = _Sandbox()
    tree = sandbox.parse(template)
    _Metered().visit(tree)
    tree.set_environment(sandbox)
    tree.set_lineno(0)
    return sandbox.compile(tree)


class _Generation(jinja2.ext.Extension):
    """{% generation %}: what is in it stands between two marks."""

    tags = {"generation"}  # noqa: RUF012  jinja2 wants a set of the class

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        mark: str = self.environment.mark  # type: ignore[attr-defined]  # it is a _Sandbox
        return f"{mark}{caller()}{mark}"


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox with room that is used up. It serves one rendering at a time."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[jinja2.ext.loopcontrols, _Generation],
            finalize=self._printed,
        )
        self.room = _ROOM
        self.mark = ""
        self.template = lru_cache(maxsize=16)(self._template)
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise, "strftime_now": _now}
        self.filters["tojson"] = self._tojson
        for name, function in self.filters.items():
            if name not in _INSTANT:
                self.filters[name] = self._bounded(name, function)
        for name, test in self.tests.items():
            if name not in _INSTANT_TESTS:
                self.tests[name] = self._bounded(name, test)

    def _template(self, text: str) -> jinja2.Template:
        return self.template_class.from_code(self, _compiled(text), self.make_globals(None))

    # --- called by the code that _Metered puts into a template --------------------------------------------------------

    def spend(self, amount: int) -> bool:
        """Takes room; an exception when there is not enough."""
        self.room -= amount
        if self.room < 0:
            raise jinja2.TemplateRuntimeError("it does more than a text of their length needs; is it meant to end?")
        return True

    def made(self, value: Any) -> Any:
        """Takes the room of a list, tuple, dictionary or part of one that the template made."""
        self.spend(_STEP + _size_of(value, self.room))
        return value

    def read(self, value: Any) -> Any:
        """Takes the room of a text or list that is looked through."""
        self.spend(_length(value))
        return value

    def compared(self, value: Any) -> Any:
        """Takes the room of a value that is compared or looked up: lists and tuples are, with all that is in them."""
        self.spend(_size_of(value, self.room) if isinstance(value, _NESTED) else _length(value))
        return value

    def joined(self, *parts: Any) -> str:
        """a ~ b ~ c"""
        self.spend(sum(_size_of(part, self.room) for part in parts))
        return "".join(map(str, parts))

    # --- called by Jinja ----------------------------------------------------------------------------------------------

    def call(
        __self, __context: Any, __function: Any, *args: Any, **kwargs: Any
    ) -> Any:  # as in Jinja: keywords may have any name
        if getattr(__function, "__self__", None) is __self:
            return __function(*args)
        __self.spend(2 * _STEP)
        method = getattr(__function, "__wrapped__", __function)  # str.format comes wrapped
        if (receiver := getattr(method, "__self__", None)) is not None:
            __self._check_receiver(receiver, method.__name__, (*args, *kwargs.values()))
        result = super().call(__context, __function, *args, **kwargs)
        __self.spend(_length(result))
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, _SEQUENCES) and isinstance(times, int):
                    self.spend(_size_of(one, self.room) * max(0, times))
        elif operator == "%" and isinstance(left, str | bytes):
            self.spend(_widths(left) + _size_of(right, self.room))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self._calculable(left, right)
            if left.bit_length() * right > _BITS:
                raise jinja2.TemplateRuntimeError(f"it asks for a power of more than {_BITS} bits")
        elif operator == "+" and isinstance(left, _SEQUENCES):
            self.spend(_size_of(left, self.room) + _size_of(right, self.room))
        self._calculable(left, right)
        return super().call_binop(context, operator, left, right)

    def _calculable(self, *values: Any) -> None:
        """An exception for numbers whose products and quotients take long."""
        for value in values:
            if isinstance(value, int) and value.bit_length() > _BITS:
                raise jinja2.TemplateRuntimeError(
                    f"it calculates with a number of {value.bit_length()} bits: expected at most {_BITS}"
                )

    def _printed(self, value: Any) -> Any:
        self.spend(_size_of(value, self.room))
        return value

    # --- what may be large ---------------------------------------------------------------------------------------------

    def _bounded(self, name: str, function: Any) -> Callable[..., Any]:
        """A filter or test that takes room for what it reads, for the most that its arguments can ask for, and for what it gives."""
        at = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            given = list(args)
            self.spend(_STEP)
            if at < len(given):
                if isinstance(given[at], Iterator):
                    given[at] = list(map(self.made, given[at]))
                value, rest = given[at], [*given[at + 1 :], *kwargs.values()]
                (self.compared if name in _ORDER or name in self.tests else self.read)(value)
                if name == "join":
                    self._check_method(str(rest[0]) if rest else "", name, (list(value),))
                elif name in ("replace", "format"):
                    self._check_method(str(value), name, tuple(rest))
                elif name == "string":
                    self.spend(_size_of(value, self.room))
                elif name == "divisibleby":
                    self._calculable(value, *rest)
                elif name in self.tests:
                    list(map(self.compared, rest))
                elif name == "sum" and any(isinstance(x, list | tuple) for x in rest):
                    self.spend(_length(value) * _size_of(value, self.room))  # each sum is a new list
                else:
                    most = max((abs(x) if isinstance(x, int) else _length(x) for x in rest), default=0)
                    self.spend((_length(value) + 1) * most)
            result = function(*given, **kwargs)
            self.spend(_length(result))
            return result

        return bounded

    def _check_receiver(self, receiver: Any, name: str, args: tuple[Any, ...]) -> None:
        """Takes the room that a method needs: for what it looks through, and for what it may make."""
        if isinstance(receiver, str | bytes):
            list(map(self.read, args))
            self._check_method(receiver, name, args)
        elif isinstance(receiver, list | tuple):  # count and index compare
            self.spend(_size_of(receiver, self.room))
        else:
            self.read(receiver)
            list(map(self.compared, args))
            if isinstance(receiver, int):  # to_bytes
                self.spend(max((abs(x) for x in args if isinstance(x, int)), default=0))

    def _check_method(self, text: str | bytes, name: str, args: tuple[Any, ...]) -> None:
        """Takes the room that a method of str needs for what it makes, where that can be longer than the text and the arguments."""
        numbers = [abs(x) for x in args if isinstance(x, int)]
        if name in ("center", "ljust", "rjust", "zfill"):
            self.spend(max(numbers, default=0))
        elif name in ("expandtabs", "format", "format_map", "translate"):
            self.spend(_widths(text) + len(text) * max(numbers, default=8) + _size_of(args, self.room))
        elif name in ("strip", "lstrip", "rstrip") and args:
            self.spend(len(text) * _length(args[0]) // 16)
        elif name == "replace" and len(args) > 1 and isinstance(args[0], type(text)):
            self.spend(text.count(args[0]) * _length(args[1]))  # type: ignore[arg-type]  # both are the same type
        elif name == "join" and args:
            parts = list(map(self.read, args[0])) if isinstance(args[0], Iterator) else args[0]
            self.spend(_size_of(parts, self.room) + len(text) * _length(parts))
        self.spend(len(text))

    def _tojson(self, value: Any, indent: int | None = None) -> str:
        if indent is not None and not 0 <= indent <= 16:
            raise ValueError(f"tojson(indent={indent}): expected 0 to 16")
        pieces = json.JSONEncoder(ensure_ascii=False, indent=indent).iterencode(value)
        return "".join(map(self.read, pieces))


class _Metered(NodeTransformer):
    """Makes a parsed template take room for what Jinja does without asking its environment."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self._in_body(node)
        if node.test is not None:
            node.test = nodes.And(_to("spend", nodes.Const(_STEP)), node.test)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._in_body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._in_body(node)

    def _in_body(self, node: Any) -> nodes.Node:
        """A step, and the text that stands in the body, for each pass."""
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_to("spend", nodes.Const(_STEP + text))))
        return node  # type: ignore[no-any-return]

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _to("joined", *node.nodes)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _to("made", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _to("made", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _to("made", node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if node.ctx != "load":
            return node
        if isinstance(node.arg, nodes.Slice):
            return _to("read", node)
        if not isinstance(node.arg, nodes.Const):
            node.arg = _to("compared", node.arg)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _to("compared", node.expr)
        for operand in node.ops:
            operand.expr = _to("compared", operand.expr)
        return node


def _to(method: str, *args: nodes.Expr) -> nodes.Call:
    """The call of a method of the environment."""
    return nodes.Call(nodes.EnvironmentAttribute(method), list(args), [], None, None)


def _length(value: Any) -> int:
    if isinstance(value, int):
        return 1 + value.bit_length() // 8
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | range | set) else 1


def _size_of(value: Any, most: int) -> int:
    """Characters of a value, more or less, as often as it is found; it stops counting beyond most."""
    if isinstance(value, str | bytes):
        return len(value)
    size, left = 0, [value]
    while left and size <= most:
        one = left.pop()
        if isinstance(one, jinja2.utils.Namespace):
            one = object.__getattribute__(one, "_Namespace__attrs")
        if isinstance(one, str | bytes):
            size += len(one)
        elif isinstance(one, int):
            size += one.bit_length() // 4
        elif isinstance(one, Mapping):
            size += 2 * len(one)
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set):
            size += len(one)
            left += one
        size += _STEP
    return size


def _widths(pattern: str | bytes) -> int:
    """The most that the numbers in a format string can add to a text."""
    text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
    return sum(int(number[:9]) for number in re.findall(r"[0-9]+", text))


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    if _widths(pattern) > 1000:
        raise ValueError(f"strftime_now({pattern[:50]!r}): expected a pattern without large numbers")
    return datetime.now().strftime(pattern)
