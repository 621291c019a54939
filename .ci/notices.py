"""What NOTICE has to say: the licenses of the modules of Go that are linked into the extension module, and of Go itself.

python .ci/notices.py > NOTICE
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = "github.com/bitnet-rust/bitnet_rust"
HEAD = "Wheels have these parts of others in them, in compiled form, under their licenses.\n"


def notice() -> str:
    """The text, whose parts are in the order of their names."""
    licenses = {"Go": Path(_go("env", "GOROOT").strip()) / "LICENSE"}
    form = "{{with .Module}}{{.Path}} {{.Dir}}{{end}}"
    for line in _go("list", "-deps", "-tags", "pyext", "-f", form, "./bindings").splitlines():
        module, _, directory = line.partition(" ")
        if module not in ("", OURS):
            licenses[module] = next(Path(directory).glob("LICENSE*"))
    parts = (f"{'-' * 80}\n{name}\n\n{_text(path)}\n" for name, path in sorted(licenses.items()))
    return "\n".join([HEAD, *parts])


def _text(path: Path) -> str:
    lines = path.read_text("utf-8").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _go(*arguments: str) -> str:
    return subprocess.run(["go", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    print(notice(), end="")
