"""convert() and `bitnet convert`: every format into every other."""

import itertools
import json
from pathlib import Path

import pytest

from bitnet_rust import ArgumentError, BitNetModel, ModelNotFoundError, convert
from conftest import Terminal

TARGETS = {
    "native": "m.bitnet",
    "native-dir": "native",
    "hf": "hf",
    "hf-master": "masters",
    "gguf": "m.gguf",
    "onnx": "onnx/m.onnx",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded model in every format."""
    place = tmp_path_factory.mktemp("sources")
    out = {}
    for name, file in TARGETS.items():
        done = convert("bitnet-shakespeare", place / file, to=name.removesuffix("-dir"))  # type: ignore[arg-type]
        assert done.same_argmax == 1
        out[name] = place / file
    return out


@pytest.mark.parametrize(("source", "to"), list(itertools.product(TARGETS, TARGETS)))
def test_every_format_becomes_every_other(source: str, to: str, sources: dict[str, Path], tmp_path: Path) -> None:
    done = convert(sources[source], tmp_path / TARGETS[to], to=to.removesuffix("-dir"))  # type: ignore[arg-type]
    assert done.same_argmax == 1
    assert done.max_difference == 0
    assert done.target_bytes
    with BitNetModel.from_pretrained(tmp_path / TARGETS[to]) as model:
        assert model.tokenizer.encode("First Citizen:")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = convert("bitnet-shakespeare", tmp_path / "m.gguf", type="tq1_0", dry_run=True)
    assert (done.format, done.weights, done.target_bytes, done.same_argmax) == ("gguf", "tq1_0", None, None)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named(sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is the source itself"):
        convert(sources["native"], sources["native"])
    with pytest.raises(ArgumentError, match="may be of several formats"):
        convert("bitnet-shakespeare", tmp_path / "somewhere")
    with pytest.raises(ArgumentError, match="to = 'pickle': expected one of native, hf, hf-master, gguf, onnx"):
        convert("bitnet-shakespeare", tmp_path / "somewhere", to="pickle")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="is the name of a gguf file"):
        convert("bitnet-shakespeare", tmp_path / "m.gguf", to="hf")
    with pytest.raises(ArgumentError, match=r"expected a name that ends in \.gguf"):
        convert("bitnet-shakespeare", tmp_path / "m", to="gguf")
    with pytest.raises(ArgumentError, match="would hide the checkpoint"):
        convert("bitnet-shakespeare", sources["native-dir"], to="hf")
    with pytest.raises(ArgumentError, match="holds a Hugging Face checkpoint"):
        convert("bitnet-shakespeare", sources["hf"], to="native")
    with pytest.raises(ModelNotFoundError):
        convert(tmp_path / "nothing.gguf", tmp_path / "m.bitnet")


def test_the_command_says_what_it_did(bitnet: Terminal, tmp_path: Path) -> None:
    status, out, err = bitnet("convert", "bitnet-shakespeare", str(tmp_path / "m.gguf"), "--type", "tq2_0")
    assert (status, err) == (0, "")
    assert "gguf, tq2_0" in out
    assert "same next token at 100.0% of positions" in out
    status, out, err = bitnet("convert", str(tmp_path / "m.gguf"), str(tmp_path / "hf"), "--to", "hf", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["format"] == "hf"
    status, out, err = bitnet("convert", str(tmp_path / "m.gguf"), str(tmp_path / "x"))
    assert (status, out) == (1, "")
    assert "expected to= one of" in err
