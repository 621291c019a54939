"""Check that what save_pretrained(format="hf") writes is the same model to transformers.

    python tests_py/parity/check_export.py [--keep DIR]

Every golden and every parity folder is loaded, exported, and loaded by transformers in float32. Compared are the logits that
transformers computes from the export, those recorded from the original files, and our own of the original; and a load
that leaves a tensor out, or one over, or of another shape, is an error. Needs bitnet_rust and what make_parity.py needs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import make_parity  # first: it sets how torch runs
import numpy as np

from bitnet_rust import BitNetModel

TESTDATA = make_parity.OUT.parent
# In standard deviations of the logits, as in tests_go. The parity prompts keep off rounding ties; the golden ones do not.
PARITY_GATE = 5e-6
GOLDEN_GATE = 0.15


@dataclass(frozen=True)
class Result:
    """What came of one folder; differences in standard deviations of the recorded logits."""

    name: str
    from_original: float  # transformers on the export, against transformers on the original files
    from_ours: float  # transformers on the export, against our forward
    agree: int  # positions with the recorded best token
    rows: int
    gate: float

    @property
    def passed(self) -> bool:
        return max(self.from_original, self.from_ours) <= self.gate and self.agree == self.rows


def folders() -> list[Path]:
    """The checkpoints to export; all but the ternary GPT-2, for which transformers has no layers."""
    found = sorted(p.parent for p in TESTDATA.glob("*/*/config.json") if p.parents[1].name in ("golden", "parity"))
    return [folder for folder in found if folder.name != "gpt2_ternary"]


def check(folder: Path, export: Path) -> Result:
    """Exports one checkpoint into a directory and compares."""
    golden = folder.parent.name == "golden"
    with np.load(folder / ("golden_f32.npz" if golden else "parity.npz")) as vectors:
        ids = [vectors[f"input_ids_{i}"].ravel() for i in range(4 if golden else 2)]
        recorded = [vectors[f"logits_{i}"] for i in range(len(ids))]
    with BitNetModel.from_pretrained(folder) as model:
        model.save_pretrained(export, format="hf")
        ours = np.concatenate([model.forward(x) for x in ids])
    reference = make_parity.load(export)
    theirs = np.concatenate([make_parity.logits_of(reference, x) for x in ids])
    original = np.concatenate([x.reshape(len(p), -1) for x, p in zip(recorded, ids, strict=True)])
    std = float(original.std())
    return Result(
        name=f"{folder.parent.name}/{folder.name}",
        from_original=float(np.abs(theirs - original).max()) / std,
        from_ours=float(np.abs(theirs - ours).max()) / std,
        agree=int((theirs.argmax(-1) == original.argmax(-1)).sum()),
        rows=len(original),
        gate=GOLDEN_GATE / std if golden else PARITY_GATE,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Export every test checkpoint and read it with transformers.")
    parser.add_argument("--keep", type=Path, help="leave the exports in this directory")
    args = parser.parse_args()
    make_parity.quiet()
    failed = 0
    with tempfile.TemporaryDirectory() as tmp:
        for folder in folders():
            r = check(folder, (args.keep or Path(tmp)) / folder.name)
            failed += not r.passed
            print(
                f"{r.name:42} original {r.from_original:.1e}  ours {r.from_ours:.1e}  argmax {r.agree}/{r.rows}  "
                f"{'ok' if r.passed else 'FAILED'}",
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
