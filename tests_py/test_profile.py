"""A profile says where the time of steps went, in figures that fit together."""

import json
from pathlib import Path

import pytest

from bitnet_rust import ArgumentError, BitNetModel, FileSystemError


@pytest.fixture
def model() -> BitNetModel:
    return BitNetModel.from_config("tiny", head_dtype="int8")


def decode(model: BitNetModel, tokens: int = 6) -> None:
    model.generate([1, 2, 3], max_new_tokens=tokens, ignore_eos=True)


def test_the_parts_add_up_to_the_steps(model: BitNetModel) -> None:
    with model.profile(read_limit=False) as profile:
        decode(model)
    assert profile.steps == 6
    assert profile.rows == 3 + 5
    assert sum(one.seconds for one in profile.ops) == pytest.approx(profile.seconds)
    for by in ("op", "layer"):
        assert sum(one.seconds for one in profile.by(by)) == pytest.approx(profile.seconds)  # type: ignore[arg-type]
        assert sum(one.bytes for one in profile.by(by)) == profile.bytes  # type: ignore[arg-type]
    layers = {one.layer for one in profile.ops}
    assert layers == {None, *range(model.config.num_hidden_layers)}
    assert {one.op for one in profile.ops if one.layer == 0} >= {
        "qkv",
        "rope",
        "attention",
        "o",
        "down",
        "norm+quantize",
    }
    assert {one.op for one in profile.ops if one.layer is None} >= {"embedding", "head", "sampler"}


def test_every_weight_that_a_token_needs_is_counted(model: BitNetModel) -> None:
    with model.profile(read_limit=False) as profile:
        decode(model)
    config = model.config
    byte = {one.op: one.bytes / profile.steps for one in profile.by("op")}
    assert byte["head"] == config.vocab_size * config.hidden_size + 4 * config.vocab_size
    assert byte["o"] == config.num_hidden_layers * config.hidden_size * config.hidden_size / 4


def test_densities_are_those_of_neurons_that_were_on() -> None:
    with BitNetModel._random("tiny", 0, head_format="int8", ffn_density=0.2) as model:
        with model.profile(read_limit=False) as profile:
            decode(model, 20)
        assert profile.gate_density == pytest.approx(0.2, abs=0.08)
        assert profile.down_density is not None
        assert 0 < profile.down_density <= profile.gate_density
    with BitNetModel.from_config({"preset": "tiny", "hidden_act": "silu"}) as model:
        with model.profile(read_limit=False) as profile:
            decode(model)
        assert profile.gate_density is None
        assert profile.down_density is None


def test_the_share_of_rows_that_an_exact_head_computes_in_full_is_reported(model: BitNetModel) -> None:
    with BitNetModel.from_pretrained("bitnet-shakespeare", head_dtype="exact") as exact:
        with exact.profile(read_limit=False) as profile:
            exact.generate("First Citizen:", max_new_tokens=20)
        assert profile.head_rescored is not None
        assert 0 < profile.head_rescored < 0.1
        assert f"{100 * profile.head_rescored:.2f} % of the head's rows computed in full precision" in str(profile)
        head = next(one for one in profile.by("op") if one.op == "head")
        scores = exact.config.vocab_size * (
            exact.config.hidden_size + 3 * 4
        )  # int8, a scale, and two numbers of the bound
        table = exact.config.vocab_size * exact.config.hidden_size * 4
        assert head.bytes == pytest.approx(profile.steps * (scores + profile.head_rescored * table), rel=0.01)
    with model.profile(read_limit=False) as profile:
        decode(model)
    assert profile.head_rescored is None


def test_the_table_has_a_line_for_each_kind_of_work(model: BitNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitnet_rust.profile.READ_BYTES", 8 << 20)
    monkeypatch.setattr("bitnet_rust.profile.READ_SECONDS", 0.01)
    with model.profile() as profile:
        decode(model)
    assert profile.read_limit_gb_s is not None
    text = str(profile)
    for word in (
        "qkv",
        "head",
        "sampler",
        "all",
        "ms/step",
        "of limit",
        "6 steps of 8 tokens",
        "GB/s with",
        "gates open",
    ):
        assert word in text
    assert len(profile.table("layer").splitlines()) == 2 + 1 + model.config.num_hidden_layers
    assert len(profile.table("both").splitlines()) == 2 + len(profile.ops)
    with pytest.raises(ArgumentError, match="by = 'head'"):
        profile.by("head")  # type: ignore[arg-type]


def test_the_trace_is_json_with_every_span_inside_its_step(model: BitNetModel, tmp_path: Path) -> None:
    with model.profile(read_limit=False) as profile:
        decode(model)
    profile.save(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    steps = [e for e in events if e["name"] == "step"]
    assert [e["args"]["tokens"] for e in steps] == [3, 1, 1, 1, 1, 1]
    inside = [e for e in events if e.get("cat") == "op" and e["name"] != "sampler"]
    for event in inside:
        assert any(
            s["tid"] == event["tid"]
            and s["ts"] - 1e-3 <= event["ts"]
            and event["ts"] + event["dur"] <= s["ts"] + s["dur"] + 1e-3
            for s in steps
        )
    assert sum(e["dur"] for e in inside) == pytest.approx(sum(s["dur"] for s in steps))
    assert len([e for e in events if e["name"] == "sampler"]) == 6
    assert profile.to_dict()["steps"] == json.loads(json.dumps(profile.to_dict()))["steps"] == 6
    with pytest.raises(FileSystemError, match=r"trace\.json is not a directory"):
        profile.save(tmp_path / "trace.json" / "trace.json")


def test_a_call_gives_its_profile_among_its_details(model: BitNetModel) -> None:
    result = model.generate([1, 2, 3], max_new_tokens=5, details=True, profile=True)
    assert result.token_ids == model.generate([1, 2, 3], max_new_tokens=5)
    assert (result.profile.steps, result.profile.rows) == (5, 7)
    assert "attention" in str(result.profile)
    a, b = model.generate([[1, 2], [3]], max_new_tokens=2, details=True, profile=True)
    assert a.profile is b.profile
    assert model.generate([1], max_new_tokens=2, details=True).profile is None
    for options in ({}, {"details": True, "stream": True}):
        with pytest.raises(ArgumentError, match=r"profile = True: expected details=True .*with model.profile\(\)"):
            model.generate([1], profile=True, **options)


def test_one_profile_at_a_time(model: BitNetModel) -> None:
    with model.profile(read_limit=False) as profile:
        with pytest.raises(ArgumentError, match="profile"), model.profile():
            pass
        with pytest.raises(ArgumentError, match="not complete"):
            _ = profile.steps
        decode(model)
    with model.profile(read_limit=False) as again:
        pass
    assert (profile.steps, again.steps) == (6, 0)
    assert str(again)


def test_an_error_in_the_block_ends_the_profile(model: BitNetModel) -> None:
    with pytest.raises(ZeroDivisionError), model.profile():
        _ = 1 / 0
    with model.profile(read_limit=False) as profile:
        decode(model)
    assert profile.steps == 6


def test_tokens_are_the_same_while_being_profiled(model: BitNetModel) -> None:
    alone = model.generate([5, 6, 7], max_new_tokens=12)
    with model.profile(read_limit=False):
        assert model.generate([5, 6, 7], max_new_tokens=12) == alone
