"""The distribution: what importing costs, what the wheel has, how a build fails, installs from nothing."""

import email
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import bitnet_rust
from conftest import REPO

HEAVY = ("numpy", "tokenizers", "huggingface_hub", "typer", "rich", "jinja2")


def python(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | environment,
        check=True,
    )
    return result.stdout.strip()


def test_importing_loads_nothing_heavy() -> None:
    assert python(f"import sys, bitnet_rust; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_generating_from_ids_needs_no_numpy() -> None:
    code = """
import sys
from bitnet_rust import BitNetModel
BitNetModel.from_pretrained("bitnet-shakespeare").generate([1, 2, 3], max_new_tokens=3)
print("numpy" in sys.modules, "huggingface_hub" in sys.modules)
"""
    assert python(code) == "False False"


def test_the_modules_of_the_package_come_with_it() -> None:
    code = "import bitnet_rust; print(callable(bitnet_rust.bench.decode), bitnet_rust.nn.__name__, 'bench' in dir(bitnet_rust))"
    assert python(code) == "True bitnet_rust.nn True"


def test_the_version_is_said_once() -> None:
    assert importlib.metadata.version("bitnet-rust") == bitnet_rust.__version__ == bitnet_rust.build_info()["version"]
    assert bitnet_rust.__version__ != "0+unknown"
    said = subprocess.run(
        [sys.executable, "-m", "bitnet_rust", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout == f"bitnet-rust {bitnet_rust.__version__}\n"


def test_the_version_comes_from_the_last_tag(tmp_path: Path) -> None:
    tree, exported = tmp_path / "tree", tmp_path / "exported"

    def git(*words: str) -> bytes:
        env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        who = ("-c", "user.name=T", "-c", "user.email=t@example.org")
        return subprocess.run(["git", *who, *words], cwd=tree, env=env, capture_output=True, check=True).stdout

    def version(directory: Path) -> str:
        command = [sys.executable, "-m", "setuptools_scm"]
        return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout.strip()

    tree.mkdir()
    for name in ("pyproject.toml", ".git_archival.txt", ".gitattributes"):
        shutil.copy(REPO / name, tree)
    assert version(tree) == "0.1.0.dev0"  # a copy of the files
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    assert version(tree).startswith("0.1.0.dev1+g")
    git("tag", "v9.8.7")
    assert version(tree) == "9.8.7"
    exported.mkdir()
    with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as archive:  # as hosts of git offer for download
        archive.extractall(exported, filter="data")
    assert version(exported) == "9.8.7"
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert version(tree).startswith("9.8.8.dev1+g")


def test_the_package_is_typed_and_has_its_model() -> None:
    package = Path(bitnet_rust.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_bitnet.pyi").is_file()
    assert {p.name for p in (package / "models" / "bitnet-shakespeare").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_the_stubs_name_what_the_extension_has() -> None:
    from bitnet_rust import _bitnet

    stubs = (Path(bitnet_rust.__file__).parent / "_bitnet.pyi").read_text()
    for name in vars(_bitnet):
        if not name.startswith("__") or name == "__version__":
            assert name in stubs, name


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BITNET_ISA", "sse9", "BITNET_ISA"),
        ("BITNET_NUM_THREADS", "many", "BITNET_NUM_THREADS"),
        ("BITNET_SKIP_ZEROS", "off", "accepted are 0 and 1"),
    ],
)
def test_a_bad_environment_variable_is_an_error_at_load(variable: str, value: str, says: str) -> None:
    code = """
import bitnet_rust
try:
    bitnet_rust.BitNetModel.from_pretrained("bitnet-shakespeare")
except bitnet_rust.ArgumentError as error:
    print(error)
"""
    assert says in python(code, **{variable: value})


@pytest.mark.parametrize("isa", bitnet_rust.build_info()["supported_isas"])
def test_every_instruction_set_gives_the_same_text(isa: str) -> None:
    code = """
from bitnet_rust import BitNetModel, build_info
print(build_info()["isa"], BitNetModel.from_pretrained("bitnet-shakespeare").generate("First Citizen:", max_new_tokens=9))
"""
    own = bitnet_rust.BitNetModel.from_pretrained("bitnet-shakespeare").generate("First Citizen:", max_new_tokens=9)
    assert python(code, BITNET_ISA=isa) == f"{isa} {own}"


# --- builds that cannot be -------------------------------------------------------------------------------------------


def build_extension(path: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(out)]
    variables = {k: v for k, v in os.environ.items() if k not in ("CC", "GO")} | {"PATH": path}
    return subprocess.run(command, cwd=REPO, env=variables, capture_output=True, text=True, timeout=600)


def fake_go(directory: Path, script: str) -> str:
    go = directory / "go"
    go.write_text(f"#!/bin/sh\n{script}\n")
    go.chmod(0o755)
    return str(directory)


@pytest.mark.parametrize(
    ("go", "says"),
    [
        (None, "Go 1.24 or newer (https://go.dev/dl) is needed and no 'go' is on PATH."),
        ("echo go1.20.3", "is go1.20.3."),
        ("echo 'go: go.mod requires go >= 1.24.0 (running go 1.22)' >&2; exit 1", "go.mod requires go >= 1.24.0"),
        ('case "$2" in GOVERSION) echo go1.24.1;; CC) echo no-such-cc;; esac', "a C compiler is needed for cgo and 'no-such-cc'"),
        ('case "$1-$2" in env-GOVERSION) echo go1.24.1;; env-CC) echo sh;; *) echo broken >&2; exit 7;; esac', "ended with status 7"),
    ],
)  # fmt: skip
def test_a_build_that_cannot_be_says_why_in_one_sentence(tmp_path: Path, go: str | None, says: str) -> None:
    path = str(tmp_path) if go is None else f"{fake_go(tmp_path, go)}:/bin:/usr/bin"
    result = build_extension(path, tmp_path / "out")
    assert result.returncode != 0
    assert says in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


# --- installs from nothing -------------------------------------------------------------------------------------------

TELL = """
import bitnet_rust, os
assert not os.path.realpath(bitnet_rust.__file__).startswith({repo!r}), bitnet_rust.__file__
print(bitnet_rust.BitNetModel.from_pretrained("bitnet-shakespeare").generate("First Citizen:", max_new_tokens=20))
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that an isolated environment makes of it."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(REPO)], check=True, capture_output=True)
    return out


def test_the_source_distribution_is_all_that_git_has_but_tests(distributions: Path) -> None:
    """What builds it, and documentation: the wheel of these tests was built from it."""
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("these files are not in a git repository")
    apart = (".ci/", ".git", "tests_go/", "tests_py/")
    wanted = {
        name
        for name in listed.stdout.splitlines()
        if not name.startswith(apart) and "/testdata/" not in name and not name.endswith("_test.go")
    }
    assert wanted - names == set()
    assert not [name for name in names if name.startswith(apart) and name != ".git_archival.txt"]
    assert path.stat().st_size < 8 << 20
    (wheel,) = distributions.glob("*.whl")
    assert wheel.name.split("-")[1] == path.name.removesuffix(".tar.gz").split("-")[1]


def test_the_notice_has_the_license_of_every_module_that_is_compiled_in() -> None:
    written = subprocess.run(
        [sys.executable, REPO / ".ci/notices.py"], capture_output=True, text=True, check=True
    ).stdout
    assert (REPO / "NOTICE").read_text() == written, "run python .ci/notices.py > NOTICE"
    assert "gonum" in written


def test_the_wheel_is_for_every_python_and_small(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    assert "-cp311-abi3-" in wheel.name
    assert wheel.stat().st_size < 12 << 20
    names = zipfile.ZipFile(wheel).namelist()
    assert "bitnet_rust/_bitnet.abi3.so" in names
    assert "bitnet_rust/models/bitnet-shakespeare/model.safetensors" in names
    page = {f"bitnet_rust/server/static/{file.name}" for file in (REPO / "python/bitnet_rust/server/static").iterdir()}
    assert "bitnet_rust/server/static/app.js" in page
    assert page <= set(names)
    assert {"LICENSE", "NOTICE"} <= {name.rpartition("/")[2] for name in names if ".dist-info/licenses/" in name}
    assert not [name for name in names if name.endswith((".go", ".c", ".s"))]


def test_the_description_on_pypi_leads_to_files_of_the_repository(distributions: Path) -> None:
    """PyPI shows README.md, whose links are relative."""
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    links = re.findall(r"\]\(([^)\s]+)\)", str(metadata.get_payload()))
    source = "https://github.com/bitnet-rust/bitnet_rust/blob/main/"
    inside = [link.removeprefix(source).partition("#")[0] for link in links if link.startswith(source)]
    assert len(inside) > 20
    assert [link for link in links if "://" not in link] == []
    assert [path for path in inside if not (REPO / path).exists()] == []


def test_the_wheel_generates_text_in_a_fresh_environment(distributions: Path, tmp_path: Path) -> None:
    check_wheel(distributions, sys.executable, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("interpreter", ["python3.11", "python3.12", "python3.13", "python3.14"])
def test_the_same_wheel_serves_other_pythons(distributions: Path, tmp_path: Path, interpreter: str) -> None:
    if subprocess.run(["sh", "-c", f"{interpreter} -c 'import venv'"], capture_output=True).returncode != 0:
        pytest.skip(f"no {interpreter} here")
    check_wheel(distributions, interpreter, tmp_path)


def check_wheel(distributions: Path, interpreter: str, directory: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    subprocess.run([interpreter, "-m", "venv", directory / "venv"], check=True)
    binaries = directory / "venv" / "bin"
    subprocess.run([binaries / "python", "-m", "pip", "install", "-q", wheel], check=True)
    tell = [binaries / "python", "-c", TELL.format(repo=str(REPO))]
    text = subprocess.run(tell, cwd=directory, check=True, capture_output=True, text=True).stdout
    with bitnet_rust.BitNetModel.from_pretrained("bitnet-shakespeare") as here:
        assert text == here.generate("First Citizen:", max_new_tokens=20) + "\n"
    command = [binaries / "bitnet", "generate", "First Citizen:", "-n", "20"]
    assert subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout == text
