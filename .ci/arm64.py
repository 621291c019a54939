"""A Python for arm64 that runs here under qemu's user emulation, to try a wheel for aarch64 on.

    arm64.py DIRECTORY WHEEL        unpacks Debian's packages and installs the wheel with its requirements, all inside DIRECTORY
    arm64.py DIRECTORY -- ARG...    runs that Python with the arguments; BITNET_* variables reach it. ARM64_CPU chooses the processor

Nothing of this system is changed: apt only downloads, into the directory, as if it were empty and of that architecture. Needs Debian or Ubuntu,
qemu-user and pip.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# tokenizers is C++.
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")


def install(directory: Path, wheel: Path) -> None:
    root, apt = directory / "root", directory / "apt"
    for part in ("lists/partial", "archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::Cache": str(apt),
        "Dir::State": str(apt),
        "Dir::State::status": str(apt / "status"),
    }
    get = ["apt-get", "-q", "-y", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*get, "update"], check=True)
    subprocess.run([*get, "--no-install-recommends", "--download-only", "install", *PACKAGES], check=True)
    for package in (apt / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    shutil.rmtree(apt)

    version = interpreter(directory).name.removeprefix("python")
    platforms = ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "manylinux_2_28_aarch64")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--only-binary=:all:", "--target", root / "site",
               "--python-version", version, "--implementation", "cp"]  # fmt: skip
    command += [f"--abi={abi}" for abi in (f"cp{version.replace('.', '')}", "abi3", "none")]
    subprocess.run([*command, *(f"--platform={name}" for name in platforms), wheel], check=True)


def interpreter(directory: Path) -> Path:
    """python3.11, or which one this Debian has; never the symbolic link, which may be absolute."""
    (found,) = (directory / "root/usr/bin").glob("python3.[0-9]*[0-9]")
    return found


def emulator() -> str:
    found = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if found is None:
        raise SystemExit("there is no qemu-aarch64 on PATH (Debian and Ubuntu: apt-get install qemu-user)")
    return found


def main() -> None:
    match sys.argv[1:]:
        case [directory, "--", *arguments]:
            root = Path(directory, "root").resolve()
            qemu = [emulator(), "-cpu", os.environ.get("ARM64_CPU", "max"), "-L", str(root)]
            os.environ["PYTHONPATH"] = str(root / "site")
            os.execv(qemu[0], [*qemu, str(interpreter(Path(directory)).resolve()), *arguments])
        case [directory, wheel]:
            install(Path(directory).resolve(), Path(wheel).resolve())
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
