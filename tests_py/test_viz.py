"""Pictures: what they show is what the model, the run or the profile has."""

import json
import math
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetConfig,
    BitNetModel,
    Callback,
    FileSystemError,
    History,
    Tensor,
    Tokenizer,
    Trainer,
    nn,
    viz,
)
from bitnet_rust.errors import MissingExtraError
from bitnet_rust.progress import progress_of
from bitnet_rust.viz.svg import line_chart, ticks
from conftest import REPO

pytest.importorskip("matplotlib")

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def model() -> Iterator[BitNetModel]:
    with BitNetModel.from_config(SHAPE, seed=3) as made:
        made.tokenizer = Tokenizer.characters("".join(map(chr, range(40, 100))))
        yield made


@pytest.fixture(scope="module")
def trainable() -> Iterator[BitNetModel]:
    with BitNetModel.from_config(SHAPE, seed=3, trainable=True) as made:
        yield made


# --- weights and attention -------------------------------------------------------------------------------------------


def test_the_weights_are_all_that_the_model_holds(model: BitNetModel) -> None:
    listed = {one.name: one for one in model.weights()}
    assert sum(one.bytes for one in listed.values()) == model.memory_footprint()
    assert sum(math.prod(one.shape) for one in listed.values()) == model.num_parameters()
    up = listed[UP]
    assert (up.shape, up.dtype) == ((48, 32), "ternary")
    assert up.scale is not None
    codes = model.weight(UP)
    assert (codes.shape, codes.dtype) == ((48, 32), "int8")
    assert set(codes.numpy().ravel().tolist()) == {-1, 0, 1}
    norm = listed["model.norm.weight"]
    assert (norm.shape, norm.dtype, norm.scale) == ((32,), "float32", None)
    assert model.weight(norm.name).numpy().tolist() == [1.0] * 32
    with pytest.raises(ArgumentError, match="expected one of the names that weights"):
        model.weight("model.layers.9.mlp.up_proj.weight")


def test_a_quantization_error_is_that_of_codes_times_scale(model: BitNetModel, trainable: BitNetModel) -> None:
    up = next(one for one in trainable.weights() if one.name == UP)
    master = dict(trainable.named_parameters())[UP].detach().numpy()
    error = master - trainable.weight(UP).numpy() * np.float32(up.scale)
    found = trainable.quantization_error(UP)
    assert found.mse == pytest.approx(float((error**2).mean()), rel=1e-5)
    assert found.sqnr == pytest.approx(10 * math.log10(float((master**2).sum() / (error**2).sum())), rel=1e-5)
    assert found.max == pytest.approx(float(np.abs(error).max()), rel=1e-5)
    with pytest.raises(ArgumentError, match="expected a ternary one of a trainable model"):
        model.quantization_error(UP)
    with pytest.raises(ArgumentError, match="expected a ternary one"):
        trainable.quantization_error("model.norm.weight")


def test_attentions_are_the_softmax_of_queries_and_keys(trainable: BitNetModel) -> None:
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    weight = {name: p.detach() for name, p in trainable.named_parameters()}
    x = weight["model.embed_tokens.weight"].embedding(ids)
    layer = "model.layers.0."
    x = nn.functional.rms_norm(x, weight[layer + "input_layernorm.weight"], trainable.config.rms_norm_eps)

    def heads(name: str, count: int) -> np.ndarray:
        projected = nn.functional.bit_linear(x, weight[f"{layer}self_attn.{name}_proj.weight"])
        turned = nn.functional.rope(projected.reshape(1, len(ids), count, 8), trainable.config.rope_theta)
        return turned.numpy()[0].swapaxes(0, 1)

    q, k = heads("q", 4), heads("k", 2).repeat(2, axis=0)
    scores = q @ k.swapaxes(1, 2) / math.sqrt(8) + np.triu(np.full((8, 8), -np.inf), 1)
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    found = trainable.attentions(ids)
    assert found.shape == (2, 4, 8, 8)
    np.testing.assert_allclose(found[0], expected, atol=2e-6)
    np.testing.assert_array_equal(trainable.attentions(ids, 1)[0], found[1])
    with pytest.raises(ArgumentError, match="layers"):
        trainable.attentions(ids, [2])
    with pytest.raises(ArgumentError, match="prompt is empty"):
        trainable.attentions([])


# --- figures ---------------------------------------------------------------------------------------------------------


def test_a_ternary_map_has_the_codes(model: BitNetModel) -> None:
    image = viz.ternary_map(model, UP, row=8, column=4, size=16).axes[0].images[0]
    np.testing.assert_array_equal(image.get_array(), model.weight(UP).numpy()[8:24, 4:20])
    whole = viz.ternary_map(model, UP).axes[0].images[0]
    assert whole.get_array().shape == (48, 32)
    with pytest.raises(ArgumentError, match="expected a ternary weight, found float32"):
        viz.ternary_map(model, "model.norm.weight")
    with pytest.raises(ArgumentError, match="row"):
        viz.ternary_map(model, UP, row=48)


def test_shares_and_errors_have_a_number_for_each_projection(model: BitNetModel, trainable: BitNetModel) -> None:
    def numbers(figure: object) -> np.ndarray:
        return np.asarray(figure.axes[0].images[0].get_array())  # type: ignore[attr-defined]

    shares = numbers(viz.ternary_shares(model))
    assert shares.shape == (7, 2)
    assert shares[5, 1] == pytest.approx(100 * float((model.weight(UP).numpy() == 0).mean()))
    colors = {(text.get_position(), text.get_color()) for text in viz.ternary_shares(model).axes[0].texts}
    high, low = (np.unravel_index(place, shares.shape)[::-1] for place in (shares.argmax(), shares.argmin()))
    assert {(tuple(map(int, high)), "black"), (tuple(map(int, low)), "white")} <= colors  # to be read on its colour
    picture = viz.quantization_errors(trainable)
    errors = numbers(picture)
    assert errors[5, 1] == pytest.approx(trainable.quantization_error(UP).sqnr)
    assert np.ptp(errors) < 1  # so that one digit would be the same in cells of other colours
    assert [text.get_text() for text in picture.axes[0].texts] == [f"{error:.2f}" for error in errors.flat]
    with pytest.raises(ArgumentError, match="trainable model"):
        viz.quantization_errors(model)


def test_histograms_of_masters_codes_and_floats(model: BitNetModel, trainable: BitNetModel) -> None:
    codes = viz.weight_histogram(model, UP).axes[0]
    assert [bar.get_height() for bar in codes.patches] == [
        int((model.weight(UP).numpy() == c).sum()) for c in (-1, 0, 1)
    ]
    masters = viz.weight_histogram(trainable, UP, bins=20).axes[0]
    assert {text.get_text() for text in masters.get_legend().get_texts()} == {"becomes -1", "becomes 0", "becomes 1"}
    floats = viz.weight_histogram(model, "model.embed_tokens.weight", bins=10).axes[0]
    assert sum(bar.get_height() for bar in floats.patches) == 64 * 32


def test_attention_maps_show_one_head_or_all(model: BitNetModel) -> None:
    figure = viz.attention_map(model, "HELLO", layer=1)
    assert [axes.get_title() for axes in figure.axes[:4]] == [f"head {i}" for i in range(4)]
    one = viz.attention_map(model, "HELLO", layer=1, head=2)
    ids = model.tokenizer.encode("HELLO")
    np.testing.assert_array_equal(one.axes[0].images[0].get_array(), model.attentions(ids, 1)[0, 2])
    assert [label.get_text() for label in one.axes[0].get_xticklabels()] == list("HELLO")
    with pytest.raises(ArgumentError, match="at most 512"):
        viz.attention_map(model, [1] * 513)


def test_training_curves_show_the_records(tmp_path: Path) -> None:
    records = [{"step": i, "loss": 3.0 - i, "learning_rate": 0.1} for i in (1, 2)] + [
        {"step": 3, "loss": 0.5, "eval_loss": 0.6}
    ]
    losses, rates = viz.training_curves(History(records)).axes
    assert [line.get_ydata().tolist() for line in losses.lines] == [[2.0, 1.0, 0.5], [0.6]]
    assert rates.lines[0].get_ydata().tolist() == [0.1, 0.1]
    assert len(History(records).plot(tmp_path / "losses.svg").axes) == 1
    assert ElementTree.fromstring((tmp_path / "losses.svg").read_text()).tag.endswith("svg")
    log = tmp_path / "log.jsonl"
    log.write_text(
        "".join(json.dumps(one) + "\n" for one in [{"event": "resumed", "step": 1}, *records]) + '{"step": 4, "lo'
    )
    assert viz.training_curves(log).axes[0].lines[0].get_xdata().tolist() == [1, 2, 3]
    with pytest.raises(ArgumentError, match="found no record of an update"):
        History().plot()
    with pytest.raises(FileSystemError, match="none"):
        viz.training_curves(tmp_path / "none.jsonl")


class Watch(Callback):
    """The codes after each update."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def on_run_start(self, trainer: Trainer) -> None:
        self.seen.append(trainer.model.weight(UP).numpy())

    def on_step(self, trainer: Trainer, record: object) -> None:
        self.seen.append(trainer.model.weight(UP).numpy())


def test_a_run_is_followed_by_callbacks(tmp_path: Path) -> None:
    changes, watch = viz.TernaryChanges(every=2), Watch()
    with BitNetModel.from_config(SHAPE, seed=3, trainable=True) as model:
        history = Trainer(
            model, max_steps=5, batch_size=2, context_length=16, learning_rate=1e-2,
            callbacks=[changes, watch, viz.LivePlot(tmp_path / "live.svg")],
        ).train(list(range(64)) * 4)  # fmt: skip
    assert changes.steps == [2, 4]
    for i, at in enumerate(changes.steps):
        assert changes.changed[UP][i] == float((watch.seen[at] != watch.seen[at - 2]).mean()) > 0
    picture = viz.ternary_changes(changes).axes[0].images[0].get_array()
    assert picture.shape == (14, 2)
    live = ElementTree.fromstring((tmp_path / "live.svg").read_text())
    (line,) = live.findall("{*}polyline")
    assert len(line.get("points", "").split()) == len(history) == 5
    assert viz.memory_timeline(history).axes[0].lines[1].get_ydata().tolist() == [
        r["pool_bytes"] / 2**20 for r in history
    ]
    with pytest.raises(ArgumentError, match="at least 10 updates"):
        viz.ternary_changes(viz.TernaryChanges())


def test_a_live_plot_needs_a_notebook_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="outside of one"):
        viz.LivePlot()
    with pytest.raises(ArgumentError, match=r"ends in \.svg"):
        viz.LivePlot(tmp_path / "plot.png")


def test_a_memory_recorder_sees_what_a_block_takes() -> None:
    size = {"vocab_size": 4096, "hidden_size": 256}
    with viz.MemoryRecorder() as memory, BitNetModel.from_config(SHAPE | size, head_dtype="float32") as model:
        held = model.memory_footprint()
        memory.mark("a model")
    first, last = memory.samples[0], memory.samples[-1]
    assert memory.peak >= held
    assert last["in_use"] < memory.peak
    assert first["seconds"] <= memory.marks[0][0] <= last["seconds"]
    axes = viz.memory_timeline(memory).axes[0]
    assert [line.get_label() for line in axes.lines[:3]] == ["reserved from the system", "in use", "asked for"]
    with pytest.raises(ArgumentError, match="found no samples"):
        viz.memory_timeline(viz.MemoryRecorder())


def test_a_roofline_places_work_by_its_multiplications(model: BitNetModel) -> None:
    with model.profile(read_limit=False) as profile:
        model.generate([1, 2, 3], max_new_tokens=4)
    work = {one.op: one for one in profile.by("op")}
    # Two layers; three tokens of a prompt and three that were fed back.
    assert work["qkv"].multiplications == 2 * 6 * (32 + 16 + 16) * 32
    assert work["attention"].multiplications == 2 * sum(range(1, 7)) * 2 * 32
    assert work["head"].multiplications == 4 * 64 * 32
    with pytest.raises(ArgumentError, match="no read limit"):
        viz.roofline(profile)
    profile.read_limit_gb_s = 10.0
    axes = viz.roofline(profile).axes[0]
    placed = {text.get_text(): text.xy for text in axes.texts}
    by_height = sorted((text.xy[1], text.get_ha()) for text in axes.texts if text.get_text() in work)
    assert [side for _, side in by_height] == ["left", "right", "left", "right", "left", "right"][: len(by_height)]
    qkv = work["qkv"]
    assert placed["qkv"] == pytest.approx((qkv.multiplications / qkv.bytes, qkv.multiplications / qkv.seconds / 1e9))


def test_a_figure_is_written_whole_or_not_at_all(model: BitNetModel, tmp_path: Path) -> None:
    place = tmp_path / "map.png"
    figure = viz.ternary_map(model, UP, path=place)
    assert place.read_bytes().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match=r"ends in one of .*pdf"):
        viz.ternary_map(model, UP, path=tmp_path / "map.zz")
    with pytest.raises(FileSystemError, match=r"map\.png is not a directory"):
        viz.ternary_map(model, UP, path=place / "none" / "map.png")
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]


def test_without_matplotlib_the_command_is_named(model: BitNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"a plot needs matplotlib: pip install 'bitnet-rust\[viz\]'"):
        viz.weight_histogram(model, UP)
    assert viz.architecture(model)
    assert History([{"step": 1, "loss": 1.0}])._repr_html_()


# --- without a library -----------------------------------------------------------------------------------------------


def texts(svg: str) -> list[str]:
    return ["".join(one.itertext()) for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("text")]


def test_the_architecture_has_the_shapes(model: BitNetModel, tmp_path: Path) -> None:
    diagram = viz.architecture(model, path=tmp_path / "model.svg")
    assert (tmp_path / "model.svg").read_text() == diagram == diagram._repr_svg_()
    shown = texts(diagram)
    for text in ("2 layers", "q   32 x 32", "k   16 x 32", "gate   48 x 32", "down   32 x 48", "embedding   64 x 32"):
        assert text in shown
    assert any("4 heads of 8, 2 of keys and values" in text for text in shown)
    assert shown.count("RMSNorm (sub-norm)") == 2


def test_the_picture_in_the_documentation_is_of_today() -> None:
    """To draw it anew: viz.architecture(model, path="docs/images/architecture.svg")."""
    with BitNetModel.from_pretrained("bitnet-shakespeare") as embedded:
        assert (REPO / "docs" / "images" / "architecture.svg").read_text() == viz.architecture(embedded)


def test_the_architecture_tells_float_layers_and_a_gpt2() -> None:
    kept = BitNetConfig.from_dict(
        SHAPE
        | {
            "architectures": ["LlamaForCausalLM"],
            "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["down_proj"]},
        }
    )
    fills = {rect.get("fill") for rect, text in _labelled(viz.architecture(kept)) if text.startswith(("up", "down"))}
    assert len(fills) == 2
    gpt2 = BitNetConfig.from_dict(
        {
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": 64,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
    )
    shown = texts(viz.architecture(gpt2))
    assert "LayerNorm" in shown
    assert any(text.startswith("+ learned positions") for text in shown)
    assert not any(text.startswith("gate") for text in shown)


def _labelled(svg: str) -> list[tuple[ElementTree.Element, str]]:
    """Boxes with the text that follows each."""
    parts = list(ElementTree.fromstring(svg))
    return [
        (part, "".join(then.itertext()))
        for part, then in pairwise(parts)
        if part.tag.endswith("rect") and then.tag.endswith("text")
    ]


def test_a_chart_leaves_out_what_is_not_finite() -> None:
    chart = line_chart({"a<b": [(1, 2.0), (2, math.nan), (3, math.inf), (4, 3.0)]}, x_label="x", y_label="y & z")
    (line,) = ElementTree.fromstring(chart).findall("{*}polyline")
    assert len(line.get("points", "").split()) == 2
    assert {"a<b", "y & z"} <= set(texts(chart))
    assert "no data yet" in texts(line_chart({"a": []}, x_label="x", y_label="y"))
    many = line_chart({"a": [(i, i % 7) for i in range(100_000)]}, x_label="x", y_label="y")
    assert len(many) < 60_000


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3.2, 3.3), (-7, 1e9), (5, 5), (0, 0), (1e-9, 2e-9)])
def test_ticks_are_round_and_hold_the_range(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 12
    assert found[0] <= low <= high <= found[-1]
    assert all(len(f"{t:.3g}") <= 8 and float(f"{t:.3g}") == t for t in found)


# --- notebooks' representations --------------------------------------------------------------------------------------


def test_a_model_shows_its_tree(model: BitNetModel, tmp_path: Path) -> None:
    page = model._repr_html_()
    assert "0 to 1" in page  # layers that are alike are one
    assert "ternary 48 x 32" in page
    assert f"{model.num_parameters():,}" in page
    hostile = tmp_path / "<b>&name"
    model.save_pretrained(hostile)
    with BitNetModel.from_pretrained(hostile) as loaded:
        page = loaded._repr_html_()
        assert "&lt;b&gt;&amp;name" in page
        assert "<b>&name" not in page
        assert str(tmp_path) not in page
    assert "closed" in loaded._repr_html_()


def test_a_history_shows_its_losses() -> None:
    page = History([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])._repr_html_()
    assert "2 updates" in page
    assert "<polyline" in page
    assert "<svg" not in History()._repr_html_()


def test_a_tensor_shows_its_corner() -> None:
    page = Tensor(np.arange(60, dtype=np.float32).reshape(6, 10))._repr_html_()
    assert "6 x 10" in page
    assert "0 to 59" in page
    assert page.count("…") == 6  # two columns of six rows are not shown
    assert "the first matrix" in Tensor.zeros((2, 2, 2))._repr_html_()
    for other in (
        Tensor([True, False]),
        Tensor(3.5),
        Tensor.zeros((0, 2)),
        Tensor([1, 0, -1], dtype="ternary"),
        Tensor([1.0], dtype="bfloat16", requires_grad=True),
    ):
        assert other.dtype in other._repr_html_()


def test_progress_is_a_function_a_bar_or_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    with progress_of(lambda done, total: told.append((done, total)), "x") as progress:
        assert progress is not None
        progress(1, 2)
    assert told == [(1, 2)]
    for nothing in (None, False):
        with progress_of(nothing, "x") as progress:
            assert progress is None
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with progress_of(True, "counting [things]", "count") as progress:
            assert progress is not None
            progress(1, 20)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert ("counting [things]" in shown.err) == terminal
