"""TrainingConfig, callbacks, metrics, and recipes: what a run is told, and what it tells."""

import dataclasses
import fcntl
import json
import math
import os
import re
import signal
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetError,
    BitNetModel,
    Callback,
    ConfigError,
    History,
    ModelNotFoundError,
    OutOfMemoryError,
    Tokenizer,
    Trainer,
    TrainingConfig,
    TrainingError,
    optim,
)
from bitnet_rust.recipe import Recipe
from bitnet_rust.recipe import run as run_recipe
from bitnet_rust.training_config import _ELSEWHERE, TrainingOptions, field_names

TEXT = "To be, or not to be, that is the question.\n" * 60
SHAPE = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
RUN: dict[str, Any] = {"max_steps": 6, "batch_size": 2, "context_length": 16, "learning_rate": 3e-3, "eval_every": 3}

REPO = Path(__file__).resolve().parents[1]


def fresh(**fields: Any) -> BitNetModel:
    model = BitNetModel.from_config(SHAPE | fields, trainable=True)
    model.tokenizer = Tokenizer.bytes()
    return model


# --- TrainingConfig --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.yaml", "run.yml", "run.json"])
def test_a_config_survives_its_file(tmp_path: Path, name: str) -> None:
    config = TrainingConfig(
        epochs=2.5, optimizer={"name": "sgd", "momentum": 0.9}, learning_rate=1e-5, betas=None, no_decay=["embed_tokens"],
        loss_scale="dynamic", early_stopping={"patience": 3, "restore_best": True}, checkpoint_dir="some where/ünder", seed=2**63,
        gradient_normalization="each", scheduler={"name": "multi_step", "milestones": [1, 2]}, progress=True,
    )  # fmt: skip
    config.save(tmp_path / name)
    again = TrainingConfig.from_file(tmp_path / name)
    assert again.to_dict() == config.to_dict()
    assert again.core_fields() == config.core_fields()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_keywords_override_the_config() -> None:
    with fresh() as model:
        config = TrainingConfig(max_steps=3, batch_size=2, context_length=16, learning_rate=0.5)
        trainer = Trainer(model, config, learning_rate=1e-4, optimizer="adam")
        assert (trainer.config.learning_rate, trainer.config.max_steps) == (1e-4, 3)
        assert config.learning_rate == 0.5
        history = trainer.train(TEXT)
        assert history[0]["learning_rate"] == 1e-4
        assert Trainer(model, config, epochs=1).config.max_steps is None
        assert "adam, cosine, 3 steps of 2 x 16 tokens" in repr(trainer)


def test_unknown_fields_are_refused_with_the_name_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 1e-3\noptimizer: {name: adam, eps: 1e-9}\n")
    assert TrainingConfig.from_file(path).core_fields()["optimizer"] == {"name": "adam", "eps": 1e-9, "lr": 1e-3}
    path.write_text("max_steps: 3\nlerning_rate: 1e-3\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: unknown field 'lerning_rate': did you mean learning_rate\?"):
        TrainingConfig.from_file(path)
    with pytest.raises(ConfigError, match="unknown field 'fp16': expected one of max_steps"):
        TrainingConfig.from_dict({"fp16": True})
    with fresh() as model, pytest.raises(TypeError, match=r"'batchsize': did you mean batch_size\?"):
        Trainer(model, batchsize=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="'patients': did you mean patience"):
        TrainingConfig(early_stopping={"patients": 3}).core_fields()
    for text, says in (("- 1\n", "expected a mapping"), ("a: [", "not YAML: line 1"), ("a: 1\na: 2\n", "run.yaml")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=says):
            TrainingConfig.from_file(path)
    with pytest.raises(ConfigError, match=r"ends in \.yaml, \.yml or \.json"):
        TrainingConfig.from_file(tmp_path / "run.toml")
    with pytest.raises(ModelNotFoundError, match="no such file"):
        TrainingConfig.from_file(tmp_path / "nothing.yaml")


def test_the_keywords_are_the_fields() -> None:
    assert list(TrainingOptions.__annotations__) == [field.name for field in dataclasses.fields(TrainingConfig)]
    assert typing.get_type_hints(TrainingOptions)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "epochs = 0"),
        ({"max_steps": 3, "epochs": 1}, "max_steps = 3 and epochs = 1: expected one of them"),
        ({"loss_scale": "half"}, "loss_scale = 'half'"),
        ({"loss_scale": -1}, "loss_scale = -1"),
        ({"early_stopping": 0}, r"early_stopping\.patience = 0"),
        ({"early_stopping": {"min_delta": 1}}, "expected patience in it"),
        ({"gradient_normalization": "some"}, 'gradient_normalization = "some": expected one of'),
        ({"monitor_mode": "least"}, 'monitor_mode = "least"'),
        ({"dropout": 1.0}, r"dropout = 1: expected a number in \[0, 1\)"),
        ({"dropout": "a"}, "dropout = 'a': expected a finite number"),
        ({"ste": "hard"}, 'ste = "hard"'),
        ({"ste_temperature_steps": 1.5}, "ste_temperature_steps = 1.5: expected a whole number"),
        ({"no_decay": "embed_tokens"}, "no_decay = 'embed_tokens': expected a list of texts"),
        ({"checkpoint_every": -1}, "checkpoint_every = -1"),
        ({"peak_flops": math.inf}, "peak_flops = inf"),
        ({"quantization_start": 3}, "quantization_start = 3: expected none without a quantization_schedule"),
        ({"early_stopping": 3}, "early_stopping: expected an evaluation dataset"),
        ({"epochs": 1e300}, r"epochs = 1e\+300: expected at most 2147483647 updates"),
        ({"checkpoint_dir": "\udcff"}, "expected a name in UTF-8"),
        ({"distillation_alpha": 0.5}, "distillation_alpha = 0.5: expected none without a teacher"),
    ],
)
def test_a_bad_value_is_named(options: dict[str, Any], says: str) -> None:
    with fresh() as model, pytest.raises(ArgumentError, match=says):
        Trainer(model, **{name: value for name, value in RUN.items() if name != "max_steps"} | options).train(TEXT)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_clip": 0, "gradient_clip_value": 0.01},
        {"gradient_normalization": "all", "loss_scale": 128},
        {"loss_scale": {"init_scale": 8, "growth_interval": 2}, "no_decay": ["embed_tokens"]},
        {"dropout": 0.1, "attention_dropout": 0.1, "gradient_checkpointing": True, "accumulation": 2},
        {"ste": "clipped", "ste_clip": 1.2},
        {"quantization_schedule": "linear", "quantization_end": 4},
        {"epochs": 0.05, "max_steps": None},
    ],
)
def test_every_option_reaches_the_run(options: dict[str, Any]) -> None:
    losses = []
    for extra in ({}, options):
        with fresh() as model:
            losses.append([record["loss"] for record in Trainer(model, **RUN | extra).train(TEXT)])
    assert losses[0] != losses[1]


def test_an_optimizer_object_is_used_and_left_with_its_state() -> None:
    with fresh() as model, fresh() as other:
        matrices = [p for name, p in model.named_parameters() if name.endswith("_proj.weight")]
        rest = [(name, p) for name, p in model.named_parameters() if "norm" in name]
        fixed = {name: p.numpy().copy() for name, p in model.named_parameters() if "embed" in name or "lm_head" in name}
        opt = optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1, "name": "matrices"}, {"params": rest, "lr": 1e-4}], lr=3e-3
        )
        trainer = Trainer(
            model, **{n: v for n, v in RUN.items() if n != "learning_rate"}, optimizer=opt, scheduler="constant"
        )
        history = trainer.train(TEXT)
        assert history[0]["learning_rates"] == {"matrices": 3e-3, "group1": 1e-4}
        for name, p in model.named_parameters():
            assert name not in fixed or np.array_equal(p.numpy(), fixed[name]), "in no group: not trained"
        state = opt.state_dict()["state"]
        assert len(state) == len(matrices) + len(rest)
        assert {entry["step"] for entry in state.values()} == {6.0}
        # A second run goes on with the moments of the first.
        trainer.train(TEXT)
        assert {entry["step"] for entry in opt.state_dict()["state"].values()} == {12.0}

        everything = optim.Adam(other.parameters(), lr=3e-3)
        with fresh() as named:
            same = Trainer(named, **RUN, optimizer="adam").train(TEXT)
        again = Trainer(other, **{n: v for n, v in RUN.items() if n != "learning_rate"}, optimizer=everything).train(
            TEXT
        )
        assert [r["loss"] for r in again] == [r["loss"] for r in same]
        with pytest.raises(ArgumentError, match=r"learning_rate = 0\.003: expected none with an Optimizer object"):
            Trainer(other, **RUN, optimizer=everything)
        with pytest.raises(ArgumentError, match=r"param_groups\[0\]: params\[0\] is no parameter of the model"):
            Trainer(model, optimizer=everything)


def test_a_teacher_is_learned_from() -> None:
    with fresh() as teacher, fresh(hidden_size=16) as model:
        Trainer(teacher, **RUN | {"max_steps": 30, "learning_rate": 1e-2}).train(TEXT)
        trainer = Trainer(model, **RUN | {"max_steps": 20}, teacher=teacher, distillation_alpha=0.9)
        history = trainer.train(TEXT, TEXT)
        assert 0 < history[-1]["divergence"] < history[0]["divergence"]
        assert trainer.evaluate()["eval_loss"] == history[-1]["eval_loss"]


# --- callbacks and metrics -------------------------------------------------------------------------------------------


def test_callbacks_hear_everything_in_order(tmp_path: Path) -> None:
    heard: list[str] = []

    class Listener(Callback):
        def on_run_start(self, trainer: Trainer) -> None:
            heard.append(f"start {trainer.step}/{trainer.total_steps}")

        def on_evaluation(self, trainer: Trainer, record: dict[str, Any]) -> None:
            heard.append(f"evaluation {record['step']} {record['twice'] == 2 * trainer.step}")

        def on_step(self, trainer: Trainer, record: dict[str, Any]) -> None:
            heard.append(f"step {record['step']}")

        def on_checkpoint(self, trainer: Trainer, path: str) -> None:
            heard.append(Path(path).name)

        def on_run_end(self, trainer: Trainer, history: History) -> None:
            heard.append(f"end {len(history)}")

    class Some:
        def on_run_end(self, trainer: Trainer, history: History) -> None:
            heard.append("some")

    with fresh() as model:
        options = RUN | {"max_steps": 4, "eval_every": 2, "checkpoint_dir": tmp_path, "learning_rate": 0}
        trainer = Trainer(
            model, **options, callbacks=[Listener(), Some()], metrics={"twice": lambda _: 2 * trainer.step}
        )
        history = trainer.train(TEXT, TEXT)
    assert heard == [
        "start 0/4", "step 1", "evaluation 2 True", "step 2", "step-00000002.ckpt", "step 3", "evaluation 4 True", "step 4",
        "step-00000004.ckpt", "end 4", "some",
    ]  # fmt: skip
    assert [record.get("twice") for record in history] == [None, 4.0, None, 8.0]
    assert history.to_dict()["twice"] == [None, 4.0, None, 8.0]
    assert history.best is not None
    assert history.best["step"] == 2


def test_long_runs_keep_fewer_records(tmp_path: Path) -> None:
    heard: list[int] = []
    options = RUN | {"max_steps": 11, "eval_every": 4, "log_every": 3, "weight_changes": True}
    with fresh() as model, fresh() as other:
        trainer = Trainer(model, **options, log_file=tmp_path / "log", callbacks=[lambda r: heard.append(r["step"])])
        history = trainer.train(TEXT, TEXT)
        each = Trainer(other, **options | {"log_every": 1}).train(TEXT, TEXT)
    assert [record["step"] for record in history] == [3, 4, 6, 8, 9, 11]
    assert [json.loads(line)["step"] for line in (tmp_path / "log").open()] == [3, 4, 6, 8, 9, 11]
    assert heard == list(range(1, 12))
    assert [r["loss"] for r in history] == [each[r["step"] - 1]["loss"] for r in history]
    assert history[0]["weights_flipped"] + history[0]["weights_zeroed"] > 0
    assert history[-1]["weights_zero"] == each[-1]["weights_zero"]


def test_callbacks_may_use_save_and_evaluate(tmp_path: Path) -> None:
    class Busy(Callback):
        def on_step(self, trainer: Trainer, record: dict[str, Any]) -> None:
            assert trainer.model.forward([1, 2]).shape == (2, 256)
            if "eval_loss" in record:
                assert trainer.evaluate()["eval_loss"] == record["eval_loss"]
            trainer.model.save_pretrained(tmp_path / "m")
            trainer.save_checkpoint(tmp_path / "c")
            with pytest.raises(ArgumentError, match="under way"):
                trainer.train(TEXT)
            with pytest.raises(ArgumentError, match="under way"):
                trainer._run.train(lambda kind, text: None)  # type: ignore[union-attr]

    losses = []
    for callbacks in ([], [Busy()]):
        with fresh() as model:
            losses.append([r["loss"] for r in Trainer(model, **RUN, callbacks=callbacks).train(TEXT, TEXT)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("event", ["on_run_start", "on_evaluation", "on_step", "on_checkpoint"])
@pytest.mark.parametrize("way", ["raise", "stop", "close the model", "close the run"])
def test_a_run_may_end_in_any_event(event: str, way: str, tmp_path: Path) -> None:
    class Ends:
        def __getattr__(self, name: str) -> Any:
            if name != event:
                raise AttributeError(name)
            return self._end

        def _end(self, trainer: Trainer, *rest: Any) -> None:
            if way == "raise":
                raise LookupError("mine")
            {"stop": trainer.stop, "close the model": trainer.model.close, "close the run": trainer.close}[way]()

    with fresh() as model:
        trainer = Trainer(model, **RUN, checkpoint_dir=tmp_path, callbacks=[Ends()])
        if way == "raise":
            with pytest.raises(LookupError, match="mine"):
                trainer.train(TEXT, TEXT)
        elif way == "close the model":
            with pytest.raises(ArgumentError, match="closed"):
                trainer.train(TEXT, TEXT)
        else:
            trainer.train(TEXT, TEXT)
        if way == "stop":
            assert trainer.step == {"on_run_start": 0, "on_evaluation": 3, "on_step": 1, "on_checkpoint": 3}[event]
        if way in ("raise", "stop"):
            assert len(Trainer(model, **RUN).train(TEXT)) == 6  # the model can be used


def test_early_stopping_by_a_metric_restores_the_best() -> None:
    values = iter([1.0, 3.0, 2.0, 2.5, 9.0])
    logits = []
    with fresh() as model:

        class Note(Callback):
            def on_evaluation(self, trainer: Trainer, record: dict[str, Any]) -> None:
                logits.append(trainer.model.forward([1, 2, 3]).tobytes())

        trainer = Trainer(
            model, **RUN | {"max_steps": 20, "eval_every": 2}, monitor="score", monitor_mode="max", callbacks=[Note()],
            metrics={"score": lambda _: next(values)}, early_stopping={"patience": 2, "restore_best": True},
        )  # fmt: skip
        history = trainer.train(TEXT, TEXT)
        assert history.stopped_early
        assert len(history) == 8
        assert history.best == {"step": 4, "value": 3.0}
        assert model.forward([1, 2, 3]).tobytes() == logits[1]
        assert "stopped early" in repr(history)


def test_bad_callbacks_and_metrics_are_refused() -> None:
    with fresh() as model:
        for bad in (3, Callback):
            with pytest.raises(TypeError, match="callbacks"):
                Trainer(model, callbacks=[bad])
        with pytest.raises(TypeError, match="metrics"):
            Trainer(model, metrics={"bleu": 3})  # type: ignore[dict-item]
        with pytest.raises(ArgumentError, match="'loss' is already a field"):
            Trainer(model, metrics={"loss": lambda _: 1.0})
        with pytest.raises(TypeError, match="config"):
            Trainer(model, {"max_steps": 3})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="teacher"):
            Trainer(model, teacher="gpt")  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="metrics: bleu = 'good': expected a number"):
            Trainer(model, **RUN, metrics={"bleu": lambda _: "good"}).train(TEXT, TEXT)  # type: ignore[dict-item,return-value]
        with pytest.raises(ArgumentError, match=r"monitor = 'bleu': expected one of eval_loss, .*, rouge"):
            Trainer(model, **RUN, monitor="bleu", metrics={"rouge": lambda _: 1.0})
        with pytest.raises(TypeError, match="callbacks: expected a list"):
            Trainer(model, callbacks=print)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="metrics: expected a dictionary"):
            Trainer(model, metrics=[print])  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="needs a run with an eval_dataset"):
            Trainer(model, **RUN).evaluate()
        history = Trainer(model, **RUN, metrics={"odd": lambda _: math.nan}).train(TEXT, TEXT)
        assert math.isnan(history[-1]["odd"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"optimizer": "adamv"}, 'optimizer = "adamv": expected one of'),
        ({"optimizer": {"name": "sgd", "momentumm": 1}}, "momentumm"),
        ({"scheduler": "cosin"}, 'scheduler = "cosin": expected one of'),
        ({"scheduler": {"name": "step"}}, "step_size = 0"),
        ({"scheduler": "linear", "max_steps": 5, "warmup_steps": 9}, "max_steps = 5: .* warmup_steps = 9"),
        (
            {"scheduler": {"name": "linear", "total_steps": 5}, "warmup_steps": 9},
            "total_steps = 5: .* warmup_steps = 9",
        ),
        ({"order": "shuffle"}, r'order = "shuffle": expected one of \["random" "shuffled" "sequential"\]'),
        ({"dropout": 1.0}, "dropout = 1"),
        ({"ste": "clip"}, 'ste = "clip"'),
        ({"loss_scale": {"growth_factor": 0.5}}, "growth_factor = 0.5"),
        ({"early_stopping": 3}, "eval_every = 0: expected at least 1 with early_stopping"),
        ({"distillation_alpha": 0.3}, "distillation_alpha = 0.3: expected none without a teacher"),
        ({"monitor_mode": "least"}, 'monitor_mode = "least"'),
    ],
)
def test_what_cannot_be_is_refused_before_any_data_are_read(options: Any, says: str) -> None:
    with fresh() as model, pytest.raises(ArgumentError, match=says):
        Trainer(model, **options)
    with pytest.raises(ArgumentError, match=says):
        TrainingConfig(**options).check()


def test_a_run_of_epochs_that_is_shorter_than_its_warmup_is_refused() -> None:
    with (
        fresh() as model,
        pytest.raises(ArgumentError, match=r"epochs = 0.5 \(updates: [0-9]+\): .* warmup_steps = 9999"),
    ):
        Trainer(model, epochs=0.5, warmup_steps=9999).train(TEXT)


def test_epochs_may_have_more_updates_than_a_warmup() -> None:
    TrainingConfig(epochs=1, warmup_steps=5000).check()
    TrainingConfig(distillation_alpha=0.3).check(teacher=True)


def test_names_of_other_libraries_are_translated() -> None:
    for name, ours in (
        ("lr", "learning_rate"),
        ("gradient_accumulation_steps", "accumulation"),
        ("steps", "max_steps"),
    ):
        with pytest.raises(TypeError, match=f"unknown field '{name}': did you mean {ours}"), fresh() as model:
            Trainer(model, **{name: 3})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"did you mean {ours}"):
            TrainingConfig.from_dict({name: 3})
    assert set(_ELSEWHERE.values()) <= set(field_names())
    assert not set(_ELSEWHERE) & set(field_names())


def test_a_batch_that_no_memory_holds_is_an_error() -> None:
    for name in ("batch_size", "accumulation"):
        options = RUN | {"batch_size": 1, name: 2**31 - 1}
        with fresh() as model, pytest.raises(OutOfMemoryError, match=f"{name} = 2147483647"):
            Trainer(model, **options).train(TEXT)


def test_records_have_what_the_reference_lists() -> None:
    with fresh() as model:
        record = Trainer(model, **RUN, weight_changes=True, loss_scale="dynamic").train(TEXT, TEXT)[2]
    text = (Path(__file__).parents[1] / "docs" / "reference" / "python.md").read_text()
    assert [name for name in record if f"`{name}`" not in text] == []


def test_the_docstring_tells_every_field() -> None:
    text = TrainingConfig.__doc__ or ""
    assert [name for name in field_names() if not re.search(rf"\b{name}\b", text)] == []


def test_divergence_names_step_layer_and_tensor() -> None:
    with fresh() as model, pytest.raises(TrainingError, match=r"step \d+: (layer \d: )?\w+ model\..*is (NaN|[+-]Inf)"):
        Trainer(model, **RUN | {"learning_rate": 1e37, "max_steps": 100}, gradient_clip=0, optimizer="sgd").train(TEXT)


def test_tensorboard_gets_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []

    class Writer:
        def __init__(self, directory: str, purge_step: int | None) -> None:
            written.append((directory, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, step))

        def close(self) -> None:
            written.append("closed")

    module = type(sys)("tensorboardX")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    with fresh() as model:
        Trainer(model, **RUN, tensorboard_dir=tmp_path).train(TEXT, TEXT)
        assert written[0] == (str(tmp_path), None)
        assert written[-1] == "closed"
        assert {("loss", 1), ("loss", 6), ("eval_loss", 3), ("learning_rates/decay", 2)} <= set(written)
        monkeypatch.setitem(sys.modules, "tensorboardX", None)
        with pytest.raises(BitNetError, match=r"pip install 'bitnet-rust\[tensorboard\]'"):
            Trainer(model, **RUN, tensorboard_dir=tmp_path).train(TEXT)


def test_event_files_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with fresh() as model:
        Trainer(model, **RUN, tensorboard_dir=tmp_path / "tb").train(TEXT)
    assert [path for path in (tmp_path / "tb").iterdir() if "tfevents" in path.name]


# --- recipes and the command -----------------------------------------------------------------------------------------


def bitnet(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bitnet_rust", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def logits(directory: Path) -> bytes:
    with BitNetModel.from_pretrained(directory) as model:
        return model.forward([1, 2, 3]).tobytes()


def recipe_file(directory: Path, **training: Any) -> Path:
    (directory / "texts").mkdir(parents=True)
    for name in ("a", "b"):
        (directory / "texts" / f"{name}.txt").write_text(TEXT)
    path = directory / "recipe.yaml"
    sections = {
        "model": SHAPE | {"vocab_size": 270},
        "tokenizer": {"kind": "bpe", "vocab_size": 265},
        "data": {"train": "texts", "eval_fraction": 0.25},
        "training": {"max_steps": 8, "batch_size": 2, "context_length": 16} | training,
        "sample": {"prompt": "To be", "max_new_tokens": 5},
    }
    path.write_text("".join(f"{name}: {json.dumps(section)}\n" for name, section in sections.items()))
    return path


def test_one_file_is_a_whole_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out = recipe_file(tmp_path / "here"), tmp_path / "there" / "model"
    monkeypatch.chdir(tmp_path)
    done = bitnet("train", "--config", recipe, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 8
    assert result["sample"].startswith("To be")
    with BitNetModel.from_pretrained(out) as model:
        assert model.config.vocab_size == len(model.tokenizer) == 265
    # What it leaves says how it was made, and makes it again.
    again = tmp_path / "again"
    resolved = Recipe.from_file(out / "recipe.yaml")
    assert resolved.training["checkpoint_every"] == 1
    assert Path(resolved.data["train"]).resolve() == tmp_path / "here" / "texts"
    done = bitnet("train", "--config", out / "recipe.yaml", "--out", again)
    assert done.returncode == 0, done.stderr
    assert logits(again) == logits(out)


def test_the_recipe_of_the_embedded_model_makes_one_of_its_kind(shakespeare: BitNetModel, tmp_path: Path) -> None:
    recipe = REPO / "recipes" / "shakespeare.yaml"
    short = ("--max-steps", 2, "--batch-size", 1, "--context-length", 32, "--eval-fraction", 0)
    settings = (
        "--set",
        'training.scheduler={"name": "wsd", "decay_steps": 1}',
        "--set",
        "training.warmup_steps=0",
        "--set",
        "sample.max_new_tokens=2",
    )
    done = bitnet("train", "--config", recipe, "--out", tmp_path / "out", *short, *settings)
    assert done.returncode == 0, done.stderr
    with BitNetModel.from_pretrained(tmp_path / "out") as model:
        theirs, ours = (dict(m.config) for m in (shakespeare, model))
        for name in ("dtype", "torch_dtype"):  # of the tables of a checkpoint's files, which the recipe does not write
            assert theirs.pop(name) == "float32"
            ours.pop(name)
        assert ours == theirs
        assert len(model.tokenizer) == len(shakespeare.tokenizer)


def stop_after_a_step(out: Path, arguments: list[str], number: int) -> tuple[int, str]:
    """Sends a signal to ``bitnet train`` when it has made an update; gives its exit status and what it said.

    What it says goes into a pipe that has room for a few lines, so that it waits for who reads there and does not come to its end before."""
    reading, writing = os.pipe()
    os.write(writing, b"\n" * (fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096) - 400))
    with (
        subprocess.Popen([sys.executable, "-m", "bitnet_rust", *arguments], stderr=writing) as child,
        open(reading) as said,
    ):
        os.close(writing)
        log = out / "train.jsonl"
        while not (log.exists() and log.stat().st_size):
            assert child.poll() is None, said.read()
        child.send_signal(number)
        err = said.read()
    return child.returncode, err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_a_model_and_is_resumed(tmp_path: Path, number: int, status: int) -> None:
    recipe, whole, out = recipe_file(tmp_path / "r", max_steps=150, eval_every=50), tmp_path / "whole", tmp_path / "out"
    assert bitnet("train", "--config", recipe, "--out", whole).returncode == 0
    arguments = f"train --checkpoint-every 5 --config {recipe} --out {out}".split()
    returncode, err = stop_after_a_step(out, arguments, number)
    assert returncode == status, err
    assert "the run was saved as" in err
    assert "--resume" in err
    assert "Traceback" not in err
    assert logits(out) != logits(whole)  # it can be used, with the weights of now
    with BitNetModel.from_pretrained(out) as model:
        assert model.generate("To be", max_new_tokens=2)
    done = bitnet("train", "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert logits(out) == logits(whole)
    steps = [entry["step"] for line in (out / "train.jsonl").open() if "event" not in (entry := json.loads(line))]
    assert steps == list(range(1, 151))


def test_a_killed_command_leaves_the_model_of_its_last_checkpoint(tmp_path: Path) -> None:
    recipe, out = recipe_file(tmp_path / "r", max_steps=10**6, eval_every=10**6), tmp_path / "out"
    arguments = f"-m bitnet_rust train --checkpoint-every 1 --config {recipe} --out {out}".split()
    child = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.DEVNULL)
    while not (out / "model.bitnet").exists():
        assert child.poll() is None
    with BitNetModel.from_pretrained(out) as model:  # while it is trained
        assert model.generate("To be", max_new_tokens=2)
    child.kill()
    child.wait()
    with BitNetModel.from_pretrained(out) as model:
        assert model.generate("To be", max_new_tokens=2)


def test_a_mistake_leaves_the_directory_as_it_was(tmp_path: Path) -> None:
    recipe, out = recipe_file(tmp_path / "r"), tmp_path / "out"
    for mistake in ("training.optimizer=adamv", "training.context_length=250", "data.eval_fraction=0.999"):
        done = bitnet("train", "--config", recipe, "--out", out, "--set", mistake)
        assert done.returncode == 1, done.stderr
        assert not out.exists()
    assert bitnet("train", "--config", recipe, "--out", out).returncode == 0
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    again = ("train", "--config", recipe, "--out", out)
    for arguments in (
        (*again, "--overwrite", "--set", "training.dropout=2"),
        (*again, "--overwrite", "--context-length", 250),
        (*again, "--overwrite", "--eval-fraction", 0, "--set", "training.early_stopping=3"),
        ("train", "--out", out, "--resume", "--max-steps", 9, "--learning-rate", 0.5),
    ):
        done = bitnet(*arguments)
        assert done.returncode == 1, done.stderr
        assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before
    done = bitnet("train", "--out", out / "model.bitnet" / "x", "--config", recipe)
    assert "expected a directory, found a file" in done.stderr


def test_options_override_the_recipe(tmp_path: Path) -> None:
    recipe = Recipe.from_file(recipe_file(tmp_path))
    recipe.override(training={"epochs": 2.0, "seed": None}, model={"preset": "tiny"})
    assert recipe.training["epochs"] == 2.0
    assert "max_steps" not in recipe.training
    assert recipe.model == {"preset": "tiny"}
    for setting, section, value in (
        ("training.dropout=0.1", "training", 0.1),
        ("sample.prompt=ROMEO:", "sample", "ROMEO:"),
        ('training.early_stopping={"patience": 3}', "training", {"patience": 3}),
    ):
        recipe.set(setting)
        assert value in getattr(recipe, section).values()
    for setting in (
        "dropout=0.1",
        "training.dropout",
        "training.dropuot=1",
        "trainig.dropout=1",
        "sample.temprature=1",
    ):
        with pytest.raises(BitNetError, match="--set"):
            recipe.set(setting)


@pytest.mark.parametrize(
    ("training", "found"),
    [
        # A quarter of the text, 1,290 tokens, takes as long to evaluate as 14 updates of 32 tokens take.
        ({"epochs": 1}, {"eval_every": 14, "checkpoint_every": 12, "warmup_steps": 6}),  # 3,870 bytes: 121 updates
        ({"max_steps": 30, "optimizer": "sgd"}, {"betas": None, "min_ratio": 0.1, "eval_every": 14}),
        ({"max_steps": 3, "early_stopping": 1}, {"early_stopping": 1}),
        ({"max_steps": 30, "scheduler": "constant"}, {"min_ratio": 0.0, "warmup_steps": 1}),
        ({"max_steps": 30, "scheduler": "one_cycle"}, {"warmup_steps": 0}),
        ({"max_steps": 30, "scheduler": {"name": "linear", "min_ratio": 0.3}, "eval_every": 7}, {"eval_every": 7}),
    ],
)
def test_what_a_recipe_does_not_say_fits_what_it_says(tmp_path: Path, training: Any, found: dict[str, Any]) -> None:
    recipe = Recipe.from_file(recipe_file(tmp_path, **{"max_steps": None} | training))
    recipe.tokenizer = {"kind": "bytes"}
    run_recipe(recipe, tmp_path / "out", resume=False, overwrite=False, progress=False)
    resolved = Recipe.from_file(tmp_path / "out" / "recipe.yaml").training
    assert {name: resolved.get(name) for name in found} == found


def test_mistakes_in_a_recipe_are_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for text, says in (
        ("modle: {preset: tiny}", "unknown field 'modle': did you mean model"),
        ("training: {max_step: 3}", "training: unknown field 'max_step': did you mean max_steps"),
        ("tokenizer: {kinds: bpe}", "tokenizer: unknown field 'kinds': did you mean kind"),
        ("data: text.txt", "data = 'text.txt': expected a mapping"),
        ("data: {train: 3}", "train = 3: expected a path"),
        ("hidden_size: 64", "expected them under `model:`"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=says):
            Recipe.from_file(path)
    path.write_text(TEXT)
    for data, settings, says in (
        (None, (), "data.train is missing"),
        (tmp_path / "nothing", (), "there is no"),
        (path, ("data.eval_fraction=1",), "eval_fraction = 1"),
        (path, ("tokenizer.kind=words",), "tokenizer.kind = 'words'"),
        (
            path,
            ("tokenizer.kind=bytes", "tokenizer.vocab_size=300"),
            "vocab_size = 300: expected none with kind = 'bytes'",
        ),
        (path, ("tokenizer.path=x", "tokenizer.kind=bpe"), "tokenizer.kind = 'bpe': expected none with path = 'x'"),
        (path, ("tokenizer.kind=bpe", "tokenizer.revision=v1"), "tokenizer.revision = 'v1': expected a path with it"),
        (path, ("model.hiden_size=3",), "hidden_size"),
        (path, ("sample.prompt=日本",), "sample.prompt = '日本': the character '日'"),
        (path, ("training.log_file=x",), "training.log_file = 'x': expected none"),
        (path, ("data.eval=a.txt", "data.eval_fraction=0.5"), "expected one of them"),
    ):
        recipe = Recipe(data={} if data is None else {"train": str(data)})
        for setting in settings:
            recipe.set(setting)
        with pytest.raises(BitNetError, match=says):
            run_recipe(recipe, tmp_path / "out", resume=False, overwrite=False, progress=False)
        assert not (tmp_path / "out").exists()
    done = bitnet("train", "--out", tmp_path / "out", "--set", "training.max_step=3")
    assert done.returncode == 1
    assert "did you mean max_steps" in done.stderr
