"""Writes small ONNX files of our own: what save_pretrained(format="onnx") makes today has to load for ever.

    python tests_py/record/onnx_own.py [FOLDER]        (default: tests_go/testdata/onnx)

They are also what fuzzing begins with. Files of an earlier version stay as they are: a new one gets another name.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from bitnet_rust import BitNetModel

FOLDER = Path(__file__).resolve().parents[2] / "tests_go" / "testdata" / "onnx"
CONFIG = {
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    with tempfile.TemporaryDirectory() as place, BitNetModel.from_config(CONFIG, seed=7) as model:
        for kind in ("int8", "int2"):
            path = Path(place, f"own_{kind}.onnx")
            model.save_pretrained(path, format="onnx", onnx_type=kind)
            shutil.copy(path, folder)


if __name__ == "__main__":
    main()
