"""Notebooks as pages: their cells, and the outputs that were committed with them."""

import base64
import html
import json
from pathlib import Path
from typing import Any

# What a page can show of an output, the best first.
_PICTURES = ("image/png", "image/svg+xml")


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """The notebook in Markdown, and its pictures by the names that the page has for them."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"```python\n{source}\n```")
            parts += [_output(output, path.stem, pictures) for output in cell.get("outputs", ())]
    note = f"*The notebook `notebooks/{path.name}`, with the outputs of its last run.*"
    title, _, rest = "\n\n".join(part for part in parts if part).partition("\n")
    return f"{title}\n\n{note}\n\n{rest.strip()}\n", pictures


def _output(output: dict[str, Any], stem: str, pictures: dict[str, bytes]) -> str:
    if output["output_type"] == "stream":
        return _text("".join(output["text"]))
    data = output.get("data", {})
    for kind in _PICTURES:
        if kind in data:
            content = "".join(data[kind])
            name = f"{stem}-{len(pictures) + 1}.{'png' if kind == 'image/png' else 'svg'}"
            pictures[name] = base64.b64decode(content) if kind == "image/png" else content.encode()
            return f"![output]({name})"
    if "text/html" in data:
        body = "\n".join(line for line in "".join(data["text/html"]).splitlines() if line.strip())
        return f'<div class="notebook-output">\n{body}\n</div>'
    return _text("".join(data.get("text/plain", "")))


def _text(text: str) -> str:
    """Text as it was printed; terminals go back to the start of a line at a carriage return."""
    lines = [line.rpartition("\r")[2] for line in text.rstrip().split("\n")]
    return f"<pre><code>{html.escape(chr(10).join(lines))}</code></pre>" if text.strip() else ""
