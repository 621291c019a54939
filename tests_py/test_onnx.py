"""ONNX files: onnxruntime computes what the model does, and the files come back as models, ours and those of other exporters."""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from bitnet_rust import BitNetModel, convert, inspect_model, onnx_export, verify_model
from bitnet_rust.errors import ArgumentError, BitNetError, ConfigError, FileSystemError, FormatError, MissingExtraError
from bitnet_rust.inspection import tensor_bytes
from conftest import GOLDEN, REPO, Terminal
from exact import Exact

FOLDERS = ("bitnet_offline_packed", "bitnet_online_bf16", "llama_bitlinear_packed")
EXPORTED = REPO / "tests_go" / "testdata" / "onnx"


class Runner:
    """A model in onnxruntime, in the manner of Optimum: what it is fed follows from the names of its inputs."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.pasts = {i.name: i.shape for i in self.session.get_inputs() if i.name.startswith("past_key_values")}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def __call__(self, ids: Any, mask: Any = None, past: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        ids = np.asarray(ids, np.int64)
        mask = np.ones_like(ids) if mask is None else np.asarray(mask, np.int64)
        positions = np.maximum(mask.cumsum(-1) - 1, 0)[:, -ids.shape[1] :]
        if past is None:
            past = {name: np.zeros((len(ids), s[1], 0, s[3]), np.float32) for name, s in self.pasts.items()}
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **past}
        out = dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))
        logits = out.pop("logits")
        return logits, {name.replace("present", "past_key_values"): value for name, value in out.items()}


def exported(tmp_path: Path, source: Any, **options: Any) -> Path:
    path = tmp_path / "onnx" / "model.onnx"
    if isinstance(source, BitNetModel):
        source.save_pretrained(path, format="onnx", **options)
    else:
        with BitNetModel.from_pretrained(source) as model:
            model.save_pretrained(path, format="onnx", **options)
    return path


@pytest.fixture(
    scope="module", params=[(folder, kind) for folder in FOLDERS for kind in ("int8", "int2")], ids="-".join
)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Runner, Any]:
    """A golden model as an ONNX file, in onnxruntime, and what transformers recorded of it."""
    folder, kind = request.param
    path = exported(tmp_path_factory.mktemp("onnx"), GOLDEN / folder, onnx_type=kind)
    return GOLDEN / folder, Runner(path), np.load(GOLDEN / folder / "golden_f32.npz")


# --- what onnxruntime computes ---------------------------------------------------------------------------------------


def test_prompts_have_the_logits_of_the_core_and_of_transformers_but_for_ties(golden: tuple[Path, Runner, Any]) -> None:
    """Each of the three computes what float64 does with its side of every tie: at two of the twelve prompts they take different ones."""
    source, run, recorded = golden
    with BitNetModel.from_pretrained(source) as model:
        exact = Exact(model)
        for i in range(4):
            ids = recorded[f"input_ids_{i}"].reshape(-1)
            logits = run([ids])[0][0], model.forward(ids), recorded[f"logits_{i}"].reshape(len(ids), -1)
            ties = [exact.explain(ids, each, within=5e-5) for each in logits]
            assert max(map(len, ties)) < 5
            for each, took in zip(logits[1:], ties[1:], strict=True):
                assert np.array_equal(logits[0].argmax(-1), each.argmax(-1))
                assert np.abs(logits[0] - each).max() < (5e-5 if took == ties[0] else 0.1)


def test_a_defect_is_no_tie(golden: tuple[Path, Runner, Any]) -> None:
    """Ties do not explain a scale or frequencies of positions that are a thousandth too large."""
    source, run, recorded = golden
    ids = recorded["input_ids_2"].reshape(-1)
    with BitNetModel.from_pretrained(source) as model:
        exact, logits = Exact(model), run([ids])[0][0]
        exact.explain(ids, logits, within=5e-5)
        exact.scales["model.layers.2.mlp.down_proj.weight"] *= 1.001
        with pytest.raises(AssertionError, match="no ties explain"):
            exact.explain(ids, logits, within=5e-5)
        exact = Exact(model)
        exact.frequencies = exact.frequencies * np.float32(1.001)
        with pytest.raises(AssertionError, match="no ties explain"):
            exact.explain(ids, logits, within=5e-5)


def test_steps_with_the_cache_say_the_tokens_of_transformers(golden: tuple[Path, Runner, Any]) -> None:
    _, run, recorded = golden
    for i in range(4):
        expected = recorded[f"greedy_{i}"].reshape(-1).tolist()
        length = recorded[f"input_ids_{i}"].size
        tokens, past, fed = expected[:length], None, 0
        while len(tokens) < len(expected):
            logits, past = run([tokens[fed:]], np.ones((1, len(tokens))), past)
            fed = len(tokens)
            tokens.append(int(logits[0, -1].argmax()))
        assert tokens == expected


def test_pieces_of_a_prompt_have_the_logits_of_the_whole(golden: tuple[Path, Runner, Any]) -> None:
    _, run, recorded = golden
    ids = recorded["input_ids_1"].reshape(1, -1)
    whole = run(ids)[0]
    first, past = run(ids[:, :5])
    second, past = run(ids[:, 5:6], np.ones((1, 6)), past)
    third, past = run(ids[:, 6:], np.ones_like(ids), past)
    assert np.abs(np.concatenate([first, second, third], 1) - whole).max() < 1e-4
    assert {value.shape[2] for value in past.values()} == {ids.shape[1]}


def test_rows_of_a_batch_are_as_alone_whatever_their_lengths_and_padding(golden: tuple[Path, Runner, Any]) -> None:
    _, run, recorded = golden
    rows = [recorded[f"input_ids_{i}"].reshape(-1) for i in range(3)]
    longest = max(map(len, rows))
    alone = [run([row])[0][0] for row in rows]
    for left in (True, False):
        ids, mask = np.zeros((3, longest), np.int64), np.zeros((3, longest), np.int64)
        places = [slice(longest - len(row), longest) if left else slice(0, len(row)) for row in rows]
        for i, (row, place) in enumerate(zip(rows, places, strict=True)):
            ids[i, place], mask[i, place] = row, 1
        logits, past = run(ids, mask)
        for i, place in enumerate(places):
            assert np.abs(logits[i, place] - alone[i]).max() < 1e-4
        if left:  # and the batch goes on
            next_ids = logits[:, -1].argmax(-1)[:, None]
            more = run(next_ids, np.concatenate([mask, np.ones((3, 1), np.int64)], 1), past)[0]
            for i, row in enumerate(rows):
                assert np.abs(more[i, 0] - run([[*row, int(next_ids[i, 0])]])[0][0, -1]).max() < 1e-4


SHAPE = {
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA = {**SHAPE, "architectures": ["LlamaForCausalLM"]}
QUANTIZATION = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bitnet, untied": {**SHAPE, "architecture": "BitNetForCausalLM", "tie_word_embeddings": False},
    "biases": {**LLAMA, "attention_bias": True, "mlp_bias": True, "quantization_config": QUANTIZATION},
    "float layers": {
        **LLAMA,
        "quantization_config": {**QUANTIZATION, "modules_to_not_convert": ["o_proj", "model.layers.1.mlp", "lm_head"]},
    },
    "float layers of float16": {
        **LLAMA,
        "dtype": "float16",
        "quantization_config": {**QUANTIZATION, "modules_to_not_convert": ["o_proj", "model.layers.1.mlp", "lm_head"]},
    },
    "norms inside of linears": {**LLAMA, "quantization_config": {**QUANTIZATION, "use_rms_norm": True}},
    "scaled positions": {**LLAMA, "rope_scaling": ROPE, "head_dim": 16, "quantization_config": QUANTIZATION},
    **{
        f"activation {act}": {**LLAMA, "hidden_act": act, "quantization_config": QUANTIZATION}
        for act in ("silu", "relu", "relu2", "gelu", "gelu_new", "gelu_pytorch_tanh")
    },
}


@pytest.mark.parametrize("kind", ["int8", "int2"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind_of_layer_is_exported_and_comes_back(name: str, kind: str, tmp_path: Path) -> None:
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    with BitNetModel.from_config(CONFIGS[name], seed=5) as model:
        path = exported(tmp_path, model, onnx_type=kind)
        onnx.checker.check_model(path, full_check=True)
        expected = model.forward(ids)
        logits = Runner(path)([ids])[0][0]
        assert np.abs(logits - expected).max() < 1e-2 * max(1.0, np.abs(expected).max())
        with BitNetModel.from_pretrained(path) as again:
            assert again.config == model.config
            assert np.array_equal(again.forward(ids), expected)


# --- what is in the file ---------------------------------------------------------------------------------------------


def test_inputs_and_outputs_have_optimums_names_and_free_sizes(tmp_path: Path) -> None:
    model = onnx.load(exported(tmp_path, "bitnet-shakespeare"))

    def shapes(values: Any) -> dict[str, list[Any]]:
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    config = json.loads(next(p.value for p in model.metadata_props if p.key == "bitnet_rust.config"))
    layers, heads = range(config["num_hidden_layers"]), config["num_key_value_heads"]
    cache = [f"{layer}.{part}" for layer in layers for part in ("key", "value")]
    past, total = "past_sequence_length", "total_sequence_length"
    assert shapes(model.graph.input) == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", total],
        "position_ids": ["batch_size", "sequence_length"],
        **{f"past_key_values.{name}": ["batch_size", heads, past, config["head_dim"]] for name in cache},
    }
    assert shapes(model.graph.output) == {
        "logits": ["batch_size", "sequence_length", config["vocab_size"]],
        **{f"present.{name}": ["batch_size", heads, total, config["head_dim"]] for name in cache},
    }
    assert model.producer_name == "bitnet_rust"
    assert model.opset_import[0].version == 18
    weights = {i.name: i for i in model.graph.initializer}
    q = numpy_helper.to_array(weights["model.layers.0.self_attn.q_proj.weight"])
    assert q.dtype == np.int8
    assert set(np.unique(q)) == {-1, 0, 1}


def test_without_a_cache_the_graph_takes_ids_alone(tmp_path: Path, tiny: BitNetModel) -> None:
    path = exported(tmp_path, tiny, use_cache=False)
    run = Runner(path)
    assert run.outputs == ["logits"]
    ids = [5, 3, 200, 17]
    assert np.abs(run([ids])[0][0] - tiny.forward(ids)).max() < 1e-2


def test_what_belongs_to_the_model_lies_beside_the_file(tmp_path: Path, tiny: BitNetModel) -> None:
    path = exported(tmp_path, tiny)
    names = {file.name for file in path.parent.iterdir()}
    assert {"model.onnx", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} == names
    assert json.loads((path.parent / "config.json").read_text()) == tiny.config.to_dict()
    with BitNetModel.from_pretrained(path.parent) as again:  # a directory with model.onnx is a model
        assert again.info["format"] == "onnx"
        assert again.tokenizer.encode("First Citizen:") == tiny.tokenizer.encode("First Citizen:")


@pytest.mark.parametrize("kind", ["int8", "int2"])
def test_weights_of_a_large_model_are_in_a_file_beside_it(
    kind: str, tmp_path: Path, tiny: BitNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = exported(tmp_path / "a", tiny, onnx_type=kind)
    monkeypatch.setattr(onnx_export, "_MOST_INSIDE", 1 << 16)
    path = exported(tmp_path / "b", tiny, onnx_type=kind)
    data = path.with_name("model.onnx.data")
    assert path.stat().st_size < 300_000 < data.stat().st_size
    assert abs(path.stat().st_size + data.stat().st_size - small.stat().st_size) < 60_000
    onnx.checker.check_model(path, full_check=True)
    ids = [1, 2, 3, 4]
    assert np.array_equal(Runner(path)([ids])[0], Runner(small)([ids])[0])
    with BitNetModel.from_pretrained(path) as again:
        assert np.array_equal(again.forward(ids), tiny.forward(ids))
    # written over it, a small one leaves nothing of it
    monkeypatch.undo()
    exported(tmp_path / "b", tiny, onnx_type=kind)
    assert not data.exists()
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "beside"])
def test_what_cannot_be_written_leaves_the_old_model(
    inside: bool, tmp_path: Path, tiny: BitNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not inside:
        monkeypatch.setattr(onnx_export, "_MOST_INSIDE", 1 << 16)
    path = exported(tmp_path, tiny)
    before = {file.name for file in path.parent.iterdir()}
    config = path.with_name("config.json")
    config.unlink()
    config.mkdir()
    with (
        BitNetModel.from_config(tiny.config, seed=1) as other,
        pytest.raises(FileSystemError, match=r"cannot write .*model\.onnx"),
    ):
        other.save_pretrained(path, format="onnx")
    assert {file.name for file in path.parent.iterdir()} == before
    config.rmdir()
    with BitNetModel.from_pretrained(path) as again:
        assert np.array_equal(again.forward([1, 2, 3]), tiny.forward([1, 2, 3]))


def test_a_large_model_replaces_a_large_one(tmp_path: Path, tiny: BitNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_MOST_INSIDE", 1 << 16)
    with BitNetModel.from_config(tiny.config, seed=1) as other:
        for model in (tiny, other, tiny):
            path = exported(tmp_path, model)
            assert len(list(path.parent.glob("*.data"))) == 1
            assert np.array_equal(Runner(path)([[1, 2]])[0], Runner(exported(tmp_path / "b", model))([[1, 2]])[0])
            with BitNetModel.from_pretrained(path) as again:
                assert np.array_equal(again.forward([1, 2, 3]), model.forward([1, 2, 3]))
    done = convert(path, tmp_path / "again.bitnet", check=False)
    assert done.source_bytes == sum(file.stat().st_size for file in path.parent.glob("model.onnx*"))


def test_what_a_killed_process_left_goes_with_the_next_save(tmp_path: Path, tiny: BitNetModel) -> None:
    folder = tmp_path / "onnx"
    left, alive, foreign = (
        folder / name
        for name in (".model.onnx.0123456789ab.tmp", ".model.onnx.ba9876543210.tmp", ".model.onnx.mine.tmp")
    )
    for stage in (left, alive, foreign):
        stage.mkdir(parents=True)
        (stage / "weights").write_bytes(b"half")
    writer = os.open(alive, os.O_RDONLY)
    fcntl.flock(writer, fcntl.LOCK_EX)
    exported(tmp_path, tiny)
    assert {file.name for file in folder.glob(".*")} == {alive.name, foreign.name}
    os.close(writer)
    exported(tmp_path, tiny)
    assert {file.name for file in folder.glob(".*")} == {foreign.name}


def test_no_text_of_another_model_is_overwritten(tmp_path: Path, tiny: BitNetModel) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArgumentError, match=r"holds the tokenizer\.json of another model"):
        tiny.save_pretrained(tmp_path / "m.onnx", format="onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
    assert (tmp_path / "tokenizer.json").read_text() == "{}"


def test_sizes_are_those_of_the_guide(tmp_path: Path, tiny: BitNetModel) -> None:
    ternary = sum(n["bytes"] for n in _tensors(exported(tmp_path / "a", tiny)) if n["dtype"] == "I8")
    packed = sum(n["bytes"] for n in _tensors(exported(tmp_path / "b", tiny, onnx_type="int2")) if n["dtype"] == "I2")
    assert ternary == 4 * packed > 0


def _tensors(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = inspect_model(path)["tensors"]
    return found


# --- files come back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "int2"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_native_to_onnx_and_back_has_equal_codes_scales_and_tokens(folder: str, kind: str, tmp_path: Path) -> None:
    convert(GOLDEN / folder, tmp_path / "a.bitnet")
    done = convert(tmp_path / "a.bitnet", tmp_path / "o" / "m.onnx", type=kind)  # type: ignore[arg-type]
    assert (done.format, done.weights, done.same_argmax, done.max_difference) == ("onnx", kind, 1, 0)
    convert(tmp_path / "o" / "m.onnx", tmp_path / "b.bitnet")
    before, after = (inspect_model(tmp_path / name, stats=True)["tensors"] for name in ("a.bitnet", "b.bitnet"))
    drop = ("offset", "file")
    assert [{k: v for k, v in t.items() if k not in drop} for t in before if "file." not in t["name"]] == [
        {k: v for k, v in t.items() if k not in drop} for t in after if "file." not in t["name"]
    ]
    prompt = [1, 2, 3, 4, 5]
    tokens = []
    for path in (tmp_path / "a.bitnet", tmp_path / "o" / "m.onnx", tmp_path / "b.bitnet"):
        with BitNetModel.from_pretrained(path) as model:
            tokens.append(model.generate(prompt, max_new_tokens=32))
            codes = model.forward(prompt)
    assert tokens[0] == tokens[1] == tokens[2]
    with BitNetModel.from_pretrained(GOLDEN / folder) as model:
        assert np.array_equal(model.forward(prompt), codes)


FLOAT = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_what_pytorch_exported_has_pytorchs_logits(exporter: str, tmp_path: Path) -> None:
    recorded = np.load(EXPORTED / "logits.npz")
    shutil.copy(EXPORTED / f"{exporter}.onnx", tmp_path / "model.onnx")
    with BitNetModel.from_pretrained(tmp_path / "model.onnx", quantize=True) as model:
        config = model.config.to_dict()  # read off the graph
    assert (config["rope_theta"], config["rms_norm_eps"], config["hidden_act"]) == (500.0, 1e-5, "silu")
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 8)
    assert config["attention_bias"]
    assert not config["mlp_bias"]
    assert config["tie_word_embeddings"] == (exporter == "dynamo")
    config["quantization_config"]["modules_to_not_convert"] = FLOAT
    (tmp_path / "config.json").write_text(json.dumps(config))
    with BitNetModel.from_pretrained(tmp_path) as model:
        assert np.abs(model.forward(recorded["input_ids"]) - recorded[exporter]).max() < 1e-5


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_float_weights_are_master_weights(exporter: str) -> None:
    path = EXPORTED / f"{exporter}.onnx"
    with pytest.raises(ConfigError, match="full-precision linears; pass quantize=True"):
        BitNetModel.from_pretrained(path)
    graph = onnx.load(path).graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    linears = [n.input[1] for n in graph.node if n.op_type == "MatMul" and n.input[1] in stored]
    with BitNetModel.from_pretrained(path, quantize=True, trainable=True) as model:
        parameters = dict(model.named_parameters())
        q = np.asarray(parameters["model.layers.0.self_attn.q_proj.weight"])
        assert np.array_equal(q, stored[linears[0]].T)  # MatMul's are turned around
        down = np.asarray(parameters["model.layers.1.mlp.down_proj.weight"])
        assert np.array_equal(down, stored[linears[13]].T)
        with BitNetModel.from_pretrained(path, quantize=True) as plain:
            assert np.array_equal(model.forward([1, 2, 3]), plain.forward([1, 2, 3]))


def test_a_dequantized_matrix_is_ternary_too(tmp_path: Path, tiny: BitNetModel) -> None:
    """Other writers put DequantizeLinear before MatMul, with a scale of any name, and Gemm's weights may be [out, in]."""
    path = exported(tmp_path, tiny)
    model = onnx.load(path)
    weights = {i.name: i for i in model.graph.initializer}
    for node in model.graph.node:
        if node.name == "/model/layers.0/mlp/up_proj/MatMul":
            node.op_type = "MatMul"
            del node.input[2:]
            node.input[1] = "widened"
        elif node.name == "/model/layers.0/mlp/gate_proj/MatMul":
            node.op_type = "Gemm"
            del node.input[2:]
            node.attribute.append(helper.make_attribute("transB", 1))
            gate = weights[node.input[1]]
            gate.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(gate).T.copy(), gate.name))
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name].name = "anything"
    weights[name + "_scale"].name = "its scale"
    model.graph.node.append(helper.make_node("DequantizeLinear", ["anything", "its scale"], ["widened"]))
    onnx.save(model, path)
    with BitNetModel.from_pretrained(path) as again:
        assert np.array_equal(again.forward([1, 2, 3]), tiny.forward([1, 2, 3]))


def test_inspection_lists_initializers_and_their_numbers(tmp_path: Path, tiny: BitNetModel, bitnet: Terminal) -> None:
    path = exported(tmp_path, tiny, onnx_type="int2")
    info = inspect_model(path, stats=True)
    assert info["format"] == "onnx"
    assert info["metadata"]["opset"] == 25
    assert info["metadata"]["operations"]["MatMulInteger"] == 7 * tiny.config.num_hidden_layers
    assert info["metadata"]["inputs"][:3] == ["input_ids", "attention_mask", "position_ids"]
    tensor = next(t for t in info["tensors"] if t["name"] == "model.layers.0.mlp.up_proj.weight")
    assert (tensor["dtype"], tensor["shape"]) == ("I2", [tiny.config.hidden_size, tiny.config.intermediate_size])
    assert sum(tensor["ternary"][k] for k in ("minus", "zero", "plus")) == tensor["shape"][0] * tensor["shape"][1]
    assert tensor["ternary"]["scale"] > 0
    status, out, err = bitnet("inspect", str(path), "--stats")
    assert (status, err) == (0, "")
    assert "past_key_values.0.key" in out
    status, out, err = bitnet("inspect", str(path))
    assert (status, err) == (0, "")
    assert "BitNetForCausalLM" in out


def test_the_command_dumps_bytes_of_a_matrix_with_an_exporters_name(bitnet: Terminal) -> None:
    path, name = EXPORTED / "torchscript.onnx", "onnx::MatMul_672"
    status, out, err = bitnet("inspect", str(path), "--hex", f"{name}:4:8", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"name": name, "at": 4, "hex": tensor_bytes(path, name, at=4, size=8).hex()}


def test_the_command_converts(tmp_path: Path, bitnet: Terminal) -> None:
    path = tmp_path / "o" / "model.onnx"
    status, out, err = bitnet("convert", "bitnet-shakespeare", str(path), "--type", "int2", "--no-cache")
    assert (status, err) == (0, "")
    assert "onnx, int2" in out
    assert "same next token at 100.0% of positions" in out
    assert Runner(path).outputs == ["logits"]
    status, out, err = bitnet("convert", str(path), str(tmp_path / "hf"), "--to", "hf", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["max_difference"] == 0
    status, out, err = bitnet("convert", str(path), str(tmp_path / "x.bitnet"), "--type", "int8")
    assert status == 1
    assert "--type int8: expected --to gguf or onnx with it" in err


# --- what is refused -------------------------------------------------------------------------------------------------


def test_mistakes_are_named(tmp_path: Path, tiny: BitNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match=r"m\.gguf: expected a name that ends in \.onnx"):
        tiny.save_pretrained(tmp_path / "m.gguf", format="onnx")
    with pytest.raises(ArgumentError, match="onnx_type = 'int4': expected int8 or int2"):
        tiny.save_pretrained(tmp_path / "m.onnx", format="onnx", onnx_type="int4")  # type: ignore[arg-type]
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArgumentError, match=r"holds the config\.json of another model"):
        tiny.save_pretrained(tmp_path / "m.onnx", format="onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 24)
    with pytest.raises(ArgumentError, match="needs opset 25"):
        tiny.save_pretrained(tmp_path / "o" / "m.onnx", format="onnx", onnx_type="int2")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bitnet-rust\[onnx\]'"):
        tiny.save_pretrained(tmp_path / "o" / "m.onnx", format="onnx")


def _change(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())

    return apply


def _weight(model: Any, name: str) -> Any:
    return next(i for i in model.graph.initializer if i.name == name)


def _loop(model: Any) -> None:
    """The matrix of a MatMul comes out of a circle of nodes."""
    node = next(n for n in model.graph.node if n.name == "/model/layers.0/mlp/up_proj/MatMul")
    node.input[1] = "a"
    model.graph.initializer.remove(_weight(model, "model.layers.0.mlp.up_proj.weight"))
    model.graph.node.append(helper.make_node("Transpose", ["b"], ["a"], name="/a"))
    model.graph.node.append(helper.make_node("Identity", ["a"], ["b"], name="/b"))


def _branch(model: Any) -> None:
    graph = helper.make_graph([helper.make_node("Identity", ["logits"], ["x"])], "branch", [], [])
    model.graph.node.append(
        helper.make_node("If", ["use_cache"], ["y"], name="/optimum/If", then_branch=graph, else_branch=graph)
    )


def _code(model: Any) -> None:
    weight = _weight(model, "model.layers.0.mlp.up_proj.weight")
    weight.raw_data = b"\x01\x00\xff\x02" + weight.raw_data[4:]


def _extra(model: Any) -> None:
    norm = _weight(model, "model.norm.weight")
    model.graph.initializer.add().CopyFrom(norm)
    model.graph.initializer[-1].name = "model.layers.0.self_attn.q_norm.weight"


def _rename(model: Any) -> None:
    """GPT-2's names of layers."""
    for part in (*model.graph.initializer, *model.graph.node):
        part.name = part.name.replace("layers", "h")
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = name.replace("model.layers", "model.h")


def _no_config(model: Any) -> None:
    del model.metadata_props[:]


def _scale(model: Any) -> None:
    _weight(model, "model.layers.0.mlp.up_proj.weight_scale").raw_data = b"\0\0\xc0\x7f"


def _shape(model: Any) -> None:
    weight = _weight(model, "model.layers.0.mlp.up_proj.weight")
    weight.dims[0], weight.dims[1] = weight.dims[1], weight.dims[0]


def _outside(model: Any) -> None:
    weight = _weight(model, "model.layers.0.mlp.up_proj.weight")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secret")


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a circle of nodes": (_change(_loop), r"up_proj\.weight.*neither an initializer of that name nor a MatMul"),
    "a branch": (_change(_branch), "If with a graph of its own, expected a decoder without branches"),
    "an int8 that is no code": (_change(_code), r"up_proj\.weight.*row 3, column 0: found 2, expected -1, 0 or 1"),
    "a weight too many": (_change(_extra), r"unexpected tensor.*q_norm\.weight"),
    "other names": (_change(_rename), r"model\.layers\.0.*found"),
    "a scale that is no number": (_change(_scale), "found NaN, expected a positive, finite scale"),
    "a matrix turned around": (_change(_shape), r"up_proj\.weight.*shape: found"),
    "data elsewhere": (_change(_outside), r"data file cannot be used.*secret.*expected the name of a file beside the model"),
    "half a file": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) and None, "not an ONNX model"),
    "garbage": (lambda path: path.write_bytes(b"\x80\x04garbage" * 100) and None, "not an ONNX model"),
    "nothing": (lambda path: path.write_bytes(b"") and None, "not an ONNX model"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_such_model_is_refused_with_a_reason(name: str, tmp_path: Path, tiny: BitNetModel) -> None:
    path = exported(tmp_path, tiny)
    damage, message = REFUSED[name]
    damage(path)
    with pytest.raises(FormatError, match=f"model.onnx.*{message}|{message}.*model.onnx|{message}"):
        BitNetModel.from_pretrained(path)


def test_without_any_config_an_own_file_says_so(tmp_path: Path, tiny: BitNetModel) -> None:
    path = exported(tmp_path, tiny)
    _change(_no_config)(path)
    with BitNetModel.from_pretrained(path) as again:  # config.json lies beside it
        assert again.config == tiny.config
    (path.parent / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"hidden_act: cannot be read off the graph.*put the model's config\.json"):
        BitNetModel.from_pretrained(path)


def test_no_damage_ends_in_anything_but_an_error(tmp_path: Path) -> None:
    """Files with a few bytes changed load or raise one of our errors."""
    content = bytearray((EXPORTED / "torchscript.onnx").read_bytes())
    random = np.random.default_rng(11)
    path = tmp_path / "m.onnx"
    refused = 0
    for _ in range(250):
        damaged = bytearray(content)
        for _ in range(int(random.integers(1, 4))):
            at = int(random.integers(0, len(damaged)))
            match int(random.integers(0, 3)):
                case 0:
                    damaged[at] = int(random.integers(0, 256))
                case 1:
                    del damaged[at : at + int(random.integers(1, 64))]
                case _:
                    damaged[at:at] = bytes(random.integers(0, 256, int(random.integers(1, 12)), np.uint8))
        path.write_bytes(damaged)
        try:
            BitNetModel.from_pretrained(path, quantize=True).close()
        except BitNetError:
            refused += 1
    assert 25 < refused < 250


def test_verification_finds_what_loading_would(tmp_path: Path, tiny: BitNetModel) -> None:
    path = exported(tmp_path, tiny)
    sound = verify_model(path)
    assert (sound.ok, sound.format, sound.problems) == (True, "onnx", [])
    assert len(sound.norms) == 1 + 4 * tiny.config.num_hidden_layers
    _change(_code)(path)
    found = verify_model(path).problems
    assert [problem["tensor"] for problem in found] == ["model.layers.0.mlp.up_proj.weight"]
    assert "found 2, expected -1, 0 or 1" in found[0]["message"]
