"""inspect_model() and `bitnet inspect --tensors`: what is in a model's files."""

import json
from pathlib import Path

import pytest

from bitnet_rust import BitNetModel, FormatError, ModelNotFoundError, inspect_model
from conftest import TINY, Terminal


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("files")
    with BitNetModel.from_pretrained(TINY) as model:
        model.save_pretrained(place / "m.bitnet")
        model.save_pretrained(place / "m.gguf", format="gguf")
    return {"safetensors": TINY, "native": place / "m.bitnet", "gguf": place / "m.gguf"}


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
