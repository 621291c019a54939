"""What ``bitnet tokenize`` does: from texts of any size to a file of token ids, with the tokenizer beside it."""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import ArgumentError
from .files import expanded, write_text
from .texts import PIECE, documents, pieces, text_files
from .token_file import TokenFile
from .tokenizer import Tokenizer

END_TOKEN = "<|endoftext|>"

Progress = Callable[[int, int], object]


def tokenize(
    data: Path, out: Path, tokenizer: Tokenizer, *, overwrite: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Writes the ids of the texts in data into out, and the tokenizer's files beside it.

    The tokenizer's end token stands between two texts, so that training can keep them apart. progress: called as
    progress(bytes_done, bytes_total). Gives path, tokens, documents, bytes, dtype, vocab_size and separator.
    """
    files = tokenizer.to_files()
    _refuse(out, files, overwrite)
    total = sum(file.stat().st_size for file in text_files(data))
    seen = _Seen(total, progress)

    def ids() -> Iterator["array[int]"]:
        yield from token_pieces(tokenizer, seen.pieces(data))
        if not seen.texts:
            raise ArgumentError(f"data = {data}: there is no text in it")
        for name, text in files.items():  # before the ids have their name: who finds them finds what they stand for
            write_text(expanded(out).parent / name, text)

    made = TokenFile.write(out, ids(), len(tokenizer), separator=tokenizer.eos_token_id)
    return {
        "path": str(out),
        "tokens": len(made),
        "documents": seen.texts,
        "bytes": seen.size,
        "dtype": made.dtype,
        "vocab_size": made.vocab_size,
        "separator": made.separator,
    }


def token_pieces(tokenizer: Tokenizer, pieces: Iterable[tuple[str, bool]]) -> Iterator["array[int]"]:
    """The ids of texts in pieces, as one stream: what the tokenizer adds to a text stands before and after each, and its end
    token, if it has one, between two."""
    before, after = added_tokens(tokenizer)
    end = tokenizer.eos_token_id
    last: int | None = None
    begins = True
    for piece, ends in pieces:
        ids = array("i")
        if begins:
            if last is not None and end is not None and last != end:
                ids.append(end)
            ids.extend(before)
        ids.extend(tokenizer.encode(piece, add_special_tokens=False))
        if ends:
            ids.extend(after)
        begins, last = ends, ids[-1] if ids else last
        yield ids


class _Seen:
    """Counts the texts and bytes of pieces on their way."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.texts = self.size = 0
        self._total, self._progress = total, progress

    def pieces(self, data: Path) -> Iterator[tuple[str, bool]]:
        for piece, ends in pieces(data, "data", PIECE):
            yield piece, ends
            self.size += len(piece.encode())
            self.texts += ends
            if self._progress is not None:
                self._progress(min(self.size, self._total), self._total)


def learn(data: Path, vocab_size: int, *, progress: bool = False) -> Tokenizer:
    """A byte-level BPE vocabulary of the texts in data, with an end token if there are several."""
    several = data.is_dir() or data.suffix == ".jsonl"
    special = [END_TOKEN] if several else []
    learned = Tokenizer.train_bpe(documents(data), vocab_size, special_tokens=special, progress=progress)
    return Tokenizer(learned.backend, {"eos_token": END_TOKEN} if several else None)


def characters(data: Path) -> Tokenizer:
    """A tokenizer of the characters of the texts in data."""
    found: set[str] = set()
    for piece, _ in pieces(data, "data", PIECE):
        found.update(piece)
    if not found:
        raise ArgumentError(f"data = {data}: there is no text in it")
    return Tokenizer.characters("".join(sorted(found)))


def _refuse(out: Path, files: dict[str, str], overwrite: bool) -> None:
    """Refuses to replace what is there, unless it is the same tokenizer."""
    if out.is_dir():
        raise ArgumentError(f"out = {out}: expected a file, found a directory")
    if out.suffix != ".bin":
        raise ArgumentError(f"out = {out}: expected a name that ends in .bin, without which training would read a text")
    if overwrite:
        return
    if out.exists():
        raise ArgumentError(f"out = {out}: the file exists; choose another, or pass --overwrite")
    for name, text in files.items():
        path = out.parent / name
        if path.exists() and json.loads(path.read_text("utf-8")) != json.loads(text):
            raise ArgumentError(
                f"out = {out}: {path} is another tokenizer; choose another directory, or pass --overwrite"
            )


def added_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    special = set(tokenizer.special_ids)
    for token in range(len(tokenizer)):
        text = "" if token in special else tokenizer.decode([token])
        bare = tokenizer.encode(text, add_special_tokens=False)
        if not bare:
            continue
        whole = tokenizer.encode(text)
        at = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
        return whole[:at], whole[at + len(bare) :]
    return [], []
