"""A virtual environment for other programs, and files for them to load: made once, kept in the user's cache directory."""

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from bitnet_rust import find_model
from bitnet_rust.bench.subject import cache_directory

HERE = Path(__file__).parent


class PeerError(RuntimeError):
    """A program cannot take part; the message says why."""


def python(place: Path, packages: list[str], say: Callable[[str], object]) -> Path:
    """The interpreter of the environment at place, with packages in it. PeerError if they do not install."""
    interpreter = place / "bin" / "python"
    if not interpreter.exists():
        say(f"making the environment {place}")
        venv.create(place, with_pip=True)
    missing = [name for name in packages if not _has(interpreter, name)]
    if missing:
        say(f"installing {', '.join(missing)}; what has to be compiled takes minutes")
        done = subprocess.run(
            [str(interpreter), "-m", "pip", "install", "-q", *missing], capture_output=True, text=True
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
    file.parent.mkdir(parents=True, exist_ok=True)
    config = file.with_suffix(".json")
    config.write_text(json.dumps(entry.config.to_dict()))
    done = subprocess.run(
        [str(interpreter), str(HERE / "write_gguf.py"), str(config), kind, str(file)], capture_output=True, text=True
    )
    config.unlink()
    if done.returncode:
        raise PeerError(f"no GGUF file of {shape} in {kind}: {last_line(done.stderr)}")
    return file


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def default_place() -> Path:
    return cache_directory().parent / f"peers-{sys.version_info.major}.{sys.version_info.minor}"
