"""`bitnet tokenize` and `bitnet eval`: files of token ids from texts of any size, and what a model makes of them."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import ArgumentError, BitNetModel, TokenFile, Tokenizer, Trainer, texts, tokenize

TEXT = "To be, or not to be,\n\nthat is the question:  whether 'tis nobler in the mind, né?\n" * 40


def bitnet(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bitnet_rust", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


class Recorder:
    """A progress callback."""

    last = (0, 0)

    def __call__(self, done: int, total: int) -> None:
        assert self.last[0] <= done <= total
        self.last = (done, total)


def ids_in(path: Path) -> list[int]:
    file = TokenFile(path)
    return np.fromfile(path, file.dtype, offset=64).tolist()


@pytest.fixture
def shakespeare(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return path


@pytest.mark.parametrize(
    ("choice", "tokenizer"),
    [
        (["--bytes"], Tokenizer.bytes),
        (["--characters"], lambda: Tokenizer.characters(TEXT)),
        (["--train-bpe", "300"], lambda: Tokenizer.train_bpe(TEXT, 300)),
        (["--tokenizer", "bitnet-shakespeare"], lambda: Tokenizer.from_pretrained("bitnet-shakespeare")),
    ],
)
def test_a_text_becomes_a_file_of_its_tokens(choice: list[str], tokenizer: Any, shakespeare: Path) -> None:
    out = shakespeare.parent / "made" / "tokens.bin"
    out.parent.mkdir()
    done = bitnet("tokenize", "--data", shakespeare, "--out", out, *choice, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    want = tokenizer()
    assert ids_in(out) == want.encode(TEXT)
    assert result["tokens"] == len(want.encode(TEXT))
    assert result["bytes"] == len(TEXT.encode())
    assert (result["documents"], result["vocab_size"]) == (1, len(want))
    assert Tokenizer.from_pretrained(out.parent).decode(ids_in(out)) == want.decode(want.encode(TEXT))


def test_texts_stand_apart_by_the_end_token(tmp_path: Path) -> None:
    lines = tmp_path / "data.jsonl"
    lines.write_text("\n".join(json.dumps({"text": text}) for text in ("one two", "three", "four five")))
    out = tmp_path / "tokens.bin"
    done = bitnet("tokenize", "--data", lines, "--out", out, "--train-bpe", 270)
    assert done.returncode == 0, done.stderr
    assert "3 documents" in done.stdout
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_token == tokenize.END_TOKEN
    assert TokenFile(out).separator == tokenizer.eos_token_id
    assert tokenizer.decode(ids_in(out), skip_special_tokens=False) == "one two<|endoftext|>three<|endoftext|>four five"


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_a_text_in_pieces_has_the_same_tokens(size: int, shakespeare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = list(texts.pieces(shakespeare, "data", size))
    assert "".join(part for part, _ in parts) == TEXT
    assert list(texts.cut(TEXT, size)) == parts
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True]
    monkeypatch.setattr(tokenize, "PIECE", size)
    for i, tokenizer in enumerate((Tokenizer.train_bpe(TEXT, 320), tokenize.characters(shakespeare))):
        place = shakespeare.parent / str(i)
        place.mkdir()
        bar = Recorder()
        tokenize.tokenize(shakespeare, place / "t.bin", tokenizer, progress=bar)
        assert ids_in(place / "t.bin") == tokenizer.encode(TEXT)
        assert bar.last == (len(TEXT.encode()), len(TEXT.encode()))


def test_what_a_tokenizer_adds_is_added_once_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers.processors import TemplateProcessing

    learned = Tokenizer.train_bpe("", 258, special_tokens=["<s>", "</s>"])
    learned.backend.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer = Tokenizer(learned.backend, {"bos_token": "<s>", "eos_token": "</s>"})
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_text("one two three")
    (data / "b").write_text("four five")
    monkeypatch.setattr(tokenize, "PIECE", 5)
    tokenize.tokenize(data, tmp_path / "t.bin", tokenizer)
    assert ids_in(tmp_path / "t.bin") == tokenizer.encode("one two three") + tokenizer.encode("four five")


def test_nothing_is_replaced_unasked(shakespeare: Path) -> None:
    out = shakespeare.parent / "made" / "tokens.bin"
    out.parent.mkdir()
    arguments = ("tokenize", "--data", shakespeare, "--out")
    assert bitnet(*arguments, out, "--bytes").returncode == 0
    before = out.read_bytes()
    again = bitnet(*arguments, out, "--characters")
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    other = bitnet(*arguments, out.parent / "other.bin", "--characters")
    assert other.returncode == 1
    assert "another tokenizer" in other.stderr
    assert bitnet(*arguments, out.parent / "other.bin", "--bytes").returncode == 0
    assert out.read_bytes() == before
    assert bitnet(*arguments, out, "--characters", "--overwrite").returncode == 0
    assert out.read_bytes() != before


def test_wrong_calls_are_named(shakespeare: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.bin"
    for choice in ([], ["--bytes", "--characters"]):
        done = bitnet("tokenize", "--data", shakespeare, "--out", out, *choice)
        assert done.returncode == 2
        assert "--train-bpe" in done.stderr
    done = bitnet("tokenize", "--data", tmp_path / "absent", "--out", out, "--bytes")
    assert (done.returncode, "absent" in done.stderr) == (1, True)
    done = bitnet("tokenize", "--data", shakespeare, "--out", shakespeare / "t.bin", "--bytes")
    assert (done.returncode, "is not a directory" in done.stderr) == (1, True)
    (tmp_path / "empty").write_text("")
    with pytest.raises(ArgumentError, match="there is no text in it"):
        tokenize.tokenize(tmp_path / "empty", out, Tokenizer.bytes())
    (tmp_path / "latin").write_bytes(b"abc \xe9")
    with pytest.raises(ArgumentError, match="latin is not a UTF-8 text"):
        tokenize.tokenize(tmp_path / "latin", out, Tokenizer.bytes())
    assert not out.exists()


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["native", "packed", "float32"])
def test_the_loss_of_evaluation_is_the_trainers_to_the_bit(format: str, shakespeare: Path) -> None:
    shape = {
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    place = shakespeare.parent / "model"
    with BitNetModel.from_config(shape, trainable=True) as model:
        model.tokenizer = Tokenizer.bytes()
        trainer = Trainer(model, max_steps=10, batch_size=4, context_length=32, learning_rate=3e-3)
        history = trainer.train(TEXT, TEXT)
        want = trainer.evaluate()
        assert want["eval_loss"] == history[-1]["eval_loss"]
        ragged = [[1, 2, 3], list(range(30)), {"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}]
        want_ragged = trainer.evaluate(ragged)
        if format == "native":
            model.save_pretrained(place)
        else:
            model.save_pretrained(place, format="hf", masters="float32" if format == "float32" else None)
    with BitNetModel.from_pretrained(place) as loaded:
        found = loaded.evaluate(TEXT, context_length=32)
        assert (found["loss"], found["accuracy"]) == (want["eval_loss"], want["eval_accuracy"])
        assert loaded.evaluate(ragged, context_length=32)["loss"] == want_ragged["eval_loss"]
        assert loaded.evaluate(shakespeare, context_length=32) == found
    done = bitnet("eval", "--model", place, "--data", shakespeare, "--context-length", 32, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["loss"] == want["eval_loss"]
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    assert result["bits_per_byte"] == pytest.approx(result["loss"] / math.log(2)), "a token is a byte"
    assert result["bits_per_character"] > result["bits_per_byte"]
    assert bitnet("tokenize", "--data", shakespeare, "--out", place / "t.bin", "--tokenizer", place).returncode == 0
    table = bitnet("eval", "--model", place, "--data", place / "t.bin", "--context-length", 32)
    assert table.returncode == 0, table.stderr
    assert f"{result['loss']:.4f}" in table.stdout
    assert "bits_per_byte" not in table.stdout


def test_evaluation_tells_how_far_it_is_and_what_it_cannot_use(tiny: BitNetModel, tmp_path: Path) -> None:
    tiny.evaluate([[1, 2, 3]] * 5, progress=Recorder())
    with pytest.raises(ArgumentError, match="no length"):
        tiny.evaluate(iter([[1, 2, 3]]))
    with pytest.raises(ArgumentError, match="context_length = 0"):
        tiny.evaluate([[1, 2, 3]], context_length=0)
    np.array([1, 2] * 40, "<u2").tofile(tmp_path / "bare.bin")
    done = bitnet("eval", "--data", tmp_path / "bare.bin", "--json")
    assert done.returncode == 1
    assert "dtype" in done.stderr
    done = bitnet("eval", "--data", tmp_path / "bare.bin", "--dtype", "uint16", "--context-length", 16, "--json")
    assert json.loads(done.stdout)["tokens"] == 64


def test_a_model_is_trained_on_a_file_of_tokens_and_evaluated(shakespeare: Path) -> None:
    tokens, out = shakespeare.parent / "made" / "tokens.bin", shakespeare.parent / "model"
    tokens.parent.mkdir()
    assert bitnet("tokenize", "--data", shakespeare, "--out", tokens, "--characters").returncode == 0
    made = bitnet(
        "train", "--data", tokens, "--out", out, "--max-steps", 4, "--batch-size", 2, "--context-length", 24, "--json",
        "--set", f"tokenizer.path={tokens.parent}", "--set", "model.hidden_size=48", "--set", "model.num_hidden_layers=1",
        "--set", "model.intermediate_size=64", "--eval-fraction", 0.25,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    held_out = shakespeare.parent / "held-out.bin"
    with BitNetModel.from_pretrained(out) as model:
        assert model.tokenizer.decode(ids_in(tokens)) == TEXT
        part = TokenFile(tokens).split(0.25)[1]
        TokenFile.write(held_out, ids_in(tokens)[-len(part) :], len(model.tokenizer))
        assert model.evaluate(part, context_length=24)["loss"] == json.loads(made.stdout)["eval_loss"]
    done = bitnet("eval", "--model", out, "--data", held_out, "--context-length", 24, "--json")
    assert json.loads(done.stdout)["loss"] == json.loads(made.stdout)["eval_loss"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_without_a_file(tmp_path: Path, number: int, status: int) -> None:
    text = tmp_path / "text.jsonl"
    os.mkfifo(text)  # it waits for the rest of the text when the signal comes
    out = tmp_path / "made" / "tokens.bin"
    out.parent.mkdir()
    arguments = ["tokenize", "--data", str(text), "--out", str(out), "--bytes"]
    child = subprocess.Popen([sys.executable, "-m", "bitnet_rust", *arguments], stderr=subprocess.PIPE, text=True)
    with text.open("w") as pipe:
        for _ in range(64):  # more than the buffers of a pipe and of a file hold: it has begun to read
            pipe.write(json.dumps({"text": TEXT}) + "\n")
        pipe.flush()
        child.send_signal(number)
        _, err = child.communicate(timeout=600)
    assert child.returncode == status, err
    assert "Traceback" not in err
    assert list(out.parent.iterdir()) == []
