"""The native format: compression, shards, file objects, metadata, verification."""

import gc
import io
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetModel,
    DeviceError,
    FormatError,
    ModelNotFoundError,
    Trainer,
    inspect_model,
    memory_stats,
    verify_model,
)
from conftest import GOLDEN, TINY, Terminal

IDS = [1, 5, 9, 200, 3]


@pytest.fixture(scope="module")
def source() -> Iterator[BitNetModel]:
    with BitNetModel.from_pretrained(TINY) as model:
        yield model


@pytest.fixture(scope="module")
def packed(source: BitNetModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("native") / "m.bitnet"
    source.save_pretrained(path, compression="zstd")
    return path


def same(model: BitNetModel, source: BitNetModel) -> bool:
    return np.array_equal(model.forward(IDS), source.forward(IDS))


# --- compression and shards ------------------------------------------------------------------------------------------


def test_compressed_and_sharded_files_hold_the_same_model(source: BitNetModel, packed: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.bitnet"
    source.save_pretrained(plain)
    assert packed.stat().st_size < 0.85 * plain.stat().st_size
    source.save_pretrained(tmp_path / "shards", max_shard_size="200kB")
    assert (tmp_path / "shards" / "model.bitnet.index.json").exists()
    assert len(list((tmp_path / "shards").glob("model-*-of-*.bitnet"))) > 2
    for path in (packed, tmp_path / "shards"):
        with BitNetModel.from_pretrained(path) as model:
            assert same(model, source)
            assert model.tokenizer.encode("First Citizen") == source.tokenizer.encode("First Citizen")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compression": "lzma"}, "compression"),
        ({"max_shard_size": "many"}, "max_shard_size"),
        ({"max_shard_size": 0}, "max_shard_size"),
        ({"max_shard_size": 10}, "directory"),
        ({"metadata": {"tensors": "x"}}, "tensors"),
        ({"metadata": {"x": float("nan")}}, "metadata"),
        ({"compression": "zstd", "format": "gguf"}, "format='native'"),
        ({"metadata": {}, "format": "hf"}, "format='native'"),
    ],
)
def test_options_that_cannot_be_name_themselves(
    source: BitNetModel, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    path = tmp_path / ("m.gguf" if options.get("format") == "gguf" else "m.bitnet")
    with pytest.raises(ArgumentError, match=words):
        source.save_pretrained(path, **options)
    assert not path.exists()


def test_a_compressed_file_is_not_mapped(packed: Path) -> None:
    with pytest.raises(ArgumentError, match=r"resident.*compressed"):
        BitNetModel.from_pretrained(packed, resident="map")


# --- file objects ----------------------------------------------------------------------------------------------------


class Remote:
    """Like a file of fsspec: read() and seek(), which may give less than it is asked for."""

    def __init__(self, content: bytes) -> None:
        self.file = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self.file.read(min(size, 10_000))

    def seek(self, at: int, whence: int = 0) -> int:
        return self.file.seek(at, whence)

    def tell(self) -> int:
        return self.file.tell()


def test_a_model_comes_from_a_file_object(source: BitNetModel, packed: Path) -> None:
    content = packed.read_bytes()
    with packed.open("rb") as opened:
        opened.seek(7)
        for file, name in ((io.BytesIO(content), "BytesIO"), (Remote(content), "Remote"), (opened, str(packed))):
            with BitNetModel.from_pretrained(file, head_dtype="auto") as model:
                assert same(model, source)
                assert model.generate("First", max_new_tokens=4) == source.generate("First", max_new_tokens=4)
                assert name in model._source
        assert opened.tell() == 7


def test_a_streamed_model_saves_what_came_with_it(source: BitNetModel, packed: Path, tmp_path: Path) -> None:
    with BitNetModel.from_pretrained(io.BytesIO(packed.read_bytes())) as model:
        model.save_pretrained(tmp_path / "again.bitnet")
    with BitNetModel.from_pretrained(tmp_path / "again.bitnet") as model:
        assert same(model, source)
        assert model.tokenizer.encode("First Citizen") == source.tokenizer.encode("First Citizen")


def test_a_streamed_model_can_be_trained(packed: Path) -> None:
    with BitNetModel.from_pretrained(io.BytesIO(packed.read_bytes()), trainable=True) as model:
        history = Trainer(model, max_steps=1, batch_size=1, context_length=8).train(list(range(1, 20)))
        assert len(history) == 1


class Failing(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 100_000:
            raise ConnectionError("the network is gone")
        return super().read(size)


def test_what_a_file_object_raises_is_raised(packed: Path) -> None:
    gc.collect()
    before = memory_stats()["live_blocks"]
    with pytest.raises(ConnectionError, match="the network is gone"):
        BitNetModel.from_pretrained(Failing(packed.read_bytes()))
    with pytest.raises(ArgumentError, match="binary"):
        BitNetModel.from_pretrained(io.StringIO("x" * 100))
    for content in (b"", packed.read_bytes()[:200_000], b"\xff" * 100, b"GGUF" + bytes(100)):
        with pytest.raises(FormatError, match="BytesIO"):
            BitNetModel.from_pretrained(io.BytesIO(content))
    assert memory_stats()["live_blocks"] <= before  # less where something of other tests goes late


class Generous(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(-1)


class Wordless(io.BytesIO):
    def read(self, size: int | None = -1, /) -> Any:
        return None


class Lost:
    """Has read and seek, which is what makes it a file object, and no tell."""

    def read(self, size: int = -1) -> bytes:
        return b""

    def seek(self, at: int, whence: int = 0) -> int:
        return 0


def test_file_objects_that_cannot_be_read_are_named(packed: Path) -> None:
    content = packed.read_bytes()
    closed = packed.open("rb")
    closed.close()
    end, other = os.pipe()
    os.close(other)
    with open(end, "rb") as pipe, open(end, "rb", buffering=0, closefd=False) as raw:
        for file, message in (
            (closed, rf"{re.escape(str(packed))} is closed: expected an open file"),
            (pipe, "a BufferedReader cannot tell and seek.*: expected a file"),
            (raw, "a FileIO cannot tell and seek.*: expected a file"),
            (Lost(), "a Lost cannot tell and seek"),
            (Generous(content), rf"a Generous.read\(\d+\) gives {len(content)} bytes: expected \d+ at most"),
            (Wordless(content), r"a Wordless.read\(\d+\) gives NoneType: expected bytes"),
        ):
            with pytest.raises(ArgumentError, match=message):
                BitNetModel.from_pretrained(file)


# --- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "auto", "tpu"])
def test_another_device_says_what_is_missing(packed: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=rf"device = '{device}'.*'cpu'"):
        BitNetModel.from_pretrained(packed, device=device)
    with pytest.raises(DeviceError):
        BitNetModel.from_config({"preset": "tiny"}, device=device)


def test_progress_sees_the_bytes_and_may_end_the_loading(packed: Path) -> None:
    seen: list[tuple[int, int]] = []
    with BitNetModel.from_pretrained(packed, device="cpu", progress=lambda done, total: seen.append((done, total))):
        assert seen[-1][0] == seen[-1][1] > 0

    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Enough

    gc.collect()
    before = memory_stats()["live_blocks"]
    with pytest.raises(Enough):
        BitNetModel.from_pretrained(packed, progress=stop)
    assert memory_stats()["live_blocks"] <= before  # less where something of other tests goes late


def test_an_interrupt_ends_the_loading_of_a_file_object(packed: Path) -> None:
    class Slow(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            if self.reads == 3:
                os.kill(os.getpid(), signal.SIGINT)
            if self.reads > 3:
                threading.Event().wait(0.05)
            return super().read(min(size or 0, 128))

    gc.collect()
    before = memory_stats()["live_blocks"]
    file = Slow(packed.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        BitNetModel.from_pretrained(file)
    assert file.reads < 1000 < packed.stat().st_size / 128
    assert memory_stats()["live_blocks"] <= before  # less where something of other tests goes late


# --- metadata --------------------------------------------------------------------------------------------------------


def test_metadata_say_what_a_model_is_and_where_it_is_from(source: BitNetModel, tmp_path: Path) -> None:
    path = tmp_path / "m.bitnet"
    source.save_pretrained(path, metadata={"model_card": "# Mine", "license": "MIT", "scores": {"ppl": 7.5, "n": [1]}})
    with BitNetModel.from_pretrained(path) as model:
        said = model.metadata
        assert said["model_card"] == "# Mine"
        assert said["license"] == "MIT"
        assert json.loads(said["scores"]) == {"ppl": 7.5, "n": [1]}
        assert said["provenance"]["source"] == "bitnet_offline_packed"
        assert [f["name"] for f in said["provenance"]["files"]] == ["config.json", "model.safetensors"]
        assert all(len(f["sha256"]) == 64 and f["bytes"] > 0 for f in said["provenance"]["files"])
        model.save_pretrained(tmp_path / "again.bitnet", metadata={"license": None})
    shown = inspect_model(tmp_path / "again.bitnet")["metadata"]
    assert shown["model_card"] == "# Mine"
    assert json.loads(shown["provenance"]) == said["provenance"]
    assert "license" not in shown


def test_a_trained_model_says_how_it_was_trained(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.bitnet"
    with BitNetModel.from_pretrained(packed, trainable=True) as model:
        data = list(range(1, 60))
        for steps in (3, 2):
            history = Trainer(model, max_steps=steps, batch_size=1, context_length=8, learning_rate=1e-4).train(
                data, data
            )
        assert len(model.metadata["training_history"]) == 2
        model.save_pretrained(path)
    with BitNetModel.from_pretrained(path) as model:
        first, second = model.metadata["training_history"]
    assert [r["step"] for r in first["records"]] == [1, 2, 3]
    assert second["steps"] == 2
    assert second["settings"]["batch_size"] == 1
    assert second["records"][-1]["loss"] == history[-1]["loss"]
    assert second["records"][-1]["eval_loss"] == history[-1]["eval_loss"]
    assert "seconds" not in second["records"][0]


def test_a_long_history_keeps_its_shape() -> None:
    from bitnet_rust.metadata import add_run

    records: list[dict[str, Any]] = [
        {"step": i + 1, "loss": float("nan") if i == 0 else 1.0, "seconds": 1.0} for i in range(5000)
    ]
    records[2000]["eval_loss"] = 0.5
    runs = add_run([{"records": [{"step": 1}]}, "no run"], {"steps": 5000}, records)
    assert len(runs) == 2
    kept = runs[1]["records"]
    assert 300 < len(kept) < 1000
    assert kept[-1]["step"] == 5000
    assert any("eval_loss" in r for r in kept)
    assert runs[0]["records"] == [{"step": 1}]
    runs = []
    for _ in range(150):
        runs = add_run(runs, {"steps": 100}, records[:100])
    assert len(runs) == 100
    assert sum(len(run["records"]) for run in runs) <= 1000


# --- verification ----------------------------------------------------------------------------------------------------


def test_verify_finds_nothing_wrong_with_a_sound_model(packed: Path, bitnet: Terminal) -> None:
    seen: list[tuple[int, int]] = []
    found = verify_model(packed, progress=lambda done, total: seen.append((done, total)))
    assert found.ok
    assert found.format == "native"
    assert found.checksums == found.tensors > 0
    assert found.norms[0]["min"] <= found.norms[0]["mean"] <= found.norms[0]["max"]
    assert seen[-1] == (found.bytes, found.bytes)
    status, out, err = bitnet("verify", str(packed), "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == found.to_dict()
    status, out, err = bitnet("verify", str(GOLDEN / "llama_bitlinear_packed"))
    assert (status, err) == (0, "")
    assert "sound" in out


def test_verify_names_what_is_wrong(source: BitNetModel, tmp_path: Path, bitnet: Terminal) -> None:
    path = tmp_path / "m.bitnet"
    source.save_pretrained(path)
    content = bytearray(path.read_bytes())
    content[200_000] ^= 1
    path.write_bytes(content)
    found = verify_model(path)
    assert not found.ok
    assert [p["check"] for p in found.problems] == ["checksum"]
    assert found.problems[0]["tensor"].endswith(".weight")
    status, out, err = bitnet("verify", str(path), "--json")
    assert status == 1
    assert json.loads(out)["ok"] is False
    status, out, err = bitnet("verify", str(path))
    assert status == 1
    assert found.problems[0]["tensor"] in err
    with pytest.raises(ModelNotFoundError):
        verify_model(tmp_path / "nothing.bitnet")


def test_codes_that_are_no_weights_are_found_unless_nobody_looks(source: BitNetModel, tmp_path: Path) -> None:
    path = tmp_path / "m.bitnet"
    source.save_pretrained(path)
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    name = "model.layers.0.mlp.up_proj.weight"
    start, end = json.loads(content[8:header])[name]["data_offsets"]
    content[header + start : header + end] = b"\xff" * (end - start)
    path.write_bytes(content)
    for verify in (True, "background"):  # small files are verified before they are used
        with pytest.raises(FormatError, match=re.escape(name)):
            BitNetModel.from_pretrained(path, verify=verify)
    with BitNetModel.from_pretrained(path, verify=False) as model:
        logits = model.forward(IDS)
    assert logits.shape == source.forward(IDS).shape
    assert not np.array_equal(logits, source.forward(IDS))
    assert [problem["tensor"] for problem in verify_model(path).problems] == [name]


def test_convert_ships(tmp_path: Path, bitnet: Terminal) -> None:
    status, out, err = bitnet("convert", str(TINY), str(tmp_path / "m.bitnet"), "--compression", "zstd", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["max_difference"] == 0
    status, out, err = bitnet("convert", str(TINY), str(tmp_path / "s"), "--to", "native", "--max-shard-size", "200kB")
    assert (status, err) == (0, "")
    assert (tmp_path / "s" / "model.bitnet.index.json").exists()
    status, out, err = bitnet("convert", str(TINY), str(tmp_path / "m.gguf"), "--compression", "zstd")
    assert status == 1
    assert "native" in err
