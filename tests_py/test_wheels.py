"""The wheels that are published: built for both processors from the source distribution, tried on each."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bitnet_rust
from conftest import REPO

pytestmark = pytest.mark.full

TEXT = """
import bitnet_rust, platform
model = bitnet_rust.BitNetModel.from_pretrained("bitnet-shakespeare")
print(platform.machine(), bitnet_rust.build_info()["isa"], repr(model.generate("First Citizen:", max_new_tokens=20)))
print(model.forward([5, 6, 7]).view("uint32").sum(dtype="uint64"))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("auditwheel", "ziglang"):
        pytest.importorskip(package, reason="make wheels installs it")
    out = tmp_path_factory.mktemp("wheels")
    subprocess.run([sys.executable, ".ci/wheels.py", "--out", str(out)], cwd=REPO, check=True)
    return out


def wheel_of(wheels: Path, machine: str) -> Path:
    (found,) = wheels.glob(f"*_{machine}.whl")
    return found


def said_here() -> list[str]:
    with bitnet_rust.BitNetModel.from_pretrained("bitnet-shakespeare") as model:
        text = model.generate("First Citizen:", max_new_tokens=20)
        return [repr(text), str(model.forward([5, 6, 7]).view("uint32").sum(dtype="uint64"))]


def test_both_have_the_same_files_and_an_old_glibc_will_do(wheels: Path) -> None:
    names = {}
    for machine in ("x86_64", "aarch64"):
        path = wheel_of(wheels, machine)
        assert "-cp311-abi3-" in path.name
        assert f"manylinux_2_17_{machine}" in path.name
        with zipfile.ZipFile(path) as archive:
            names[machine] = sorted(archive.namelist())
            elf = archive.read("bitnet_rust/_bitnet.abi3.so")[:20]
        assert elf[:4] == b"\x7fELF"
        assert int.from_bytes(elf[18:20], "little") == {"x86_64": 62, "aarch64": 183}[machine]
    assert names["x86_64"] == names["aarch64"]


def test_the_wheel_of_this_machine_writes_text(wheels: Path, tmp_path: Path) -> None:
    machine = os.uname().machine
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", wheel_of(wheels, machine)], check=True)
    out = subprocess.run([python, "-c", TEXT], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    text, bits = said_here()
    assert out == f"{machine} {bitnet_rust.build_info()['isa']} {text}\n{bits}\n"


def test_the_wheel_for_aarch64_writes_the_same_text_under_an_emulator(wheels: Path, tmp_path: Path) -> None:
    if not (shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")) or not shutil.which("apt-get"):
        pytest.skip("needs qemu-aarch64 (apt-get install qemu-user), and apt-get for a Python of that processor")
    arm64 = [sys.executable, ".ci/arm64.py", str(tmp_path)]
    subprocess.run([*arm64, str(wheel_of(wheels, "aarch64"))], cwd=REPO, check=True)
    text, bits = said_here()
    for processor, isa in (("max", "neon-dotprod"), ("cortex-a53", "neon")):
        env = os.environ | {"ARM64_CPU": processor}
        out = subprocess.run(
            [*arm64, "--", "-c", TEXT], cwd=REPO, env=env, check=True, capture_output=True, text=True
        ).stdout
        assert out == f"aarch64 {isa} {text}\n{bits}\n"
