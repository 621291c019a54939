"""Files that are made to hurt: each ends in a typed error, at once, and runs nothing. The attacks are in hostile.py."""

import fnmatch
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import hostile
from bitnet_rust import BitNetModel, ModelWarning
from conftest import SLOW, TINY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and makes pipes")

# Of processor time, which other programs do not change much, on a processor of today, and of memory beside the pages of the file itself.
SECONDS, MB = 1.0, 50.0


def run(*arguments: str, script: str | None = None) -> str:
    """In a process of its own: pytest's faulthandler takes signals from Go's runtime, and a failure may be a crash."""
    command = [sys.executable, *(["-c", script] if script else [hostile.__file__]), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, env={"RUST_BACKTRACE": "0"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], dict[str, Any]]:
    lines = run(str(tmp_path_factory.mktemp("attacks"))).splitlines()
    return {(r["group"], r["name"], r["call"]): r for r in map(json.loads, lines)}


ATTACKS = hostile.attacks()


@pytest.mark.parametrize("group", dict.fromkeys(attack.group for attack in ATTACKS))
def test_attacks_end_in_a_typed_error_at_once(group: str, results: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    for attack in ATTACKS:
        if attack.group != group:
            continue
        for call in attack.calls:
            result = results[attack.group, attack.name, call]
            found = attack.error and call == "verify" and result["error"] == hostile.Problems.__name__
            assert found or result["error"] == attack.error, result
            assert result["seconds"] < SECONDS, result
            assert result["mb"] - result["file_mb"] < MB, result
            assert result["characters"] < 2000, result
            assert attack.error is None or result["characters"] > 20, result
            assert not result["ran"], result


def test_every_attack_has_a_name_of_its_own_and_the_document_counts_them() -> None:
    names = [(attack.group, attack.name) for attack in ATTACKS]
    assert len(set(names)) == len(names)
    document = (Path(__file__).parents[1] / "docs" / "security.md").read_text()
    for group in {attack.group for attack in ATTACKS}:
        count = sum(attack.group == group for attack in ATTACKS)
        assert f"| {group} | {count} |" in document
    table = document[document.index("Kind by kind") : document.index("- **safetensors**")]
    for pattern in re.findall(r"`([a-z0-9_*]+)`", table):
        assert fnmatch.filter([attack.name for attack in ATTACKS], pattern), pattern


SHRINK = f"""
import os, pathlib, shutil, sys
from bitnet_rust import BitNetModel, FormatError, convert
place, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
original = place / ("m.gguf" if kind == "gguf" else "m")
options = {{"gguf": {{"gguf_type": "tq2_0"}}, "onnx": {{"onnx_type": "int2"}}}}.get(kind, {{}})
with BitNetModel.from_config({SLOW | {"num_hidden_layers": 16}}) as model:
    model.save_pretrained(original / "model.onnx" if kind == "onnx" else original, format=kind, **options)
for attempt, call in enumerate(("load", "trainable", "convert")):
    path = place / f"{{attempt}}{{original.suffix}}"
    file = {{"gguf": path, "hf": path / "model.safetensors", "onnx": path / "model.onnx.data"}}[kind]
    shutil.copy(original, path) if kind == "gguf" else shutil.copytree(original, path)
    def shrink(*_):
        os.truncate(file, 5000)
    try:
        if call == "convert":
            convert(path, place / "out.bitnet", progress=shrink)
        else:
            BitNetModel.from_pretrained(path, trainable=call == "trainable", progress=shrink)
    except FormatError as error:
        print(error)
    assert not (place / "out.bitnet").exists()
"""


@pytest.mark.parametrize("kind", ["hf", "gguf", "onnx"])
def test_a_file_that_shrinks_while_it_is_read_is_a_format_error(kind: str, tmp_path: Path) -> None:
    load, trainable, converted = run(str(tmp_path), kind, script=SHRINK).splitlines()
    fault = r"mapped file cannot be read any more: \S+: found a fault at byte"
    assert re.match(fault, load)
    assert re.match(fault, trainable)
    # A GGUF file that is converted is opened a second time, for its tokenizer.
    assert re.match(f"{fault}|.*expected at most the .* bytes of the file", converted)


def test_code_of_a_checkpoint_is_named_in_a_warning_and_not_run(tmp_path: Path) -> None:
    hostile.code("BitNetForCausalLM")(tmp_path)
    with pytest.warns(
        ModelWarning, match=r"config\.json names code of its own \(auto_map\), which is not run"
    ) as caught:
        BitNetModel.from_pretrained(tmp_path).close()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BitNetModel.from_pretrained(TINY).close()
