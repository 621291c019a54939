"""What smaller heads, keys and values cost is what docs/reference/precision.md says."""

import re
from typing import Any

import pytest

from bitnet_rust import BitNetModel
from conftest import REPO

# The tenth of the text that the model was not trained on.
TEXT = (REPO / "recipes" / "data" / "tinyshakespeare.txt").read_text()
UNSEEN = TEXT[int(0.9 * len(TEXT)) :]


def perplexity(text: str, **options: Any) -> float:
    with BitNetModel.from_pretrained("bitnet-shakespeare", **options) as model:
        return model.perplexity(text)


@pytest.fixture(scope="module")
def full() -> float:
    return perplexity(UNSEEN[:8000])


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"head_dtype": "int8"}, 0.001),
        ({"head_dtype": "int4"}, 0.02),  # 0.01 of so short a text, 0.001 of all of it
        ({"kv_dtype": "float16"}, 0.001),
        ({"kv_dtype": "int8"}, 0.001),
    ],
)
def test_what_is_kept_in_less_costs_next_to_nothing(full: float, options: dict[str, Any], most: float) -> None:
    value = perplexity(UNSEEN[:8000], **options)
    assert value != full  # it is another model
    assert abs(value / full - 1) < most


@pytest.mark.full
def test_the_documented_perplexities_are_those_of_the_model() -> None:
    page = (REPO / "docs" / "reference" / "precision.md").read_text()
    rows = re.findall(r"^\| (?:head (\w+)|keys and values (\w+)) \| ([\d.]+) \|", page, re.MULTILINE)
    assert len(rows) == 6
    for head, kept, documented in rows:
        value = perplexity(UNSEEN, head_dtype=head or "auto", kv_dtype=kept or "float32")
        assert value == pytest.approx(float(documented), abs=0.002), head or kept
