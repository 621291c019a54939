"""What ``bitnet tokenize`` does: from texts of any size to a file of token ids, with the tokenizer beside it."""

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _bitnet
from .errors import ArgumentError
from .files import write_text
from .texts import documents, pieces, text_files
from .token_file import TokenFile
from .tokenizer import Tokenizer

END_TOKEN = "<|endoftext|>"

_PIECE = 1 << 22  # characters that are tokenized at a time

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
    end = tokenizer.eos_token_id
    writer = _bitnet.token_writer(out, len(tokenizer), -1 if end is None else end)
    before, after = _added(tokenizer)
    count = size = 0
    last: int | None = None
    begins = True
    for piece, ends in pieces(data, "data", _PIECE):
        ids = array("i")
        if begins:
            if count and end is not None and last != end:
                ids.append(end)
            ids.extend(before)
            count += 1
        ids.extend(tokenizer.encode(piece, add_special_tokens=False))
        if ends:
            ids.extend(after)
        begins = ends
        writer.write(ids)
        last = ids[-1] if ids else last
        size += len(piece.encode())
        if progress is not None:
            progress(min(size, total), total)
    if last is None:
        raise ArgumentError(f"data = {data}: there is no text in it")
    for name, text in files.items():
        write_text(out.parent / name, text)
    writer.commit()
    made = TokenFile(out)
    return {
        "path": str(out),
        "tokens": len(made),
        "documents": count,
        "bytes": size,
        "dtype": made.dtype,
        "vocab_size": made.vocab_size,
        "separator": made.separator,
    }


def learn(data: Path, vocab_size: int, *, progress: bool = False) -> Tokenizer:
    """A byte-level BPE vocabulary of the texts in data, with an end token if there are several."""
    several = data.is_dir() or data.suffix == ".jsonl"
    special = [END_TOKEN] if several else []
    learned = Tokenizer.train_bpe(documents(data), vocab_size, special_tokens=special, progress=progress)
    return Tokenizer(learned.backend, {"eos_token": END_TOKEN} if several else None)


def characters(data: Path) -> Tokenizer:
    """A tokenizer of the characters of the texts in data."""
    found: set[str] = set()
    for piece, _ in pieces(data, "data", _PIECE):
        found.update(piece)
    return Tokenizer.characters("".join(sorted(found)))


def _refuse(out: Path, files: dict[str, str], overwrite: bool) -> None:
    """Refuses to replace what is there, unless it is the same tokenizer."""
    if out.is_dir():
        raise ArgumentError(f"out = {out}: expected a file, found a directory")
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


def _added(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
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
