"""What docstrings say of parameters and fields, in paragraphs that begin with a name; the reference and doc_coverage.py read them here.

    name: what it is, on a line of its own,
        and further lines that are indented
    one, other: what both are

Such paragraphs may stand indented below a title that ends with a colon.
"""

import re
from typing import NamedTuple

_ENTRY = re.compile(r"^(?P<names>`{0,2}\*{0,2}[a-z_]\w*`{0,2}(?:, \*{0,2}[a-z_]\w*)*): (?P<text>\S.*)$")


class Entry(NamedTuple):
    """A paragraph: its names, its text, and where its lines begin and end."""

    names: list[str]
    text: str
    begin: int
    end: int


def entry(lines: list[str], i: int, indent: str = "") -> Entry | None:
    """The entry that begins in line i after the indent, if one does."""
    line = lines[i]
    if not line.startswith(indent) or (found := _ENTRY.match(line.removeprefix(indent))) is None:
        return None
    end = i + 1
    while end < len(lines) and lines[end].startswith(f"{indent}    "):
        end += 1
    names = [name.strip("`") for name in found["names"].split(", ")]
    return Entry(names, " ".join([found["text"], *(more.strip() for more in lines[i + 1 : end])]), i, end)


def entries(docstring: str) -> list[Entry]:
    """All entries of a docstring, those below titles among them."""
    lines, found, i = docstring.split("\n"), [], 0
    while i < len(lines):
        one = entry(lines, i) or entry(lines, i, "    ")
        if one is not None:
            found.append(one)
        i = i + 1 if one is None else one.end
    return found
