"""The Go reader and writer of safetensors against the Python package of that name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

safetensors = pytest.importorskip("safetensors")
from safetensors.numpy import load_file  # noqa: E402

TESTDATA = Path(__file__).parent.parent / "tests_go" / "testdata"
ATTACKS = sorted((TESTDATA / "attacks").glob("*.safetensors"))

# Our reader is stricter than the Python package in these: the format's text
# forbids the first, and the others make two readers see different things.
STRICTER = {"header_leading_space", "duplicate_metadata_key", "entry_unknown_field"}


def test_python_reads_what_the_go_writer_wrote() -> None:
    path = TESTDATA / "safetensors" / "written.safetensors"
    want = {
        "int64": np.array([-1, 7], np.int64),
        "float32": np.array([[1, -2], [0.5, 0]], np.float32),
        "float16": np.array([[1], [-2], [0.5]], np.float16),
        "scalar": np.array(1, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "größe/<&>": np.array([1, 2, 255], np.uint8),
        "bool": np.array([True, False]),
    }
    got = load_file(path)
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    with safetensors.safe_open(path, "np") as f:
        assert f.metadata() == {"format": "np", "line": 'a\nb "c"'}


@pytest.mark.parametrize("path", ATTACKS, ids=lambda p: p.stem)
def test_python_refuses_the_attack_files_too(path: Path) -> None:
    if path.stem in STRICTER:
        load_file(path)
        return
    # ValueError: one shape gets as far as NumPy, which finds the overflow.
    with pytest.raises((safetensors.SafetensorError, ValueError)):
        load_file(path)


def test_the_attack_corpus_is_there() -> None:
    assert len(ATTACKS) > 50
