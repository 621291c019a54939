"""Bad input: each a typed error that names the file, the tensor or field, what was found and what is right."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetConfig,
    BitNetError,
    BitNetModel,
    ConfigError,
    DTypeError,
    FileSystemError,
    FormatError,
    InternalError,
    ModelNotFoundError,
    OutOfMemoryError,
    ShapeError,
    TokenizerError,
    _bitnet,
    find_model,
    register_model,
    set_num_threads,
)
from bitnet_rust.generation import SamplingOptions

Header = dict[str, Any]


@pytest.fixture
def model_dir(tiny_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dir, tmp_path / "model"))


# --- files -----------------------------------------------------------------------------------------------------------


def read_container(path: Path) -> tuple[Header, bytes]:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write_container(path: Path, header: Header, body: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


Q = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.norm.weight"


def rename(header: Header) -> None:
    header["model.layers.0.other"] = header.pop(Q)


def lie_about_shape(header: Header) -> None:
    header[Q]["shape"] = [2**40, 2**40]


def swap_shape(header: Header) -> None:
    header[Q]["shape"] = header[Q]["shape"][::-1]


def other_dtype(header: Header) -> None:
    header[NORM]["dtype"] = "I16"


def unknown_dtype(header: Header) -> None:
    header[NORM]["dtype"] = "F3"


def overlap(header: Header) -> None:
    a, b = sorted((e["data_offsets"], n) for n, e in header.items() if n != "__metadata__")[:2]
    size = b[0][1] - b[0][0]
    header[b[1]]["data_offsets"] = [a[0][0], a[0][0] + size]


def past_the_end(header: Header) -> None:
    header[NORM]["data_offsets"] = [2**50, 2**50 + 512]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (rename, Q),
        (lie_about_shape, Q),
        (swap_shape, Q),
        (other_dtype, NORM),
        (unknown_dtype, "F3"),
        (overlap, "model.safetensors"),
        (past_the_end, "model.safetensors"),
    ],
)
def test_a_header_that_lies_is_refused(model_dir: Path, damage: Callable[[Header], None], says: str) -> None:
    path = model_dir / "model.safetensors"
    header, body = read_container(path)
    damage(header)
    write_container(path, header, body)
    with pytest.raises(FormatError) as caught:
        BitNetModel.from_pretrained(model_dir)
    assert says in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{",
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
    ],
)
def test_a_file_that_is_no_container_is_refused(model_dir: Path, data: bytes) -> None:
    (model_dir / "model.safetensors").write_bytes(data)
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        BitNetModel.from_pretrained(model_dir)


@pytest.mark.parametrize("keep", [8, 4000, 400_000, -1])
def test_a_truncated_file_is_refused(model_dir: Path, keep: int) -> None:
    path = model_dir / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        BitNetModel.from_pretrained(model_dir)


def test_a_missing_shard_is_named(model_dir: Path) -> None:
    header, _ = read_container(model_dir / "model.safetensors")
    (model_dir / "model.safetensors").rename(model_dir / "model-00001-of-00002.safetensors")
    names = [name for name in header if name != "__metadata__"]
    shards = dict.fromkeys(names, "model-00001-of-00002.safetensors") | {Q: "model-00002-of-00002.safetensors"}
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    with pytest.raises(BitNetError, match="model-00002-of-00002"):
        BitNetModel.from_pretrained(model_dir)
    shards[Q] = "../../etc/passwd"
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    with pytest.raises(FormatError, match="passwd"):
        BitNetModel.from_pretrained(model_dir)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.9999])
def test_a_native_file_with_a_wrong_byte_is_refused(tiny: BitNetModel, tmp_path: Path, part: float) -> None:
    path = tmp_path / "model.bitnet"
    tiny.save_pretrained(path)
    data = bytearray(path.read_bytes())
    data[int(part * len(data))] ^= 0x55
    path.write_bytes(data)
    with pytest.raises((FormatError, ConfigError), match=r"model\.bitnet"):
        assert BitNetModel.from_pretrained(path).tokenizer  # its files lie at the end


def test_a_directory_without_a_model_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors"):
        BitNetModel.from_pretrained(tmp_path)
    shutil.copy(Path(__file__), tmp_path / "model.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        BitNetModel.from_pretrained(tmp_path)


def test_a_model_without_tokenizer_takes_ids_and_refuses_text(model_dir: Path) -> None:
    (model_dir / "tokenizer.json").unlink()
    with BitNetModel.from_pretrained(model_dir) as model:
        assert len(model.generate([1, 2, 3], max_new_tokens=2)) == 2
        assert [p.text for p in model.generate([1, 2], stream=True, details=True, max_new_tokens=2)] == ["", ""]
        for call in (
            lambda: model.generate("text"),
            lambda: model.generate([1, 2], stop="x"),
            lambda: model.perplexity("text"),
            lambda: model.tokenizer,
        ):
            with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
                call()


def test_a_place_that_cannot_be_written_is_named(tiny: BitNetModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BitNetError, match="file"):
        tiny.save_pretrained(tmp_path / "file" / "below")
    for place in ("/proc/below", "/dev/full/below.bitnet", "~no-such-user/below"):
        with pytest.raises(FileSystemError, match="below"):
            tiny.save_pretrained(place)
    with pytest.raises(OSError, match="not a directory"):
        tiny.save_pretrained(tmp_path / "file")
    with pytest.raises(ArgumentError, match="path is empty"):
        tiny.save_pretrained("")
    with pytest.raises(ArgumentError, match="onnx"):
        tiny.save_pretrained(tmp_path / "x", format="onnx")  # type: ignore[arg-type]


# --- configs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"architectures": ["OPTForCausalLM"]}, "OPTForCausalLM"),
        ({"hidden_size": -256}, "hidden_size"),
        ({"hidden_size": 10**12}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"hidden_act": "swiglu"}, "hidden_act"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quant_method"),
    ],
)
def test_an_impossible_config_names_its_field(model_dir: Path, change: dict[str, Any], field: str) -> None:
    path = model_dir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=field) as caught:
        BitNetModel.from_pretrained(model_dir)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"vocab_size": 1}'])
def test_a_config_that_is_none_is_refused(model_dir: Path, text: str) -> None:
    (model_dir / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        BitNetModel.from_pretrained(model_dir)


def test_bad_names_and_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="hiden_size"):
        BitNetConfig(preset="char", hiden_size=3)
    with pytest.raises(ArgumentError, match=r"bitnet-b1\.58-2b-4t"):
        find_model("bitnet-b1.58-2b-4x")
    with pytest.raises(ArgumentError, match="char"):
        register_model("char", BitNetConfig(preset="char"))
    with pytest.raises(ConfigError):
        register_model("mine", {"hidden_size": 3})
    with pytest.raises(ArgumentError, match="float13"):
        BitNetModel.from_pretrained("bitnet-shakespeare", head_dtype="float13")


def test_a_model_beyond_the_memory_budget_is_refused() -> None:
    huge = {**BitNetConfig(preset="char"), "vocab_size": 2**24, "hidden_size": 2**16, "head_dim": 2}
    with pytest.raises((OutOfMemoryError, ConfigError)) as caught:
        BitNetModel.from_config(huge)
    assert isinstance(caught.value, MemoryError | ValueError)


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "error", "says"),
    [
        ([1, 512], ArgumentError, "512"),
        ([-1], ArgumentError, "-1"),
        ([1, 2**40], ArgumentError, "1099511627776"),
        (np.array([1, 2**40]), ArgumentError, "1099511627776"),
        ([], ArgumentError, "at least one"),
        ([[1], []], ArgumentError, "at least one"),
        (np.zeros((2, 0), int), ArgumentError, "at least one"),
        ([1.5], DTypeError, "whole"),
        (np.array([1.5]), DTypeError, "float64"),
        ("text", DTypeError, "whole"),
        (None, DTypeError, "whole"),
        (np.zeros((1, 2, 3), int), ShapeError, "(2, 3)"),
        ([1] * 257, ArgumentError, "256"),
    ],
)
def test_bad_tokens_are_refused(tiny: BitNetModel, tokens: Any, error: type[BitNetError], says: str) -> None:
    with pytest.raises(error) as caught:
        tiny.forward(tokens)
    assert says in str(caught.value)
    if not isinstance(tokens, str):
        with pytest.raises(error):
            tiny.generate(tokens, max_new_tokens=1)


@pytest.mark.parametrize(
    ("lengths", "error", "says"),
    [
        ([1], ShapeError, "(1,)"),
        ([1, 4], ArgumentError, "lengths[1] = 4"),
        ([0, 1], ArgumentError, "lengths[0] = 0"),
        ([1.0, 2.0], DTypeError, "lengths"),
    ],
)
def test_bad_lengths_are_refused(tiny: BitNetModel, lengths: Any, error: type[BitNetError], says: str) -> None:
    with pytest.raises(error) as caught:
        tiny.forward([[1, 2, 3], [1, 2, 3]], lengths)
    assert says in str(caught.value)


BAD_SAMPLING: list[tuple[dict[str, Any], str]] = [
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature": float("inf")}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"top_p": 0.0}, "top_p"),
    ({"top_p": float("nan")}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"typical_p": -0.5}, "typical_p"),
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"max_new_tokens": 1.5}, "max_new_tokens"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"presence_penalty": 9}, "presence_penalty"),
    ({"frequency_penalty": -9}, "frequency_penalty"),
    ({"logit_bias": {512: 1.0}}, "logit_bias"),
    ({"logit_bias": {1: float("nan")}}, "logit_bias"),
    ({"stop_token_ids": [512]}, "stop_token_ids"),
    ({"logprobs": -2}, "logprobs"),
    ({"prompt_lookup_num_tokens": 17}, "prompt_lookup_num_tokens"),
    ({"seed": -1}, "seed"),
    ({"stop": ""}, "stop"),
    ({"stop": ["ok", 3]}, "stop"),
]


@pytest.mark.parametrize(("options", "field"), BAD_SAMPLING)
def test_bad_sampling_names_the_field(tiny: BitNetModel, options: dict[str, Any], field: str) -> None:
    with pytest.raises(ArgumentError, match=field):
        tiny.generate("First", **options)


def test_every_sampling_option_has_a_bad_value_here() -> None:
    checked = {name for options, _ in BAD_SAMPLING for name in options}
    assert set(SamplingOptions.__annotations__) - checked == {"do_sample", "ignore_eos"}


def test_wrong_keywords_and_types_are_type_errors(tiny: BitNetModel) -> None:
    with pytest.raises(TypeError, match=r"temprature; did you mean temperature\?"):
        tiny.generate("First", temprature=1)
    with pytest.raises(TypeError, match=r"streem; did you mean stream or"):
        tiny.generate("First", streem=True)
    with pytest.raises(TypeError, match=r"foo; it has stream, .*logprobs"):
        tiny.generate("First", foo=True)
    with pytest.raises(DTypeError, match=r"temperature = <object .*number"):
        tiny.generate("First", temperature=object())
    with pytest.raises(DTypeError, match="top_k"):
        tiny.generate("First", top_k=np.array([5, 6]))


@pytest.mark.parametrize("prompt", ["", [], [[]], ["First", ""], np.zeros((0, 3), int), [[1], "text"]])
def test_an_empty_or_mixed_prompt_is_refused(tiny: BitNetModel, prompt: Any) -> None:
    with pytest.raises((ArgumentError, DTypeError)):
        tiny.generate(prompt)


def test_mixed_texts_and_ids_are_refused(tiny: BitNetModel) -> None:
    with pytest.raises(ArgumentError, match="one kind"):
        tiny.generate(["text", [1, 2]])


def test_a_prompt_that_fills_the_context_is_refused(tiny: BitNetModel) -> None:
    with pytest.raises(ArgumentError, match="256"):
        tiny.generate([1] * 256)


@pytest.mark.parametrize("options", [{"window": 1}, {"window": 257}, {"stride": 0}, {"window": 8, "stride": 8}])
def test_bad_windows_are_refused(tiny: BitNetModel, options: dict[str, int]) -> None:
    with pytest.raises(ArgumentError):
        tiny.perplexity("First Citizen", **options)
    with pytest.raises(ArgumentError, match="two tokens"):
        tiny.perplexity([1])


@pytest.mark.parametrize("n", [0, -1, 1025, 2**40, -(2**70)])
def test_bad_thread_counts_are_refused(n: int) -> None:
    with pytest.raises(ArgumentError, match=rf"^num_threads = {n}: expected a whole number from 1 to 1024$"):
        set_num_threads(n)


# --- lifetime --------------------------------------------------------------------------------------------------------


def test_a_closed_model_says_so(tiny_dir: Path) -> None:
    model = BitNetModel.from_pretrained(tiny_dir)
    stream = model.generate("First", stream=True, max_new_tokens=100)
    next(stream)
    model.close()
    model.close()
    for call in (
        lambda: model.forward([1]),
        lambda: model.generate("x"),
        lambda: model.perplexity("abc"),
        lambda: next(stream),
    ):
        with pytest.raises(ArgumentError, match="closed"):
            call()
    with pytest.raises(ArgumentError, match="closed"), model:
        pass
    assert model.closed
    assert repr(model) == "BitNetModel('bitnet_offline_packed', closed)"
    assert model.config.vocab_size == 512


def test_a_closed_generation_says_so(tiny: BitNetModel) -> None:
    session = tiny.session(["First"], max_new_tokens=3)
    assert len(list(session)) == 3
    with pytest.raises(ArgumentError, match="closed"):
        session.prompt_progress()
    with pytest.raises(ArgumentError, match="closed"):
        next(iter(session))


def test_an_error_in_a_progress_callback_ends_loading_with_it(tiny_dir: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise LookupError(f"{done} of {total}")

    with pytest.raises(LookupError):
        BitNetModel.from_pretrained(tiny_dir, progress=fail)


# --- the extension itself --------------------------------------------------------------------------------------------


def test_the_extension_checks_buffers(tiny: BitNetModel) -> None:
    model, ids, lengths = tiny._model, np.array([1, 2], np.int32), np.array([2])
    logits = np.empty((2, 512), np.float32)
    for arguments in (
        (ids.astype(np.float32), lengths, logits),
        (ids.astype(np.int64), lengths, logits),
        (ids, lengths.astype(np.int32), logits),
        (ids, lengths, logits.astype(np.float64)),
        (ids, lengths, np.empty((2, 512), np.int32)),
        (ids.astype(">i4"), lengths, logits),
    ):
        with pytest.raises(DTypeError, match="expected"):
            model.forward(*arguments, False)
    logits.flags.writeable = False
    for arguments in ((ids, lengths, logits), (np.zeros(4, np.int32)[::2], lengths, np.empty((2, 512), np.float32))):
        with pytest.raises((BufferError, ValueError)):
            model.forward(*arguments, False)
    for wrong in ([1], [3], [-1, 3], [1, 2]):
        with pytest.raises(ArgumentError, match="lengths"):
            model.forward(ids, np.array(wrong), np.empty((2, 512), np.float32), False)
    with pytest.raises(ArgumentError, match="out"):
        model.forward(ids, lengths, np.empty((1, 512), np.float32), False)
    with pytest.raises(TypeError):
        _bitnet.generation(object(), ids, lengths, "{}", None, 0)  # type: ignore[arg-type]
    for kind in (_bitnet.Model, _bitnet.Generation):
        with pytest.raises(TypeError, match="cannot create"):
            kind()


def test_the_extension_reads_params_for_each_prompt(tiny: BitNetModel) -> None:
    ids, lengths = np.array([1, 2], np.int32), np.array([1, 1])
    generation = _bitnet.generation(
        tiny._model, ids, lengths, '[{"max_new_tokens": 1}, {"max_new_tokens": 2}]', None, 0
    )
    assert len(generation.step()) == 2
    assert len(generation.step()) == 1
    assert generation.progress() == (True, 2, 2)
    for params in ("[{}, {}, {}]", '[{}, {"top_k": -1}]', "[", "nonsense", '{"no_such": 1}'):
        with pytest.raises(ArgumentError):
            _bitnet.generation(tiny._model, ids, lengths, params, None, 0)
    with pytest.raises(ArgumentError, match="sequence"):
        generation.finish(7)


@pytest.mark.parametrize(("place", "says"), [("call", "out of range"), ("worker", "chunk"), ("goroutine", "goroutine")])
def test_a_panic_becomes_an_exception_with_its_stack(tiny: BitNetModel, place: str, says: str) -> None:
    with pytest.raises(InternalError, match=says) as caught:
        _bitnet.selftest_panic(place)
    assert "please report" in str(caught.value)
    assert "goroutine " in str(caught.value)
    assert tiny.forward([1, 2]).shape == (2, 512)
    with pytest.raises(ArgumentError):
        _bitnet.selftest_panic("nowhere")


def test_a_nil_pointer_is_contained_too() -> None:
    """In a process of its own: pytest's faulthandler takes the signal from Go's runtime."""
    code = """
from bitnet_rust import InternalError, _bitnet
try:
    _bitnet.selftest_panic("fault")
except InternalError as error:
    print(str(error).splitlines()[0])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert "nil pointer" in result.stdout, result.stderr


def test_the_exceptions_are_one_tree() -> None:
    import bitnet_rust.errors as errors

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, (BitNetError, Warning)), name
            assert kind.__doc__
    assert issubclass(InternalError, RuntimeError)
