"""Other programs are measured in turns with this one, and what cannot take part says why."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
try:
    from bench.peers import compare
    from bench.peers.environment import PeerError, quantized
    from bench.peers.sides import LlamaBench, Server
finally:
    sys.path.remove(str(REPO))

LLAMA_BENCH = """#!{python}
import json, sys
count = int(sys.argv[sys.argv.index("-n") + 1]) or int(sys.argv[sys.argv.index("-p") + 1])
print(json.dumps([{{"avg_ts": count / 2}}]))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bitnet_rust.bench.machine.READ_BYTES", 8 << 20)
    monkeypatch.setattr("bitnet_rust.bench.machine.READ_SECONDS", 0.01)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def llama_bench(tmp_path: Path) -> Path:
    """A program that talks as llama-bench does."""
    path = tmp_path / "llama-bench"
    path.write_text(LLAMA_BENCH.format(python=sys.executable))
    path.chmod(0o755)
    return path


def measure(**options: Any) -> dict[str, Any]:
    small: dict[str, Any] = {"tokens": 8, "prompt": 20, "sequences": 2, "rounds": 2, "threads": 1, "packages": ()}
    return compare.measure("tiny", **small | options)


def test_sides_take_turns_and_are_compared_within_a_round(llama_bench: Path) -> None:
    r = json.loads(json.dumps(measure(binaries=[("built", f"{llama_bench} -fa 1", llama_bench)])))
    ours, built = r["sides"]
    assert (ours["name"], built["name"]) == ("bitnet_rust", "built")
    for task in ("decode", "prompt", "batch"):
        assert len(ours[f"{task}_values"]) == 2
        assert ours[f"{task}_ours_over_this"] == 1
    assert built["decode_values"] == [4, 4]
    assert built["prompt_values"] == [10, 10]
    assert built["batch"] is None  # llama-bench has no such task
    assert built["decode_ours_over_this"] == pytest.approx(sum(ours["decode_values"]) / 2 / 4)
    text = compare.report(r)
    assert "built" in text
    assert "2 sequences" in text


def test_what_cannot_take_part_says_why(tmp_path: Path, llama_bench: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text(f"#!{sys.executable}\nimport sys; sys.exit('no such model')\n")
    broken.chmod(0o755)
    r = measure(
        rounds=1,
        binaries=[
            ("missing", str(tmp_path / "nowhere"), llama_bench),
            ("without model", str(llama_bench), None),
            ("broken", str(broken), llama_bench),
        ],
    )
    assert [side["name"] for side in r["sides"]] == ["bitnet_rust"]
    assert "nowhere: there is no such file" in r["absent"]["missing"]
    assert "GGUF" in r["absent"]["without model"]
    assert "no such model" in r["absent"]["broken"]
    for name in r["absent"]:
        assert f"{name}: " in compare.report(r)


def test_a_programs_own_quantizer_makes_its_file_once(tmp_path: Path) -> None:
    quantizer = tmp_path / "llama-quantize"
    with pytest.raises(PeerError, match="llama-quantize: there is no such file, to make a GGUF file in IQ2_BN"):
        quantized(Path(sys.executable), "tiny", quantizer, "IQ2_BN", print)
    cache = tmp_path / "cache" / "bitnet_rust" / "bench"
    cache.mkdir(parents=True)

    def quantizes(code: str) -> None:
        quantizer.write_text(f"#!{sys.executable}\nimport pathlib, sys\n{code}\n")
        quantizer.chmod(0o755)
        (cache / "tiny-F16.gguf").write_text("floats")

    quantizes("pathlib.Path(sys.argv[-2]).write_text('half'); sys.exit('no such type')")
    with pytest.raises(PeerError, match="no GGUF file of tiny in IQ2_BN: no such type"):
        quantized(Path(sys.executable), "tiny", quantizer, "IQ2_BN", print)
    assert list(cache.iterdir()) == []
    quantizes("pathlib.Path(sys.argv[-2]).write_text(pathlib.Path(sys.argv[-3]).read_text() + ' as ' + sys.argv[-1])")
    for _ in range(2):
        file = quantized(Path(sys.executable), "tiny", quantizer, "IQ2_BN", print)
        assert file.read_text() == "floats as IQ2_BN"
        quantizer.unlink(missing_ok=True)
    assert list(cache.iterdir()) == [file]


def test_a_process_that_ends_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="side ended: ModuleNotFoundError: No module named 'no_such_module'"):
        Server("side", [sys.executable, "-c", "import no_such_module"], tmp_path, 1)
    quiet = tmp_path / "quiet"
    quiet.write_text(f"#!{sys.executable}\nprint('hello')\n")
    quiet.chmod(0o755)
    with pytest.raises(PeerError, match="no figures in what it printed: hello"):
        LlamaBench("quiet", quiet, quiet, 1, []).run({"task": "decode", "tokens": 2})


def test_blocks_of_gguf_have_the_sizes_of_their_formats() -> None:
    gguf = pytest.importorskip("gguf")
    np = pytest.importorskip("numpy")
    sys.path.insert(0, str(REPO))
    try:
        from bench.peers.write_gguf import blocks
    finally:
        sys.path.remove(str(REPO))
    kinds = gguf.GGMLQuantizationType
    for kind, size in ((kinds.TQ1_0, 54), (kinds.TQ2_0, 66), (kinds.Q6_K, 210), (kinds.F16, 512)):
        made = blocks(np.random.default_rng(0), kind, 3, 512)
        assert made.shape == (3, 2 * size)
        values = gguf.quants.dequantize(made, kind)
        assert values.shape == (3, 512)
        assert np.isfinite(values).all()
        if kind != kinds.Q6_K:
            assert len(np.unique(values)) == 3


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--format=TQ3_0", r"--format TQ3_0: expected one of TQ2_0, TQ1_0"),
        ("--package=vllm", r"--package vllm: expected one of "),
    ],
)
def test_names_are_checked_before_anything_is_installed(
    monkeypatch: pytest.MonkeyPatch, option: str, message: str
) -> None:
    monkeypatch.setattr(compare, "measure", lambda *args, **options: pytest.fail("it had begun"))
    app = typer.Typer()
    app.command()(compare.command)
    done = CliRunner().invoke(app, [option])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
