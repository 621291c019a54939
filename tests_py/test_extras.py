"""Optional packages: importing never needs one, and using what is missing says which pip command brings it."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bitnet_rust.errors import BitNetError, MissingExtraError, missing_extra
from conftest import REPO

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
EXTRAS = {k: v for k, v in PROJECT["optional-dependencies"].items() if k not in ("test", "dev", "docs")}
PACKAGE = REPO / "python" / "bitnet_rust"

# Where a distribution's module has another name.
MODULES = {"opentelemetry-api": "opentelemetry", "opentelemetry-sdk": "opentelemetry"}

# Run, not imported.
PROGRAMS = ("bitnet_rust.__main__", "bitnet_rust.bench.child")

IMPORT_ALL = """
import importlib, json, pkgutil, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
import bitnet_rust

said = {}
for module in pkgutil.walk_packages(bitnet_rust.__path__, "bitnet_rust.", onerror=lambda name: None):
    if module.name in PROGRAMS or module.name.rpartition(".")[0] in said:
        continue  # or in a package that cannot be imported
    try:
        importlib.import_module(module.name)
    except bitnet_rust.MissingExtraError as error:
        said[module.name] = str(error)
print(json.dumps(said))
"""


def blocked_modules() -> set[str]:
    names = {re.split(r"[\[<>=!~; ]", requirement)[0] for group in EXTRAS.values() for requirement in group}
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


def test_importing_needs_no_extra() -> None:
    """Each module can be imported without any optional package, or says what to install and is one that nothing else imports."""
    code = f"BLOCKED = {sorted(blocked_modules())}\nPROGRAMS = {PROGRAMS}\n{IMPORT_ALL}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["bitnet_rust.torch"] == "bitnet_rust.torch needs PyTorch: pip install 'bitnet-rust[torch]'"
    for message in said.values():
        found = re.search(r" needs .+: pip install 'bitnet-rust\[(\w+)\]'$", message)
        assert found is not None, message
        assert found[1] in EXTRAS


def calls_of_missing_extra() -> list[tuple[Path, ast.Call]]:
    return [
        (path, node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "missing_extra"
    ]


def test_every_message_names_an_extra_that_there_is() -> None:
    used = {ast.literal_eval(call.args[2]) for _, call in calls_of_missing_extra()}
    assert used <= set(EXTRAS)
    assert {"viz", "onnx", "torch", "tensorboard", "bfloat16"} <= used


def test_the_page_about_installing_has_every_extra_and_no_other() -> None:
    page = (REPO / "docs" / "how-to" / "install.md").read_text()
    rows = re.findall(r"^\| `bitnet-rust\[(.+?)\]` \| \S", page, re.MULTILINE)
    assert sorted(rows) == sorted(EXTRAS)
    everywhere = [path for folder in ("docs", "python") for path in (REPO / folder).rglob("*.[mp][dy]")]
    named = {
        extra
        for path in (*everywhere, REPO / "README.md")
        for several in re.findall(r"(?:bitnet-rust|['\"]\.|install '?\.)\[([a-z0-9,]+)\]", path.read_text())
        for extra in several.split(",")
    }
    assert {"serve", "viz", "torch"} <= named <= EXTRAS.keys() | {"test", "dev", "docs"}


def test_no_module_writes_a_pip_command_of_its_own() -> None:
    own = [
        f"{path.relative_to(REPO)}: {node.value}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and "pip install" in node.value and "\n" not in node.value  # docstrings may show one
    ]  # fmt: skip
    assert own == []


def test_a_missing_extra_is_an_import_error_of_this_package() -> None:
    error = missing_extra("bitnet serve", "FastAPI", "serve")
    assert isinstance(error, MissingExtraError)
    assert isinstance(error, BitNetError)
    assert isinstance(error, ImportError)
    assert str(error) == "bitnet serve needs FastAPI: pip install 'bitnet-rust[serve]'"


def test_bfloat16_without_a_copy_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitnet_rust

    tensor = bitnet_rust.Tensor([1.0, 2.0]).astype("bfloat16")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingExtraError, match=r"ml_dtypes: pip install 'bitnet-rust\[bfloat16\]'"):
        tensor.numpy(copy=False)
    assert tensor.numpy().dtype == "float32"
