"""Every format out and back: the golden models keep their ternary codes, their scales to the format's precision, and what they say."""

import json
import struct
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
    there = tmp_path / form.target
    done = convert(GOLDEN / model, there, **form.options)
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


@pytest.mark.parametrize(("family", "act"), [("bitnet", "silu"), ("llama", "gelu"), ("llama", "relu2")])
def test_a_gguf_file_has_no_place_for_an_activation(family: str, act: str, tmp_path: Path) -> None:
    """It follows from the architecture there. ONNX has one."""
    with BitNetModel.from_config(RAGGED | FAMILIES[family] | {"hidden_act": act}) as model:
        with pytest.raises(ArgumentError, match=f"hidden_act = {act}: .* readers compute a .* with (silu|relu2)"):
            model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="f32")
        model.save_pretrained(tmp_path / "m.bitnet")
    assert convert(tmp_path / "m.bitnet", tmp_path / "onnx" / "m.onnx").max_difference == 0
    assert not (tmp_path / "m.gguf").exists()


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
