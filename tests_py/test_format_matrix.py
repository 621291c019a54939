"""Every format out and back: the golden models keep their ternary codes, their scales to the format's precision, and what they say."""

import json
import random
import re
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitnet_rust import ArgumentError, BitNetModel, ModelWarning, convert, inspect_model
from conftest import GOLDEN, REPO, Terminal

PARITY = REPO / "tests_go" / "testdata" / "parity"
MODELS = ("bitnet_offline_packed", "bitnet_online_bf16", "llama_bitlinear_packed")


@dataclass(frozen=True)
class Format:
    """A row of the matrix."""

    name: str
    target: str
    precision: float = 0.0  # relative error of a scale
    options: dict[str, Any] = field(default_factory=dict)


HALF, BRAIN, INVERSE = 2.0**-11, 2.0**-8, 2.0**-23
FORMATS = [
    Format("native", "m.bitnet"),
    Format("native-zstd", "m.bitnet", options={"compression": "zstd"}),
    Format("native-base3", "m.bitnet", options={"packing": "base3"}),
    Format("native-shards", "native", options={"to": "native", "max_shard_size": "100KB"}),
    Format("hf-autobitlinear", "hf", options={"to": "hf", "linear_class": "autobitlinear"}),
    Format("hf-bitlinear", "hf", INVERSE, {"to": "hf", "linear_class": "bitlinear"}),  # the scale's inverse is stored
    Format("hf-shards", "hf", INVERSE, {"to": "hf", "max_shard_size": "100KB"}),
    Format("hf-master", "masters", options={"to": "hf-master", "derive_masters": True}),
    Format("gguf-i2_s", "m.gguf", options={"type": "i2_s"}),
    Format("gguf-tq1_0", "m.gguf", HALF, {"type": "tq1_0"}),
    Format("gguf-tq2_0", "m.gguf", HALF, {"type": "tq2_0"}),
    Format("gguf-f16", "m.gguf", HALF, {"type": "f16"}),
    Format("gguf-bf16", "m.gguf", BRAIN, {"type": "bf16"}),
    Format("gguf-f32", "m.gguf", options={"type": "f32"}),
    Format("gguf-split", "split", HALF, {"to": "gguf", "type": "tq2_0", "max_shard_size": "100KB"}),
    Format("onnx-int8", "onnx/m.onnx", options={"type": "int8"}),
    Format("onnx-int2", "onnx/m.onnx", options={"type": "int2"}),
    Format("onnx-no-cache", "onnx/m.onnx", options={"type": "int8", "use_cache": False}),
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, NDArray[Any]]]:
    """The tensors of the models themselves, as a packed checkpoint has them."""
    place = tmp_path_factory.mktemp("packed")
    return {name: tensors(GOLDEN / name, place / name) for name in MODELS}


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("model", MODELS)
def test_out_and_back(model: str, form: Format, packed: dict[str, dict[str, NDArray[Any]]], tmp_path: Path) -> None:
    there, options = tmp_path / form.target, dict(form.options)
    if model == "bitnet_online_bf16":  # has masters
        options.pop("derive_masters", None)
    done = convert(GOLDEN / model, there, **options)
    assert done.agrees
    if form.precision == 0:
        assert done.max_difference == 0
    back = tensors(there, tmp_path / "back")
    assert back.keys() == packed[model].keys()
    for name, values in packed[model].items():
        if name.endswith("weight_scale"):
            np.testing.assert_allclose(back[name], values, rtol=form.precision, err_msg=name)
        else:
            np.testing.assert_array_equal(back[name], values, err_msg=name)
    golden = np.load(GOLDEN / model / "golden_f32.npz")
    with BitNetModel.from_pretrained(there) as loaded:
        prompts = [golden[f"input_ids_{i}"].ravel() for i in range(4)]
        said = loaded.generate([p.tolist() for p in prompts], max_new_tokens=64)
    for i, prompt in enumerate(prompts):
        assert said[i] == golden[f"greedy_{i}"].ravel().tolist()[len(prompt) :], f"prompt {i}"


def drawn(seed: int) -> dict[str, Any]:
    """The configuration of a small model of any shape."""
    draw = random.Random(seed)
    heads, dim = draw.choice([1, 2, 3, 4, 6]), draw.choice([2, 8, 10, 32, 64])
    family = draw.choice(["BitNetForCausalLM", "BitnetForCausalLM", "LlamaForCausalLM"])
    linear = {"linear_class": draw.choice(["autobitlinear", "bitlinear"]), "use_rms_norm": draw.random() < 0.15}
    kept = draw.choice([[], [], [], ["lm_head", "o_proj"], ["model.layers.0.mlp"]])
    scaling = [None, None, {"rope_type": "linear", "factor": 3.3}, {"rope_type": "llama3", "factor": 8.0, **LLAMA3}]
    return {
        "architectures": [family],
        "vocab_size": draw.randint(2, 90),
        "hidden_size": draw.choice([heads * dim, 4 * draw.randint(1, 70), 256]) if "Llama" in family else heads * dim,
        "intermediate_size": draw.choice([draw.randint(1, 300), 4 * draw.randint(1, 70), 256]),
        "num_hidden_layers": draw.randint(1, 3),
        "num_attention_heads": heads,
        "num_key_value_heads": draw.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        "head_dim": dim,
        "max_position_embeddings": draw.randint(16, 200),
        "hidden_act": draw.choice(["silu", "silu", "relu2", "relu2", "relu", "gelu", "gelu_new"]),
        "tie_word_embeddings": draw.random() < 0.5,
        "attention_bias": draw.random() < 0.3,
        "mlp_bias": draw.random() < 0.2,
        "rms_norm_eps": draw.choice([1e-5, 1e-6, 1e-3]),
        "rope_theta": draw.choice([1e4, 5e5, 12345.678]),
        "rope_scaling": draw.choice(scaling),
        "dtype": draw.choice(["float32", "bfloat16", "float16"]),
        "quantization_config": {
            "quant_method": "bitnet",
            "quantization_mode": "offline",
            "modules_to_not_convert": kept,
        }
        | linear,
    }


LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
NO_PLACE = (
    "rows, which four to a byte do not divide|mlp_bias = true, and transformers' BitNet|"
    "GGUF has no architecture that is a|has a norm of its own, for which GGUF has no place|is float .* readers of GGUF|"
    "GGUF has the divisors alone"
)


@pytest.mark.parametrize("seed", range(12))
def test_models_of_any_shape_come_back_or_are_refused(seed: int, tmp_path: Path) -> None:
    source = tmp_path / "source.bitnet"
    with BitNetModel.from_config(drawn(seed), seed=seed) as model:
        model.save_pretrained(source)
        want = {w.name: (w, model.weight(w.name).numpy()) for w in model.weights()}
        ids = [at % model.config.vocab_size for at in (3, 1, 4, 1, 5, 9, 2, 6, 5)]
        logits = model.forward(ids)
    for form in FORMATS:
        there = tmp_path / form.name / form.target
        there.parent.mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)  # of layers that are float16 in a GGUF file
            try:
                done = convert(source, there, **form.options)
            except ArgumentError as refused:
                assert form.name.startswith(("hf", "gguf")), form.name
                assert re.search(NO_PLACE, str(refused)), f"{form.name}: {refused}"
                assert not there.exists(), form.name
                continue
        with BitNetModel.from_pretrained(there) as back:
            assert [w.name for w in back.weights()] == list(want), form.name
            for again in back.weights():
                weight, values = want[again.name]
                np.testing.assert_array_equal(
                    back.weight(again.name).numpy(), values, err_msg=f"{form.name} {again.name}"
                )
                if weight.scale is not None and values.any():  # masters that are all zero have no scale
                    error = max(form.precision, HALF if done.warnings else 0)
                    assert again.scale == pytest.approx(weight.scale, rel=error, abs=0), f"{form.name} {again.name}"
            if form.precision == 0 and not done.warnings:
                np.testing.assert_array_equal(back.forward(ids), logits, err_msg=form.name)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("model", ["gpt2_float32", "gpt2_bare_bfloat16", "gpt2_ternary"])
def test_a_gpt2_out_and_back(model: str, form: Format, tmp_path: Path) -> None:
    source, there, options = PARITY / model, tmp_path / form.target, dict(form.options)
    kind = form.name.partition("-")[0]
    packed = kind == "hf" and form.name != "hf-master"
    if kind in ("gguf", "onnx") or form.name == "hf-bitlinear" or (packed and model == "gpt2_ternary"):
        with pytest.raises(match="GPT2LMHeadModel"):
            convert(source, there, **options)
        assert not there.exists()
        return
    options.pop("derive_masters", None)  # all three have masters
    if model != "gpt2_ternary":  # nothing of the others is packed
        options.pop("packing", None)
        options.pop("linear_class", None)
    done = convert(source, there, **options)
    assert done.agrees
    assert done.max_difference == 0
    want = np.load(source / "parity.npz")
    with BitNetModel.from_pretrained(there) as loaded, BitNetModel.from_pretrained(source) as before:
        for i in range(2):
            ids = want[f"input_ids_{i}"]
            np.testing.assert_array_equal(loaded.forward(ids), before.forward(ids))
            np.testing.assert_array_equal(loaded.forward(ids).argmax(-1), want[f"argmax_{i}"])


RAGGED = {
    "vocab_size": 64,
    "hidden_size": 256,
    "intermediate_size": 340,  # bitnet-xl has 5460
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"},
}
FAMILIES = {"bitnet": {"model_type": "bitnet"}, "llama": {"model_type": "llama", "hidden_act": "silu"}}


@pytest.mark.parametrize("kind", ["i2_s", "tq1_0", "tq2_0"])
@pytest.mark.parametrize("family", ["bitnet", "llama"])
def test_layers_whose_rows_are_no_whole_blocks_are_float16_in_a_gguf_file(
    family: str, kind: Any, bitnet: Terminal, tmp_path: Path
) -> None:
    source, target = tmp_path / "m.bitnet", tmp_path / "m.gguf"
    with BitNetModel.from_config(RAGGED | FAMILIES[family], seed=1) as model:
        model.save_pretrained(source)
        want = tensors(source, tmp_path / "packed")
        with pytest.warns(ModelWarning, match=r"m\.gguf: 2 of 14 ternary layers are F16"):
            model.save_pretrained(target, format="gguf", gguf_type=kind)
    columns = {"i2_s": 128}.get(kind, 256)
    said = (
        f"{target}: 2 of 14 ternary layers are F16 instead of {kind.upper()}, scales rounded to float16: their columns are no multiple of "
        f"{columns}, the block of that type; the first is model.layers.0.mlp.down_proj with 340"
    )
    for more in ([], ["--dry-run"]):
        status, out, err = bitnet("convert", str(source), str(target), "--type", kind, "--json", *more)
        done = json.loads(out)
        assert (status, done["warnings"], json.loads(err)["warning"]) == (0, [said], said), err
    assert bitnet("convert", str(source), str(target), "--type", kind)[2] == f"bitnet: warning: {said}\n"
    assert done["rounding"] == ("scales of some layers to float16" if kind == "i2_s" else "scales to float16")
    types = {tensor["name"]: tensor["dtype"] for tensor in inspect_model(target)["tensors"]}
    assert {types[f"blk.{i}.ffn_down.weight"] for i in range(2)} == {"F16"}
    assert {types[f"blk.{i}.{name}.weight"] for i in range(2) for name in ("attn_q", "ffn_up")} == {kind.upper()}
    back = tensors(target, tmp_path / "back")
    for name, values in want.items():
        if name.endswith("weight_scale"):
            exact = kind == "i2_s" and "down_proj" not in name
            np.testing.assert_allclose(back[name], values, rtol=0 if exact else HALF, err_msg=name)
        else:
            np.testing.assert_array_equal(back[name], values, err_msg=name)


@pytest.mark.parametrize(("family", "act"), [("bitnet", "gelu"), ("llama", "gelu"), ("llama", "relu2")])
def test_a_gguf_file_has_no_place_for_an_activation(family: str, act: str, tmp_path: Path) -> None:
    """It follows from the architecture there. ONNX has one."""
    with BitNetModel.from_config(RAGGED | FAMILIES[family] | {"hidden_act": act}) as model:
        with pytest.raises(ArgumentError, match=f"hidden_act = {act}: GGUF has no architecture that is a .* with it"):
            model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="f32")
        model.save_pretrained(tmp_path / "m.bitnet")
    assert convert(tmp_path / "m.bitnet", tmp_path / "onnx" / "m.onnx").max_difference == 0
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    "other", [{"low_freq_factor": 2.0}, {"high_freq_factor": 8.0}, {"original_max_position_embeddings": 1 << 20}]
)
def test_a_gguf_file_has_no_place_for_other_scalings_than_llamas(other: dict[str, Any], tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, **LLAMA3, **other}
    with (
        BitNetModel.from_config(RAGGED | FAMILIES["llama"] | {"rope_scaling": scaling, "rope_theta": 1e4}) as model,
        pytest.raises(ArgumentError, match=r"rope_scaling = llama3 with factor 8, .*: GGUF has the divisors alone"),
    ):
        model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="f32")
    assert not any(tmp_path.iterdir())


def test_a_gguf_file_has_no_place_for_layers_that_stay_float(tmp_path: Path) -> None:
    """Readers would take them for master weights of ternary ones."""
    kept = RAGGED["quantization_config"] | {"modules_to_not_convert": ["lm_head", "layers.1.mlp.up_proj"]}  # type: ignore[operator]
    with BitNetModel.from_config(RAGGED | {"model_type": "bitnet", "quantization_config": kept}) as model:
        for kind in ("i2_s", "f32"):
            with pytest.raises(ArgumentError, match=r"layers\.1\.mlp\.up_proj is float .*would make it ternary"):
                model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type=kind)
    assert not any(tmp_path.iterdir())


def tensors(source: Path, place: Path) -> dict[str, NDArray[Any]]:
    """A model's tensors by name: packed codes as they are stored, others as float32."""
    convert(source, place, to="hf", linear_class="autobitlinear", check=False)
    data = (place / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    out: dict[str, NDArray[Any]] = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        if entry["dtype"] == "BF16":
            out[name] = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            out[name] = np.frombuffer(raw, {"U8": np.uint8, "F32": np.float32}[entry["dtype"]])
    return out
