"""Checkpoints in and out of training: what was saved is trained on, and what was trained is what is run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import ArgumentError, BitNetModel, ConfigError, Tokenizer, Trainer
from conftest import Terminal

GOLDEN = Path(__file__).parents[1] / "tests_go" / "testdata" / "golden"
TEXT = "To be, or not to be, that is the question.\n" * 60
SHAPE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
RUN: dict[str, Any] = {"batch_size": 4, "context_length": 32, "learning_rate": 3e-3, "optimizer": "sgd"}


def trained(steps: int = 5) -> BitNetModel:
    model = BitNetModel.from_config(SHAPE, seed=1, trainable=True)
    model.tokenizer = Tokenizer.bytes()
    train(model, steps)
    return model


def train(model: BitNetModel, steps: int) -> list[float]:
    return [record["loss"] for record in Trainer(model, max_steps=steps, **RUN).train(TEXT)]


def logits(model: BitNetModel) -> Any:
    return model.forward(np.arange(20, 40))


def test_training_goes_on_exactly_from_float32_masters(tmp_path: Path) -> None:
    with trained() as model:
        model.save_pretrained(tmp_path, format="hf", masters="float32")
        with BitNetModel.from_pretrained(tmp_path) as run:
            assert not run.trainable
            assert np.array_equal(logits(run), logits(model))
        with BitNetModel.from_pretrained(tmp_path, trainable=True) as again:
            assert again.trainable
            assert again.tokenizer.vocab_size == 256
            assert np.array_equal(logits(again), logits(model))
            assert train(again, 4) == train(model, 4)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"]["quantization_mode"] == "online"
    assert config["dtype"] == "float32"


@pytest.mark.parametrize("name", ["native", "one.bitnet", "hf"])
def test_packed_weights_are_a_start_for_training(name: str, tmp_path: Path) -> None:
    with trained() as model:
        model.save_pretrained(tmp_path / name, format="hf" if name == "hf" else "native")
        with BitNetModel.from_pretrained(tmp_path / name, trainable=True) as again:
            assert np.array_equal(logits(again), logits(model)), "the same function"
            losses = train(again, 4)
            assert losses != train(model, 4), "whose masters are others"
            again.save_pretrained(tmp_path / "further")
            with BitNetModel.from_pretrained(tmp_path / "further") as loaded:
                assert np.array_equal(logits(loaded), logits(again))


@pytest.mark.parametrize("folder", ["bitnet_online_bf16", "bitnet_offline_packed", "llama_bitlinear_packed"])
def test_published_kinds_of_checkpoints_are_trained(folder: str) -> None:
    with BitNetModel.from_pretrained(GOLDEN / folder, trainable=True) as model:
        with BitNetModel.from_pretrained(GOLDEN / folder, head_dtype="float32") as plain:
            assert np.array_equal(logits(model), logits(plain))
        history = Trainer(model, max_steps=6, batch_size=2, context_length=16, learning_rate=1e-3).train(
            np.arange(64) % 7
        )
        assert history[-1]["loss"] < history[0]["loss"]


def test_float_weights_become_ternary_when_asked(tmp_path: Path) -> None:
    llama = SHAPE | {"architecture": "LlamaForCausalLM"}
    with BitNetModel.from_config(llama, seed=1, trainable=True) as model:
        model.tokenizer = Tokenizer.bytes()
        model.save_pretrained(tmp_path, format="hf", masters="float32")
        config = json.loads((tmp_path / "config.json").read_text())
        del config["quantization_config"]
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match=r"quantize=True \(on the command line --quantize\)"):
            BitNetModel.from_pretrained(tmp_path, trainable=True)
        with BitNetModel.from_pretrained(tmp_path, trainable=True, quantize=True) as start:
            assert np.array_equal(logits(start), logits(model))
            assert train(start, 3) == train(model, 3)


def test_every_command_that_loads_makes_float_weights_ternary_when_asked(bitnet: Terminal, tmp_path: Path) -> None:
    source, text = tmp_path / "llama", tmp_path / "text"
    text.write_text("First Citizen: speak. " * 40)
    with BitNetModel.from_config(SHAPE | {"architecture": "LlamaForCausalLM"}, seed=1, trainable=True) as model:
        model.tokenizer = Tokenizer.bytes()
        model.save_pretrained(source, format="hf", masters="float32")
    config = json.loads((source / "config.json").read_text())
    del config["quantization_config"]
    (source / "config.json").write_text(json.dumps(config))
    chosen, out = ("-m", str(source)), tmp_path / "tuned"
    short = ("--max-steps", "1", "--batch-size", "1", "--context-length", "16", "--eval-fraction", "0", "--export", "")
    for command, failing in (
        (("generate", "First", "-n", "2", *chosen), 1),
        (("inspect", str(source)), 1),
        (("perplexity", str(text), *chosen), 1),
        (("eval", "--data", str(text), *chosen), 1),
        (("verify", str(source)), 1),
        (("diff", str(source), str(source)), 2),
        (("convert", str(source), str(tmp_path / "m.bitnet")), 1),
        (("convert", str(source), str(tmp_path / "masters"), "--to", "hf-master"), 1),
        (("finetune", *chosen, "--data", str(text), "--out", str(out), *short), 1),
    ):
        status, _, err = bitnet(*command)
        assert (status, "--quantize" in err) == (failing, True), err
        status, _, err = bitnet(*command, "--quantize")
        assert status == 0, err
    with BitNetModel.from_pretrained(tmp_path / "masters") as written:
        assert np.array_equal(logits(written), logits(BitNetModel.from_pretrained(tmp_path / "m.bitnet")))


def test_what_cannot_be_saved_or_trained_is_named(tmp_path: Path) -> None:
    with trained(1) as model:
        with pytest.raises(ArgumentError, match="masters = 'float32': expected format='hf'"):
            model.save_pretrained(tmp_path / "a", masters="float32")
        for name, value, its in (
            ("gguf_type", "q9", "gguf"),
            ("onnx_type", "zz", "onnx"),
            ("use_cache", False, "onnx"),
        ):
            options: Any = {name: value}
            with pytest.raises(
                ArgumentError, match=f"{name} = {value!r}: expected format='{its}' with it, found 'native'"
            ):
                model.save_pretrained(tmp_path / "a", **options)
            with pytest.raises(ArgumentError, match=f"{name} = {value!r}: .* found 'hf'"):
                model.save_pretrained(tmp_path / "a", format="hf", **options)
        with pytest.raises(ArgumentError, match='masters = "float16"'):
            model.save_pretrained(tmp_path / "a", format="hf", masters="float16")  # type: ignore[arg-type]
        model.save_pretrained(tmp_path / "packed", format="hf")
    with BitNetModel.from_pretrained(tmp_path / "packed") as loaded:
        with pytest.raises(ArgumentError, match="no master weights"):
            loaded.save_pretrained(tmp_path / "a", format="hf", masters="bfloat16")
        with pytest.raises(ArgumentError, match="from_pretrained"):
            Trainer(loaded)
    with pytest.raises(ArgumentError, match="head_dtype"):
        BitNetModel.from_pretrained(tmp_path / "packed", trainable=True, head_dtype="int8")
