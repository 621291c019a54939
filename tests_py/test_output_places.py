"""Files that are written to: directories above them are made, and go again where nothing came of the writing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitnet_rust import ArgumentError, BitNetModel, TokenFile, Tokenizer, TrainingConfig
from bitnet_rust.errors import FileSystemError
from bitnet_rust.files import place_of, write_text
from conftest import Terminal


def model() -> BitNetModel:
    return BitNetModel.from_config({"preset": "tiny", "vocab_size": 3, "num_hidden_layers": 1})


def profile(path: Path) -> None:
    with model() as made:
        with made.profile() as recorded:
            made.forward([1, 2])
        recorded.save(path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "m.bitnet": lambda path: model().save_pretrained(path),
    "m.gguf": lambda path: model().save_pretrained(path, format="gguf"),
    "checkpoint": lambda path: model().save_pretrained(path, format="hf"),
    "tokenizer": lambda path: Tokenizer.bytes().save_pretrained(path),
    "ids.bin": lambda path: TokenFile.write(path, [1, 2, 3], 4),
    "config.yaml": lambda path: TrainingConfig(max_steps=1).save(path),
    "trace.json": profile,
}


@pytest.mark.parametrize("name", WRITERS)
def test_directories_above_what_is_written_are_made(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "new" / "newer" / name)
    assert [path.name for path in (tmp_path / "new" / "newer").iterdir()] == [name]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("generate ab -n 1 --profile", "trace.json"),
        ("tokenize --bytes --data text.txt --out", "ids.bin"),
        ("convert bitnet-shakespeare", "m.bitnet"),
        ("bench decode --shape tiny --tokens 2 --repeat 1 --no-cache --profile", "trace.json"),
        ("train --data text.txt --preset tiny --max-steps 1 --batch-size 1 --context-length 8 --out", "run"),
    ],
)
def test_commands_make_the_directories_above_what_they_write(
    bitnet: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("To be, or not to be. " * 40)
    status, _, err = bitnet(*command.split(), f"new/newer/{name}", "--quiet")
    assert (status, err.replace("\n", "").startswith("bitnet:")) == (0, False), err
    assert (tmp_path / "new" / "newer" / name).exists()


def test_directories_that_were_made_for_nothing_go_again(bitnet: Terminal, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    def interrupted() -> None:
        with place_of(tmp_path / "there" / "new" / "newer" / "x") as place:
            assert place.parent.is_dir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ArgumentError, match="ids"):
        TokenFile.write(tmp_path / "there" / "new" / "ids.bin", [1, 2, 9], 4)
    with pytest.raises(FileSystemError, match="name too long"):
        write_text(tmp_path / "there" / "new" / ("x" * 300), "")
    (tmp_path / "empty.txt").touch()
    out = tmp_path / "there" / "new" / "ids.bin"
    assert (
        "there is no text" in bitnet("tokenize", "--bytes", "--data", str(tmp_path / "empty.txt"), "--out", str(out))[2]
    )
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("name", [name for name in WRITERS if "." in name])
def test_pipes_and_devices_are_not_replaced(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(FileSystemError, match="it is no regular file"):
        WRITERS[name](tmp_path / name)
    assert (tmp_path / name).is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_ids_one_by_one_and_in_pieces_stay_in_their_order(tmp_path: Path) -> None:
    written = TokenFile.write(tmp_path / "ids.bin", [1, [2, 3], 0, 1, [3]], 4)
    assert (tmp_path / "ids.bin").read_bytes()[-12:] == bytes([1, 0, 2, 0, 3, 0, 0, 0, 1, 0, 3, 0])
    assert len(written) == 6
