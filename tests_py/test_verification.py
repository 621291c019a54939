"""verify_model: what loading or using a model would refuse, and what no trained model has."""

import re
import shutil
from pathlib import Path

import pytest

from bitnet_rust import BitNetError, BitNetModel, convert, inspect_model, verify_model
from conftest import GOLDEN


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A sound one with a tokenizer and a template."""
    place = tmp_path / "hf"
    convert("bitnet-shakespeare", place, "hf", check=False)
    (place / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert verify_model(place).ok
    return place


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", '{"version": "1.0"', "tokenizer.json of .* cannot be used"),
        ("tokenizer.json", '{"model": {"type": "Mystery"}}', "tokenizer.json of .* cannot be used"),
        ("tokenizer_config.json", "[1]", "tokenizer_config.json"),
        ("chat_template.jinja", "{% if %}", "line 1 of the chat template is malformed"),
        ("generation_config.json", "{", "generation_config.json of .* is not a JSON object"),
        ("generation_config.json", "[]", "generation_config.json of .* is not a JSON object: list"),
        ("generation_config.json", '{"temperature": "warm"}', "temperature = 'warm': expected a number"),
        ("generation_config.json", '{"eos_token_id": ["a"]}', "eos_token_id = .*: expected token ids"),
    ],
)
def test_what_is_refused_at_its_first_use_is_found(
    file: str, content: str, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / file).write_text(content)
    with BitNetModel.from_pretrained(checkpoint) as model, pytest.raises((BitNetError, TypeError)):
        _use(model)
    (problem,) = verify_model(checkpoint).problems
    assert (problem["check"], problem["tensor"]) == ("structure", "")
    assert re.search(message, problem["message"]), problem
    assert str(checkpoint) in problem["message"]


def _use(model: BitNetModel) -> None:
    model.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])
    model.generate("First", max_new_tokens=1, do_sample=True)


@pytest.mark.parametrize("kind", ["masters", "i2_s", "tq2_0", "f16", "bf16", "f32"])
def test_a_layer_of_zeros_is_warned_of_in_every_type(kind: str, tmp_path: Path) -> None:
    if kind == "masters":
        file, name, zero = tmp_path / "hf", "model.layers.0.mlp.up_proj.weight", b"\0"
        shutil.copytree(GOLDEN / "bitnet_online_bf16", file)
        _fill(file / "model.safetensors", file, name, zero)
    else:
        file, name, zero = tmp_path / "m.gguf", "blk.0.ffn_up.weight", b"\x55" if kind in ("i2_s", "tq2_0") else b"\0"
        convert("bitnet-shakespeare", file, type=kind, check=False)  # type: ignore[arg-type]
        _fill(file, file, name, zero)
    found = verify_model(file)
    assert found.ok, found.problems
    assert found.warnings == [{"check": "values", "tensor": name, "message": "every weight is 0"}]


def _fill(file: Path, model: Path, name: str, byte: bytes) -> None:
    """Gives all bytes of a tensor a value; of ternary types that makes scales positive numbers."""
    tensors = inspect_model(model)["tensors"]
    tensor = next(t for t in tensors if t["name"] == name)
    content = bytearray(file.read_bytes())
    at = len(content) - max(t["offset"] + t["bytes"] for t in tensors) + tensor["offset"]
    content[at : at + tensor["bytes"]] = byte * tensor["bytes"]
    file.write_bytes(content)
