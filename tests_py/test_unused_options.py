"""Options that say nothing about a model or a target are refused, and those that do change something."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetModel,
    Tokenizer,
    convert,
    diff_models,
    inspect_model,
    verify_model,
)
from conftest import GOLDEN, TINY, Terminal

pytestmark = pytest.mark.filterwarnings("ignore::bitnet_rust.ModelWarning")

SHAPE = {
    "vocab_size": 256, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "vocab_size": 256, "n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 64,
}  # fmt: skip

# How each option about a source is stated, in Python and to the command, and what it says something about.
STATED: dict[str, tuple[Any, tuple[str, ...], set[str]]] = {
    "i2s_layout": ("arm64", ("--i2s-layout", "arm64"), {"i2_s.gguf"}),
    "quantize": (True, ("--quantize",), {"llama", "gpt2", "llama-f16.gguf"}),
    "revision": ("v1", ("--revision", "v1"), set()),
}
SOURCES = (
    "embedded", "m.bitnet", "hf", "masters", "llama", "gpt2", "i2_s.gguf", "tq2_0.gguf", "f16.gguf", "llama-f16.gguf", "onnx/m.onnx",
)  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model of every kind that loads; llama, gpt2 and llama-f16.gguf have float layers."""
    place = tmp_path_factory.mktemp("sources")
    with BitNetModel.from_config(SHAPE | {"architecture": "LlamaForCausalLM"}, seed=1, trainable=True) as model:
        model.tokenizer = Tokenizer.bytes()
        model.save_pretrained(place / "llama", format="hf", masters="float32")
        model.save_pretrained(place / "llama-f16.gguf", format="gguf", gguf_type="f16")
    _forget_ternary(place / "llama")
    _floats(place / "llama-f16.gguf")
    with BitNetModel.from_config(GPT2, seed=1) as model:
        model.tokenizer = Tokenizer.bytes()
        model.save_pretrained(place / "gpt2", format="hf")
    for name, to in (("m.bitnet", "native"), ("hf", "hf"), ("onnx/m.onnx", "onnx")):
        convert(TINY, place / name, to, check=False)  # type: ignore[arg-type]
    convert(GOLDEN / "bitnet_online_bf16", place / "masters", "hf-master", check=False)
    for kind in ("i2_s", "tq2_0", "f16"):
        convert("bitnet-shakespeare", place / f"{kind}.gguf", type=kind, check=False)
    return {name: place / name for name in SOURCES} | {"embedded": "bitnet-shakespeare"}


def _forget_ternary(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    del config["quantization_config"]
    (checkpoint / "config.json").write_text(json.dumps(config))


def _floats(file: Path) -> None:
    """Gives a matrix of ternary float16 values one value of its own."""
    info = inspect_model(file)
    tensor = next(t for t in info["tensors"] if t["name"] == "blk.0.ffn_up.weight")
    content = bytearray(file.read_bytes())
    data = len(content) - max(t["offset"] + t["bytes"] for t in info["tensors"])
    content[data + tensor["offset"] : data + tensor["offset"] + 2] = b"\x00\x38"
    file.write_bytes(content)


@pytest.mark.parametrize("option", STATED)
@pytest.mark.parametrize("name", SOURCES)
def test_what_says_nothing_about_a_source_is_refused_by_all_that_read_it(
    name: str, option: str, sources: dict[str, Any], bitnet: Terminal, tmp_path: Path
) -> None:
    value, typed, about = STATED[option]
    stated: Any = {option: value}
    source, target = sources[name], tmp_path / "m.bitnet"
    if name in about:
        convert(source, target, **stated)
        with BitNetModel.from_pretrained(source, **stated) as model:
            assert "unused" not in model.info
        verify_model(source, **stated)
        diff_models(source, "bitnet-shakespeare", logits=False, **stated)
        if option == "quantize":  # and needed
            assert not verify_model(source).ok or name == "gpt2"
        else:
            assert not diff_models(source, target, logits=False).equal
        return
    if name.startswith("llama") and option == "i2s_layout":
        stated["quantize"], typed = True, ("--quantize", *typed)
    said = re.escape(f"{option} = {value!r}: ") + ".*: expected it to be left out"
    calls: list[Any] = [
        lambda: convert(source, target, dry_run=True, **stated),
        lambda: BitNetModel.from_pretrained(source, **stated),
        lambda: verify_model(source, **stated),
        lambda: diff_models(source, source, **stated),
    ]
    if option != "quantize":
        calls.append(lambda: inspect_model(source, stats=True, **{option: value}))
    for call in calls:
        with pytest.raises(ArgumentError, match=said):
            call()
    status, out, err = bitnet("convert", str(source), str(target), *typed)
    assert (status, out) == (1, "")
    assert err.startswith(("bitnet: invalid option: ", "bitnet: ")), err
    assert f"{' '.join(STATED[option][1])}: " in err, err
    assert err.count("\n") == 1, err
    assert not target.exists()


def test_a_diff_takes_what_is_about_one_of_two(sources: dict[str, Any], tmp_path: Path) -> None:
    convert(sources["llama"], tmp_path / "m.bitnet", quantize=True)
    assert diff_models(sources["llama"], tmp_path / "m.bitnet", quantize=True).equal
    convert(sources["i2_s.gguf"], tmp_path / "arm.bitnet", i2s_layout="arm64")
    assert diff_models(tmp_path / "arm.bitnet", sources["i2_s.gguf"], i2s_layout="arm64").equal
    with BitNetModel.from_pretrained("bitnet-shakespeare") as model:
        for stated in ({"i2s_layout": "arm64"}, {"quantize": True}, {"revision": "v1"}):
            with pytest.raises(ArgumentError, match=f"{next(iter(stated))} = .*left out"):
                diff_models(model, model, **stated)


def test_a_list_of_tensors_takes_nothing_that_only_numbers_or_a_model_need(
    sources: dict[str, Any], bitnet: Terminal
) -> None:
    file = str(sources["i2_s.gguf"])
    with pytest.raises(ArgumentError, match=r"i2s_layout = 'arm64': .* is listed without the numbers"):
        inspect_model(file, i2s_layout="arm64")
    inspect_model(file, i2s_layout="arm64", stats=True)
    for shown in ("--tensors", "--tree", "--stats", "--hex=output_norm.weight"):
        for given in (("--quantize",), ("--head-dtype", "int8"), ("--packing", "2bit"), ("--i2s-layout", "arm64")):
            status, _, err = bitnet("inspect", file, shown, *given)
            taken = shown == "--stats" and given[0] == "--i2s-layout"
            assert status == (0 if taken else 2), err
            assert taken or f"does not go together with {given[0]}" in " ".join(err.replace("│", " ").split()), err
    assert bitnet("inspect", file, "--tree", "--tensors")[0] == 2


def test_a_file_object_has_no_revision(sources: dict[str, Any]) -> None:
    with (
        open(sources["m.bitnet"], "rb") as file,
        pytest.raises(ArgumentError, match=r"revision = 'v1': .*m\.bitnet is a"),
    ):
        BitNetModel.from_pretrained(file, revision="v1")


@pytest.mark.parametrize("name", ["hf", "i2_s.gguf", "onnx/m.onnx"])
def test_only_a_native_file_is_mapped(name: str, sources: dict[str, Any]) -> None:
    with pytest.raises(
        ArgumentError, match=r"resident = 'map': .* expected 'auto' or 'copy', or a file that ends in \.bitnet"
    ):
        BitNetModel.from_pretrained(sources[name], resident="map")
    BitNetModel.from_pretrained(sources[name], resident="copy").close()


# Options about the target, with what else they need, and the sources to which they mean nothing.
TARGETS: list[tuple[str, Any, str, dict[str, Any], tuple[str, ...]]] = [
    ("type", "tq2_0", "m.gguf", {}, ()),
    ("type", "int2", "onnx/m.onnx", {}, ()),
    ("use_cache", False, "onnx/m.onnx", {}, ()),
    ("masters", "bfloat16", "to", {"to": "hf-master"}, ()),
    ("linear_class", "bitlinear", "to", {"to": "hf"}, ("gpt2",)),
    ("compression", "zstd", "m.bitnet", {}, ()),
    ("head_dtype", "int8", "m.bitnet", {}, ()),
    ("packing", "2bit", "m.bitnet", {}, ("gpt2",)),
    ("max_shard_size", "20kB", "to", {"to": "native"}, ()),
    ("max_shard_size", "20kB", "to", {"to": "hf"}, ()),
    ("max_shard_size", "20kB", "to", {"to": "hf-master"}, ()),
    ("max_shard_size", "20kB", "to", {"to": "gguf", "type": "tq2_0"}, ()),
    ("derive_masters", True, "to", {"to": "hf-master"}, ("masters",)),
]


@pytest.mark.parametrize(("option", "value", "name", "options", "nothing"), TARGETS)
def test_options_about_a_target_change_it_or_are_refused(
    option: str, value: Any, name: str, options: dict[str, Any], nothing: tuple[str, ...], sources: dict[str, Any], tmp_path: Path
) -> None:  # fmt: skip
    stated: Any = options | {option: value}
    for source in nothing:
        for dry_run in (True, False):
            with pytest.raises(ArgumentError, match=f"{option} = .*: expected"):
                convert(sources[source], tmp_path / "refused" / name, dry_run=dry_run, **stated)
    assert list(tmp_path.iterdir()) == []
    if option == "packing":
        return  # the others are of processors that this one may not be
    source = sources["hf" if option in ("derive_masters", "compression") else "masters"]
    convert(source, tmp_path / "with" / name, **stated)
    if option == "derive_masters":
        with pytest.raises(ArgumentError, match="is packed"):
            convert(source, tmp_path / "without" / name, **options)
        return
    if option == "max_shard_size":
        options = options | {option: "5GB"}
    convert(source, tmp_path / "without" / name, **options)
    assert _content(tmp_path / "with") != _content(tmp_path / "without")


def _content(place: Path) -> dict[str, str]:
    """What is in the files of weights, without when that was."""
    return {
        file.name: hashlib.sha256(re.sub(rb'"created":"[^"]*"', b"", file.read_bytes())).hexdigest()
        for file in place.rglob("*")
        if file.is_file()
    }


def test_a_source_that_looks_wrong_is_said_where_the_conversion_is_summed_up(
    sources: dict[str, Any], bitnet: Terminal, tmp_path: Path
) -> None:
    """The check compares what was read with what was written, and both are wrong."""
    source, said = sources["i2_s.gguf"], 'read with i2s_layout="arm64" and looks as if it had "x86"'
    for target in ("m.bitnet", "again.gguf"):
        done = convert(source, tmp_path / target, i2s_layout="arm64")
        assert (done.same_argmax, done.rounding, len(done.warnings)) == (1, None, 1)
        assert said in done.warnings[0]
        planned = convert(source, tmp_path / target, i2s_layout="arm64", dry_run=True)
        assert planned.warnings == done.warnings
    typed = ("convert", str(source), str(tmp_path / "m.bitnet"), "--i2s-layout", "arm64")
    _, out, _ = bitnet(*typed, "--quiet")
    assert re.search(rf"^warning +.*{re.escape(said)}", out, re.MULTILINE), out
    assert said in json.loads(bitnet(*typed, "--json")[1])["warnings"][0]
    assert convert(source, tmp_path / "m.bitnet").warnings == []
