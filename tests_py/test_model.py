"""BitNetModel: logits, generation in all its forms, configuration, saving."""

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from array import array
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by it
import numpy as np
import pytest
from safetensors.numpy import load_file

import bitnet_rust
from bitnet_rust import (
    ArgumentError,
    BitNetConfig,
    BitNetModel,
    ConfigError,
    DTypeError,
    FormatError,
    GenerationResult,
    ModelWarning,
    Piece,
    build_info,
    list_models,
)

PROMPT = "First Citizen:"


# --- logits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        array("i", [1, 2, 3]),
        np.array([1, 2, 3]),
        np.array([1, 2, 3], np.int32),
        np.array([1, 2, 3], np.uint8),
        np.arange(7)[1:7:2] // 2 + 1,
    ],
)
def test_one_sequence_gives_a_row_of_logits_a_token(tiny: BitNetModel, tokens: Any) -> None:
    logits = tiny.forward(tokens)
    assert logits.shape == (3, 512)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, tiny([1, 2, 3]))


def test_one_int_is_a_sequence_of_one(tiny: BitNetModel) -> None:
    np.testing.assert_array_equal(tiny.forward(5), tiny.forward([5]))


@pytest.mark.parametrize("tokens", [[[1, 2, 3], [4, 5, 6]], np.array([[1, 2, 3], [4, 5, 6]])])
def test_a_batch_gives_the_logits_of_its_rows(tiny: BitNetModel, tokens: Any) -> None:
    logits = tiny.forward(tokens)
    assert logits.shape == (2, 3, 512)
    np.testing.assert_array_equal(logits[1], tiny.forward([4, 5, 6]))


@pytest.mark.parametrize(
    ("tokens", "lengths"),
    [
        ([[1, 2, 3], [4, 5]], None),
        ([[1, 2, 3], [4, 5, 0]], [3, 2]),
        (np.array([[1, 2, 3], [4, 5, 0]]), np.array([3, 2])),
        ([array("i", [1, 2, 3]), np.array([4, 5])], None),
    ],
)
def test_padded_positions_are_zero(tiny: BitNetModel, tokens: Any, lengths: Any) -> None:
    logits = tiny.forward(tokens, lengths)
    assert logits.shape == (2, 3, 512)
    np.testing.assert_array_equal(logits[1, :2], tiny.forward([4, 5]))
    assert not logits[1, 2].any()


def test_lengths_shorten_a_single_sequence_too(tiny: BitNetModel) -> None:
    logits = tiny.forward([1, 2, 3], 2)
    assert logits.shape == (3, 512)
    np.testing.assert_array_equal(logits[:2], tiny.forward([1, 2]))
    assert not logits[2].any()


def test_hidden_states_are_what_the_head_makes_logits_of(tiny: BitNetModel, tiny_dir: Path) -> None:
    head = load_file(tiny_dir / "model.safetensors")["model.embed_tokens.weight"].astype(np.float64)  # tied
    states = tiny.hidden_states([1, 2, 3])
    assert (states.dtype, states.shape) == (np.float32, (3, tiny.config.hidden_size))
    np.testing.assert_allclose(states @ head.T, tiny.forward([1, 2, 3]), atol=2e-4)
    batch = tiny.hidden_states([[1, 2, 3], [4, 5]])
    np.testing.assert_array_equal(batch[0], states)
    assert not batch[1, 2].any()


def test_embeddings_are_pooled_hidden_states(tiny: BitNetModel) -> None:
    texts = [PROMPT, "Before we proceed any further, hear me speak."]
    states = [tiny.hidden_states(tiny.tokenizer.encode(text)) for text in texts]
    plain = tiny.embed(texts, normalize=False)
    np.testing.assert_allclose(plain, [one.mean(0) for one in states], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(tiny.embed(texts, pooling="last", normalize=False), [one[-1] for one in states])
    unit = tiny.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(tiny.embed(texts[0]), unit[0])
    np.testing.assert_array_equal(tiny.embed([tiny.tokenizer.encode(text) for text in texts]), unit)
    with pytest.raises(ArgumentError, match="pooling = 'max': expected 'mean' or 'last'"):
        tiny.embed(PROMPT, pooling="max")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"texts\[1\] is empty"):
        tiny.embed([PROMPT, ""])


def test_perplexity_is_that_of_the_logits(tiny: BitNetModel) -> None:
    text = "First Citizen:\nBefore we proceed any further, hear me speak."
    ids = tiny.tokenizer.encode(text)
    logits = tiny.forward(ids)[:-1].astype(np.float64)
    log_p = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    log_p -= logits.max(-1, keepdims=True)
    wanted = math.exp(-log_p[np.arange(len(ids) - 1), ids[1:]].mean())
    assert tiny.perplexity(text) == pytest.approx(wanted, rel=1e-5)
    assert tiny.perplexity(ids) == tiny.perplexity(text)
    assert tiny.perplexity(text, window=8, stride=4) > tiny.perplexity(text)


# --- generation ------------------------------------------------------------------------------------------------------


def test_a_text_gives_the_text_that_follows(tiny: BitNetModel) -> None:
    text = tiny.generate(PROMPT, max_new_tokens=30)
    assert "Before we proceed any further, hear me speak." in text
    assert tiny.generate(PROMPT, max_new_tokens=30, return_full_text=True) == PROMPT + text


def test_token_ids_give_token_ids(tiny: BitNetModel) -> None:
    ids = tiny.tokenizer.encode(PROMPT)
    made = tiny.generate(ids, max_new_tokens=10)
    assert len(made) == 10
    assert tiny.tokenizer.decode(made) == tiny.generate(PROMPT, max_new_tokens=10)
    assert tiny.generate(np.array(ids), max_new_tokens=10, return_full_text=True) == ids + made


def test_a_batch_gives_what_each_prompt_gives_alone(tiny: BitNetModel) -> None:
    prompts = [PROMPT, "All:", "Before we proceed any further, hear", "B"]
    alone = [tiny.generate(p, max_new_tokens=12) for p in prompts]
    assert tiny.generate(prompts, max_new_tokens=12) == alone
    ids = [tiny.tokenizer.encode(p) for p in prompts]
    assert tiny.generate(ids, max_new_tokens=12) == [tiny.generate(i, max_new_tokens=12) for i in ids]
    assert len(tiny.generate(np.array([ids[0], ids[0]]), max_new_tokens=3)) == 2


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 1.5, "seed": 3}, {"stop": "speak"}, {"stop": ["Z", "hear me"]}]
)
def test_the_pieces_of_a_stream_add_up(tiny: BitNetModel, options: Any) -> None:
    pieces = list(tiny.generate(PROMPT, stream=True, max_new_tokens=40, **options))
    assert len(pieces) > 3
    assert all(pieces)
    assert "".join(pieces) == tiny.generate(PROMPT, max_new_tokens=40, **options)


def test_other_streams(tiny: BitNetModel) -> None:
    ids = tiny.tokenizer.encode(PROMPT)
    assert list(tiny.generate(ids, stream=True, max_new_tokens=5)) == tiny.generate(ids, max_new_tokens=5)
    full = list(tiny.generate(PROMPT, stream=True, max_new_tokens=5, return_full_text=True))
    assert full[0] == PROMPT
    texts = ["", ""]
    for index, piece in tiny.generate([PROMPT, "All:"], stream=True, max_new_tokens=5):
        texts[index] += piece
    assert texts == tiny.generate([PROMPT, "All:"], max_new_tokens=5)
    pieces = list(tiny.generate(PROMPT, stream=True, details=True, max_new_tokens=5, logprobs=0))
    assert all(isinstance(piece, Piece) and piece.logprob is not None for piece in pieces)
    assert [piece.finish_reason for piece in pieces] == [None] * 4 + ["length"]


def test_a_stream_may_be_left_early(tiny: BitNetModel) -> None:
    stream = tiny.generate(PROMPT, stream=True, max_new_tokens=200)
    next(stream)
    stream.close()
    assert list(stream) == []


def test_stop_strings_end_the_text_before_them(tiny: BitNetModel) -> None:
    whole = tiny.generate(PROMPT, max_new_tokens=60)
    at = whole.index("speak")
    result = tiny.generate(PROMPT, max_new_tokens=60, stop="speak", details=True)
    assert result.text == whole[:at]
    assert result.finish_reason == "stop"
    assert len(result.token_ids) < 60
    batch = tiny.generate([PROMPT, "All:"], max_new_tokens=40, stop=["speak", "never there"])
    assert batch[0] == whole[:at]


def test_stop_token_ids_end_the_text_and_are_no_part_of_it(tiny: BitNetModel) -> None:
    free = tiny.generate(PROMPT, max_new_tokens=20, details=True)
    stop = free.token_ids[7]
    first = free.token_ids.index(stop)
    result = tiny.generate(PROMPT, max_new_tokens=20, stop_token_ids=[stop], details=True)
    assert result.token_ids == free.token_ids[: first + 1]
    assert result.finish_reason == "stop"
    assert result.text == tiny.tokenizer.decode(free.token_ids[:first])


def test_details_have_ids_reasons_and_log_probabilities(tiny: BitNetModel) -> None:
    result = tiny.generate(PROMPT, max_new_tokens=4, details=True, logprobs=3)
    assert isinstance(result, GenerationResult)
    assert result.prompt_tokens == len(tiny.tokenizer.encode(PROMPT))
    assert result.finish_reason == "length"
    assert result.logprobs is not None
    assert result.top_logprobs is not None
    assert len(result.token_ids) == len(result.logprobs) == len(result.top_logprobs) == 4
    logits = tiny.forward(tiny.tokenizer.encode(PROMPT))[-1].astype(np.float64)
    log_p = logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())
    assert result.logprobs[0] == pytest.approx(log_p.max(), abs=1e-4)
    for token, logprob, top in zip(result.token_ids, result.logprobs, result.top_logprobs, strict=True):
        assert top[0] == (token, logprob)
        assert [p for _, p in top] == sorted((p for _, p in top), reverse=True)
    assert tiny.generate(PROMPT, max_new_tokens=1, details=True).logprobs is None
    assert tiny.generate(PROMPT, max_new_tokens=1, details=True, logprobs=-1).logprobs is None


def test_sampling_follows_its_seed_and_greedy_its_name(tiny: BitNetModel) -> None:
    def sample(**options: Any) -> str:
        return tiny.generate(PROMPT, max_new_tokens=24, **options)

    assert sample(temperature=3.0, seed=1) == sample(temperature=3.0, seed=1)
    assert sample(temperature=3.0, seed=1) != sample(temperature=3.0, seed=2)
    greedy = sample()
    assert sample(temperature=0) == greedy
    assert sample(do_sample=False, temperature=3.0) == greedy
    assert sample(top_k=1) == greedy
    assert sample(do_sample=True, top_p=1e-6, seed=np.int64(4)) == greedy


def test_logit_bias_bans_and_forces_tokens(tiny: BitNetModel) -> None:
    best = tiny.generate(tiny.tokenizer.encode(PROMPT), max_new_tokens=1)[0]
    ids = tiny.tokenizer.encode(PROMPT)
    assert tiny.generate(ids, max_new_tokens=1, logit_bias={best: float("-inf")}) != [best]
    assert tiny.generate(ids, max_new_tokens=1, logit_bias={np.int64(77): 100.0}) == [77]


def test_the_models_generation_config_has_the_defaults(tiny_dir: Path, tmp_path: Path) -> None:
    import shutil

    directory = tmp_path / "model"
    shutil.copytree(tiny_dir, directory)
    best = BitNetModel.from_pretrained(tiny_dir).generate(PROMPT, max_new_tokens=5, details=True)
    config = {"max_new_tokens": 7, "temperature": 0.5, "top_k": 1, "eos_token_id": [1, best.token_ids[4]]}
    (directory / "generation_config.json").write_text(json.dumps(config))
    with BitNetModel.from_pretrained(directory) as model:
        result = model.generate(PROMPT, details=True)
        assert result.token_ids == best.token_ids
        assert result.finish_reason == "stop"
        assert len(model.generate(PROMPT, details=True, ignore_eos=True).token_ids) == 7
        assert model.generate(PROMPT, do_sample=True) == model.generate(PROMPT)  # top_k=1
    (directory / "generation_config.json").write_text("{broken")
    broken = pytest.raises(FormatError, match=r"generation_config\.json of .* is not a JSON object")
    with BitNetModel.from_pretrained(directory) as model, broken:
        model.generate(PROMPT)


def test_chat_renders_the_conversation(tiny: BitNetModel) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    text = tiny.generate(PROMPT, max_new_tokens=12, add_special_tokens=False)
    assert tiny.chat(PROMPT, chat_template=template, max_new_tokens=12) == text
    messages = [{"role": "user", "content": "First "}, {"role": "user", "content": "Citizen:"}]
    assert "".join(tiny.chat(messages, stream=True, chat_template=template, max_new_tokens=12)) == text


def test_the_session_tells_how_far_the_prompt_is(tiny: BitNetModel) -> None:
    session = tiny.session([PROMPT], max_new_tokens=2)
    read, total = session.prompt_progress()
    assert (read, total) == (0, len(tiny.tokenizer.encode(PROMPT)))
    next(iter(session))


# --- what a model is -------------------------------------------------------------------------------------------------


def test_a_model_describes_itself(tiny: BitNetModel) -> None:
    assert tiny.num_parameters() == 2_364_672
    assert 600_000 < tiny.memory_footprint() < 1_000_000
    assert tiny.head_dtype == "bfloat16"
    assert tiny.info["format"] == "hf"
    assert "bitnet_offline_packed" in repr(tiny)
    assert "2,364,672" in repr(tiny)


@pytest.mark.parametrize("head_dtype", ["float32", "bfloat16", "float16", "int8", "int4"])
def test_the_head_can_be_kept_smaller(tiny: BitNetModel, tiny_dir: Path, head_dtype: str) -> None:
    with BitNetModel.from_pretrained(tiny_dir, head_dtype=head_dtype) as model:
        assert model.head_dtype == head_dtype
        assert (model.memory_footprint() < tiny.memory_footprint()) == (head_dtype in ("int8", "int4"))
        assert model.generate(PROMPT, max_new_tokens=4)


def test_loading_reports_its_progress(tiny_dir: Path) -> None:
    seen: list[tuple[int, int]] = []
    BitNetModel.from_pretrained(tiny_dir, progress=lambda done, total: seen.append((done, total))).close()
    assert seen
    assert seen[-1][0] == seen[-1][1] > 0


def test_random_models_are_made_of_a_name_a_config_or_fields() -> None:
    with (
        BitNetModel.from_config("char", seed=1) as a,
        BitNetModel.from_config(BitNetConfig(preset="char"), seed=1) as b,
    ):
        np.testing.assert_array_equal(a.forward([1, 2]), b.forward([1, 2]))
        with BitNetModel.from_config("char", seed=2, head_dtype="int8") as c:
            assert (a.forward([1, 2]) != c.forward([1, 2])).any()
        assert a.info["path"] == ""


def test_a_native_file_has_everything(tiny: BitNetModel, tmp_path: Path) -> None:
    path = tmp_path / "all.bitnet"
    tiny.save_pretrained(path)
    for options in ({}, {"verify": False}, {"resident": "map"}, {"resident": "copy"}):
        with BitNetModel.from_pretrained(path, **options) as model:
            assert model.info["format"] == "native"
            assert model.generate(PROMPT, max_new_tokens=8) == tiny.generate(PROMPT, max_new_tokens=8)
    with pytest.raises(ArgumentError, match="resident = 'mapped': expected auto, map or copy"):
        BitNetModel.from_pretrained(path, resident="mapped")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="verify = 'never': expected True, False or 'background'"):
        BitNetModel.from_pretrained(path, verify="never")  # type: ignore[arg-type]


# --- configs, threads, build -----------------------------------------------------------------------------------------


def test_a_config_reads_like_an_object_and_a_mapping(tiny: BitNetModel) -> None:
    config = tiny.config
    assert config.hidden_size == config["hidden_size"] == 256
    assert config.eos_token_ids == [1]
    assert dict(config) == config.to_dict()
    assert "vocab_size=512" in repr(config)
    assert "num_hidden_layers" in dir(config)
    assert BitNetConfig.from_dict(config) == config
    assert len({config, BitNetConfig.from_dict(config)}) == 1
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config
    with pytest.raises(AttributeError, match="hiden_size"):
        config.hiden_size  # noqa: B018
    with pytest.raises(AttributeError, match="cannot be changed"):
        config.hidden_size = 1


def test_the_types_of_a_configs_fields_are_those_that_are_declared() -> None:
    declared = {name: kind for name, kind in get_type_hints(BitNetConfig).items() if not name.startswith("_")}
    stretched = BitNetConfig(preset="tiny", rope_scaling={"rope_type": "linear", "factor": 2}, eos_token_id=[1, 2])
    for config in (stretched, *(entry.config for entry in list_models())):
        for name, kind in declared.items():
            if name.startswith("rope_") and config.model_type == "gpt2":
                assert name not in config  # its positions are learned
                continue
            kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
            assert isinstance(config[name], tuple(get_origin(one) or one for one in kinds)), (name, kind)


def test_configs_come_from_files_and_code(tiny_dir: Path, tmp_path: Path) -> None:
    assert BitNetConfig.from_file(tiny_dir).vocab_size == 512
    yaml = tmp_path / "model.yaml"
    yaml.write_text("preset: small\nnum_hidden_layers: 2\n")
    assert BitNetConfig.from_file(yaml).num_hidden_layers == 2
    assert BitNetConfig(preset="char").vocab_size == 65
    assert BitNetConfig(**{**BitNetConfig(preset="char"), "eos_token_id": [3, 4]}).eos_token_ids == [3, 4]
    assert BitNetConfig.from_dict({**BitNetConfig(preset="char"), "eos_token_id": None}).eos_token_ids == []
    with pytest.raises(ConfigError, match="hidden_size"):
        BitNetConfig(preset="char", hidden_size=-1)


def test_threads_can_be_set_and_change_no_bit(tiny: BitNetModel) -> None:
    before = bitnet_rust.num_threads()
    logits = tiny.forward(list(range(100)))
    try:
        for n in (1, 2, 3):
            bitnet_rust.set_num_threads(n)
            assert bitnet_rust.num_threads() == bitnet_rust.build_info()["threads"] == n
            np.testing.assert_array_equal(tiny.forward(list(range(100))), logits)
    finally:
        bitnet_rust.set_num_threads(before)


def test_build_info_names_version_and_kernels() -> None:
    info = bitnet_rust.build_info()
    assert info["version"] == bitnet_rust.__version__
    assert info["isa"] in info["supported_isas"]
    assert info["go_version"].startswith("go1.")
    assert info["threads"] >= 1
    assert info["physical_cores"] >= 1


def test_the_package_says_what_it_has() -> None:
    assert set(bitnet_rust.__all__) <= set(dir(bitnet_rust))
    for name in bitnet_rust.__all__:
        assert getattr(bitnet_rust, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        bitnet_rust.no_such_name  # noqa: B018


# --- what users bring --------------------------------------------------------------------------------------------------


class OnlyAnArray:
    """An array of another library: NumPy's protocol and nothing else."""

    def __init__(self, values: Any) -> None:
        self._values = np.array(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._values


def test_prompts_come_as_iterators_arrays_and_columns(tiny: BitNetModel) -> None:
    texts = tiny.generate([PROMPT, "ROMEO:"], max_new_tokens=4)
    for form in (iter([PROMPT, "ROMEO:"]), np.array([PROMPT, "ROMEO:"]), np.array([PROMPT, "ROMEO:"], object)):
        assert tiny.generate(form, max_new_tokens=4) == texts
    assert tiny.generate(np.str_(PROMPT), max_new_tokens=4) == texts[0]
    ids = tiny.generate([5, 6], max_new_tokens=4)
    for same in (iter([5, 6]), np.array([5, 6], object), OnlyAnArray([5, 6]), memoryview(np.array([5, 6], np.int32))):
        assert tiny.generate(same, max_new_tokens=4) == ids
    np.testing.assert_array_equal(tiny.forward(OnlyAnArray([5, 6])), tiny.forward([5, 6]))


def test_options_take_numbers_of_numpy(tiny: BitNetModel) -> None:
    wanted = tiny.generate(PROMPT, max_new_tokens=4, temperature=0.5, seed=7, stop_token_ids=[5], logit_bias={9: -1.0})
    found = tiny.generate(
        PROMPT,
        max_new_tokens=np.int64(4),  # type: ignore[arg-type]
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        seed=np.uint64(7),  # type: ignore[arg-type]
        stop_token_ids=np.array([5]),  # type: ignore[arg-type]
        logit_bias={np.int64(9): np.float32(-1)},  # type: ignore[dict-item]
    )
    assert found == wanted
    assert tiny.generate(PROMPT, max_new_tokens=4, stop_token_ids=200) == ""  # type: ignore[arg-type]
    assert tiny.generate(PROMPT, max_new_tokens=2, logit_bias={"200": -100}) != "\nB"  # type: ignore[dict-item]


def test_one_message_is_a_conversation(tiny: BitNetModel) -> None:
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    message = {"role": "user", "content": PROMPT}
    replies = [tiny.chat(m, chat_template=template, max_new_tokens=4) for m in (PROMPT, message, [message])]
    assert replies[0] == replies[1] == replies[2]


def test_random_weights_of_a_file_or_of_numpy_numbers(tmp_path: Path) -> None:
    fields = {"vocab_size": 100, "hidden_size": np.int64(64), "intermediate_size": 128, "num_hidden_layers": 1}
    fields |= {"num_attention_heads": 4, "max_position_embeddings": 32}
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    wanted = BitNetModel.from_config(fields, seed=3).forward([1, 2])
    for form in (path, str(path), BitNetConfig(**fields)):
        np.testing.assert_array_equal(BitNetModel.from_config(form, seed=np.int64(3)).forward([1, 2]), wanted)  # type: ignore[arg-type]


def test_a_model_outlives_its_files_and_the_working_directory(
    tiny: BitNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.save_pretrained("tiny.bitnet")
    model = BitNetModel.from_pretrained("tiny.bitnet")
    monkeypatch.chdir("/")
    model.save_pretrained(tmp_path / "copy.bitnet")
    assert "tokenizer.json" in BitNetModel.from_pretrained(tmp_path / "copy.bitnet")._assets
    (tmp_path / "tiny.bitnet").unlink()
    assert model.generate(PROMPT, max_new_tokens=4) == tiny.generate(PROMPT, max_new_tokens=4)


def test_saving_makes_directories_and_knows_the_home(
    tiny: BitNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny.save_pretrained("~/models/of/mine/tiny.bitnet")
    assert (tmp_path / "models/of/mine/tiny.bitnet").is_file()
    assert BitNetModel.from_pretrained("~/models/of/mine/tiny.bitnet").num_parameters() == tiny.num_parameters()


# --- at a prompt of Python ---------------------------------------------------------------------------------------------


def test_the_package_lists_its_public_names_and_no_other() -> None:
    assert [name for name in dir(bitnet_rust) if not name.startswith("__")] == sorted(
        name for name in bitnet_rust.__all__ if not name.startswith("__")
    )


def test_everything_public_has_a_docstring() -> None:
    missing = []
    for name in bitnet_rust.__all__:
        value = getattr(bitnet_rust, name)
        if isinstance(value, str):
            continue
        parts = vars(value) if isinstance(value, type) else {}
        public = {f"{name}.{key}": part for key, part in parts.items() if not key.startswith("_")}
        methods = {k: v for k, v in public.items() if callable(v) or isinstance(v, property | classmethod)}
        missing += [key for key, part in ({name: value} | methods).items() if not (part.__doc__ or "").strip()]
    assert missing == []


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 3}, {"stop": ["the", ","]}])
def test_guessed_tokens_change_nothing(tiny: BitNetModel, options: dict[str, Any]) -> None:
    options |= {"max_new_tokens": 60, "details": True, "logprobs": 1}
    prompts = ["ROMEO: O, I will not stay. ROMEO: O, I will", [1, 2, 3] * 20]
    for prompt in prompts:
        want = tiny.generate(prompt, **options)
        assert tiny.generate(prompt, prompt_lookup_num_tokens=16, **options) == want
    batch = [prompts[0], prompts[0] + " not", "First"]
    assert tiny.generate(batch, prompt_lookup_num_tokens=4, **options) == tiny.generate(batch, **options)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.2, "seed": 9}])
def test_an_assistant_changes_the_steps_and_not_the_text(
    tiny: BitNetModel, tiny_dir: Path, options: dict[str, Any]
) -> None:
    """The assistant is the same model: all that it guesses is right."""
    options |= {"max_new_tokens": 40, "details": True, "logprobs": 0}
    prompts = [PROMPT, "Before we proceed"]
    want = tiny.generate(prompts, **options)
    with BitNetModel.from_pretrained(tiny_dir) as same:
        with tiny.profile(read_limit=False) as profile:
            assert tiny.generate(prompts, assistant_model=same, **options) == want
        assert profile.steps < 15
        pieces = list(tiny.generate(PROMPT, assistant_model=same, num_assistant_tokens=7, stream=True, **options))
        assert [piece.token_id for piece in pieces] == want[0].token_ids


def test_an_assistant_that_cannot_be_one_is_refused(tiny: BitNetModel, shakespeare: BitNetModel) -> None:
    with pytest.raises(
        ArgumentError, match=r"assistant_model = .* expected a model with the same tokens: vocab_size = 512"
    ):
        tiny.generate(PROMPT, assistant_model=shakespeare)
    with pytest.raises(DTypeError, match="assistant_model = 'small': expected a BitNetModel"):
        tiny.generate(PROMPT, assistant_model="small")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="num_assistant_tokens = 3: expected none without an assistant model"):
        tiny.generate(PROMPT, num_assistant_tokens=3)
    with pytest.raises(ArgumentError, match="num_assistant_tokens = 17"):
        tiny.generate(PROMPT, assistant_model=tiny, num_assistant_tokens=17)


IN_LITTLE_MEMORY = """
from bitnet_rust import BitNetModel, memory_stats

shape = {"vocab_size": 256, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
options = {"max_new_tokens": 100, "ignore_eos": True, "temperature": 1.5, "seed": 4}
with BitNetModel.from_config({**shape, "max_position_embeddings": 2048}) as model:
    system = [i % 256 for i in range(128)]
    prompts = [system + [i] * (1 + 71 * i % 500) for i in range(40)]
    alone = [model.generate(prompt, **options) for prompt in prompts]
    assert memory_stats()["failures"]["budget"] == 0
    with model.profile(read_limit=False) as profile:
        assert model.generate(prompts, **options) == alone
    assert memory_stats()["failures"]["budget"] > 0, "memory did end"
    assert profile.steps < 40 * 100 / 4, "they ran together"
    print(profile.rows - sum(map(len, alone)), sum(map(len, prompts)))
"""


def test_a_list_of_prompts_runs_together_in_the_memory_that_there_is() -> None:
    environment = os.environ | {"BITNET_MEMORY_BUDGET": "24MiB"}
    done = subprocess.run([sys.executable, "-c", IN_LITTLE_MEMORY], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    computed, given = map(int, done.stdout.split())
    assert computed < given, "their common beginning was read once, and more than what memory took was saved"


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kv_dtype", ["float16", "bfloat16", "int8"])
def test_keys_and_values_may_be_stored_in_less(tiny: BitNetModel, kv_dtype: str) -> None:
    text = "To be, or not to be, that is the question. " * 8
    with BitNetModel.from_pretrained(tiny._path, kv_dtype=kv_dtype) as model:
        assert model.kv_dtype == kv_dtype
        assert model.perplexity(text) != tiny.perplexity(text)
        assert model.perplexity(text) == pytest.approx(tiny.perplexity(text), rel=0.01)
        assert len(model.generate([text, "a"], max_new_tokens=4)) == 2


def test_an_unknown_kv_dtype_is_refused(tiny: BitNetModel) -> None:
    with pytest.raises(ArgumentError, match="kv_dtype = 'int4': expected float32, float16, bfloat16 or int8"):
        BitNetModel.from_pretrained(tiny._path, kv_dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="kv_dtype"):
        BitNetModel.from_config("char", kv_dtype="half")  # type: ignore[arg-type]


HAS_BASE_3 = "avx512vbmi" in build_info()["features"] and build_info()["isa"] in ("avx512", "amx")


def slow_without_kernels() -> AbstractContextManager[Any]:
    return (
        nullcontext() if HAS_BASE_3 else pytest.warns(ModelWarning, match='packing "base3": .* has no kernels for it')
    )


def test_base_3_gives_the_same_bits_and_takes_less_memory(tiny: BitNetModel, tmp_path: Path) -> None:
    text, ids = "To be, or not to be, that is the question.", list(range(40))
    with slow_without_kernels(), BitNetModel.from_pretrained(tiny._path, packing="base3") as model:
        assert (tiny.packing, model.packing, model.info["packing"]) == ("2bit", "base3", "base3")
        assert model.memory_footprint() < tiny.memory_footprint()
        assert np.array_equal(model.forward(ids), tiny.forward(ids))
        assert model.generate([text, "a"], max_new_tokens=20) == tiny.generate([text, "a"], max_new_tokens=20)
        assert model.generate(text, max_new_tokens=20, details=True, logprobs=1) == tiny.generate(
            text, max_new_tokens=20, details=True, logprobs=1
        )
        model.save_pretrained(tmp_path / "m.bitnet")
    for packing, expected in (("auto", "base3" if HAS_BASE_3 else "2bit"), ("2bit", "2bit")):
        with BitNetModel.from_pretrained(tmp_path / "m.bitnet", packing=packing) as model:  # type: ignore[arg-type]
            assert model.packing == expected
            assert np.array_equal(model.forward(ids), tiny.forward(ids))


def test_a_random_model_may_be_made_in_base_3() -> None:
    with (
        slow_without_kernels(),
        BitNetModel.from_config("char", packing="base3") as model,
        BitNetModel.from_config("char", packing="2bit") as same,
    ):
        assert model.packing == "base3"
        assert np.array_equal(model.forward([1, 2, 3]), same.forward([1, 2, 3]))


def test_packings_that_cannot_be_are_refused(tiny: BitNetModel) -> None:
    with pytest.raises(ArgumentError, match="packing = 'base4': expected auto, 2bit or base3"):
        BitNetModel.from_pretrained(tiny._path, packing="base4")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='packing "base3": must be auto or 2bit in a model that is trained'):
        BitNetModel.from_config("char", packing="base3", trainable=True)


def test_the_exact_head_writes_the_same_text(tiny: BitNetModel) -> None:
    with BitNetModel.from_pretrained(tiny._path, head_dtype="exact") as model:
        assert model.head_dtype == "exact"
        assert model.memory_footprint() > tiny.memory_footprint()
        for options in ({}, {"top_k": 20, "seed": 1}, {"do_sample": True, "seed": 2}, {"repetition_penalty": 1.3}):
            assert model.generate(PROMPT, max_new_tokens=24, **options) == tiny.generate(
                PROMPT, max_new_tokens=24, **options
            )
        assert model.perplexity("A text, a text.") == tiny.perplexity("A text, a text.")
