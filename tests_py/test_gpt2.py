"""GPT-2 from Python: the checkpoints that transformers computed logits of, saved, converted, trained."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from bitnet_rust import ArgumentError, BitNetConfig, BitNetModel, ConfigError, Trainer, TrainingConfig
from conftest import REPO, Terminal

PARITY = REPO / "tests_go" / "testdata" / "parity"
FOLDERS = ["gpt2_float32", "gpt2_bare_bfloat16", "gpt2_ternary"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_gpt2_gives_the_logits_of_transformers(folder: str) -> None:
    model = BitNetModel.from_pretrained(PARITY / folder)
    want = np.load(PARITY / folder / "parity.npz")
    for i in range(2):
        logits = model.forward(want[f"input_ids_{i}"])
        np.testing.assert_allclose(logits, want[f"logits_{i}"], rtol=0, atol=2e-5)
        assert np.array_equal(logits.argmax(-1), want[f"argmax_{i}"])


def test_its_config_has_both_names_of_a_field() -> None:
    config = BitNetModel.from_pretrained(PARITY / "gpt2_float32").config
    assert (config.n_embd, config.n_layer, config.n_head, config.n_positions, config.n_inner) == (32, 2, 4, 40, 128)
    assert (config.hidden_size, config.num_hidden_layers, config.max_position_embeddings) == (32, 2, 40)
    assert "quantization_config" not in config
    assert "rope_theta" not in config
    assert BitNetConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="n_layer = 2: must be 3, the value of num_hidden_layers"):
        BitNetConfig.from_dict({**config, "num_hidden_layers": 3})


def test_a_native_file_of_floats_is_not_quantized(tmp_path: Path) -> None:
    BitNetModel.from_pretrained(PARITY / "gpt2_float32").save_pretrained(tmp_path / "m.bitnet")
    with pytest.raises(ArgumentError, match=r"quantize: the layers of .*m\.bitnet are float"):
        BitNetModel.from_pretrained(tmp_path / "m.bitnet", quantize=True)


def test_the_default_ids_of_a_config_are_not_those_of_a_small_vocabulary(tmp_path: Path) -> None:
    """GPT2Config says 50256 unless it is told otherwise, and transformers runs such a model."""
    shape = {
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": 64,
        "n_embd": 32,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 32,
    }
    BitNetModel.from_config(shape).save_pretrained(tmp_path, format="hf")
    config = json.loads((tmp_path / "config.json").read_text())
    ids = {"bos_token_id": 50256, "eos_token_id": 50256}
    (tmp_path / "config.json").write_text(json.dumps(config | ids))
    (tmp_path / "generation_config.json").write_text(json.dumps(ids | {"_from_model_config": True}))
    with BitNetModel.from_pretrained(tmp_path) as model:
        assert (model.config.bos_token_id, model.config.eos_token_id) == (None, None)
        assert len(model.generate([1, 2], max_new_tokens=20)) == 20
    with pytest.raises(ConfigError, match="bos_token_id = 64: must be a token id, 0 to 63"):
        BitNetModel.from_config(shape | {"bos_token_id": 64})


def test_positions_end_with_the_table() -> None:
    model = BitNetModel.from_pretrained(PARITY / "gpt2_float32")
    with pytest.raises(ArgumentError, match="max_position_embeddings = 40"):
        model.forward([3] * 41)
    step = model.generate([3] * 35, max_new_tokens=100, ignore_eos=True)
    assert len(step) == 6  # five with positions left, and what the last of them says


@pytest.mark.parametrize("folder", FOLDERS)
def test_it_is_saved_and_read_again(folder: str, tmp_path: Path) -> None:
    model = BitNetModel.from_pretrained(PARITY / folder)
    ids = np.load(PARITY / folder / "parity.npz")["input_ids_0"]
    model.save_pretrained(tmp_path / "m.bitnet")
    assert np.array_equal(BitNetModel.from_pretrained(tmp_path / "m.bitnet").forward(ids), model.forward(ids))
    refused: tuple[Literal["gguf", "onnx"], ...] = ("gguf", "onnx")
    for form in refused:
        with pytest.raises(match="a GPT2LMHeadModel is not written as"):
            model.save_pretrained(tmp_path / f"m.{form}", format=form)
        assert not (tmp_path / f"m.{form}").exists()
    if folder == "gpt2_ternary":
        with pytest.raises(match="no ternary layers for a GPT2LMHeadModel"):
            model.save_pretrained(tmp_path / "hf", format="hf")
        model = BitNetModel.from_pretrained(PARITY / folder, trainable=True)
        model.save_pretrained(tmp_path / "hf", format="hf", masters="float32")
    else:
        model.save_pretrained(tmp_path / "hf", format="hf")
    assert np.array_equal(BitNetModel.from_pretrained(tmp_path / "hf").forward(ids), model.forward(ids))
    written = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert written["architectures"] == ["GPT2LMHeadModel"]
    assert (written["n_embd"], written["n_positions"]) == (model.config.hidden_size, model.config.n_positions)
    assert not written.keys() & {"hidden_size", "num_attention_heads", "rms_norm_eps", "head_dim", "attention_bias"}


def test_the_command_converts_and_compares_it(bitnet: Terminal, tmp_path: Path) -> None:
    def run(*args: Any) -> str:
        status, out, err = bitnet(*map(str, args))
        assert status == 0, err
        return out

    floats = PARITY / "gpt2_float32"
    assert "hf, float" in run("convert", floats, tmp_path / "float-hf", "--to", "hf")
    assert "native, float" in run("convert", floats, tmp_path / "float.bitnet", "--to", "native")
    source = PARITY / "gpt2_ternary"
    assert "logits within 0" in run("convert", source, tmp_path / "m.bitnet", "--to", "native")
    assert "logits within 0" in run("convert", source, tmp_path / "hf", "--to", "hf-master")
    assert "equal" in run("diff", tmp_path / "m.bitnet", tmp_path / "hf")
    assert "sound" in run("verify", tmp_path / "m.bitnet")
    assert "GPT2LMHeadModel" in run("inspect", tmp_path / "m.bitnet")


@pytest.mark.parametrize(
    ("ternary", "formats", "message"),
    [
        (True, ["hf-master"], ""),
        (False, ["hf", "hf-master"], ""),
        ("each", ["hf"], ""),
        (True, ["hf"], "export.formats: hf: expected hf-master for a GPT-2 of ternary layers"),
        (False, ["gguf"], "export.formats: gguf: expected hf, hf-master for a GPT-2 of float layers"),
    ],
)
def test_a_recipe_trains_it_and_refuses_other_exports_before(
    ternary: bool | str, formats: list[str], message: str, bitnet: Terminal, tmp_path: Path
) -> None:
    floats = ["model.layers"] if ternary is False else [f"{name}_proj" for name in ("q", "k", "v", "o", "up", "down")]
    quantization = {} if ternary is True else {"quantization": {"modules_to_not_convert": floats, "rms_norm_eps": 1e-5}}
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    recipe = {
        "model": {"architecture": "GPT2LMHeadModel", "max_position_embeddings": 32, **sizes, **quantization},
        "tokenizer": {"kind": "bytes"},
        "data": {"train": str(REPO / "recipes" / "data" / "tinyshakespeare.txt"), "eval_fraction": 0},
        "training": {"max_steps": 2, "batch_size": 1, "context_length": 16},
        "sample": {"max_new_tokens": 1},
        "export": {"formats": formats},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    out = tmp_path / "out"
    status, _, err = bitnet("train", "--config", str(tmp_path / "recipe.json"), "--out", str(out))
    assert (status, message in err) == (1 if message else 0, True), err
    assert out.exists() != bool(message)
    for name in [] if message else formats:
        ids = np.arange(10)
        assert np.array_equal(
            BitNetModel.from_pretrained(out / name).forward(ids).argmax(-1),
            BitNetModel.from_pretrained(out).forward(ids).argmax(-1),
        )


@pytest.mark.parametrize("folder", ["gpt2_float32", "gpt2_ternary"])
def test_it_learns_a_text(folder: str) -> None:
    model = BitNetModel.from_pretrained(PARITY / folder, trainable=True)
    text = [i * i % 61 for i in range(600)]
    before = model.evaluate(text, context_length=24)["loss"]
    config = TrainingConfig(max_steps=40, batch_size=4, context_length=24, learning_rate=1e-2)
    Trainer(model, config).train(text)
    after = model.evaluate(text, context_length=24)["loss"]
    assert after < before - 1
    names = [name for name, _ in model.named_parameters()]
    assert names[:2] == ["model.embed_tokens.weight", "model.embed_positions.weight"]
    assert "model.layers.0.input_layernorm.bias" in names
    assert not any("gate_proj" in name for name in names)


def test_the_loss_of_a_user_s_own_loop_is_the_evaluation_s() -> None:
    model = BitNetModel.from_pretrained(PARITY / "gpt2_ternary", trainable=True)
    ids = np.arange(24)[None] % 61
    logits = model.forward(ids[0]).astype(np.float64)
    want = np.log(np.exp(logits[:-1]).sum(-1)) - logits[np.arange(23), ids[0, 1:]]
    loss = model.loss(ids)
    assert float(loss) == pytest.approx(want.mean(), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
