"""Writes tests_go/testdata/sentencepiece with the Python package sentencepiece 0.2.3: python sentencepiece_bpe.py

tokenizer.model is learned from the repository's Shakespeare with the settings of Llama's; texts.json has texts with the ids and the text that the package
makes of them.
"""

import json
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

REPO = Path(__file__).resolve().parents[2]
PLACE = REPO / "tests_go/testdata/sentencepiece"
PLAYS = REPO / "recipes/data/tinyshakespeare.txt"
LLAMA = {
    "model_type": "bpe", "byte_fallback": True, "split_digits": True, "allow_whitespace_only_pieces": True,
    "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "add_dummy_prefix": True, "unk_surface": " \u2047 ",
}  # fmt: skip
TEXTS = [
    "Hello world", "", " ", "  two  spaces ", "tab\tand\nlines\n\n", "naïve café — 東京", "😀👨\u200d👩\u200d👧 \u00a0x", "def f(x):\n    return x**2  # code",
    "12345 67", "▁x", "\x00\x01", "a" * 100,
]  # fmt: skip


def main() -> None:
    PLACE.mkdir(exist_ok=True)
    SentencePieceTrainer.train(
        input=str(PLAYS), model_prefix=str(PLACE / "tokenizer"), vocab_size=500, minloglevel=2, **LLAMA
    )
    (PLACE / "tokenizer.vocab").unlink()
    pieces = SentencePieceProcessor(model_file=str(PLACE / "tokenizer.model"))
    plays = PLAYS.read_text()
    texts = TEXTS + [plays[at : at + 150] for at in range(0, len(plays), 40_000)]
    rows = [[text, pieces.encode(text), pieces.decode(pieces.encode(text))] for text in texts]
    (PLACE / "texts.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
