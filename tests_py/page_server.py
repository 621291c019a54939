"""What tests and the picture of the chat page need: servers in processes of their own, and a model that chats."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bitnet_rust

EMBEDDED = Path(bitnet_rust.__file__).parent / "models" / "bitnet-shakespeare"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def talker(directory: Path) -> Path:
    """A copy of the embedded model with a chat template, and with a context that takes long to fill."""
    shutil.copytree(EMBEDDED, directory)
    for name, changes in (
        ("config.json", {"max_position_embeddings": 1 << 14}),
        ("tokenizer_config.json", {"chat_template": TEMPLATE}),
    ):
        file = directory / name
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return directory


@contextlib.contextmanager
def serving(model: str | Path, *options: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Runs ``bitnet serve`` on a free port; gives its address and its process."""
    command = [sys.executable, "-m", "bitnet_rust", "serve", "--model", str(model), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError("the server ended before it listened")
            yield address, process
        finally:
            process.terminate()
