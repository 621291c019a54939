"""Builds the one extension, ``bitnet_rust/_bitnet.abi3.so``, with ``go build -buildmode=c-shared``.

Everything else about the distribution is in pyproject.toml. Whatever is missing on the building machine (Go, a C
compiler, Python's headers) ends the build with one sentence that names it, instead of a traceback.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
MIN_GO = (1, 24)


def stop(sentence: str) -> SystemExit:
    return SystemExit(f"bitnet-rust cannot be built: {sentence}")


def find_go() -> str:
    name = os.environ.get("GO", "go")
    need = f"Go {MIN_GO[0]}.{MIN_GO[1]} or newer (https://go.dev/dl)"
    go = shutil.which(name)
    if go is None:
        raise stop(f"{need} is needed and no '{name}' is on PATH.")
    # Run beside go.mod, so that a Go that may fetch newer toolchains answers with the one it will use.
    answer = subprocess.run([go, "env", "GOVERSION"], cwd=ROOT, capture_output=True, text=True)
    found = re.search(r"go(\d+)\.(\d+)", answer.stdout)
    if answer.returncode != 0 or found is None:
        words = " ".join((answer.stderr or answer.stdout).split())
        raise stop(f"{need} is needed and {go} says: {words}.")
    if (int(found[1]), int(found[2])) < MIN_GO:
        raise stop(f"{need} is needed and {go} is {answer.stdout.strip()}.")
    return go


def check_c_compiler(go: str, env: dict[str, str]) -> None:
    cc = env.get("CC") or subprocess.check_output([go, "env", "CC"], cwd=ROOT, env=env, text=True).strip()
    if shutil.which(shlex.split(cc)[0], path=env.get("PATH")) is None:
        raise stop(f"a C compiler is needed for cgo and '{cc}' is not on PATH (install gcc or clang, or set CC).")


def python_includes() -> list[str]:
    paths = sorted({sysconfig.get_path("include"), sysconfig.get_path("platinclude")})
    if not any(Path(path, "Python.h").is_file() for path in paths):
        raise stop(f"Python's headers are needed and {paths[0]} has no Python.h (install python3-dev).")
    return paths


class GoBuildExt(build_ext):
    """Hands the extension to the go command; setuptools' own compiler is never asked."""

    def build_extension(self, ext: Extension) -> None:
        env = dict(os.environ, CGO_ENABLED="1")
        go = find_go()
        check_c_compiler(go, env)
        include = " ".join(f'"-I{path}"' for path in python_includes())
        env["CGO_CFLAGS"] = f"-O2 {include} {env.get('CGO_CFLAGS', '')}".strip()
        if sys.platform == "darwin":
            env["CGO_LDFLAGS"] = f"-undefined dynamic_lookup {env.get('CGO_LDFLAGS', '')}".strip()
        out = Path(self.get_ext_fullpath(ext.name)).resolve()  # build directory, or the source tree for -e
        out.parent.mkdir(parents=True, exist_ok=True)
        version = self.distribution.get_version()
        command = [go, "build", "-buildmode=c-shared", "-tags", "pyext", "-trimpath", "-buildvcs=false",
                   "-ldflags", f"-s -w -X main.version={version}", "-o", str(out), "./bindings"]  # fmt: skip
        status = subprocess.run(command, cwd=ROOT, env=env).returncode
        if status != 0:
            raise stop(f"'go build' of ./bindings ended with status {status}; its messages stand above.")
        out.with_suffix(".h").unlink(missing_ok=True)  # cgo writes its header beside the library


def description() -> str:
    """README.md for PyPI, where no files lie beside it: its links lead to the repository that pyproject.toml names."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        source = tomllib.load(file)["project"]["urls"]["Source"]
    text = (ROOT / "README.md").read_text("utf-8")
    return re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", rf"]({source}/blob/main/\1)", text)


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    ext_modules=[Extension("bitnet_rust._bitnet", sources=[], py_limited_api=True)],
    cmdclass={"build_ext": GoBuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},  # one wheel for this Python and every later one
)
