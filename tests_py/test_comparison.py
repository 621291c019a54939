"""diff_models() and `bitnet diff`: what is not the same in two models."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from bitnet_rust import BitNetModel, ModelNotFoundError, convert, diff_models
from conftest import GOLDEN, TINY, Terminal

MLP = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def files(place: Path) -> list[Path]:
    """One model in every format."""
    out = [TINY]
    for name, options in {"m.bitnet": {}, "m.gguf": {}, "tq.gguf": {"type": "tq1_0"}, "hf": {"to": "hf"}}.items():
        convert(TINY, place / name, check=False, **options)  # type: ignore[arg-type]
        out.append(place / name)
    return out


@pytest.fixture(scope="module")
def changed(place: Path) -> Path:
    """The model with two codes of a byte changed."""
    path = Path(shutil.copytree(TINY, place / "changed"))
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    begin, _ = json.loads(content[8 : 8 + length])[MLP]["data_offsets"]
    byte = content[8 + length + begin]
    for shift in (0, 6):
        code = byte >> shift & 3
        byte += ((code + 1) % 3 - code) << shift
    content[8 + length + begin] = byte
    file.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def damaged(place: Path) -> Path:
    """The model with the largest numbers there are in the last norm, so that logits are none."""
    path = Path(shutil.copytree(TINY, place / "damaged"))
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8 : 8 + length])["model.norm.weight"]["data_offsets"]
    content[8 + length + begin : 8 + length + end] = b"\x7f" * (end - begin)
    file.write_bytes(content)
    return path


def test_a_model_is_the_same_in_every_format(files: list[Path]) -> None:
    for other in files[1:]:
        found = diff_models(files[0], other)
        assert found.equal, (other, found.config, found.different)
        assert found.different == []
        assert (found.same_argmax, found.max_difference) == (1.0, 0.0)
        assert len(found.tensors) == 46


def test_codes_that_flipped_are_counted_and_placed(files: list[Path], changed: Path) -> None:
    found = diff_models(files[1], changed)
    assert not found.equal
    (tensor,) = found.different
    assert tensor["name"] == MLP
    assert tensor["kinds"] == ["ternary", "ternary"]
    assert tensor["scales"][0] == tensor["scales"][1] > 0
    assert tensor["codes"] == tensor["differ"] == 2
    assert round(tensor["max_difference"] / tensor["scales"][0], 4) in (1, 2)
    assert tensor["at"][1] == 0
    assert found.config == {}
    assert found.max_difference is not None
    assert found.max_difference > 0
    assert diff_models(files[1], changed, logits=False).max_difference is None


def test_other_shapes_tensors_and_configs_are_listed_and_not_compared() -> None:
    small = {"preset": "char", "vocab_size": 100, "num_hidden_layers": 1}
    with (
        BitNetModel.from_config(small) as a,
        BitNetModel.from_config(small | {"vocab_size": 90, "num_hidden_layers": 2}) as b,
    ):
        found = diff_models(a, b)
        assert diff_models(a, a).equal
    assert found.same_argmax is None
    assert found.config["vocab_size"] == (100, 90)
    names = {t["name"]: t for t in found.different}
    assert names["model.embed_tokens.weight"]["differ"] == names["model.embed_tokens.weight"]["values"]
    extra = names["model.layers.1.mlp.up_proj.weight"]
    assert extra["kinds"] == ["", "ternary"]
    assert extra["shapes"][0] is None


@pytest.mark.parametrize("field", ["rms_norm_eps", "use_rms_norm", "modules_to_not_convert"])
def test_the_quantization_config_counts_where_it_is_computed_with(field: str) -> None:
    """Only how files store the weights does not: its quant_method, linear_class and quantization_mode."""
    small = {"preset": "char", "vocab_size": 100, "num_hidden_layers": 1}
    base = {"quant_method": "bitnet", "use_rms_norm": True, "rms_norm_eps": 1e-6, "modules_to_not_convert": ["lm_head"]}
    other = {"rms_norm_eps": 0.5, "use_rms_norm": False, "modules_to_not_convert": ["lm_head", "nothing"]}
    with BitNetModel.from_config(small) as model:
        found = diff_models(model, model, logits=False)
    for change, equal in (({field: other[field]}, False), ({"linear_class": "bitlinear"}, True)):
        fields = {"quantization_config": (base, base | change)}
        assert dataclasses.replace(found, config=fields).equal == equal


def test_masters_are_compared_with_what_they_compute(place: Path) -> None:
    """Master weights and packed ones of the same model: all ternary, and equal."""
    convert(GOLDEN / "bitnet_online_bf16", place / "packed", to="hf", check=False)
    found = diff_models(GOLDEN / "bitnet_online_bf16", place / "packed")
    assert all(t["codes"] == 0 for t in found.tensors if "codes" in t)
    assert sum("codes" in t for t in found.tensors) == 28


def test_the_command_says_it_by_its_status(bitnet: Terminal, files: list[Path], changed: Path, damaged: Path) -> None:
    status, out, err = bitnet("diff", str(files[0]), str(files[2]))
    assert (status, err) == (0, "")
    assert "46 the same, 0 not" in out
    status, out, err = bitnet("diff", str(files[0]), str(changed))
    assert (status, err) == (1, "")
    assert MLP in out
    assert "different" in out
    status, out, err = bitnet("diff", str(files[0]), str(changed), "--json", "--no-logits")
    assert (status, err) == (1, "")
    assert json.loads(out)["equal"] is False
    status, out, err = bitnet("diff", str(files[0]), str(damaged), "--json")
    assert (status, err) == (1, "")
    assert json.loads(out, parse_constant=pytest.fail)["max_difference"] is None, "JSON has no NaN"
    status, out, err = bitnet("diff", str(files[0]), "nowhere")
    assert (status, out) == (2, "")
    assert "nowhere" in err
    with pytest.raises(ModelNotFoundError):
        diff_models(files[0], "nowhere")
