"""The bench reports what it measured, in terms that fit together."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bitnet_rust import ArgumentError, BitNetModel, DTypeError, FileSystemError, bench, build_info, num_threads
from bitnet_rust.bench import subject
from conftest import Terminal

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bitnet_rust.bench.machine.READ_BYTES", 8 << 20)
    monkeypatch.setattr("bitnet_rust.bench.machine.READ_SECONDS", 0.01)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tiny(**options: Any) -> dict[str, Any]:
    return bench.decode("tiny", **{"tokens": 5, "prompt": 3, "repeat": 2} | options)


def test_a_result_is_json_and_its_figures_agree() -> None:
    lines: list[str] = []
    r = json.loads(json.dumps(tiny(progress=lines.append, cache=False)))
    assert r["tokens_per_second_min"] <= r["tokens_per_second"] <= r["tokens_per_second_max"]
    assert r["read_limit_gb_s_min"] <= r["read_limit_gb_s"] <= r["read_limit_gb_s_max"]
    assert r["token_ms_min"] <= r["token_ms_median"] <= r["token_ms_p95"] <= r["token_ms_max"]
    assert len(r["repeats"]) == r["repeat"] == 2
    for part in r["repeats"]:
        used = 1e3 / part["token_ms_median"] * r["bytes_per_token"] / 1e9
        assert part["fraction_of_limit"] == pytest.approx(used / part["read_limit_gb_s"], rel=1e-3)
    assert r["rss_per_weight_byte"] == r["rss_bytes"] / r["weight_bytes"]
    assert r["machine"]["physical_cores"] >= 1
    assert r["isa"] == build_info()["isa"]
    assert len(lines) == 3


def test_a_token_reads_the_weights_of_neurons_that_are_on_and_its_context() -> None:
    r = tiny(head_dtype="int8")
    with BitNetModel.from_config("tiny", head_dtype="int8") as model:
        assert r["weight_bytes"] == model.memory_footprint()
        assert r["parameters"] == model.num_parameters()
        c = model.config
        cache = 2 * 4 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * (3 + 5 / 2)
        lines = c.num_hidden_layers * c.intermediate_size * c.hidden_size / 4  # of up, and of down
        norms = 4 * (c.hidden_size + c.num_hidden_layers * (3 * c.hidden_size + c.intermediate_size))
        skipped = (2 - r["gate_density"] - r["down_density"]) * lines
        row = c.hidden_size + 4  # of the embedding
        expected = model.memory_footprint() - norms + row + cache - skipped
    assert r["bytes_per_token"] == pytest.approx(expected, rel=0.01)
    assert 0 < r["down_density"] <= r["gate_density"] < 1
    assert r["head_dtype"] == "int8"


def test_smaller_heads_read_less() -> None:
    reads = [tiny(head_dtype=dtype)["bytes_per_token"] for dtype in ("bfloat16", "int8", "int4")]
    assert reads == sorted(reads, reverse=True)


@pytest.mark.skipif("avx512vbmi" not in build_info()["features"], reason="needs AVX-512 VBMI")
@pytest.mark.parametrize("cache", [False, True])
def test_base_3_reads_less(cache: bool) -> None:
    two, three = (tiny(packing=packing, cache=cache, isa="avx512") for packing in ("2bit", "base3"))
    assert [r["packing"] for r in (two, three)] == ["2bit", "base3"]
    saved = two["weight_bytes"] - three["weight_bytes"]
    assert saved > 0
    assert two["bytes_per_token"] - three["bytes_per_token"] == pytest.approx(saved, rel=0.01)
    assert "base 3" in bench.report(three)


def test_an_exact_head_reads_its_scores_and_a_few_rows() -> None:
    results = [tiny(head_dtype=dtype) for dtype in ("bfloat16", "exact")]
    full, exact = (r["bytes_per_token"] for r in results)
    assert results[0]["head_rescored"] is None
    assert 0 < results[1]["head_rescored"] < 0.1
    assert "of the head's rows in full precision" in bench.report(results[1])
    with BitNetModel.from_config("tiny") as model:
        table = 2 * model.config.vocab_size * model.config.hidden_size
    assert full - table / 2 < exact < full + table / 2


def test_threads_and_instruction_set_are_for_this_run_only() -> None:
    before, isa = num_threads(), build_info()["isa"]
    r = tiny(threads=1, isa="scalar")
    assert (r["threads"], r["isa"]) == (1, "scalar")
    assert (num_threads(), build_info()["isa"]) == (before, isa)
    for bad in ({"threads": 0}, {"isa": "sse9"}):
        with pytest.raises(ArgumentError, match=str(next(iter(bad.values())))):
            tiny(**bad)
        assert (num_threads(), build_info()["isa"]) == (before, isa)


def test_a_real_model_can_be_measured() -> None:
    r = bench.decode("from-model", model="bitnet-shakespeare", tokens=4, repeat=1)
    assert r["model"] == "bitnet-shakespeare"
    assert "bitnet-shakespeare" in bench.report(r)
    with pytest.raises(ArgumentError, match="from-model"):
        bench.decode("from-model")


@pytest.mark.parametrize("bad", [{"tokens": 1}, {"prompt": 0}, {"repeat": 0}, {"threads": 0}, {"ffn_density": 0.6}])
def test_counts_that_measure_nothing_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(bad))} = "):
        tiny(**bad)


@pytest.mark.parametrize(
    "bad",
    [{"tokens": "many"}, {"prompt": 1.5}, {"repeat": None}, {"threads": "2"}, {"isa": 3}, {"ffn_density": "half"}],
)
def test_options_of_another_type_are_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(DTypeError, match=f"{next(iter(bad))} = "):
        tiny(**bad)


def test_a_density_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(ArgumentError, match="ffn_density = nan: expected a number above 0"):
        tiny(ffn_density=float("nan"))


def test_lists_of_sizes_are_checked_number_by_number() -> None:
    with pytest.raises(ArgumentError, match=r"lengths\[1\] = 0: expected 1 to"):
        bench.context("tiny", lengths=[8, 0])
    with pytest.raises(ArgumentError, match=r"counts\[0\] = 17: expected 0 to 16"):
        bench.guess("tiny", counts=[17])
    with pytest.raises(ArgumentError, match="sizes = 3: expected one number or more"):
        bench.batch("tiny", sizes=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (bench.decode, {"shape": "tiny"}, r"shape = 'tiny': expected 'from-model', or none, with model = "),
        (bench.decode, {"shape": "2b"}, r"shape = '2b': expected 'from-model', or none, with model = "),
        (bench.prefill, {"ffn_density": 0.2}, r"ffn_density = 0.2: expected none with model = "),
        (bench.load, {"shape": "tiny"}, r"shape = 'tiny': expected "),
        (bench.load, {"format": "hf"}, r"format = 'hf': expected none with model = 'bitnet-shakespeare', which has its own"),
        (bench.load, {"kv_dtype": "int8"}, r"kv_dtype = 'int8': expected 'float32'"),
        (bench.load, {"cache": False}, r"cache = False: expected True"),
        (bench.load, {"model": None, "format": "hf", "resident": "map"}, r"resident = 'map': expected 'auto' with format = 'hf'"),
    ],
)  # fmt: skip
def test_options_that_would_mean_nothing_are_refused(call: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call(**{"model": "bitnet-shakespeare"} | options)


def test_a_start_says_what_was_loaded(tmp_path: Path) -> None:
    with BitNetModel.from_config("tiny", head_dtype="int4") as model:
        model.save_pretrained(tmp_path / "m.bitnet")
        model.save_pretrained(tmp_path / "m.gguf", format="gguf")
    native, gguf = (bench.load(model=str(tmp_path / name), repeat=1, threads=1) for name in ("m.bitnet", "m.gguf"))
    assert (native["format"], native["head_dtype"], native["packing"]) == ("native", "int4", "2bit")
    assert gguf["format"] == "gguf"
    assert gguf["head_dtype"] != "int4"


def test_a_keyword_that_no_benchmark_has_is_refused() -> None:
    with pytest.raises(TypeError, match=r"decode\(\) has no keyword kv_type; did you mean kv_dtype"):
        tiny(kv_type="int8")
    with pytest.raises(TypeError, match=r"load\(\) has no keyword thread; did you mean threads"):
        bench.load("tiny", thread=2)  # type: ignore[call-arg]


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(ArgumentError, match="max_position_embeddings = 256"):
        bench.decode(model="bitnet-shakespeare", tokens=250, prompt=7)


def test_the_report_has_a_line_for_each_fact() -> None:
    text = bench.report(tiny())
    for word in (
        "tokens/s",
        "MB a token",
        "GB/s, in the same run",
        "% of the read limit",
        "x weights",
        "threads",
        "gates",
    ):
        assert word in text


def test_random_weights_are_written_once() -> None:
    lines: list[str] = []
    for _ in range(2):
        tiny(progress=lines.append)
    assert sum("writing" in line for line in lines) == 1
    (file,) = subject.cache_directory().iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])  # damaged, or of another version
    tiny()
    first, second = (re.sub(rb'"created":"[^"]*"', b"", content) for content in (whole, file.read_bytes()))
    same = first == second  # a megabyte each, which pytest would show
    assert same
    tiny(head_dtype="int8")
    tiny(ffn_density=0.2)
    tiny(cache=False, seed=3)
    assert len(list(subject.cache_directory().iterdir())) == 3


def test_without_a_place_for_the_cache_weights_are_made_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    lines: list[str] = []
    assert tiny(progress=lines.append)["tokens_per_second"] > 0
    assert any("no cache" in line for line in lines)


def test_weights_from_the_cache_are_those_made_in_memory() -> None:
    options: dict[str, Any] = {"tokens": 8, "repeat": 1, "ffn_density": 0.2}
    cached, made = tiny(**options), tiny(**options, cache=False)
    assert (cached["bytes_per_token"], cached["gate_density"]) == (made["bytes_per_token"], made["gate_density"])


def test_a_busy_process_beside_it_is_measured() -> None:
    b = tiny(burner=True, tokens=20)["burner"]
    assert b["tokens_per_second"] > 0
    assert b["relative_speed_min"] <= b["relative_speed"] <= b["relative_speed_max"]
    assert b["worst_over_median"] == pytest.approx(b["token_ms_max"] / b["token_ms_median"])


def test_reading_a_prompt() -> None:
    r = json.loads(json.dumps(bench.prefill("tiny", tokens=40, repeat=2)))
    assert r["benchmark"] == "prefill"
    assert min(r["tokens_per_second"], r["first_token_ms"]) > 0
    assert r["bytes_per_token"] < tiny()["bytes_per_token"]
    assert "40 tokens in" in bench.report(r)


def test_many_sequences_share_the_weights() -> None:
    r = json.loads(json.dumps(bench.batch("tiny", sizes=[1, 3, 32], tokens=4, prompt=9, repeat=1)))
    one, three, many = r["sizes"]
    assert [s["sequences"] for s in r["sizes"]] == [1, 3, 32]
    assert one["over_first"] == 1
    assert many["bytes_per_token"] < one["bytes_per_token"]
    assert r["tokens_per_second"] == many["tokens_per_second"]
    assert three["step_ms"] == pytest.approx(3e3 / three["tokens_per_second"])
    assert "sequences" in bench.report(r)
    with pytest.raises(ArgumentError, match=r"sizes\[0\] = 33"):
        bench.batch("tiny", sizes=[33])


def test_longer_contexts_read_more() -> None:
    r = json.loads(json.dumps(bench.context("tiny", lengths=[8, 300], tokens=3)))
    short, long = r["lengths"]
    assert long["bytes_per_token"] > short["bytes_per_token"]
    assert short["over_first"] == pytest.approx(1)
    assert r["prompt_tokens_per_second"] == long["prompt_tokens_per_second"] > 0
    assert "context" in bench.report(r)


def test_right_guesses_make_several_tokens_a_step() -> None:
    r = json.loads(json.dumps(bench.guess("tiny", counts=[0, 6], tokens=30, repeat=1)))
    none, some = r["counts"]
    assert (none["guesses"], none["tokens_per_step"], none["over_first"]) == (0, 1, 1)
    assert some["tokens_per_step"] > 4, "random weights that say one token"
    assert some["bytes_per_token"] < none["bytes_per_token"] / 2
    assert r["tokens_per_second"] == some["tokens_per_second"] > 0
    assert "every guess is right" in bench.report(r)
    quoting = bench.guess("from-model", model="bitnet-shakespeare", counts=[4], tokens=40, repeat=1, text="ROMEO:")
    assert quoting["quotes"]
    assert quoting["counts"][0]["tokens_per_step"] > 1
    with pytest.raises(ArgumentError, match="tiny has no tokenizer"):
        bench.guess("tiny", text="ROMEO:")


@pytest.mark.parametrize("format", ["native", "hf", "gguf"])
def test_starts_are_fresh_processes(format: Any) -> None:
    r = json.loads(json.dumps(bench.load("tiny", format=format, repeat=1, threads=1, head_dtype="int8")))
    assert 0 < r["ready_ms"] <= r["first_token_ms"]
    assert r["process_ms"] >= r["import_ms"] + r["first_token_ms"]
    assert (r["threads"], r["format"]) == (1, format)
    with BitNetModel.from_config("tiny", head_dtype="int8") as model:
        assert r["weight_bytes"] == model.memory_footprint()
    assert "from its start to its exit" in bench.report(r)
    if sys.platform == "linux":
        assert r["weight_bytes"] < r["rss_bytes"] <= r["peak_rss_bytes"]
        assert r["peak_rss_per_weight_byte"] == r["peak_rss_bytes"] / r["weight_bytes"]
        assert "MB at most" in bench.report(r)


def test_a_benchmark_gives_its_profile_and_its_picture(tmp_path: Path) -> None:
    r = tiny(profile=True)
    profile = r.pop("profile")
    assert profile.steps == 4
    assert profile.bytes / profile.steps == pytest.approx(r["bytes_per_token"], abs=1)
    assert profile.read_limit_gb_s == r["read_limit_gb_s"]
    pytest.importorskip("matplotlib")
    results = [
        r, bench.prefill("tiny", tokens=8, repeat=1), bench.batch("tiny", sizes=[1, 2], tokens=2, repeat=1),
        bench.context("tiny", lengths=[2, 5], tokens=2), bench.load("tiny", repeat=1),
        bench.guess("tiny", counts=[0, 2], tokens=4, repeat=1),
    ]  # fmt: skip
    for result in results:
        bench.plot(result, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", [["-m", "bench"], ["-m", "bitnet_rust", "bench"]])
def test_both_commands_print_json_on_stdout_and_progress_on_stderr(command: list[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    argv = [sys.executable, *command, "decode", "--shape", "tiny", "--tokens", "4", "--repeat", "1", "--json"]
    done = subprocess.run([*argv, "--profile", str(trace)], cwd=REPO, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["benchmark"] == "decode"
    assert result["profile"]["steps"] == 3
    assert json.loads(trace.read_text())["traceEvents"]
    assert "1/1" in done.stderr


@pytest.mark.parametrize("option", ["--profile", "--plot"])
def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(
    bitnet: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str
) -> None:
    if option == "--plot":
        pytest.importorskip("matplotlib")
    monkeypatch.setattr("bitnet_rust.bench.commands.decode", lambda *a, **o: pytest.fail("it had begun"))
    (tmp_path / "file").touch()
    wrong = tmp_path / "file" / "none.png"
    for place, reason in ((wrong, f"{tmp_path / 'file'} is not a directory"), (tmp_path, "it is a directory")):
        status, out, err = bitnet("bench", "decode", "--shape", "tiny", option, str(place))
        assert (status, out) == (1, "")
        assert f"cannot write {place}: {reason}" in err


def test_a_plot_without_matplotlib_or_of_no_kind_is_refused_before_anything_is_measured(
    bitnet: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bitnet_rust.bench.commands.decode", lambda *a, **o: pytest.fail("it had begun"))
    argv = ("bench", "decode", "--shape", "tiny", "--plot")
    if find_spec("matplotlib"):
        assert "--plot plot.zz: expected a name that ends in one of " in bitnet(*argv, "plot.zz")[2]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert bitnet(*argv, str(tmp_path / "p.png")) == (
        1,
        "",
        "bitnet: a plot needs matplotlib: pip install 'bitnet-rust[viz]'\n",
    )


def test_a_result_is_printed_before_its_files_are_written(
    bitnet: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*args: Any) -> None:
        raise FileSystemError("cannot write trace.json: no space left on device")

    monkeypatch.setattr("bitnet_rust.profile.write_text", full)
    argv = ("bench", "decode", "--shape", "tiny", "--tokens", "4", "--repeat", "1", "--no-cache", "--json")
    status, out, err = bitnet(*argv, "--profile", str(tmp_path / "trace.json"))
    assert status == 1
    assert json.loads(out)["profile"]["steps"] == 3
    assert "no space left on device" in err


def test_a_figure_that_is_no_number_is_null_in_json(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitnet_rust.bench.commands.decode", lambda *args, **options: {"of_bandwidth": float("nan")})
    assert bitnet("bench", "decode", "--json") == (0, '{\n  "of_bandwidth": null\n}\n', "")


def test_every_benchmark_is_a_command(tmp_path: Path) -> None:
    for command in (
        ["prefill", "--tokens", "9"], ["batch", "--size", "1", "--size", "2", "--tokens", "2"],
        ["context", "--length", "5", "--tokens", "2"], ["load", "--prompt", "2"],
        ["guess", "--count", "3", "--tokens", "4"],
    ):  # fmt: skip
        argv = [
            sys.executable,
            "-m",
            "bitnet_rust",
            "bench",
            *command,
            "--shape",
            "tiny",
            "--repeat",
            "1",
            "--isa",
            "scalar",
            *(["--plot", str(tmp_path / "plot.png")] if find_spec("matplotlib") else []),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert "scalar" in done.stdout
        assert "read limit" in done.stdout
        assert (tmp_path / "plot.png").exists() == bool(find_spec("matplotlib"))


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
