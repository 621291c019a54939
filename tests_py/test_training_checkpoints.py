"""Runs that are saved, interrupted, killed and continued from Python have the bits of runs that were never interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import ArgumentError, BitNetModel, Callback, CheckpointError, CheckpointWarning, Trainer

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
IDS = [i * i % 61 for i in range(600)]
OPTIONS: dict[str, Any] = {
    "max_steps": 20, "batch_size": 2, "context_length": 16, "learning_rate": 1e-2, "eval_every": 4, "warmup_steps": 2,
    "dropout": 0.1, "loss_scale": "dynamic", "early_stopping": {"patience": 50, "restore_best": True},
}  # fmt: skip


def fresh() -> BitNetModel:
    return BitNetModel.from_config(SHAPE, seed=1, trainable=True)


def logits(model: BitNetModel) -> Any:
    return model.forward(IDS[:20])


def numbers(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is the same in every run."""
    changing = ("seconds", "tokens_per_second", "mfu", "pool_bytes", "rss_bytes")
    return [{name: value for name, value in record.items() if name not in changing} for record in records]


@pytest.fixture(scope="module")
def whole() -> tuple[Any, list[dict[str, Any]]]:
    """What a run gives that nothing interrupts."""
    with fresh() as model:
        history = Trainer(model, **OPTIONS).train(IDS, IDS[:200])
        return logits(model), numbers(history)


class Stop(Callback):
    """Ends a run at a step: by stop(), or by an exception."""

    def __init__(self, step: int, error: BaseException | None = None) -> None:
        self.step, self.error = step, error

    def on_step(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if record["step"] == self.step:
            if self.error is not None:
                raise self.error
            trainer.stop()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
@pytest.mark.parametrize("source", ["directory", "file", "true", "of the trainer"])
def test_a_resumed_run_is_the_uninterrupted_one(whole: Any, tmp_path: Path, source: str, error: Any) -> None:
    directory = tmp_path / "runs" / "first"
    options = OPTIONS | {"checkpoint_dir": directory, "checkpoint_keep": 1}
    with fresh() as model:
        trainer = Trainer(model, **options, callbacks=[Stop(7, error)])
        if error is None:
            first = trainer.train(IDS, IDS[:200])
            assert trainer.step == 7
        else:
            with pytest.raises(KeyboardInterrupt) as interrupt:
                trainer.train(IDS, IDS[:200])
            assert "step-00000007.ckpt" in interrupt.value.__notes__[0]
            first = trainer.history
    assert names(directory) == ["step-00000004.ckpt", "step-00000007.ckpt"]  # the best and the newest
    file = directory / "step-00000007.ckpt"
    elsewhere = tmp_path / "link"
    elsewhere.symlink_to(directory, target_is_directory=True)
    resume: dict[str, Any] = {"directory": str(elsewhere), "file": file, "true": True, "of the trainer": None}
    with fresh() as model:
        trainer = Trainer(model, **options, resume_from=str(file) if resume[source] is None else None)
        second = trainer.train(IDS, IDS[:200], resume_from=resume[source])
        assert Path(second.resumed_from or "").name == file.name
        assert np.array_equal(logits(model), whole[0])
        again = numbers(first)[: second[0]["step"] - 1] + numbers(second)  # an interrupted record is told again
        assert again == whole[1]


def test_a_run_can_be_saved_anywhere_at_any_time(whole: Any, tmp_path: Path) -> None:
    saved: list[str] = []

    class Save(Callback):
        def on_step(self, trainer: Trainer, record: dict[str, Any]) -> None:
            if record["step"] in (3, 8):
                saved.append(trainer.save_checkpoint(tmp_path / f"at {record['step']}"))

    with fresh() as model:
        trainer = Trainer(model, **OPTIONS, callbacks=[Save()])
        trainer.train(IDS, IDS[:200])
        saved.append(trainer.save_checkpoint(tmp_path / "end"))
        with pytest.raises(ArgumentError, match="checkpoint_dir"):
            trainer.save_checkpoint()
        trainer.close()
        with pytest.raises(ArgumentError, match="needs a run"):
            trainer.save_checkpoint(tmp_path / "late")
    assert [Path(path).name for path in saved] == ["at 3", "at 8", "end"]
    for path in saved:
        with fresh() as model:
            history = Trainer(model, **OPTIONS).train(IDS, IDS[:200], resume_from=path)
            assert np.array_equal(logits(model), whole[0])
            assert numbers(history) == whole[1][20 - len(history) :]


@pytest.mark.skipif(os.name == "nt", reason="no advisory locks")
def test_a_directory_belongs_to_one_run_at_a_time(tmp_path: Path) -> None:
    options = OPTIONS | {"checkpoint_dir": tmp_path}
    refused: list[str] = []

    class Second(Callback):
        def on_step(self, trainer: Trainer, record: dict[str, Any]) -> None:
            with fresh() as other, pytest.raises(CheckpointError) as error:
                Trainer(other, **options).train(IDS, IDS[:200])
            refused.append(str(error.value))
            trainer.stop()

    with fresh() as model:
        Trainer(model, **options, callbacks=[Second()]).train(IDS, IDS[:200])
    assert f"{tmp_path} is written to by another run of this process" in refused[0]


def test_a_run_may_go_on_for_longer(tmp_path: Path) -> None:
    options = OPTIONS | {"checkpoint_dir": tmp_path, "scheduler": "constant"}
    with fresh() as model:
        Trainer(model, **options).train(IDS, IDS[:200])
    with fresh() as model:
        assert Trainer(model, **options).train(IDS, IDS[:200], resume_from=True) == []  # it is over
        history = Trainer(model, **options | {"max_steps": 22}).train(IDS, IDS[:200], resume_from=True)
        assert [record["step"] for record in history] == [21, 22]


def test_damaged_checkpoints_are_reported_and_skipped(whole: Any, tmp_path: Path) -> None:
    options = OPTIONS | {"checkpoint_dir": tmp_path, "checkpoint_every": 3, "log_file": tmp_path / "log"}
    with fresh() as model:
        Trainer(model, **options, callbacks=[Stop(9)]).train(IDS, IDS[:200])
    newest = tmp_path / "step-00000009.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1])
    with fresh() as model:
        with pytest.warns(CheckpointWarning, match=r"step-00000009\.ckpt is damaged and was skipped"):
            history = Trainer(model, **options).train(IDS, IDS[:200], resume_from=True)
        assert history[0]["step"] > 4
        assert [Path(one["path"]).name for one in history.skipped] == ["step-00000009.ckpt"]
        assert np.array_equal(logits(model), whole[0])
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    event = next(line for line in lines if "event" in line)
    assert event["damaged_checkpoints"] == history.skipped
    for path in tmp_path.glob("*.ckpt"):
        path.write_bytes(b"broken")
    with fresh() as model, pytest.raises(CheckpointError, match=r"no readable checkpoint(?s:.*)step-00000020\.ckpt"):
        Trainer(model, **options).train(IDS, IDS[:200], resume_from=True)


def test_the_log_has_every_update_once(whole: Any, tmp_path: Path) -> None:
    options = OPTIONS | {"checkpoint_dir": tmp_path / "checkpoints", "log_file": tmp_path / "deep" / "log.jsonl"}
    with fresh() as model, pytest.raises(ZeroDivisionError):
        Trainer(model, **options, callbacks=[Stop(7, ZeroDivisionError())]).train(IDS, IDS[:200])
    log = tmp_path / "deep" / "log.jsonl"
    with log.open("a") as file:
        file.write('{"step": 8, "lo')  # as a killed process leaves it
    with fresh() as model:
        Trainer(model, **options).train(IDS, IDS[:200], resume_from=True)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["step"] for entry in entries if "event" in entry] == [4]
    assert numbers([entry for entry in entries if "event" not in entry]) == whole[1]


def test_what_cannot_be_resumed_is_named(tmp_path: Path) -> None:
    options = OPTIONS | {"checkpoint_dir": tmp_path / "a"}
    with fresh() as model:
        assert Trainer(model, **options, callbacks=[Stop(4)]).train(IDS, IDS[:200], resume_from=True)[-1]["step"] == 4
    with fresh() as model:
        for change, data, says in (
            ({"learning_rate": 0.5}, IDS, r"config\.optimizer\.lr: found 0\.01, expected 0\.5"),
            ({"loss_scale": None}, IDS, r"config\.loss_scale"),
            ({"early_stopping": 3}, IDS, r"restore_best: found true, expected false"),
            ({}, IDS[:500], r"data\."),
        ):
            with pytest.raises(CheckpointError, match=says):
                Trainer(model, **options | change).train(data, IDS[:200], resume_from=True)
        with pytest.raises(CheckpointError, match="no such file"):
            Trainer(model, **options).train(IDS, IDS[:200], resume_from=tmp_path / "nothing")
        with pytest.raises(ArgumentError, match="resume_from = True: expected a checkpoint_dir"):
            Trainer(model, **OPTIONS).train(IDS, IDS[:200], resume_from=True)
        with pytest.raises(ArgumentError, match="has checkpoints of another run"):
            Trainer(model, **options).train(IDS, IDS[:200])
    with (
        BitNetModel.from_config(SHAPE | {"intermediate_size": 128}, trainable=True) as wide,
        pytest.raises(CheckpointError, match=r"model\.intermediate_size: found 64, expected 128"),
    ):
        Trainer(wide, **options).train(IDS, IDS[:200], resume_from=True)


# --- real processes --------------------------------------------------------------------------------------------------

CHILD = f"""
import sys
from bitnet_rust import BitNetModel, Trainer
model = BitNetModel.from_config({SHAPE}, seed=1, trainable=True)
options = {OPTIONS} | {{"max_steps": 120, "checkpoint_dir": sys.argv[1], "checkpoint_every": 1, "log_file": sys.argv[2]}}
def made(record):
    print(record["step"], flush=True)
    sys.stdin.readline()  # of who wants to be waited for
trainer = Trainer(model, **options, callbacks=[made])
ids = [i * i % 61 for i in range(600)]
trainer.train(ids, ids[:200], resume_from=True)
print("logits", model.forward(ids[:20]).tobytes().hex())
"""


def start(tmp_path: Path, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", CHILD, str(tmp_path / "checkpoints"), str(tmp_path / "log")]
    return subprocess.Popen(arguments, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(tmp_path: Path) -> str:
    child = start(tmp_path)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    assert "Warning" not in err  # never a broken checkpoint
    return out.splitlines()[-1]


def continue_for(child: "subprocess.Popen[str]", updates: int) -> list[str]:
    """Lets it make so many updates and one more, in which it is, or after which it waits: the run does not end before its signal comes."""
    assert child.stdout is not None
    assert child.stdin is not None
    seen = []
    for _ in range(updates):
        seen.append(child.stdout.readline())
        child.stdin.write("\n")
        child.stdin.flush()
    return seen


def kill_at_random(tmp_path: Path, times: int) -> None:
    seed = time.time_ns() % 2**32
    print(f"seed {seed}")
    moments = random.Random(seed)
    for _ in range(times):
        child = start(tmp_path, stdin=subprocess.PIPE)
        seen = continue_for(child, moments.randint(1, 4))
        time.sleep(moments.random() * 0.02)  # anywhere in that update
        child.kill()
        _, err = child.communicate()
        assert child.returncode == -signal.SIGKILL, (seen, err)


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.full)])
def test_a_killed_run_continues_to_the_same_bits(tmp_path: Path, times: int) -> None:
    kill_at_random(tmp_path / "killed", times)
    result = finish(tmp_path / "killed")
    assert result == finish(tmp_path / "whole")
    logs = [
        numbers([entry for line in path.read_text().splitlines() if "event" not in (entry := json.loads(line))])
        for path in (tmp_path / "killed" / "log", tmp_path / "whole" / "log")
    ]
    assert logs[0] == logs[1]
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_ctrl_c_saves_a_running_process(tmp_path: Path) -> None:
    child = start(tmp_path, stdin=subprocess.PIPE)
    continue_for(child, 5)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=600)
    assert "KeyboardInterrupt" in err
    assert "the run was saved as" in err
    assert finish(tmp_path) == finish(tmp_path / "whole")
