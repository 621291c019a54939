"""GGUF files that we write, in llama.cpp: with `make test-full`, which builds llama-cpp-python."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import BitNetModel, convert
from conftest import GOLDEN
from test_gguf import CORPUS, TOKENIZERS, model_with

pytestmark = pytest.mark.full

LLAMA = GOLDEN / "llama_bitlinear_packed"


@pytest.mark.parametrize("kind", ["tq1_0", "tq2_0", "f16", "bf16", "f32"])
def test_llama_cpp_says_the_greedy_tokens_of_the_reference(kind: Any, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    convert(LLAMA, tmp_path / "m.gguf", type=kind)
    model = llama_cpp.Llama(str(tmp_path / "m.gguf"), n_ctx=256, verbose=False)
    golden = np.load(LLAMA / "golden_f32.npz")
    for i in range(4):
        prompt = golden[f"input_ids_{i}"].ravel().tolist()
        want = golden[f"greedy_{i}"].ravel().tolist()[len(prompt) :]
        model.reset()
        tokens = model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0)
        assert [next(tokens) for _ in want] == want, f"prompt {i}"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_makes_our_ids_of_any_text(name: str, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    with model_with(TOKENIZERS[name](), bos=False) as ours:
        ours.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="tq2_0")
        theirs = llama_cpp.Llama(str(tmp_path / "m.gguf"), vocab_only=True, verbose=False)
        for text in CORPUS[1:]:
            assert theirs.tokenize(text.encode(), add_bos=False, special=True) == ours.tokenizer.encode(text), text


def test_llama_cpp_splits_texts_as_we_do(tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    with BitNetModel.from_pretrained(LLAMA) as ours:
        ours.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="tq2_0")
        theirs = llama_cpp.Llama(str(tmp_path / "m.gguf"), vocab_only=True, verbose=False)
        for text in ("First Citizen:\nBefore we proceed", "  a\t b\n\n c", "Grüße 👋 12345"):
            assert theirs.tokenize(text.encode(), add_bos=False) == ours.tokenizer.encode(text), text
