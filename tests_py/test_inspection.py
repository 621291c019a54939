"""inspect_model() and `bitnet inspect --tensors`: what is in a model's files."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetModel,
    ConfigError,
    FormatError,
    ModelNotFoundError,
    Tokenizer,
    TokenizerError,
    inspect_model,
    tensor_bytes,
)
from conftest import TINY, Terminal


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("files")
    with BitNetModel.from_pretrained(TINY) as model:
        model.save_pretrained(place / "m.bitnet")
        model.save_pretrained(place / "m.gguf", format="gguf")
    return {"safetensors": TINY, "native": place / "m.bitnet", "gguf": place / "m.gguf"}


@pytest.mark.parametrize("format", ["safetensors", "native", "gguf"])
def test_whoever_asks_for_numbers_sees_how_far_it_is_and_may_end_it(format: str, files: dict[str, Path]) -> None:
    seen: list[tuple[int, int]] = []
    info = inspect_model(files[format], stats=True, progress=lambda done, total: seen.append((done, total)))
    total = sum(tensor["bytes"] for tensor in info["tensors"])
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_model(files[format], stats=True, progress=stop)


def test_every_format_has_the_same_ternary_weights(files: dict[str, Path]) -> None:
    seen = []
    for name, path in files.items():
        info = inspect_model(path, stats=True)
        assert info["format"] == name
        ternary = [t for t in info["tensors"] if "ternary" in t]
        assert all(
            sum(t["ternary"][k] for k in ("minus", "zero", "plus")) == t["shape"][0] * t["shape"][1] for t in ternary
        )
        seen.append(sorted(json.dumps([t["shape"], t["ternary"]]) for t in ternary))
        assert not any("error" in t for t in info["tensors"])
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]


def test_a_file_without_tensors_has_a_list_of_none(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    for stats in (False, True):
        assert inspect_model(path, stats=stats)["tensors"] == []


def test_without_stats_nothing_is_read(files: dict[str, Path]) -> None:
    info = inspect_model(files["gguf"])
    assert info["metadata"]["general.architecture"] == "bitnet-b1.58"
    assert {"name", "dtype", "shape", "bytes", "offset", "file"} == set(info["tensors"][0])


def test_what_is_not_there_or_damaged_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        inspect_model(tmp_path / "nothing.gguf")
    (tmp_path / "cut.gguf").write_bytes(files["gguf"].read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"cut\.gguf"):
        inspect_model(tmp_path / "cut.gguf")


def test_the_command_lists_tensors(bitnet: Terminal, files: dict[str, Path]) -> None:
    status, out, err = bitnet("inspect", str(files["gguf"]), "--stats")
    assert (status, err) == (0, "")
    assert "blk.0.ffn_gate.weight" in out
    assert "I2_S" in out
    assert "scale" in out
    assert "tokenizer.ggml.tokens" in out
    status, out, err = bitnet("inspect", str(files["native"]), "--tensors", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["format"] == "native"


def test_the_summary_counts_all_ternary_weights(files: dict[str, Path]) -> None:
    for path in files.values():
        info = inspect_model(path, stats=True)
        ternary = [t["ternary"] for t in info["tensors"] if "ternary" in t]
        summary = info["summary"]
        assert summary["ternary"] == len(ternary) == 28
        assert summary["zero"] == sum(t["zero"] for t in ternary)
        assert summary["scale"]["min"] == min(t["scale"] for t in ternary)
        assert summary["scale"]["min"] <= summary["scale"]["median"] <= summary["scale"]["max"]
        assert 0.3 < summary["zeros"]["median"] < 0.32


def test_bytes_of_a_tensor_are_those_of_the_file(files: dict[str, Path]) -> None:
    for path in files.values():
        file = path / "model.safetensors" if path.is_dir() else path
        content = file.read_bytes()
        tensors = inspect_model(path)["tensors"]
        largest = max(tensors, key=lambda t: t["bytes"])
        start = content.index(tensor_bytes(path, largest["name"], size=largest["bytes"]))
        assert tensor_bytes(path, largest["name"], at=1000, size=32) == content[start + 1000 : start + 1032]
        assert tensor_bytes(path, largest["name"], at=largest["bytes"]) == b""
        with pytest.raises(ArgumentError, match=f"tensor .* has {largest['bytes']}"):
            tensor_bytes(path, largest["name"], at=largest["bytes"] + 1)
    with pytest.raises(FormatError, match="no such tensor"):
        tensor_bytes(TINY, "nothing")
    with pytest.raises(ArgumentError, match="size"):
        tensor_bytes(TINY, "model.norm.weight", size=-1)


def test_metadata_that_json_has_no_number_for_is_text(files: dict[str, Path], tmp_path: Path) -> None:
    content = files["gguf"].read_bytes()
    key = b"bitnet-b1.58.rope.freq_base" + struct.pack("<I", 6)
    at = content.index(key) + len(key)
    (tmp_path / "nan.gguf").write_bytes(content[:at] + struct.pack("<f", float("nan")) + content[at + 4 :])
    assert inspect_model(tmp_path / "nan.gguf")["metadata"]["bitnet-b1.58.rope.freq_base"] == "NaN"
    with pytest.raises(ConfigError, match="rope_theta = NaN"):
        BitNetModel.from_pretrained(tmp_path / "nan.gguf")


def test_the_command_shows_a_tree(bitnet: Terminal, files: dict[str, Path]) -> None:
    status, out, err = bitnet("inspect", str(files["gguf"]), "--tree")
    assert (status, err) == (0, "")
    assert "  0 to 3  4 times 558,336 weights" in out
    assert "    ffn_down.weight  I2_S 256 x 512" in out
    status, out, _ = bitnet("inspect", str(TINY), "--tree")
    assert status == 0
    assert "    0 to 3  4 times" in out


def test_the_command_dumps_bytes(bitnet: Terminal, files: dict[str, Path]) -> None:
    status, out, err = bitnet("inspect", str(files["gguf"]), "--hex", "output_norm.weight:0x10:20")
    assert (status, err) == (0, "")
    data = tensor_bytes(files["gguf"], "output_norm.weight", at=16, size=20)
    first, second = out.splitlines()
    assert first.startswith(f"00000010  {data[:8].hex(' ')}  {data[8:16].hex(' ')}  |")
    assert second.startswith(f"00000020  {data[16:].hex(' ')} ")
    status, out, err = bitnet("inspect", str(files["gguf"]), "--hex", "output_norm.weight:0x10:20", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"name": "output_norm.weight", "at": 16, "hex": data.hex()}
    for other in ("--stats", "--tree", "--tensors"):
        status, out, err = bitnet("inspect", str(files["gguf"]), "--hex", "output_norm.weight", other)
        assert (status, out) == (2, "")
        assert other in err
    status, out, err = bitnet("inspect", str(files["gguf"]), "--tree", "--stats")
    assert (status, out) == (2, "")
    assert "--stats" in err
    status, _, err = bitnet("inspect", str(files["gguf"]), "--hex", "output_norm.weight:x")
    assert status == 2
    assert "TENSOR:FROM:BYTES" in err
    for places in ("-1", "0:0", "0:-1", "0:1:2"):
        assert bitnet("inspect", str(files["gguf"]), "--hex", f"output_norm.weight:{places}")[0] == 2, places
    status, _, err = bitnet("inspect", str(files["gguf"]), "--hex", "nothing")
    assert status == 1
    assert "no such tensor" in err


ORDERS = "a\x1b]0;title\x07\x1b[2J\r\nb\x9b"


def test_names_and_values_of_a_file_give_a_terminal_no_orders(bitnet: Terminal, tmp_path: Path) -> None:
    text = json.dumps(
        {"__metadata__": {ORDERS: ORDERS}, f"{ORDERS}.weight": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    ).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [ORDERS]}))
    for options in (["inspect", "--tensors"], ["inspect", "--tree"], ["inspect"], ["verify"]):
        _, out, err = bitnet(*options, str(tmp_path))
        assert r"a\x1b]0;title" in out + err, options
        assert (out + err).replace("\n", "").isprintable(), options
    _, out, _ = bitnet("inspect", "--tensors", "--json", str(tmp_path))
    assert out.replace("\n", "").isprintable()
    assert [tensor["name"] for tensor in json.loads(out)["tensors"]] == [f"{ORDERS}.weight"]


def test_messages_about_a_files_text_are_short_and_give_no_orders(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "m")
    fields = json.loads((TINY / "tokenizer.json").read_text())
    fields["model"]["type"] = ORDERS + 5000 * "a"
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(fields))
    with pytest.raises(TokenizerError) as error:
        Tokenizer.from_pretrained(tmp_path / "m")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 2000
    with pytest.raises(ConfigError) as wrong:
        BitNetModel.from_config({"vocab_size": 8, "hidden_act": ORDERS})
    assert str(wrong.value).isprintable()
