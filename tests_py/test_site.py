"""What the documentation's site is made of beside its pages: docstrings, commands, notebooks, and the count of names without documentation."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPO

sys.path[:0] = [str(REPO / ".ci"), str(REPO / ".ci" / "site")]

import commands  # noqa: E402
import doc_coverage  # noqa: E402
import notebooks  # noqa: E402


def test_parameters_of_a_docstring_become_a_list() -> None:
    pytest.importorskip("griffe", reason="not tested: the site's docstrings, which need the extra docs")
    from docstrings import as_markdown

    text = "Loads it.\n\nname: a path,\n    or a name\nseed, *more: numbers\n\nRaises nothing: never."
    assert (
        as_markdown(text)
        == "Loads it.\n\n- `name`: a path, or a name\n- `seed`, `*more`: numbers\n\nRaises nothing: never."
    )


def test_parameters_below_a_title_become_a_list_below_a_heading() -> None:
    pytest.importorskip("griffe", reason="not tested: the site's docstrings, which need the extra docs")
    from docstrings import as_markdown

    assert as_markdown("Says how.\n\nHow long:\n    steps: many,\n        or few").split("\n") == [
        "Says how.", "", "", "**How long**", "", "- `steps`: many, or few",
    ]  # fmt: skip


def test_a_session_of_the_interpreter_becomes_a_block() -> None:
    pytest.importorskip("griffe", reason="not tested: the site's docstrings, which need the extra docs")
    from docstrings import as_markdown

    assert as_markdown("Adds.\n>>> 1 + 1\n2\n\nQuickly.").split("\n") == [
        "Adds.", "", "```pycon", ">>> 1 + 1", "2", "```", "", "Quickly.",
    ]  # fmt: skip


def test_every_command_has_a_section_with_its_options() -> None:
    pages = commands.command_pages()
    assert "### bitnet generate {#bitnet-generate}" in pages
    assert "### bitnet bench decode {#bitnet-bench-decode}" in pages
    section = pages.partition("### bitnet perplexity")[2].partition("\n### ")[0]
    assert "Tokens between windows." in section
    assert "Examples:\n\n```sh\nbitnet perplexity text.txt\n" in section


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path: Path) -> None:
    picture = base64.b64encode(b"a picture").decode()
    outputs = [
        {"output_type": "stream", "text": ["10 %\r100 %\n", "a < b\n"]},
        {"output_type": "display_data", "data": {"image/png": picture, "text/plain": ["<Figure>"]}},
        {"output_type": "execute_result", "data": {"text/html": ["<b>1</b>\n\n<i>2</i>"], "text/plain": ["1"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Words."]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    path = tmp_path / "01-start.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    text, pictures = notebooks.page(path)
    assert text.startswith("# Title\n")
    assert "```python\nprint(1)\n```" in text
    assert "<pre><code>100 %\na &lt; b</code></pre>" in text
    assert "![output](01-start-1.png)" in text
    assert pictures == {"01-start-1.png": b"a picture"}
    assert '<div class="notebook-output">\n<b>1</b>\n<i>2</i>\n</div>' in text


def test_names_without_documentation_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = '"""A module."""\n\nclass A:\n    """One."""\n\n    def f(self): ...\n\n    def _g(self): ...\n\n\nclass B(A):\n    """Two."""\n\n    def f(self): ...\n'
    (tmp_path / "m.py").write_text(module)
    monkeypatch.setattr(doc_coverage, "PACKAGE", tmp_path)
    monkeypatch.setattr(doc_coverage, "ROOT", tmp_path)
    assert doc_coverage.undocumented() == (5, ["m.py: A.f", "m.py: B.f"])
    (tmp_path / "m.py").write_text(module.replace("def f(self): ...", 'def f(self):\n        """Does."""', 1))
    assert doc_coverage.undocumented() == (5, [])  # B.f has that of A.f


def test_fields_without_an_entry_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = '"""A module."""\n\nclass A:\n    """One.\n\n    a: told.\n    """\n\n    a: int\n    b = 1\n    _c = 2\n\n    def f(self):\n        """Does."""\n        self.d, self._e = 1, 2\n\n    g = f\n'
    module += '\nclass B(A):\n    """The fields of ``C``."""\n\n    b: int\n\n\nclass C:\n    """Three.\n\n    A title:\n        b: told.\n    """\n\n    b: int\n'
    (tmp_path / "m.py").write_text(module)
    monkeypatch.setattr(doc_coverage, "PACKAGE", tmp_path)
    monkeypatch.setattr(doc_coverage, "ROOT", tmp_path)
    assert doc_coverage.undocumented() == (10, ["m.py: A.b", "m.py: A.d"])
    (tmp_path / "m.py").write_text(module.replace("a: told.", "a: told.\n    b, d: told."))
    assert doc_coverage.undocumented() == (10, [])


@pytest.fixture(scope="module")
def godoc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that makes the pages of Go packages and counts their names."""
    if shutil.which("go") is None:
        pytest.skip("not tested: the pages of Go packages and the count of their names, which need Go")
    program = tmp_path_factory.mktemp("godoc") / "godoc"
    subprocess.run(["go", "build", "-o", program, "./.ci/godoc"], cwd=REPO, check=True)
    return program


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The directory of a package in a module that has the two directories that are looked at."""
    (tmp_path / "accel" / "cpu").mkdir(parents=True)
    package = tmp_path / "core" / "p"
    package.mkdir(parents=True)
    return package


def test_fields_and_methods_of_go_without_a_comment_are_found(godoc: Path, package: Path, tmp_path: Path) -> None:
    declared = "// Package p is one.\npackage p\n\n// T has A.\ntype T struct {\n\tA int\n\tB int // told\n\tC int\n\n"
    declared += (
        "\t// Of both.\n\tD int\n\tE int\n\n\tF int\n\tg int\n}\n\n// I is asked.\ntype I interface {\n\tM()\n}\n"
    )
    (package / "p.go").write_text(declared)
    found = subprocess.run([godoc, "-check"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stdout == "Go      7 of 10 public names of 1 packages have documentation\n"
    assert found.stderr.split("\n")[1:-1] == ["  core/p: I.M", "  core/p: T.C", "  core/p: T.F"]


def test_declarations_of_go_are_as_narrow_as_a_page(godoc: Path, package: Path, tmp_path: Path) -> None:
    many = "words " * 15
    declared = f"""// Package p is one.
package p

// T has two.
type T struct {{
	// A is told in {many}and
	// in the next line.
	//   indented {many}{many}
	//
	// More.
	A int

	B string `json:"//b"` // is told in {many}behind it
	C bool   // in few
}}

// F takes much.
func F(first, second, third, fourth, fifth []float32, rows, columns int, name string, last func(a, b int) error) error {{
	return nil
}}
"""
    (package / "p.go").write_text(declared)
    subprocess.run([godoc, "-out", tmp_path / "pages"], cwd=tmp_path, check=True)
    page = (tmp_path / "pages" / "core" / "p.md").read_text().split("\n")
    assert max(len(line.expandtabs(4)) for line in page if "indented" not in line) <= 111
    assert page[page.index("type T struct {") + 1 :][:10] == [
        f"\t// A is told in {many.strip()}",
        "\t// and in the next line.",
        f"\t//   indented {many}{many.strip()}",
        "\t//",
        "\t// More.",
        "\tA int",
        "",
        f"""\tB string `json:"//b"` // is told in {many[: 12 * 6].strip()}""",
        "\t                      // words words words behind it",
        "\tC bool   // in few",
    ]
    assert "\tb int) error) error" in page


def test_the_site_tells_of_fields_where_they_are(tmp_path: Path) -> None:
    griffe = pytest.importorskip("griffe", reason="not tested: the site's docstrings, which need the extra docs")
    (tmp_path / "fielded.py").write_text(FIELDED)
    extensions = griffe.load_extensions(REPO / ".ci" / "site" / "docstrings.py")
    module = griffe.load("fielded", search_paths=[tmp_path], extensions=extensions, allow_inspection=False)
    options, layer = module["Options"], module["Layer"]
    assert {name: field.docstring.value for name, field in options.attributes.items()} == {
        "steps": "Many, or few.",
        "low": "`low`, `high`: The bounds.",
        "high": "`low`, `high`: The bounds.",
    }
    assert options.docstring.value.split("\n") == [
        "How.", "", "**How long:** [`steps`][fielded.Options.steps]", "",
        "**What:** [`low`][fielded.Options.low] [`high`][fielded.Options.high]",
    ]  # fmt: skip
    assert layer.docstring.value == "A layer.\n\n- `size`: what it takes."  # a parameter stays one
    assert (str(layer["size"].annotation), layer["size"].docstring.value) == ("int", "What it takes.")
    assert (layer["seen"].value, layer["seen"].docstring.value) == (None, "How much it saw.")
    assert [parameter.name for parameter in layer["add"].parameters] == ["self", "other"]
    assert layer["add"].docstring.value == "The sum."
    assert layer["plus"].docstring.value == "The same as `add`."


FIELDED = '''
from dataclasses import dataclass


@dataclass
class Options:
    """How.

    How long:
        steps: many,
            or few.

    What:
        low, high: the bounds.
    """

    steps: int = 3
    low: int = 0
    high: int = 1


def _binary(name, doc): ...


class Layer:
    """A layer.

    size: what it takes.
    seen: how much it saw.
    """

    add = _binary("add", "The sum.")
    plus = add

    def __init__(self, size: int):
        self.size = size
        self.seen = size * 0
'''
