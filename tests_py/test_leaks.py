"""Memory is flat: over the updates of a training run, over models that come and go, over the requests of an engine and over engines."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, gc, sys
import numpy as np
from bitnet_rust import BitNetModel, Engine, Tokenizer, Trainer, memory_stats

def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

SHAPE = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
OPTIONS = {"batch_size": 2, "context_length": 32, "learning_rate": 1e-3}
TEXT = "To be, or not to be, that is the question. " * 100
ROWS = [list(range(2 + i % 30)) for i in range(200)]

def steps(count):
    seen = {}
    def note(record):
        if record["step"] in (count // 2, count):
            seen[record["step"]] = resident()
    with BitNetModel.from_config(SHAPE, trainable=True) as model:
        model.tokenizer = Tokenizer.bytes()
        Trainer(model, max_steps=count, callbacks=[note], **OPTIONS).train(TEXT)
    return seen[count // 2], seen[count]

def cycles(count):
    for i in range(count):
        model = BitNetModel.from_config(SHAPE, trainable=True)
        model.tokenizer = Tokenizer.bytes()
        trainer = Trainer(model, max_steps=2, **OPTIONS)
        trainer.train(TEXT[:500], ROWS)
        trainer.train(({"input_ids": row} for row in ROWS))
        trainer.train(np.array(ROWS[-1] * 20, np.uint16))
        model.evaluate(ROWS)
        if i % 2:
            trainer.close()
            model.close()
        del trainer, model
        if i == count // 2:
            warm = resident()
    gc.collect()
    assert memory_stats()["live_blocks"] == 0, memory_stats()
    return warm, resident()

def requests(count):
    with BitNetModel.from_config(SHAPE) as model:
        model.tokenizer = Tokenizer.bytes()
        for i in range(count):
            with Engine(model, max_sequences=4, kv_bytes=8 << 20, assistant_model=model) as engine:
                handles = [engine.submit(TEXT[j : 2 * j + 1], max_new_tokens=20, stop="x", logprobs=1, temperature=1.0) for j in range(30)]
                handles[-1].cancel()
                results = [handle.result() for handle in handles[:-1]]
            if i % 3 == 0:
                engine = Engine(model)
                engine.submit(TEXT[:9], max_new_tokens=10**6)
                del engine
            if i == count // 2:
                warm = resident()
        del handles, results
        gc.collect()
    assert memory_stats()["live_blocks"] == 0, memory_stats()
    return warm, resident()

kind, count = sys.argv[1:]
print(*{"steps": steps, "cycles": cycles, "requests": requests}[kind](int(count)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("steps", 200),
        ("cycles", 20),
        ("requests", 20),
        pytest.param("steps", 2000, marks=pytest.mark.full),
        pytest.param("cycles", 200, marks=pytest.mark.full),
        pytest.param("requests", 200, marks=pytest.mark.full),
    ],
)
def test_memory_is_flat(kind: str, count: int) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, kind, str(count)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    warm, end = map(int, done.stdout.split())
    print(f"{kind} {count}: {warm >> 10} KiB at half time, {end >> 10} KiB at the end")
    assert end - warm <= 4 << 20  # the collector's play, and the records that History keeps, two KiB each
