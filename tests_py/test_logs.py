"""Log records: the core's reach Python's logging with level, place and attributes; the command prints them."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bitnet_rust import BitNetModel, Engine, Trainer, _bitnet, logs
from conftest import TINY, Terminal


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="bitnet_rust")
    return caplog


def found(records: pytest.LogCaptureFixture, event: str) -> logging.LogRecord:
    logs.flush()
    return next(record for record in records.records if getattr(record, "event", "") == event)


def test_loading_is_a_record_with_level_place_and_attributes(records: pytest.LogCaptureFixture) -> None:
    with BitNetModel.from_pretrained(TINY) as model:
        loaded = found(records, "model loaded")
        assert loaded.parameters == model.num_parameters()  # type: ignore[attr-defined]
        assert loaded.bytes == model.memory_footprint()  # type: ignore[attr-defined]
    assert (loaded.name, loaded.levelname) == ("bitnet_rust.core.model", "INFO")
    assert loaded.pathname.endswith("core/model/load.go")
    assert loaded.lineno > 0
    assert loaded.path == str(TINY)  # type: ignore[attr-defined]
    assert loaded.seconds > 0  # type: ignore[attr-defined]
    assert loaded.getMessage().startswith(f"model loaded path={TINY} format=hf parameters=")


def test_engines_training_and_saving_are_logged(records: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with BitNetModel.from_config(
        {"preset": "char", "vocab_size": 256, "num_hidden_layers": 1}, trainable=True
    ) as model:
        Trainer(model, max_steps=1, batch_size=1, context_length=16, checkpoint_dir=tmp_path / "run").train(
            list(range(64))
        )
        saved = found(records, "checkpoint saved")
        assert (saved.name, saved.step) == ("bitnet_rust.core.train", 1)  # type: ignore[attr-defined]
        assert Path(saved.path).is_file()  # type: ignore[attr-defined]
        assert found(records, "training ended").updates == 1  # type: ignore[attr-defined]
        model.save_pretrained(tmp_path / "m.bitnet")
        assert found(records, "model saved").name == "bitnet_rust.model"
        with Engine(model, max_sequences=2):
            assert found(records, "scheduler started").sequences == 2  # type: ignore[attr-defined]


def test_the_least_level_of_our_loggers_counts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="bitnet_rust")
    caplog.set_level(logging.INFO, logger="bitnet_rust.core.model")
    BitNetModel.from_pretrained(TINY).close()
    logs.flush()
    assert [(r.name, r.levelname) for r in caplog.records] == [("bitnet_rust.core.model", "INFO")]
    caplog.clear()
    caplog.set_level(logging.WARNING, logger="bitnet_rust.core.model")
    BitNetModel.from_pretrained(TINY).close()
    logs.flush()
    assert caplog.records == []


def test_a_handler_may_call_the_package_and_records_come_from_any_thread(records: pytest.LogCaptureFixture) -> None:
    class Nosy(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(_bitnet.num_threads())
            logs.flush()

    seen: list[int] = []
    handler = Nosy()
    logging.getLogger("bitnet_rust").addHandler(handler)
    try:
        workers = [threading.Thread(target=lambda: BitNetModel.from_pretrained(TINY).close()) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        logging.getLogger("bitnet_rust").removeHandler(handler)
    logs.flush()
    assert sum(getattr(record, "event", "") == "model loaded" for record in records.records) == 4
    assert len(seen) >= 4


def test_records_that_are_too_many_are_counted(records: pytest.LogCaptureFixture) -> None:
    logs.refresh()
    with logs._emitting:  # nobody takes any
        _bitnet.log_selftest(5000)
    logs.flush()
    numbers = [record.number for record in records.records if getattr(record, "event", "") == "selftest"]
    assert numbers == list(range(len(numbers)))
    assert any("log records of the core were lost" in record.getMessage() for record in records.records)


def test_attributes_are_what_json_has_and_never_hide_a_records_own(records: pytest.LogCaptureFixture) -> None:
    logs.refresh()
    _bitnet.log_selftest(1)
    record = found(records, "selftest")
    assert record.fields == {  # type: ignore[attr-defined]
        "number": 0, "name": "an attribute", "group.half": 0.5, "seconds": 1.5, "not_a_number": "NaN",
        "error": "it broke", "when": "2001-02-03T04:05:06Z",
    }  # fmt: skip
    assert record.name == "bitnet_rust.bindings"
    assert record.name_ == "an attribute"  # type: ignore[attr-defined]
    line = json.loads(logs.JSONFormatter().format(record))
    assert (line["event"], line["level"], line["logger"], line["seconds"]) == (
        "selftest",
        "error",
        "bitnet_rust.bindings",
        1.5,
    )
    assert "error='it broke'" in logs.TextFormatter().format(record)


def test_nothing_is_lost_at_the_end_of_the_interpreter_and_children_of_fork_are_quiet() -> None:
    code = """
import logging, os, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)
import bitnet_rust
from bitnet_rust import _bitnet, logs
logs.refresh()
child = os.fork()
if child == 0:
    logs.refresh()
    logs.flush()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
_bitnet.log_selftest(3)
"""
    env = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["ERROR", "bitnet_rust.bindings", "selftest"]
    ] * 3


def test_a_process_without_a_logging_configuration_is_silent_about_what_is_usual() -> None:
    code = "import bitnet_rust; bitnet_rust.BitNetModel.from_config('char').close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_records_from_a_level_on(bitnet: Terminal) -> None:
    status, out, err = bitnet("generate", "First", "-n", "2", "--log-level", "info")
    assert status == 0
    assert " INFO    bitnet_rust.core.model: model loaded path=" in err
    assert bitnet("--log-level", "info", "generate", "First", "-n", "2")[2].count("model loaded") == 1
    assert bitnet("generate", "First", "-n", "2") == (0, out, "")
    assert bitnet("generate", "First", "-n", "2", "--log-level", "info", "--quiet")[2] != ""  # it was asked for


def test_the_command_prints_records_as_json(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITNET_LOG_LEVEL", "info")
    _, _, err = bitnet("generate", "First", "-n", "2", "--log-format", "json")
    (line,) = [json.loads(line) for line in err.splitlines() if "model loaded" in line]
    assert {"time", "level", "logger", "event", "path", "format", "parameters", "bytes", "seconds"} == set(line)
    assert line["level"] == "info"
    monkeypatch.setenv("BITNET_LOG_LEVEL", "loud")
    status, out, err = bitnet("generate", "First")
    assert (status, out) == (1, "")
    assert err.endswith("log_level = 'loud': expected one of debug, info, warning, error, critical\n")
