"""The golden models: logits and greedy continuations that transformers computed (see tests_go/testdata/golden)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import BitNetModel
from conftest import GOLDEN

FOLDERS = ["bitnet_offline_packed", "bitnet_online_bf16", "llama_bitlinear_packed"]
PROMPTS = range(4)

# An activation on a rounding tie moves by one step when float32 sums are ordered differently; two right
# implementations differ by up to 0.09 here, at a standard deviation of the logits of 1.5.
MOST_LOGIT_DIFFERENCE = 0.15


@pytest.fixture(scope="module", params=FOLDERS)
def golden(request: pytest.FixtureRequest) -> Iterator[tuple[BitNetModel, Any]]:
    folder: Path = GOLDEN / request.param
    with BitNetModel.from_pretrained(folder) as model, np.load(folder / "golden_f32.npz") as vectors:
        yield model, {name: vectors[name] for name in vectors.files}


def test_logits_are_within_the_gates(golden: tuple[BitNetModel, Any]) -> None:
    model, vectors = golden
    for i in PROMPTS:
        logits, wanted = model.forward(vectors[f"input_ids_{i}"].ravel()), vectors[f"logits_{i}"]
        wanted = wanted.reshape(logits.shape)
        assert np.abs(logits - wanted).max() <= MOST_LOGIT_DIFFERENCE
        assert (logits.argmax(-1) == wanted.argmax(-1)).all()


def test_greedy_continuations_are_equal(golden: tuple[BitNetModel, Any]) -> None:
    model, vectors = golden
    for i in PROMPTS:
        prompt, wanted = vectors[f"input_ids_{i}"].ravel(), vectors[f"greedy_{i}"].ravel().tolist()
        count = len(wanted) - len(prompt)
        assert model.generate(prompt, max_new_tokens=count, ignore_eos=True, return_full_text=True) == wanted


def test_a_batch_of_ragged_prompts_gives_the_same_bits(golden: tuple[BitNetModel, Any]) -> None:
    model, vectors = golden
    rows = [vectors[f"input_ids_{i}"].ravel().tolist() for i in PROMPTS]
    together = model.forward(rows)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(together[i, : len(row)], model.forward(row))
        assert not together[i, len(row) :].any()


@pytest.mark.parametrize("format", ["native", "hf"])
def test_a_saved_model_gives_the_same_bits(golden: tuple[BitNetModel, Any], tmp_path: Path, format: Any) -> None:
    model, vectors = golden
    model.save_pretrained(tmp_path / "saved", format=format)
    prompt = vectors["input_ids_0"].ravel()
    with BitNetModel.from_pretrained(tmp_path / "saved") as again:
        np.testing.assert_array_equal(again.forward(prompt), model.forward(prompt))
        assert again.config.vocab_size == model.config.vocab_size
        assert again.generate("First Citizen:", max_new_tokens=8) == model.generate("First Citizen:", max_new_tokens=8)
