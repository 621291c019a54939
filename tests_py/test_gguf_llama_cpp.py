"""GGUF files that we write, in llama.cpp: with `make test-full`, which builds llama-cpp-python."""

import importlib.util
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from bitnet_rust import BitNetModel, ModelWarning, convert
from conftest import GOLDEN
from exact import Exact
from llama_cpp_process import apart, greedy_tokens, logits, metadata, tokenize
from test_gguf import CORPUS, TOKENIZERS, model_with

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"),
]

LLAMA = GOLDEN / "llama_bitlinear_packed"
KINDS: list[dict[str, Any]] = [{"type": kind} for kind in ("tq1_0", "tq2_0", "f16", "bf16", "f32")]
SPLIT = {"type": "tq2_0", "to": "gguf", "max_shard_size": "100kB"}


@pytest.mark.parametrize("options", [*KINDS, SPLIT], ids=[*(kind["type"] for kind in KINDS), "split"])
def test_llama_cpp_says_the_greedy_tokens_of_the_reference(options: Any, tmp_path: Path) -> None:
    place = tmp_path / ("m" if "to" in options else "m.gguf")
    convert(LLAMA, place, **options)
    first = min(place.glob("m-*.gguf"), default=place)
    golden = np.load(LLAMA / "golden_f32.npz")
    prompts = [golden[f"input_ids_{i}"].ravel().tolist() for i in range(4)]
    want = [golden[f"greedy_{i}"].ravel().tolist()[len(prompt) :] for i, prompt in enumerate(prompts)]
    assert apart(greedy_tokens, first, prompts, [len(tokens) for tokens in want]) == want


@pytest.mark.parametrize(("kind", "intermediate"), [("tq2_0", 512), ("f32", 512), ("tq2_0", 340), ("tq1_0", 340)])
def test_llama_cpp_computes_the_logits_of_a_bitnet(kind: Any, intermediate: int, tmp_path: Path) -> None:
    """Of the architecture `bitnet`: SiLU, norms before the last layers. llama.cpp rounds activations in another way, or not at all, which
    is a fortieth of the logits' deviation; another activation moves them by more than a quarter of it. Layers of 340 columns are F16."""
    shape = {
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": intermediate,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
    ids = [(at * 79 + 11) % 512 for at in range(24)]
    with BitNetModel.from_config(shape | {"architecture": "BitnetForCausalLM"}, seed=1) as model:
        with (
            pytest.warns(ModelWarning, match="2 of 14 ternary layers are F16") if intermediate == 340 else nullcontext()
        ):
            model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type=kind)
        ours = model.forward(ids)
    theirs = apart(logits, tmp_path / "m.gguf", ids)
    best = np.sort(ours, axis=-1)[:, -2:]
    clear = best[:, 1] - best[:, 0] > ours.std() / 4
    assert clear.sum() > 8
    np.testing.assert_array_equal(theirs.argmax(-1)[clear], ours.argmax(-1)[clear])
    assert ((theirs - ours) ** 2).mean() < ours.var() / 20**2
    with BitNetModel.from_config(shape | {"architecture": "BitNetForCausalLM"}, seed=1) as model:
        assert ((model.forward(ids) - ours) ** 2).mean() > ours.var() / 4**2  # squared ReLU


@pytest.mark.parametrize(
    ("kind", "activations", "scale", "within"),
    [
        ("f32", np.float32, np.float32, 1e-4),
        ("f16", np.float16, np.float16, 1e-2),
        ("bf16", ml_dtypes.bfloat16, ml_dtypes.bfloat16, 1e-2),
        ("tq1_0", "q8_k", np.float16, 1e-4),
        ("tq2_0", "q8_k", np.float16, 1e-4),
    ],
)
def test_what_llama_cpp_computes_differs_by_how_it_rounds_activations_alone(
    kind: Any, activations: Any, scale: Any, within: float, tmp_path: Path
) -> None:
    """Where BitNet has int8 of a row, llama.cpp has the type of the weights, or int8 of blocks. The table is float32, as it would round what
    it multiplies by another one too."""
    ids = [(at * 79 + 11) % 512 for at in range(20)]
    with BitNetModel.from_pretrained(LLAMA, head_dtype="float32") as model:
        model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type=kind)
        theirs = apart(logits, tmp_path / "m.gguf", ids, whole_cache=True)
        Exact(model, activations, scale).explain(ids, theirs, within)
        assert np.abs(model.forward(ids) - theirs).max() > 5 * within  # which rounding of BitNet's does not explain


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_makes_our_ids_of_any_text(name: str, tmp_path: Path) -> None:
    with model_with(TOKENIZERS[name](), bos=False) as ours:
        ours.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="tq2_0")
        theirs = apart(tokenize, tmp_path / "m.gguf", CORPUS[1:], special=True)
        for text, ids in zip(CORPUS[1:], theirs, strict=True):
            assert ids == ours.tokenizer.encode(text), text


def test_llama_cpp_splits_texts_as_we_do(tmp_path: Path) -> None:
    with BitNetModel.from_pretrained(LLAMA) as ours:
        ours.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="tq2_0")
        texts = ["First Citizen:\nBefore we proceed", "  a\t b\n\n c", "Grüße 👋 12345"]
        assert apart(tokenize, tmp_path / "m.gguf", texts) == [ours.tokenizer.encode(text) for text in texts]


def test_llama_cpp_has_our_defaults_of_sampling(tmp_path: Path) -> None:
    convert(LLAMA, tmp_path / "hf", to="hf")
    stated = {"temperature": 0.5, "top_k": 7, "top_p": 0.75, "min_p": 0.125, "repetition_penalty": 1.25}
    (tmp_path / "hf" / "generation_config.json").write_text(json.dumps(stated))
    convert(tmp_path / "hf", tmp_path / "m.gguf", type="tq2_0")
    shown = apart(metadata, tmp_path / "m.gguf")
    sampling = {key: float(value) for key, value in shown.items() if key.startswith("general.sampling.")}
    assert sampling == {
        "general.sampling.temp": 0.5,
        "general.sampling.top_k": 7,
        "general.sampling.top_p": 0.75,
        "general.sampling.min_p": 0.125,
        "general.sampling.penalty_repeat": 1.25,
        "general.sampling.penalty_last_n": -1,
    }
