"""The bench reports what it measured, in terms that fit together."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bitnet_rust import ArgumentError, BitNetModel, bench, num_threads

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "READ_BYTES", 8 << 20)
    monkeypatch.setattr(bench, "READ_SECONDS", 0.01)


def tiny(**options: Any) -> dict[str, Any]:
    return bench.decode("tiny", **{"tokens": 5, "prompt": 3, "repeat": 2} | options)


def test_a_result_is_json_and_its_figures_agree() -> None:
    lines: list[str] = []
    r = json.loads(json.dumps(tiny(progress=lines.append)))
    assert r["tokens_per_second_min"] <= r["tokens_per_second"] <= r["tokens_per_second_max"]
    assert r["read_limit_gb_s_min"] <= r["read_limit_gb_s"] <= r["read_limit_gb_s_max"]
    assert r["token_ms_min"] <= r["token_ms_median"] <= r["token_ms_p95"]
    assert r["fraction_of_limit"] <= r["fraction_of_limit_best"]
    assert len(r["repeats"]) == r["repeat"] == 2
    for part in r["repeats"]:
        used = part["tokens_per_second"] * r["bytes_per_token"] / 1e9
        assert part["fraction_of_limit"] == pytest.approx(used / part["read_limit_gb_s"])
    assert r["rss_per_weight_byte"] == r["rss_bytes"] / r["weight_bytes"]
    assert r["machine"]["physical_cores"] >= 1
    assert len(lines) == 3


def test_a_tied_model_reads_all_its_weights_and_its_mean_context() -> None:
    r = tiny(head_dtype="int8")
    with BitNetModel.from_config("tiny", head_dtype="int8") as model:
        assert r["weight_bytes"] == model.memory_footprint()
        assert r["parameters"] == model.num_parameters()
        layers, heads = model.config.num_hidden_layers, model.config.num_key_value_heads
        cache = 2 * 4 * layers * heads * model.config.head_dim * (3 + 4 / 2)
    assert r["bytes_per_token"] == r["weight_bytes"] + cache
    assert r["head_dtype"] == "int8"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_untied_embedding_is_not_read(dtype: str) -> None:
    with BitNetModel.from_config({"preset": "tiny", "dtype": dtype}, head_dtype="int8") as model:
        tied = bench._bytes_per_token(model, context=0)
    untied = {"preset": "tiny", "dtype": dtype, "tie_word_embeddings": False}
    with BitNetModel.from_config(untied, head_dtype="int8") as model:
        assert bench._bytes_per_token(model, context=0) == tied
        assert model.memory_footprint() > tied


def test_smaller_heads_read_less() -> None:
    reads = [tiny(head_dtype=dtype)["bytes_per_token"] for dtype in ("bfloat16", "int8", "int4")]
    assert reads == sorted(reads, reverse=True)


def test_the_number_of_threads_is_for_this_run_only() -> None:
    before = num_threads()
    assert tiny(threads=1)["threads"] == 1
    assert num_threads() == before
    with pytest.raises(ArgumentError):
        tiny(threads=0)
    assert num_threads() == before


def test_a_real_model_can_be_measured() -> None:
    r = bench.decode(model="bitnet-shakespeare", tokens=4, repeat=1)
    assert r["model"] == "bitnet-shakespeare"
    assert "bitnet-shakespeare" in bench.report(r)


@pytest.mark.parametrize("bad", [{"tokens": 1}, {"prompt": 0}, {"repeat": 0}])
def test_counts_that_measure_nothing_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(bad))} = "):
        tiny(**bad)


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(ArgumentError, match="max_position_embeddings = 256"):
        tiny(tokens=250, prompt=7)


def test_the_report_has_a_line_for_each_fact() -> None:
    text = bench.report(tiny())
    for word in ("tokens/s", "MB a token", "GB/s, in the same run", "% of the read limit", "x weights", "threads"):
        assert word in text


@pytest.mark.parametrize("command", [["-m", "bench"], ["-m", "bitnet_rust", "bench"]])
def test_both_commands_print_json_on_stdout_and_progress_on_stderr(command: list[str]) -> None:
    argv = [sys.executable, *command, "decode", "--shape", "tiny", "--tokens", "4", "--repeat", "1", "--json"]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["benchmark"] == "decode"
    assert "1/1" in done.stderr


def test_a_shape_that_is_not_registered_is_one_line_on_stderr() -> None:
    argv = [sys.executable, "-m", "bench", "decode", "--shape", "nope"]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("bitnet: ")


CHILD = """
import sys
sys.path.insert(0, ".")
from bench.windows import Windows
windows = Windows(3)
print("a line of something else")
while windows.update():
    pass
"""


def test_sides_of_a_comparison_take_turns() -> None:
    sys.path.insert(0, str(REPO))
    try:
        from bench.windows import Side, SideError
    finally:
        sys.path.remove(str(REPO))
    side = Side("child", [sys.executable, "-c", CHILD], REPO, {})
    try:
        assert side.result()["updates"] == 3  # the warm-up
        for _ in range(2):
            report = side.window(0.01)
            assert report["seconds"] >= 0.01
            assert report["updates"] >= 1
            assert report["peak_rss"] > 1 << 20
    finally:
        side.close()
    broken = Side("torch float32", [sys.executable, "-c", "import no_such_module"], REPO, {})
    with pytest.raises(SideError, match="torch float32 ended: ModuleNotFoundError: No module named 'no_such_module'"):
        broken.result()
    broken.close()


def test_random_gates_can_be_mostly_off() -> None:
    assert tiny(ffn_density=0.2)["tokens_per_second"] > 0
    with pytest.raises(ArgumentError, match="ffn_density"):
        tiny(ffn_density=0.7)
