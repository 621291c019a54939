"""GGUF files by Python: models come back, and so do their tokenizers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from bitnet_rust import BitNetModel, FormatError, Tokenizer, convert, inspect_model, verify_model
from bitnet_rust.errors import ArgumentError
from conftest import REPO

# What tokenizers trip over: scripts, emoji with joiners, combining marks, code, numbers, runs of spaces and lines.
CORPUS = [
    "",
    " ",
    "Hello, world! It's what we'll do; they'd agree, I'M sure.",
    "Grüße aus Köln — “Zitat” … 12345678 3.14159 1,000,000",
    "日本語のテキストと中文字符 한국어 עברית العربية हिन्दी ไทย",
    "👋🏽 👩‍👩‍👧‍👦 🇩🇪 é é ﬁ ½ \u200b\ufeff",
    "def f(x):\n\treturn {'a': [x**2 for x in range(10)]}  # comment\n\n\n    pass\r\n\r\nend",
    "a  b   c    d\t\te \n f\n\n g   ",
    "<|begin_of_text|>User: hi<|eot_id|>Assistant: <|user|>",
    "\x00\x01\x7f tabs\vand\fforms",
]

LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(regex: str | None, normalizer: Any = None) -> Backend:
    backend = Backend(models.BPE(ignore_merges=regex == LLAMA))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)
    backend.pre_tokenizer = (
        level if regex is None else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), level])
    )
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|begin_of_text|>", "<|eot_id|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS * 3, trainer)
    backend.add_tokens([AddedToken("<|user|>", normalized=False)])
    return backend


def sentence_pieces() -> Backend:
    """The BPE of Llama 2: spaces become ▁, unknown characters become bytes."""
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)],
        limit_alphabet=60,
        show_progress=False,
    )
    backend.train_from_iterator([t.replace(" ", "▁").replace("\0", "") for t in CORPUS * 3], trainer)
    text = backend.to_str()
    # the bytes are ordinary tokens there
    import json

    file = json.loads(text)
    file["added_tokens"] = [t for t in file["added_tokens"] if not t["content"].startswith("<0x")]
    return Backend.from_str(json.dumps(file))


SHAPE = {
    "architecture": "LlamaForCausalLM",
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}

# llama.cpp's own way, of files that do not say how words are cut.
DEFAULT = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    "[0-9][0-9][0-9]",
]


def default() -> Backend:
    backend = byte_level(None)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(regex), "isolated") for regex in DEFAULT),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return backend


TOKENIZERS = {
    "default": default,
    "gpt-2": lambda: byte_level(None),
    "llama-bpe": lambda: byte_level(LLAMA),
    "qwen2": lambda: byte_level(LLAMA.replace("{1,3}", ""), normalizers.NFC()),
    "llama": sentence_pieces,
}


def model_with(backend: Backend, bos: bool) -> BitNetModel:
    size = backend.get_vocab_size()
    if bos:
        token = "<s>" if backend.token_to_id("<s>") is not None else "<|begin_of_text|>"
        at = backend.token_to_id(token)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, at)]
        )
    model = BitNetModel.from_config(SHAPE | {"vocab_size": size})
    special = {"bos_token": token} if bos else {}
    model.tokenizer = Tokenizer(backend, special, "{{ messages[0]['content'] }}")
    return model


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_goes_through_the_metadata_and_comes_back(name: str, bos: bool, tmp_path: Path) -> None:
    with model_with(TOKENIZERS[name](), bos) as model:
        model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="tq2_0")
        with BitNetModel.from_pretrained(tmp_path / "m.gguf") as again:
            for text in CORPUS:
                ids = model.tokenizer.encode(text)
                assert again.tokenizer.encode(text) == ids, text
                assert again.tokenizer.decode(ids) == model.tokenizer.decode(ids), text
            assert again.tokenizer.chat_template == model.tokenizer.chat_template
            assert again.generate([1, 2, 3], max_new_tokens=8, temperature=0) == model.generate(
                [1, 2, 3], max_new_tokens=8, temperature=0
            )


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama"])
def test_a_token_behind_texts_comes_back(name: str, tmp_path: Path) -> None:
    backend = TOKENIZERS[name]()
    token = "</s>" if name == "llama" else "<|eot_id|>"
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {token}", special_tokens=[(token, backend.token_to_id(token))]
    )
    with model_with(backend, bos=False) as model:
        model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="tq2_0")
        with BitNetModel.from_pretrained(tmp_path / "m.gguf") as again:
            assert again.tokenizer.encode("hi")[-1] == backend.token_to_id(token)
            for text in CORPUS:
                assert again.tokenizer.encode(text) == model.tokenizer.encode(text), text


def prefixed(backend: Backend) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def lower(backend: Backend) -> None:
    backend.normalizer = normalizers.Lowercase()


def digits(backend: Backend) -> None:
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), backend.pre_tokenizer])


def two_behind(backend: Backend) -> None:
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|eot_id|> <|eot_id|>", special_tokens=[("<|eot_id|>", backend.token_to_id("<|eot_id|>"))]
    )


def roberta(backend: Backend) -> None:
    backend.post_processor = processors.RobertaProcessing(("<|eot_id|>", 1), ("<|begin_of_text|>", 0))


def stripped(backend: Backend) -> None:
    backend.add_tokens([AddedToken("<|user|>", normalized=False, lstrip=True, rstrip=True)])


def metaspace(backend: Backend) -> None:
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")


def silent(backend: Backend) -> None:
    backend.decoder = None


def ended(backend: Backend) -> None:
    backend.add_tokens([AddedToken("<|a\0b|>", normalized=False)])


def whole_words(backend: Backend) -> None:
    """A token that no merges make, and that is taken if a word is it."""
    import json

    file = json.loads(backend.to_str())
    file["model"]["ignore_merges"] = True
    file["model"]["vocab"]["sure"] = len(file["model"]["vocab"]) + 1
    backend.model = Backend.from_str(json.dumps(file)).model


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("gpt-2", prefixed, r'pre_tokenizer = .*"add_prefix_space":true.*none of default, gpt-2, llama-bpe, qwen2'),
        ("gpt-2", lower, r'normalizer = {"type":"Lowercase"}.*readers take none'),
        ("llama-bpe", lower, r'normalizer = {"type":"Lowercase"}'),
        ("llama", lower, r'normalizer = {"type":"Lowercase"}.*readers take {.*"Replace"'),
        ("qwen2", lower, r'normalizer = {"type":"Lowercase"}.*readers take {"type":"NFC"}'),
        ("llama-bpe", digits, r'pre_tokenizer = .*"Digits"'),
        ("gpt-2", two_behind, r"post_processor = .*one token before a text and one behind it"),
        ("gpt-2", roberta, r'post_processor = .*"RobertaProcessing"'),
        ("gpt-2", stripped, r'added_tokens: "<|user|>": lstrip = true'),
        ("llama", metaspace, r"normalizer = null: readers of GGUF take"),
        ("gpt-2", silent, r'decoder = null: readers of GGUF take {"type":"ByteLevel"}'),
        ("llama", ended, r'token \d+ = "<\|a\\u0000b\|>": readers of GGUF end a token at U\+0000'),
        ("gpt-2", whole_words, r'model.ignore_merges = true.*make the token "sure"'),
    ],
)
def test_a_step_that_would_be_lost_is_an_error(name: str, change: Any, says: str, tmp_path: Path) -> None:
    backend = TOKENIZERS[name]()
    change(backend)
    with model_with(backend, bos=False) as model, pytest.raises(ArgumentError, match=says):
        model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="tq2_0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ends", [[], [7], [7, 9], [9, 7, 11]])
@pytest.mark.parametrize("texts", [False, True])
def test_tokens_that_end_a_text_come_back(ends: list[int], texts: bool, tmp_path: Path) -> None:
    with BitNetModel.from_config(SHAPE | {"vocab_size": 700, "eos_token_id": ends}) as model:
        if texts:
            model.tokenizer = Tokenizer(byte_level(None))
        model.save_pretrained(tmp_path / "m.gguf", format="gguf")
        expected = model.config.eos_token_id
    with BitNetModel.from_pretrained(tmp_path / "m.gguf") as again:
        assert again.config.eos_token_id == expected


def test_a_fourth_token_that_ends_a_text_has_no_place(tmp_path: Path) -> None:
    with (
        BitNetModel.from_config(SHAPE | {"vocab_size": 64, "eos_token_id": [1, 2, 3, 4]}) as model,
        pytest.raises(ArgumentError, match=r"eos_token_id = \[1 2 3 4\]: GGUF has a place for three"),
    ):
        model.save_pretrained(tmp_path / "m.gguf", format="gguf")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named(tmp_path: Path) -> None:
    with BitNetModel.from_pretrained("bitnet-shakespeare") as model:
        with pytest.raises(ArgumentError, match=r'type "q9": must be one of bf16, f16, f32, i2_s, tq1_0, tq2_0'):
            model.save_pretrained(tmp_path / "m.gguf", format="gguf", gguf_type="q9")  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match=r"expected a name that ends in .gguf"):
            model.save_pretrained(tmp_path / "m", format="gguf")
        model.save_pretrained(tmp_path / "m.gguf", format="gguf")
    with pytest.raises(ArgumentError, match=r'i2s_layout "x87": must be one of x86, arm64, row4'):
        BitNetModel.from_pretrained(tmp_path / "m.gguf", i2s_layout="x87")  # type: ignore[arg-type]
    content = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"cut\.gguf.*lies past|past the end"):
        BitNetModel.from_pretrained(tmp_path / "cut.gguf")


SUBNORMED = SHAPE | {"architecture": "BitnetForCausalLM", "vocab_size": 32}


def test_a_1bitllm_model_that_went_through_transformers_is_that_again_in_gguf(tmp_path: Path) -> None:
    first, last = tmp_path / "hf", tmp_path / "m.gguf"
    with BitNetModel.from_config(SUBNORMED, seed=1) as model:
        model.save_pretrained(tmp_path / "m.bitnet")
    assert convert(tmp_path / "m.bitnet", first, "hf").max_difference == 0
    with BitNetModel.from_pretrained(first) as other:
        assert (other.config["architectures"], other.config["hidden_act"]) == (["BitNetForCausalLM"], "silu")
    assert convert(first, last, "gguf").max_difference == 0
    assert inspect_model(last)["metadata"]["general.architecture"] == "bitnet"
    with BitNetModel.from_pretrained(last) as again:
        assert (again.config["architectures"], again.config["hidden_act"]) == (["BitnetForCausalLM"], "silu")


@pytest.mark.parametrize("architecture", ["BitNetForCausalLM", "LlamaForCausalLM"])
def test_an_activation_that_no_architecture_stands_for_is_an_error(architecture: str, tmp_path: Path) -> None:
    with (
        BitNetModel.from_config(SUBNORMED | {"architecture": architecture, "hidden_act": "gelu"}) as model,
        pytest.raises(ArgumentError, match=f"hidden_act = gelu: GGUF has no architecture that is a {architecture}"),
    ):
        model.save_pretrained(tmp_path / "m.gguf", format="gguf")
    assert list(tmp_path.iterdir()) == []


WRITTEN = REPO / "tests_go" / "testdata" / "gguf"


@pytest.mark.parametrize(
    ("name", "alignment"),
    [("version_3", 32), ("version_2", 32), ("alignment_16", 16), ("alignment_64", 64), ("alignment_4096", 4096)],
)
def test_files_of_both_versions_and_of_any_alignment_hold_the_same(name: str, alignment: int, tmp_path: Path) -> None:
    """As the package gguf writes them: tests_py/record/gguf_containers.py."""
    file, values = WRITTEN / f"{name}.gguf", np.load(WRITTEN / "values.npz")
    content = file.read_bytes()
    assert int.from_bytes(content[4:8], "little") == (2 if name == "version_2" else 3)
    found = inspect_model(file)
    assert found["metadata"].get("general.alignment", 32) == alignment
    assert {tensor["name"] for tensor in found["tensors"]} == set(values)
    assert all(tensor["offset"] % alignment == 0 for tensor in found["tensors"])
    same_values(file, alignment, values)
    assert verify_model(file).ok
    with BitNetModel.from_pretrained(file) as model, BitNetModel.from_pretrained(WRITTEN / "version_3.gguf") as other:
        logits = model.forward([1, 2, 3, 10])
        assert np.isfinite(logits).all()
        np.testing.assert_array_equal(logits, other.forward([1, 2, 3, 10]))
    convert(file, tmp_path / "m.gguf", type="f16")  # the scale of 0.25 is exact in it
    same_values(tmp_path / "m.gguf", 32, values)


def same_values(file: Path, alignment: int, values: Any) -> None:
    content, tensors = file.read_bytes(), inspect_model(file)["tensors"]
    start = len(content) - max(tensor["offset"] + -(-tensor["bytes"] // alignment) * alignment for tensor in tensors)
    for tensor in tensors:
        want = values[tensor["name"]]
        found = np.frombuffer(content, want.dtype, want.size, start + tensor["offset"])
        np.testing.assert_array_equal(found, want.ravel(), err_msg=tensor["name"])


@pytest.mark.full
def test_a_file_of_the_2b_shape_becomes_the_same_weights_in_memory(tmp_path: Path) -> None:
    """332 tensors; in memory they are those of the native file, so that decoding has its speed: `bitnet bench load`, `decode`."""
    with BitNetModel.from_config("bitnet-2b", head_dtype="bfloat16") as model:
        model.save_pretrained(tmp_path / "m.gguf", format="gguf")
        facts = (model.memory_footprint(), model.head_dtype, model.packing)
        said = model.generate([1, 2, 3], max_new_tokens=8)
    assert len(inspect_model(tmp_path / "m.gguf")["tensors"]) == 332
    with BitNetModel.from_pretrained(tmp_path / "m.gguf") as model:
        assert (model.memory_footprint(), model.head_dtype, model.packing) == facts
        assert model.generate([1, 2, 3], max_new_tokens=8) == said
