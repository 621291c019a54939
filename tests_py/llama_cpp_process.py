"""llama.cpp, asked in a process of its own: its library does not stand beside all others (after pyarrow it aborts while it loads a tokenizer)."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np


def apart(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a function of this module gives in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **options).result()


def greedy_tokens(file: Path, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """As many best tokens as each length says after each prompt."""
    model = _load(file, n_ctx=256)
    answers = []
    for prompt, length in zip(prompts, lengths, strict=True):
        model.reset()
        tokens = model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0)
        answers.append([next(tokens) for _ in range(length)])
    return answers


def logits(file: Path, ids: list[int], whole_cache: bool = False) -> np.ndarray:
    """float32 [len(ids), vocabulary]; with whole_cache keys and values are float32, and not float16."""
    cache = {"type_k": 0, "type_v": 0} if whole_cache else {}
    model = _load(file, n_ctx=64, logits_all=True, **cache)
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def tokenize(file: Path, texts: list[str], special: bool = False) -> list[list[int]]:
    """The ids of each text, without one for its beginning."""
    model = _load(file, vocab_only=True)
    return [model.tokenize(text.encode(), add_bos=False, special=special) for text in texts]


def metadata(file: Path) -> dict[str, str]:
    """The file's metadata, as llama.cpp shows them."""
    return dict(_load(file, vocab_only=True).metadata)


def _load(file: Path, **options: Any) -> Any:
    import llama_cpp

    return llama_cpp.Llama(str(file), verbose=False, **options)
