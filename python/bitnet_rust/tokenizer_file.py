"""A tokenizer.json that somebody else wrote, opened so that no text can make it eat all memory or never come back.

Hugging Face's library reads the file, and what it cannot read is an error or a panic there, which becomes an error here. What it would
do without complaint, and should not, is refused: normalizers and decoders that multiply a text, templates that repeat it, and
regular expressions that backtrack without end. Padding and truncation, which a file may ask for too, are the caller's to decide.
"""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import TokenizerError, printable

if TYPE_CHECKING:
    import tokenizers

# How many times longer a normalizer or decoder may make a text, and by how many characters besides: SentencePiece triples its bytes.
_TIMES, _MORE = 64, 4096

# What a post-processor may make of one text.
_COPIES, _SPECIAL = 4, 4096

# Bounds of a regular expression: repeats without end in one alternative, from which count on {m,n} is one, and characters.
_REPEATS, _ENDLESS, _LONGEST = 3, 16, 1 << 14


def open_tokenizer(text: str, source: str) -> "tokenizers.Tokenizer":
    """Makes a tokenizer of the text of a tokenizer.json; source says in a TokenizerError where it came from."""
    import tokenizers

    with LibraryErrors(f"tokenizer.json of {source} cannot be used"):
        backend = tokenizers.Tokenizer.from_str(text)
        parts = {
            name: json.loads(part.__getstate__())
            for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")
            if (part := getattr(backend, name)) is not None
        }
        backend.no_padding()
        backend.no_truncation()
    for name, part in parts.items():
        why = _why_not(name, part)
        if why:
            raise TokenizerError(f"tokenizer.json of {source} is refused: its {name} {why}")
    return backend


class LibraryErrors:
    """Turns what the tokenizers library raises, a bare Exception or its panic, which is none, into a TokenizerError.

    A class, as a generator would take longer than to decode a token.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise TokenizerError(f"{self._what}: {printable(error, 1000)}") from error


def _why_not(name: str, part: dict[str, Any]) -> str | None:
    for step in _steps(part):
        pattern = (step.get("pattern") or {}) if isinstance(step.get("pattern"), dict) else {}
        if "Regex" in pattern and (why := _unsafe(pattern["Regex"])):
            return f"has the regular expression {pattern['Regex'][:60]!r}, which {why}"
    if name in ("normalizer", "decoder"):
        times, more = _growth(part)
        if times > _TIMES or more > _MORE:
            return f"makes texts {times:.0f} times longer and {more:.0f} characters more: expected at most {_TIMES} times and {_MORE}"
    if name == "post_processor":
        copies, special = _pieces(part)
        if copies > _COPIES or special > _SPECIAL:
            return f"repeats a text {copies} times and adds {special} tokens: expected at most {_COPIES} and {_SPECIAL}"
    return None


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """A component and those that a Sequence is made of; the library has bounded how deep they are nested."""
    if isinstance(part, dict):
        yield part
        for inner in part.values():
            if isinstance(inner, list):
                for one in inner:
                    yield from _steps(one)


def _growth(part: dict[str, Any]) -> tuple[float, float]:
    """What a normalizer or decoder makes of n characters: at most times * n + more of them."""
    times, more = 1.0, 0.0
    for step in _steps(part):
        factor = 1.0
        if step.get("type") == "Replace":
            pattern, content = step["pattern"], step["content"]
            matched = len(pattern.get("String", ""))  # a regular expression may match nothing
            factor = max(1.0, len(content) / matched) if matched else 1.0 + len(content)
        elif step.get("type") == "Precompiled":
            factor = float(_longest_replacement(step["precompiled_charsmap"]))
        elif step.get("type") == "Prepend":
            more += len(step["prepend"])
        times, more = min(times * factor, 1e18), min(more * factor, 1e18)
    return times, more


def _longest_replacement(charsmap: str) -> int:
    """SentencePiece's table: the size of a trie, the trie, and the texts that it points into, each with a zero behind it."""
    data = base64.b64decode(charsmap)
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    return max(1, *map(len, texts.split(b"\0")))


def _pieces(part: dict[str, Any]) -> tuple[int, int]:
    """How often a text comes out of a post-processor, and how many special tokens with it."""
    copies, special = 1, 0
    for step in _steps(part):
        if step.get("type") != "TemplateProcessing":
            continue
        ids = {name: len(token["ids"]) for name, token in step["special_tokens"].items()}
        for template in (step["single"], step["pair"]):
            texts = [piece["Sequence"]["id"] for piece in template if "Sequence" in piece]
            tokens = [ids.get(piece["SpecialToken"]["id"], 1) for piece in template if "SpecialToken" in piece]
            copies = max(copies, *(texts.count(which) for which in ("A", "B")))
            special = max(special, sum(tokens))
    return copies, special


# --- regular expressions ---------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\\[pP]\{[^}]*\} | \\x\{[^}]*\} | \\. | \[\^?\]? | \] | \((?:\?(?:<?[=!]|[a-zA-Z-]*:|>|[a-zA-Z-]+\)|<\w+>|\#[^)]*\)))? | \) | \|
    | (?:[*+?] | \{\d*,?\d*\}) [+?]? | .""",
    re.VERBOSE | re.DOTALL,
)


def _unsafe(pattern: str) -> str | None:
    """Why matching a regular expression may take time without bound: choices in repeats, too many repeats in a row, and references.

    A repeat is one that has no small limit. Of the published tokenizers none has more than two in an alternative.
    """
    if len(pattern) > _LONGEST:
        return f"has {len(pattern)} characters: expected at most {_LONGEST}"
    groups = [_Group()]
    in_class = 0
    closed: _Group | None = None  # the group that has just ended
    for token in _TOKEN.findall(pattern):
        inside, closed = closed, None
        if token[0] == "[":
            in_class += 1
        elif token == "]":
            in_class = max(0, in_class - 1)
        elif in_class:
            continue
        elif token[0] == "\\" and (token[1:].isdigit() or token[1:2] in ("k", "g")):
            return "refers to its own groups"
        elif token[0] == "(" and not token.endswith(")"):
            groups.append(_Group())
        elif token == ")" and len(groups) > 1:
            closed = groups.pop()
            groups[-1].repeats += max(closed.repeats, closed.most)
            groups[-1].choices |= closed.choices
        elif token == "|":
            groups[-1] = _Group(0, max(groups[-1].repeats, groups[-1].most), True)
        elif _endless(token):
            if inside is not None and inside.choices:
                return "has choices inside of repeats"
            groups[-1].repeats += 1
            groups[-1].choices = True
        elif token[0] == "?" or (token[0] == "{" and "," in token):
            groups[-1].choices = True
        if groups[-1].repeats > _REPEATS:
            return f"has more than {_REPEATS} repeats in a row"
    return None


@dataclass
class _Group:
    """What an open group of a regular expression has so far."""

    repeats: int = 0  # in this alternative
    most: int = 0  # in any alternative before
    choices: bool = False  # whether it can match in several ways


def _endless(token: str) -> bool:
    """Whether a token of a regular expression is a repeat without a small limit; one that never gives back what it took is none."""
    if token[0] in "*+":
        return token[1:] != "+"
    if token[0] != "{" or not token[1:2].isdigit():
        return False
    least, _, most = token.rstrip("+?")[1:-1].partition(",")
    return int((most if "," in token and most else least)[:9]) > _ENDLESS or token.rstrip("+?").endswith(",}")
