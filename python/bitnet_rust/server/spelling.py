"""Single tokens as text and bytes, for log-probabilities."""

import re

from ..tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's spelling of a byte


class Spelling:
    """What each token of a vocabulary stands for within a text.

    longest: the most characters of a token, as it is spelled.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, list[int] | None]] = {}
        # After another token, as some decoders drop a space at the start of a text.
        self._first = tokenizer.encode("a", add_special_tokens=False)[:1]
        self._skip = len(tokenizer.decode(self._first, skip_special_tokens=False))
        self.longest = max(map(len, tokenizer.backend.get_vocab()))

    def __call__(self, token: int) -> tuple[str, list[int] | None]:
        """A token's text, and its bytes; None where they are not known. A part of a character is U+FFFD in the text."""
        if token not in self._known:
            text = self._tokenizer.decode([*self._first, token], skip_special_tokens=False)[self._skip :]
            spelled = _bytes(self._tokenizer.id_to_token(token) or "") if "\ufffd" in text else text.encode()
            self._known[token] = text, None if spelled is None else list(spelled)
        return self._known[token]


def _bytes(token: str) -> bytes | None:
    """The bytes of a token that is spelled in GPT-2's alphabet of bytes, or as SentencePiece's byte."""
    if found := _BYTE.fullmatch(token):
        return bytes([int(found[1], 16)])
    try:
        return bytes(_ALPHABET[character] for character in token)
    except KeyError:
        return None


def _alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others follow from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _alphabet()
