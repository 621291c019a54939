"""Every notebook runs from its first cell to its last."""

import ast
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted(Path(__file__).parent.parent.glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(path.read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "commit notebooks without outputs"
    names: dict[str, object] = {}
    for number, source in enumerate(cells):
        exec(compile(ast.parse(source), f"{path.name}[{number}]", "exec"), names)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
