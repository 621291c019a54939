"""Text from tokens: characters and stop strings across token borders."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitnet_rust import Tokenizer
from bitnet_rust.streaming import StopStrings, TextStream


def run_stops(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher = StopStrings(stops)
    text = "".join(map(matcher.push, pieces))
    return text + matcher.flush(), matcher.found


def reference(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop string that ends first."""
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stops if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)], True
    return text, False


short = st.text(alphabet="ab c", max_size=12)


@given(st.lists(short, max_size=6), st.lists(short.filter(bool), min_size=1, max_size=3))
def test_stop_strings_are_found_whatever_the_pieces(pieces: list[str], stops: list[str]) -> None:
    assert run_stops(pieces, stops) == reference("".join(pieces), stops)


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    matcher = StopStrings(["\n\nUser:"])
    assert matcher.push("Hello.\n") == "Hello."
    assert matcher.push("\nUs") == ""
    assert matcher.push("ual") == "\n\nUsual"
    assert matcher.push("\n\nUser: next") == ""
    assert matcher.found
    assert matcher.push("more") == ""


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert run_stops(["a", "b"], []) == ("ab", False)


@given(st.text(max_size=40))
def test_pieces_add_up_to_the_text_and_never_split_a_character(text: str) -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False)
    stream = TextStream(tokenizer, [])
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.flush() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_an_unfinished_character_comes_out_at_the_end() -> None:
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer, [])
    ids = tokenizer.encode("é", add_special_tokens=False)
    assert len(ids) == 2
    assert stream.push(ids[0]) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_bytes_that_are_no_character_are_not_held_for_ever() -> None:
    tokenizer = byte_tokenizer()
    lone = tokenizer.encode("é", add_special_tokens=False)[1]
    stream = TextStream(tokenizer, [])
    assert any(stream.push(lone) for _ in range(8))


def test_a_leading_space_survives_a_decoder_that_strips_it() -> None:
    """SentencePiece-like decoders drop the space of the first token: the prompt is the context of the second."""
    stream = TextStream(metaspace_tokenizer(), [0])
    assert stream.push(1) == " world"
    assert TextStream(metaspace_tokenizer(), []).push(1) == "world"


def byte_tokenizer() -> Tokenizer:
    """One token a byte."""
    if "bytes" not in _made:
        from tokenizers.pre_tokenizers import ByteLevel

        vocab = {c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}
        _made["bytes"] = _tokenizer(
            {"type": "BPE", "vocab": vocab, "merges": []},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        )
    return _made["bytes"]


def metaspace_tokenizer() -> Tokenizer:
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    model = {"type": "WordLevel", "vocab": {"\u2581hello": 0, "\u2581world": 1, "?": 2}, "unk_token": "?"}
    return _tokenizer(model, space, space)


_made: dict[str, Tokenizer] = {}


def _tokenizer(model: dict[str, object], pre: dict[str, object], decoder: dict[str, object]) -> Tokenizer:
    text = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": pre, "post_processor": None, "decoder": decoder, "model": model,
    }  # fmt: skip
    return Tokenizer.from_files({"tokenizer.json": json.dumps(text)}, "a test")


@pytest.mark.parametrize("text", ["Before we proceed any further", "naïve café — 日本語 🎉 ok"])
def test_the_embedded_tokenizer_round_trips(tiny_dir: Path, text: str) -> None:
    tokenizer = Tokenizer.from_pretrained(tiny_dir)
    assert tokenizer.decode(tokenizer.encode(text)) == text
