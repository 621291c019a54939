"""Files that this package writes and that are no models, or not under their names, are called what they are."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bitnet_rust import (
    BitNetModel,
    FormatError,
    ModelNotFoundError,
    Tokenizer,
    Trainer,
    convert,
    inspect_model,
    verify_model,
)
from bitnet_rust import tokenize as tokenizing
from conftest import TINY, Terminal

SHAPE = {"preset": "char", "num_hidden_layers": 1, "vocab_size": 256}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run, conversions and a tokenizer leave behind."""
    place = tmp_path_factory.mktemp("written")
    text = "To be, or not to be, that is the question.\n" * 20
    with BitNetModel.from_config(SHAPE, trainable=True) as model:
        model.tokenizer = Tokenizer.bytes()
        Trainer(
            model, max_steps=2, batch_size=1, context_length=16, checkpoint_dir=str(place / "run" / "checkpoints")
        ).train(text)
        model.save_pretrained(place / "run")
    (place / "text").write_text(text)
    (place / "ids").mkdir()
    tokenizing.tokenize(place / "text", place / "ids" / "train.bin", Tokenizer.bytes())
    for name, to in (("m.bitnet", "native"), ("m.gguf", "gguf"), ("onnx/mine.onnx", "onnx"), ("hf", "hf")):
        convert(TINY if to != "gguf" else "bitnet-shakespeare", place / name, to, check=False)  # type: ignore[arg-type]
    convert(TINY, place / "shards", "hf", max_shard_size="100kB", check=False)
    (place / "adapter").mkdir()
    (place / "adapter" / "adapter_config.json").write_text("{}")
    shutil.copy(place / "hf" / "model.safetensors", place / "adapter" / "adapter_model.safetensors")
    for name, content in (
        ("pytorch_model.bin", "hf/model.safetensors"), ("blob", "m.gguf"), ("m.safetensors", "m.gguf"), ("m.dat", "m.bitnet"),
        ("onnx.model", "onnx/mine.onnx"), (".m.bitnet.0123456789abcdef.tmp", "m.bitnet"),
    ):  # fmt: skip
        shutil.copy(place / content, place / name)
    (place / "onnx" / "mine.onnx.data").write_bytes(bytes(64))
    return place


OTHERS = [
    ("run/checkpoints", "found a directory of checkpoints of a training run, such as step-00000002.ckpt, expected a model"),
    ("ids/train.bin", "found token ids of texts, expected a model; bitnet train --data takes token ids"),
    ("pytorch_model.bin", "found a safetensors file, expected a name that ends in .safetensors"),
    ("blob", "found a GGUF file, expected a name that ends in .gguf"),
    ("m.safetensors", "found a GGUF file, expected a name that ends in .gguf"),
    ("m.dat", "found a native file, expected a name that ends in .bitnet"),
    ("onnx.model", "found an ONNX model, expected a name that ends in .onnx"),
    (".m.bitnet.0123456789abcdef.tmp", "found a file that was being written, expected the whole one"),
    ("onnx/mine.onnx.data", "found the data of an ONNX model, expected that"),
    ("adapter", "found an adapter of peft, expected a whole model"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "said"), OTHERS)
def test_what_is_no_model_is_called_what_it_is(
    name: str, said: str, place: Path, bitnet: Terminal, tmp_path: Path
) -> None:
    for read in (BitNetModel.from_pretrained, inspect_model, lambda file: convert(file, tmp_path / "m.bitnet")):
        with pytest.raises(FormatError, match=re.escape(said)):
            read(place / name)
    (problem,) = verify_model(place / name).problems
    assert problem["check"] == "structure"
    assert said in problem["message"]
    status, _, err = bitnet("convert", str(place / name), str(tmp_path / "m.bitnet"))
    assert (status, err.count("\n")) == (1, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"])
def test_what_lies_beside_weights_names_their_directory(name: str, place: Path) -> None:
    for read in (BitNetModel.from_pretrained, inspect_model, verify_model):
        with pytest.raises(ModelNotFoundError, match=re.escape(f"pass its directory, {place / 'hf'}")):
            read(place / "hf" / name)


def test_a_directory_without_a_model_names_the_file_that_may_be_one(place: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"holds none of model\.bitnet, .* \(pass .*mine\.onnx itself"):
        BitNetModel.from_pretrained(place / "onnx")


def test_one_of_several_files_is_listed_and_not_loaded(place: Path) -> None:
    shard = next((place / "shards").glob("model-00001-of-*.safetensors"))
    assert inspect_model(shard)["tensors"]
    with pytest.raises(FormatError, match="found one of several files of a model, expected its directory"):
        BitNetModel.from_pretrained(shard)
    assert "one of several files" in verify_model(shard).problems[0]["message"]


def test_a_checkpoint_of_a_run_is_verified_and_listed_but_no_model(
    place: Path, bitnet: Terminal, tmp_path: Path
) -> None:
    """Whatever its name is."""
    stored = place / "run" / "checkpoints" / "step-00000002.ckpt"
    for file in (stored, tmp_path / "saved"):
        if file != stored:
            shutil.copy(stored, file)
        found = verify_model(file)
        assert (found.format, found.problems, found.warnings) == ("checkpoint", [], [])
        assert found.checksums == found.tensors == len(inspect_model(file)["tensors"]) > 20
        assert found.norms
        assert not any(norm["name"].startswith("optimizer.") for norm in found.norms)
        status, out, _ = bitnet("verify", str(file))
        assert status == 0
        assert "a checkpoint of a training run, which --resume goes on with" in out
        assert "step" in json.loads(inspect_model(file, stats=True)["metadata"]["state"])
        for read in (BitNetModel.from_pretrained, lambda file: convert(file, tmp_path / "m.bitnet", dry_run=True)):
            with pytest.raises(FormatError, match=r"found a checkpoint of a training run, expected a model.*--resume"):
                read(file)


@pytest.mark.parametrize(("at", "check"), [(-1, "checksum"), (5000, "structure")])
def test_a_damaged_checkpoint_is_found_damaged(at: int, check: str, place: Path, tmp_path: Path) -> None:
    content = bytearray((place / "run" / "checkpoints" / "step-00000002.ckpt").read_bytes())
    content[at] ^= 1
    (tmp_path / "step-00000002.ckpt").write_bytes(content)
    (problem,) = verify_model(tmp_path / "step-00000002.ckpt").problems
    assert problem["check"] == check


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("m.gguf", "a GGUF file"), ("onnx/mine.onnx", "an ONNX model"), ("hf/model.safetensors", "a safetensors file"),
        ("run/checkpoints/step-00000002.ckpt", "a checkpoint of a training run"), ("ids/train.bin", "token ids of texts"),
    ],
)  # fmt: skip
def test_a_file_object_of_another_format_is_called_that(name: str, kind: str, place: Path) -> None:
    content = (place / name).read_bytes()
    files: list[Any] = [io.BytesIO(content)]
    with open(place / name, "rb") as opened:
        for file in (*files, opened):
            said = rf"found {kind}, expected a native file \(\.bitnet\), the only one that is read from a file object"
            with pytest.raises(FormatError, match=said):
                BitNetModel.from_pretrained(file)
