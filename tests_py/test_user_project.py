"""tests_py/user_project is a program as a user writes it, which `make lint` type-checks: here it runs, and leaves nothing public out."""

import ast
import subprocess
import sys
from pathlib import Path

import bitnet_rust
from conftest import REPO

PROJECT = Path(__file__).parent / "user_project"


def test_it_runs() -> None:
    command = [sys.executable, "-W", "error::DeprecationWarning:bitnet_rust", "-m", "user_project"]
    done = subprocess.run(command, cwd=PROJECT.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "no-such-model" in done.stdout


def test_it_names_everything_public() -> None:
    used = set()
    for path in PROJECT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "bitnet_rust":
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "b":
                used.add(node.attr)
    assert set(bitnet_rust.__all__) - used == set()


def test_lint_checks_it_and_the_stub() -> None:
    recipe = (REPO / "Makefile").read_text().partition("\nlint-py:")[2].partition("\n\n")[0]
    assert "mypy --strict tests_py/user_project" in recipe
    assert "mypy.stubtest bitnet_rust._bitnet" in recipe
