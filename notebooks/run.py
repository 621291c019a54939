"""Runs the notebooks and writes their outputs: `make notebooks`, or python notebooks/run.py 04-inside-a-ternary-model.

A notebook runs in an empty directory. The cell tagged `parameters` says how much it does, as for papermill; its metadata's "quick" has
the values for a run that only shows that it works: --quick, which writes nothing. It has two threads, and may take what three minutes of
two cores are in seconds of the processor, which do not grow where the machine has other work.
"""

import argparse
import base64
import io
import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MOST_SECONDS = 360.0  # of the processor


def execute(
    notebook: dict[str, Any], *, quick: bool = False, timeout: float = 1800, most_seconds: float = MOST_SECONDS
) -> dict[str, Any]:
    """A notebook's content with the outputs of a run in this interpreter; the first cell that fails raises, or that goes on for longer than
    timeout, and TimeoutError where the whole took more than most_seconds of the processor."""
    import nbclient
    import nbformat

    run = nbformat.reads(json.dumps(notebook), as_version=4)
    place = next((i for i, cell in enumerate(run.cells) if "parameters" in cell.metadata.get("tags", ())), None)
    if quick and place is not None:
        values = run.cells[place].metadata["quick"]
        lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        run.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            run, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": folder}}, record_timing=False
        )
        before = _used()
        client.execute(env=os.environ | {"BITNET_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"})
        took = _used() - before
    print(f"{took:.0f} s of the processor", file=sys.stderr)
    if took > most_seconds:
        raise TimeoutError(f"{took:.0f} s of the processor: expected at most {most_seconds:g}")
    done: dict[str, Any] = json.loads(nbformat.writes(run))
    return done


def _used() -> float:
    """Seconds of the processor that the processes took which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def committed(notebook: dict[str, Any], run: dict[str, Any]) -> str:
    """The text of a notebook with the outputs of a run, made small."""
    for cell, done in zip(notebook["cells"], run["cells"], strict=True):
        if cell["cell_type"] == "code":
            cell["execution_count"] = done["execution_count"]
            cell["outputs"] = _small(done["outputs"])
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _small(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs with the pieces of a stream in one, and pictures in fewer colours."""
    kept: list[dict[str, Any]] = []
    for output in outputs:
        if kept and output["output_type"] == kept[-1]["output_type"] == "stream" and output["name"] == kept[-1]["name"]:
            kept[-1] = kept[-1] | {"text": [*kept[-1]["text"], *output["text"]]}
        else:
            kept.append(dict(output))
    for output in kept:
        if output["output_type"] == "stream":
            output["text"] = "".join(output["text"]).splitlines(keepends=True)
        elif "image/png" in output.get("data", {}):
            output["data"] = output["data"] | {"image/png": _fewer_colors(output["data"]["image/png"])}
    return kept


def _fewer_colors(png: str) -> str:
    from PIL import Image

    content = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(64).save(content, "png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of notebooks, without .ipynb; by default all")
    parser.add_argument("--quick", action="store_true", help="small settings; write nothing")
    options = parser.parse_args()
    paths = [HERE / f"{name.removesuffix('.ipynb')}.ipynb" for name in options.names] or sorted(HERE.glob("*.ipynb"))
    for path in paths:
        print(path.name, file=sys.stderr, flush=True)
        notebook = json.loads(path.read_text("utf-8"))
        run = execute(notebook, quick=options.quick)
        if not options.quick:
            path.write_text(committed(notebook, run), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
