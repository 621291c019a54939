"""Docstrings as Markdown: an entry of a parameter (see .ci/entries.py) becomes an item of a list, and an interpreter's session code.
What the docstring of a class says of a field is said at the field.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from entries import entries, entry

# Functions of the package that make methods: the parameters of the method beside self. The docstring is their second argument.
_MAKERS = {"_unary": (), "_binary": ("other",)}


class Docstrings(griffe.Extension):
    """Rewrites each docstring when griffe has read the package."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if isinstance(obj, griffe.Class):
            _find_methods(obj)
            if obj.docstring is not None:
                obj.docstring.value = _told_at_fields(obj, obj.docstring.value)
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def _find_methods(cls: griffe.Class) -> None:
    """Methods among the attributes of a class: what makers give, and other names for methods."""
    for name, field in list(cls.attributes.items()):
        value = field.value
        if isinstance(value, griffe.ExprCall) and str(value.function) in _MAKERS:
            cls.set_member(name, _method(field, value))
        elif "class-attribute" in field.labels and isinstance(value, griffe.ExprName) and value.name in cls.members:
            field.docstring = _docstring(f"The same as `{value.name}`.", field)


def _method(field: griffe.Attribute, call: griffe.ExprCall) -> griffe.Function:
    names = ("self", *_MAKERS[str(call.function)])
    kind = griffe.ParameterKind.positional_or_keyword
    method = griffe.Function(
        field.name,
        lineno=field.lineno,
        endlineno=field.endlineno,
        parameters=griffe.Parameters(*(griffe.Parameter(name, kind=kind) for name in names)),
        returns=griffe.ExprName("Tensor", parent=field.parent),
    )
    method.docstring = _docstring(str(call.arguments[1]).strip("\"'"), method)
    return method


def _docstring(text: str, of: griffe.Object) -> griffe.Docstring:
    return griffe.Docstring(text, lineno=of.lineno, endlineno=of.endlineno, parent=of)


def _told_at_fields(cls: griffe.Class, text: str) -> str:
    """Gives each field what the docstring of its class says of it, which is taken from there, unless it is said of a parameter, too.

    A title whose entries have gone keeps their names, as links.
    """
    fields = {name: field for name, field in cls.attributes.items() if "property" not in field.labels}
    constructor = cls.members.get("__init__")
    parameters, own = {}, False
    if isinstance(constructor, griffe.Function) and "dataclass" not in cls.labels:
        parameters = {parameter.name: parameter for parameter in constructor.parameters}
        own = constructor.docstring is not None  # which tells of them
    lines, gone = text.split("\n"), set()
    for one in entries(text):
        for name in one.names:
            if name in fields and fields[name].docstring is None:
                names = f"`{'`, `'.join(one.names)}`: " if len(one.names) > 1 else ""
                fields[name].docstring = _docstring(names + one.text[0].upper() + one.text[1:], fields[name])
                _declare(fields[name], parameters)
        if all(name in fields and (own or name not in parameters) for name in one.names):
            gone.update(range(one.begin, one.end))
    out: list[str] = []
    for i, line in enumerate(lines):
        below = entry(lines, i, "    ")
        if i not in gone:
            titled = line.endswith(":") and i + 1 in gone and entry(lines, i + 1, "    ")
            out.append(f"**{line}**" if titled else line)
        elif below is not None and out[-1].startswith("**"):
            out[-1] += "".join(f" [`{name}`][{cls.path}.{name}]" for name in below.names)
    return "\n".join(out).strip()


def _declare(field: griffe.Attribute, parameters: Mapping[str, griffe.Parameter]) -> None:
    """Leaves out the value of an attribute that a method sets; where that is a parameter, its type says more."""
    if "class-attribute" not in field.labels:
        value, field.value = field.value, None
        if field.annotation is None and isinstance(value, griffe.ExprName) and value.name in parameters:
            field.annotation = parameters[value.name].annotation


def as_markdown(text: str) -> str:
    """The docstring in Markdown."""
    lines, out, i = _dedented(text.split("\n")), [], 0
    while i < len(lines):
        line = lines[i]
        if line.startswith(">>> "):
            out += ["", "```pycon"]
            while i < len(lines) and lines[i].strip():
                out.append(lines[i])
                i += 1
            out.append("```")
        elif one := entry(lines, i):
            if out and out[-1] and not out[-1].startswith(("- ", "  ")):
                out.append("")
            names = ", ".join(f"`{name}`" for name in one.names)
            out.append(f"- {names}: {one.text}")
            i = one.end
            if i < len(lines) and lines[i] and not entry(lines, i):
                out.append("")
        else:
            out.append(line)
            i += 1
    return "\n".join(out)


def _dedented(lines: list[str]) -> list[str]:
    """Parameters that are indented below a title moved to the margin, and the title in bold."""
    out, below = [], False
    for i, line in enumerate(lines):
        following = i + 1 < len(lines) and (entry(lines, i + 1) or entry(lines, i + 1, "    "))
        if line.endswith(":") and not line.startswith(" ") and following:
            out += ["", f"**{line.removesuffix(':')}**", ""]
            below = lines[i + 1].startswith("    ")
        else:
            below = below and line.startswith("    ")
            out.append(line.removeprefix("    ") if below else line)
    return out
