"""A virtual environment for other programs, and files for them to load: made once, kept in the user's cache directory."""

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from bitnet_rust import find_model
from bitnet_rust.bench.subject import cache_directory
from bitnet_rust.files import write_fields

HERE = Path(__file__).parent


class PeerError(RuntimeError):
    """A program cannot take part; the message says why."""


def python(place: Path, packages: list[str], say: Callable[[str], object], bare: str | None = None) -> Path:
    """The interpreter of the environment at place, with packages in it, and bare without what it depends on. PeerError if they do not
    install."""
    interpreter = place / "bin" / "python"
    if not interpreter.exists():
        say(f"making the environment {place}")
        venv.create(place, with_pip=True)
    for options, names in (([], packages), (["--no-deps"], [bare] if bare else [])):
        missing = [name for name in names if not _has(interpreter, name)]
        if missing:
            say(f"installing {', '.join(missing)}; what has to be compiled takes minutes")
            done = subprocess.run(
                [str(interpreter), "-m", "pip", "install", "-q", *options, *missing], capture_output=True, text=True
            )
            if done.returncode:
                raise PeerError(f"pip install {' '.join(missing)}: {last_line(done.stderr)}")
    return interpreter


def _has(interpreter: Path, package: str) -> bool:
    code = "import importlib.metadata, sys; importlib.metadata.version(sys.argv[1])"
    return subprocess.run([str(interpreter), "-c", code, package], capture_output=True).returncode == 0


def version(interpreter: Path, package: str) -> str:
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    return subprocess.run([str(interpreter), "-c", code, package], capture_output=True, text=True).stdout.strip()


def gguf(interpreter: Path, shape: str, kind: str, say: Callable[[str], object]) -> Path:
    """A GGUF file with random weights of a shape in the cache directory."""
    entry = find_model(shape)
    file = cache_directory() / f"{entry.name}-{kind}.gguf"
    if file.exists():
        return file
    say(f"writing {file}")
    done = subprocess.run(
        [str(interpreter), str(HERE / "write_gguf.py"), str(config_file(shape)), kind, str(file)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise PeerError(f"no GGUF file of {shape} in {kind}: {last_line(done.stderr)}")
    return file


def quantized(interpreter: Path, shape: str, quantizer: Path, kind: str, say: Callable[[str], object]) -> Path:
    """A GGUF file of a shape in a format that a program's own llama-quantize makes, in the cache directory."""
    file = cache_directory() / f"{find_model(shape).name}-{kind}.gguf"
    if file.exists():
        return file
    if not quantizer.is_file():
        raise PeerError(f"{quantizer}: there is no such file, to make a GGUF file in {kind}; expected one to be named")
    floats = gguf(interpreter, shape, "F16", say)
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    say(f"writing {file}")
    try:
        done = subprocess.run(
            [str(quantizer), "--token-embedding-type", "q6_K", str(floats), str(beside), kind],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-2:]  # the reason, and that it failed
            raise PeerError(f"no GGUF file of {shape} in {kind}: {'; '.join(last) or 'no message'}")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
        floats.unlink()  # gigabytes, of no other use
    return file


def config_file(shape: str) -> Path:
    """The config of a shape as a file."""
    entry = find_model(shape)
    file = cache_directory() / f"{entry.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_fields(file, entry.config.to_dict())
    return file


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def default_place() -> Path:
    return cache_directory().parent / f"peers-{sys.version_info.major}.{sys.version_info.minor}"
