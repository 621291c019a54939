"""Docstrings as Markdown: a paragraph that begins with the name of a parameter becomes an item of a list, and an interpreter's session code.

    name: what it is, on a line of its own,
        and further lines that are indented

Such paragraphs may stand indented below a title that ends with a colon.
"""

import re
from typing import Any

import griffe

_PARAMETER = re.compile(r"^(?P<names>`{0,2}\*{0,2}[a-z_]\w*`{0,2}(?:, \*{0,2}[a-z_]\w*)*): (?P<text>\S.*)$")


class Docstrings(griffe.Extension):
    """Rewrites each docstring when griffe has read it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """The docstring in Markdown."""
    lines, out, i = _dedented(text.split("\n")), [], 0
    while i < len(lines):
        line = lines[i]
        i += 1
        if line.startswith(">>> "):
            session = [line]
            while i < len(lines) and lines[i].strip():
                session.append(lines[i])
                i += 1
            out += ["", "```pycon", *session, "```"]
        elif parameter := _PARAMETER.match(line):
            if out and out[-1] and not out[-1].startswith(("- ", "  ")):
                out.append("")
            names = ", ".join(f"`{name.strip('`')}`" for name in parameter["names"].split(", "))
            out.append(f"- {names}: {parameter['text']}")
            while i < len(lines) and lines[i].startswith("    "):
                out.append("  " + lines[i].strip())
                i += 1
            if i < len(lines) and lines[i] and not _PARAMETER.match(lines[i]):
                out.append("")
        else:
            out.append(line)
    return "\n".join(out)


def _dedented(lines: list[str]) -> list[str]:
    """Parameters that are indented below a title moved to the margin, and the title in bold."""
    out, below = [], False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.endswith(":") and not line.startswith(" ") and _PARAMETER.match(following.removeprefix("    ")):
            out += ["", f"**{line.removesuffix(':')}**", ""]
            below = following.startswith("    ")
        else:
            below = below and line.startswith("    ")
            out.append(line.removeprefix("    ") if below else line)
    return out
