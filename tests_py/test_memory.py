"""The memory of the core as its users see it: counters, giving it back, what is still in use, pressure."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import bitnet_rust
from bitnet_rust import ArgumentError, BitNetModel
from conftest import SLOW

BIG = SLOW | {"num_hidden_layers": 16, "vocab_size": 32768}  # 100 MB


# In a process of its own: here the collector may give back what other tests have left at any time.
STATISTICS = f"""
import bitnet_rust
before = bitnet_rust.memory_stats()
assert before["reserved"] <= before["budget"]
with bitnet_rust.BitNetModel.from_config({SLOW}) as model:
    during = bitnet_rust.memory_stats()
    assert during["requested"] - before["requested"] >= model.memory_footprint() - (1 << 20)
    assert during["requested"] <= during["in_use"] <= during["reserved"] <= during["peak_reserved"]
    assert during["live_blocks"] > before["live_blocks"]
after = bitnet_rust.memory_stats()
assert after["requested"] == before["requested"], (before, after)
assert after["live_blocks"] == before["live_blocks"], (before, after)
"""


def test_statistics_follow_a_model_from_loading_to_closing() -> None:
    subprocess.run([sys.executable, "-c", STATISTICS], check=True, timeout=600)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_trimming_gives_the_memory_of_closed_models_back() -> None:
    with BitNetModel.from_config(SLOW) as model:  # 30 MB: kept for the next when it is closed
        model.generate([1] * 300, max_new_tokens=2)
    full = resident()
    given = bitnet_rust.trim_memory()
    assert given >= 20 << 20
    assert full - resident() > given / 2
    assert bitnet_rust.trim_memory() < 1 << 20


def test_pressure_is_told_once_a_rise_and_until_it_is_canceled() -> None:
    gc.collect()  # what other tests have left is not given back between the limit and the rise
    stats = bitnet_rust.memory_stats()
    told: list[dict[str, Any]] = []
    came = threading.Event()

    def note(stats: dict[str, Any]) -> None:
        told.append(stats)
        came.set()
        if len(told) == 1:
            raise ValueError("printed, and no more")

    limit = stats["in_use"] + (40 << 20)
    cancel = bitnet_rust.on_memory_pressure(limit / stats["budget"], note)
    for rise in (1, 2):
        came.clear()
        with BitNetModel.from_config(BIG):
            assert came.wait(60)
        assert len(told) == rise
        assert told[-1]["in_use"] > limit - (1 << 20)
    cancel()
    cancel()
    with BitNetModel.from_config(BIG):
        pass
    assert len(told) == 2


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_a_pressure_threshold_is_a_share_of_the_budget(threshold: float) -> None:
    with pytest.raises(ArgumentError, match="threshold"):
        bitnet_rust.on_memory_pressure(threshold, print)


def test_live_blocks_are_reported_with_their_places_in_debug_mode() -> None:
    code = """
import bitnet_rust
model = bitnet_rust.BitNetModel.from_pretrained("bitnet-shakespeare", head_dtype="int8")
stream = model.generate([1, 2, 3], stream=True, max_new_tokens=5)
next(stream)
tags = {block["tag"] for block in bitnet_rust.memory_blocks()}
assert tags >= {"weights", "kv cache"}, tags
block = bitnet_rust.memory_blocks()[0]
assert block["bytes"] > 0 and block["references"] == 1 and any("core/" in line for line in block["stack"]), block
stream.close()
model.close()
assert bitnet_rust.memory_blocks() == [], bitnet_rust.memory_blocks()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"BITNET_POOL_DEBUG": "1"}, timeout=600)


@pytest.mark.skipif("BITNET_POOL_DEBUG" in os.environ, reason="the report is there")
def test_without_debug_mode_the_report_says_how_to_get_it() -> None:
    with pytest.raises(ArgumentError, match="BITNET_POOL_DEBUG=1"):
        bitnet_rust.memory_blocks()
