"""Every notebook runs from its first cell to its last with small settings, and is committed with the outputs of a whole run."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NEEDS_TORCH = "05-pytorch-interchange"

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")
sys.path.insert(0, str(ROOT / "notebooks"))

from run import committed, execute  # noqa: E402


def load(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return notebook


def run(path: Path) -> list[dict[str, Any]]:
    """The outputs of a quick run."""
    return [output for cell in execute(load(path), quick=True)["cells"] for output in cell.get("outputs", ())]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem != NEEDS_TORCH], ids=lambda path: path.stem)
def test_the_notebook_runs(path: Path) -> None:
    assert run(path)


@pytest.mark.full
def test_the_notebook_about_pytorch_runs() -> None:
    pytest.importorskip("torch")
    assert run(ROOT / "notebooks" / f"{NEEDS_TORCH}.ipynb")


def test_a_notebook_that_takes_too_long_fails() -> None:
    works = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": [works]}
    with pytest.raises(TimeoutError, match=r"s of the processor: expected at most 0\.3"):
        execute(load(NOTEBOOKS[0]) | {"cells": [cell]}, most_seconds=0.3)


def test_the_notebooks_are_there() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_committed_with_its_outputs(path: Path) -> None:
    notebook = load(path)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run `make notebooks`"
    (settings,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", ())]
    assert all(f"{name}" in "".join(settings["source"]) for name in settings["metadata"]["quick"])
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not re.search(r"(?<![\w<])/(tmp|home|root|work)/", json.dumps(outputs)), "a path of the machine"
    assert path.stat().st_size < 300_000


def test_a_run_is_written_as_the_notebook_with_its_outputs() -> None:
    notebook = load(NOTEBOOKS[0]) | {
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Sum"]},
            {
                "cell_type": "code", "execution_count": None, "id": "b", "metadata": {"tags": ["parameters"], "quick": {"N": 3}},
                "outputs": [], "source": ["N = 1"],
            },
            {"cell_type": "code", "execution_count": None, "id": "c", "metadata": {}, "outputs": [], "source": ["N + 1"]},
        ]
    }  # fmt: skip
    whole, quick = execute(notebook), execute(notebook, quick=True)
    assert whole["cells"][2]["outputs"][0]["data"]["text/plain"] == ["2"]
    assert quick["cells"][3]["outputs"][0]["data"]["text/plain"] == ["4"]
    written = json.loads(committed(notebook, whole))
    assert written["cells"][2]["outputs"] == whole["cells"][2]["outputs"]
    assert [cell["source"] for cell in written["cells"]] == [["# Sum"], ["N = 1"], ["N + 1"]]
