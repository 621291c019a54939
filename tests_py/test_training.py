"""Training from Python: the loss falls, runs repeat, what was trained is what is saved, and every way out leaves a usable model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetError,
    BitNetModel,
    ConfigError,
    History,
    Tokenizer,
    TokenizerError,
    Trainer,
    TrainingError,
)
from interrupting import assert_ctrl_c_ends

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
RUN: dict[str, Any] = {"max_steps": 30, "batch_size": 4, "context_length": 32, "learning_rate": 3e-3, "seed": 1}


def fresh(seed: int = 0, **fields: Any) -> BitNetModel:
    model = BitNetModel.from_config(SHAPE | fields, seed=seed, trainable=True)
    model.tokenizer = Tokenizer.bytes()
    return model


def losses(history: History) -> list[float]:
    return [record["loss"] for record in history]


def test_the_loss_falls_on_a_patterned_text() -> None:
    with fresh() as model:
        trainer = Trainer(model, **RUN, eval_every=10)
        before = trainer.evaluate(TEXT)["eval_loss"]
        history = trainer.train(TEXT, TEXT)
        assert trainer.evaluate()["eval_loss"] == history[-1]["eval_loss"] < before / 2
        assert [r["step"] for r in history if "eval_loss" in r] == [10, 20, 30]
        assert [r["step"] for r in history] == list(range(1, 31))
        assert history.to_dict()["loss"] == losses(history)
        assert history.to_dict()["eval_loss"][0] is None
        assert "30 updates" in repr(history)
        assert "adamw" in repr(trainer)


def test_equal_seeds_give_equal_runs() -> None:
    runs = []
    for seed, order in ((1, 1), (1, 1), (1, 2), (2, 1)):
        with fresh(seed) as model:
            runs.append(losses(Trainer(model, **RUN | {"seed": order, "max_steps": 4}).train(TEXT)))
    assert runs[0] == runs[1] != runs[2]
    assert runs[0] != runs[3]


@pytest.mark.parametrize("kind", ["text", "path", "list", "array"])
def test_a_dataset_is_a_text_a_file_or_token_ids(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    ids = Tokenizer.bytes().encode(TEXT)
    dataset = {"text": TEXT, "path": path, "list": ids, "array": np.array(ids, np.int64)}[kind]
    with fresh() as model, fresh() as other:
        options = RUN | {"max_steps": 2}
        assert losses(Trainer(model, **options).train(dataset)) == losses(Trainer(other, **options).train(ids))


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"},
        {"optimizer": {"name": "sgd", "momentum": 0.9}, "scheduler": "constant", "accumulation": 2},
        {"scheduler": {"name": "wsd", "decay_steps": 2}, "warmup_steps": 1, "min_ratio": 0.1, "betas": (0.9, 0.95)},
    ],
)
def test_optimizers_and_schedules(options: dict[str, Any]) -> None:
    with fresh() as model:
        assert len(Trainer(model, **RUN | {"max_steps": 4} | options).train(TEXT)) == 4


@pytest.mark.parametrize("name", ["native", "one.bitnet", "hf"])
def test_a_saved_model_is_the_trained_one(name: str, tmp_path: Path) -> None:
    with fresh() as model:
        Trainer(model, **RUN).train(TEXT)
        text, logits = model.generate("To be", max_new_tokens=20), model.forward([1, 2, 3])
        assert model.perplexity("To be, or not to be") > 1
        model.save_pretrained(tmp_path / name, format="hf" if name == "hf" else "native")
    with BitNetModel.from_pretrained(tmp_path / name) as loaded:
        assert not loaded.trainable
        assert loaded.generate("To be", max_new_tokens=20) == text
        assert np.array_equal(loaded.forward([1, 2, 3]), logits)
        with pytest.raises(ArgumentError, match="trainable=True"):
            Trainer(loaded)


def test_callbacks_see_records_and_may_generate() -> None:
    seen: list[Any] = []
    with fresh() as model:

        def callback(record: dict[str, Any]) -> None:
            seen.append((record["step"], model.generate([1], max_new_tokens=2)))

        Trainer(model, **RUN | {"max_steps": 3}, callbacks=[callback], progress=True).train(TEXT)
    assert [step for step, _ in seen] == [1, 2, 3]


def test_an_exception_in_a_callback_ends_the_run() -> None:
    seen = []

    def callback(record: dict[str, Any]) -> None:
        seen.append(record["step"])
        if record["step"] == 2:
            raise LookupError("enough")

    with fresh() as model:
        with pytest.raises(LookupError, match="enough"):
            Trainer(model, **RUN, callbacks=[callback]).train(TEXT)
        assert seen == [1, 2]
        assert model.forward([1, 2]).shape == (2, 256)


def test_a_model_closed_by_a_callback_ends_the_run() -> None:
    model = fresh()
    with pytest.raises(ArgumentError, match="closed"):
        Trainer(model, **RUN, callbacks=[lambda record: model.close()]).train(TEXT)


def test_divergence_is_a_training_error() -> None:
    with fresh() as model, pytest.raises(TrainingError):
        Trainer(model, **RUN | {"learning_rate": 1e38, "optimizer": "sgd", "gradient_clip": 0}).train(TEXT)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"optimizer": "lion"}, 'optimizer = "lion": expected one of'),
        ({"scheduler": "steps"}, 'scheduler = "steps": expected one of'),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"learning_rate": -1}, "learning_rate = -1"),
        ({"weight_decay": -1}, "weight_decay = -1"),
        ({"betas": (0.9, 1.5)}, r"betas\[1\] = 1.5"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"batch_size": 1.5}, "batch_size = 1.5: expected a whole number"),
        ({"context_length": 129}, "context_length = 129: expected a whole number from 1 to 128"),
        ({"accumulation": 0}, "accumulation = 0"),
        ({"gradient_clip": -1}, "gradient_clip = -1"),
        ({"eval_every": -1}, "eval_every = -1"),
        ({"seed": -1}, "seed = -1"),
        ({"warmup_steps": 30}, "warmup_steps"),
        ({"min_ratio": 2}, "min_ratio = 2"),
        ({"optimizer": {"name": "adamw", "speed": 3}}, "speed"),
        ({"optimizer": {"momentum": 0.9}}, "optimizer = "),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], says: str) -> None:
    with fresh() as model, pytest.raises(ArgumentError, match=says):
        Trainer(model, **RUN | options).train(TEXT)


def test_a_bad_dataset_is_named(tmp_path: Path) -> None:
    with fresh() as model:
        trainer = Trainer(model, **RUN)
        with pytest.raises(ArgumentError, match=r"dataset\[1\] = 256: expected 0 <= id < vocab_size = 256"):
            trainer.train([1, 256] * 40)
        with pytest.raises(ArgumentError, match=r"3 tokens: expected more than context_length = 32"):
            trainer.train([1, 2, 3])
        with pytest.raises(ArgumentError, match="dataset has no tokens"):
            trainer.evaluate([])
        with pytest.raises(ArgumentError, match="eval_dataset has no tokens"):
            trainer.train(TEXT, "")
        with pytest.raises(FileNotFoundError):
            trainer.train(tmp_path / "nothing.txt")
    with BitNetModel.from_config(SHAPE, trainable=True) as bare, pytest.raises(TokenizerError, match="no tokenizer"):
        Trainer(bare, **RUN).train(TEXT)


def test_a_config_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_key_value_heads"):
        BitNetModel.from_config(SHAPE | {"num_key_value_heads": 3}, trainable=True)
    with pytest.raises(ArgumentError, match="head_dtype"):
        BitNetModel.from_config(SHAPE, trainable=True, head_dtype="int8")


def test_plot_draws_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BitNetError, match=r"pip install 'bitnet-rust\[viz\]'"):
        History([{"step": 1, "loss": 1.0}]).plot()


TRAINABLE = """
model = BitNetModel.from_config({"vocab_size": 512, "hidden_size": 512, "intermediate_size": 1024,
    "num_hidden_layers": 6, "num_attention_heads": 8, "max_position_embeddings": 256}, trainable=True)
def train(steps):
    Trainer(model, max_steps=steps, batch_size=2, context_length=256).train(list(range(512)) * 10)
"""


def test_ctrl_c_ends_training_and_leaves_the_model_usable() -> None:
    after = "assert model.forward([1, 2]).shape == (2, 512)\ntrain(1)"
    assert_ctrl_c_ends("train(10**6)", TRAINABLE, "train(1)", after)


# --- tokenizers ------------------------------------------------------------------------------------------------------


def test_tokenizers_for_new_models(tmp_path: Path) -> None:
    strange = "Zürich, 東京 🙂\n"
    bpe = Tokenizer.train_bpe(TEXT, 280, special_tokens=["<|end|>"])
    assert bpe.vocab_size == 280
    assert len(bpe.encode(TEXT)) < len(TEXT) / 2
    for tokenizer in (bpe, Tokenizer.bytes(), Tokenizer.characters(TEXT + strange)):
        tokenizer.save_pretrained(tmp_path)
        again = Tokenizer.from_pretrained(tmp_path)
        for text in (TEXT, strange):
            assert again.decode(again.encode(text)) == text
            assert again.encode(text) == tokenizer.encode(text)
    assert Tokenizer.bytes().vocab_size == 256
    with pytest.raises(TokenizerError, match="'é' is not in the vocabulary"):
        Tokenizer.characters(TEXT).encode("bé")
    with pytest.raises(TokenizerError, match="vocab_size = 255"):
        Tokenizer.train_bpe(TEXT, 255)
    with pytest.raises(TokenizerError, match="empty"):
        Tokenizer.characters("")


# --- the command -----------------------------------------------------------------------------------------------------


def bitnet(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bitnet_rust", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def test_the_command_trains_saves_and_refuses_to_overwrite(tmp_path: Path) -> None:
    data, out, recipe = tmp_path / "data.txt", tmp_path / "model", tmp_path / "recipe.yaml"
    data.write_text(TEXT)
    recipe.write_text(
        f"model: {json.dumps(SHAPE | {'vocab_size': 270})}\ntraining: {{batch_size: 2, context_length: 16}}\n"
    )
    arguments = ("train", "--data", data, "--out", out, "--config", recipe, "--max-steps", 10, "--seed", 3)
    done = bitnet(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    log = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == list(range(1, 11))
    assert result["eval_loss"] == log[-1]["eval_loss"]
    assert "tokens/s" in done.stderr
    assert result["sample"].startswith("To be, or")
    with BitNetModel.from_pretrained(out) as model:
        assert model.config.vocab_size == len(model.tokenizer)
        assert model.generate("To be", max_new_tokens=4) is not None
    again = bitnet(*arguments)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    over = bitnet(*arguments, "--overwrite", "--eval-fraction", 0)
    assert over.returncode == 0, over.stderr
    assert "saved" in over.stdout
