"""Loads, generates, streams, serves, and looks inside."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from bitnet_rust import (
    BitNetModel,
    Engine,
    GenerationOptions,
    GenerationResult,
    Handle,
    OpTime,
    Piece,
    Profile,
    SamplingOptions,
    Tokenizer,
)


def texts(model: BitNetModel) -> list[str]:
    options: GenerationOptions = {"max_new_tokens": 4, "temperature": 0.8, "top_p": 0.95, "seed": 7}
    one: str = model.generate("First Citizen:", **options)
    several: list[str] = model.generate(["First Citizen:", "ROMEO:"], **options)
    result: GenerationResult = model.generate("ROMEO:", details=True, max_new_tokens=4, logprobs=0)
    streamed = "".join(model.generate("ROMEO:", stream=True, max_new_tokens=4))
    assert streamed == result.text
    assert result.logprobs is not None
    assert len(result.logprobs) == len(result.token_ids)
    return [one, *several, streamed]


def numbers(model: BitNetModel) -> float:
    logits: NDArray[np.float32] = model.forward([5, 6, 7])
    assert logits.shape == (3, 1024)
    tokenizer: Tokenizer | None = model.tokenizer
    assert tokenizer is not None
    ids: list[int] = tokenizer.encode("Before we proceed any further, hear me speak.")
    assert tokenizer.decode(ids).startswith("Before")
    return model.perplexity("Before we proceed any further, hear me speak.")


def profile(model: BitNetModel) -> str:
    with model.profile() as measured:
        model.generate([1, 2, 3], max_new_tokens=2)
    profiled: Profile = measured
    slowest: OpTime = max(profiled.ops, key=lambda op: op.seconds)
    return slowest.op


def served(model: BitNetModel) -> list[str]:
    sampling: SamplingOptions = {"max_new_tokens": 4, "temperature": 0.8, "seed": 7}

    def spelled(piece: Piece) -> str:
        return piece.text

    async def client(engine: Engine, prompt: str) -> str:
        handle: Handle = engine.submit(prompt, priority=1, **sampling)
        return "".join([spelled(piece) async for piece in handle])

    async def clients(engine: Engine) -> list[str]:
        return list(await asyncio.gather(client(engine, "First Citizen:"), client(engine, "ROMEO:")))

    with Engine(model, max_sequences=2) as engine:
        return asyncio.run(clients(engine))
