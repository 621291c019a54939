"""From tokens to text while they come: characters across token borders, and stop strings across both."""

from collections.abc import Sequence

from .tokenizer import Tokenizer

# A character has at most four bytes, and a byte at most one token: more pending tokens than this cannot be the start of
# a character, so what they decode to is final.
_MOST_PENDING = 5


class TextStream:
    """Turns one sequence's token ids into pieces of text that add up to the decoding of the whole.

    A tokenizer decodes a token differently at the start of a text and after others (SentencePiece drops a leading
    space), and a character may need several tokens. So each new token is decoded together with the few before it, and
    text is given out once it does not end in the middle of a character. The prompt's last tokens are the context of
    the first piece.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._context = list(prompt[-_MOST_PENDING:])  # decoded before, given out
        self._pending: list[int] = []  # not given out
        self._before = tokenizer.decode(self._context, skip_special_tokens)

    def push(self, token_id: int) -> str:
        """The text that this token completes; may be empty."""
        self._pending.append(token_id)
        text = self._tokenizer._decode(self._context + self._pending, self._skip)
        if text.endswith("\ufffd") and len(self._pending) < _MOST_PENDING:
            return ""
        piece = text[len(self._before) :]
        self._context, self._pending = self._pending, []
        self._before = self._tokenizer._decode(self._context, self._skip)
        return piece

    def flush(self) -> str:
        """What is left at the end: the unfinished character, as U+FFFD."""
        if not self._pending:
            return ""
        text = self._tokenizer._decode(self._context + self._pending, self._skip)
        self._pending = []
        return text[len(self._before) :]


class StopStrings:
    """Cuts a stream of text before the stop string that is complete first, whatever the pieces it comes in.

    Text that may become part of a stop string is held back until that is decided.

    found: whether a stop string is complete; what follows is not part of the text.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that may be shown now. Once a stop string is found, found is true and nothing more comes."""
        if not self._stops:
            return piece
        if self.found:
            return ""
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.found, self._held = True, ""
            return text[: min(found)[1]]
        hold = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


class SequenceText:
    """The text of one generated sequence as its tokens come, and where it ends.

    Without a tokenizer the text is empty and the sequence ends where the core ends it.
    """

    def __init__(self, tokenizer: Tokenizer | None, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self._stream = TextStream(tokenizer, prompt) if tokenizer is not None else None
        self._stops = StopStrings(stops)

    def push(self, token_id: int, finish: str | None) -> tuple[str, str | None]:
        """The text that a token lets out, and why the sequence ends with it: what the core says (finish), "stop" at a
        stop string, None while it goes on."""
        if self._stream is None:
            return "", finish
        piece = "" if finish == "stop" else self._stream.push(token_id)  # an end token is no text
        if finish is not None:
            piece += self._stream.flush()
        text = self._stops.push(piece)
        if self._stops.found:
            return text, "stop"
        return (text + self._stops.flush() if finish is not None else text), finish


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of text that is a start of stop."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
