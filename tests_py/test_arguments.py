"""Arguments of a wrong kind: each is refused by name, and shown as it is."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetModel,
    ConfigError,
    DTypeError,
    ModelNotFoundError,
    TokenizerError,
    find_model,
    register_model,
)

# --- prompts and options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (None, "prompt is None"),
        (5.0, r"prompt is 5\.0"),
        (True, "prompt is True"),
        (b"text", "prompt is b'text'"),
        (bytearray(8), "of type bytearray"),
        ({"input_ids": [5]}, "of type dict"),
        ({5, 6}, "of type set"),
        ([5, "a"], r"prompt\[1\] is 'a'"),
        ([5, 6.0], r"prompt\[1\] is 6\.0"),
        ([False], r"prompt\[0\] is False"),
        ([5, [6]], r"prompt\[1\] is of type list"),
        ([[5], [6, None]], r"prompt 1\[1\] is None"),
        (np.array([5.0]), "float64"),
        (np.array([True]), "bool"),
        (np.array([5, None]), r"prompt\[1\] is None"),
    ],
)
def test_what_is_no_token_ids_is_described(tiny: BitNetModel, prompt: Any, says: str) -> None:
    with pytest.raises(DTypeError, match=says):
        tiny.generate(prompt)


def test_ids_out_of_32_bits_are_named_also_in_an_iterator(tiny: BitNetModel) -> None:
    with pytest.raises(ArgumentError, match=r"prompt\[1\] = 1099511627776"):
        tiny.generate(i for i in (5, 2**40))


@pytest.mark.parametrize(
    "options",
    [
        {"stop": 5},
        {"stop": b"e"},
        {"logit_bias": 5},
        {"logit_bias": [5]},
        {"logit_bias": {"abc": 1.0}},
        {"logit_bias": {5: None}},
        {"logit_bias": {5: "x"}},
        {"logit_bias": {2.5: 1.0}},
        {"stop_token_ids": ["5"]},
        {"stop_token_ids": [1.5]},
        {"do_sample": "yes"},
    ],
)
def test_options_of_a_wrong_form_are_named(tiny: BitNetModel, options: dict[str, Any]) -> None:
    with pytest.raises((ArgumentError, DTypeError), match=next(iter(options))):
        tiny.generate("First", **options)


def test_log_probabilities_are_asked_for_with_details(tiny: BitNetModel) -> None:
    with pytest.raises(ArgumentError, match="details=True"):
        tiny.generate("First", logprobs=2)
    assert tiny.generate("First", logprobs=-1, max_new_tokens=1)


def test_windows_are_whole_numbers(tiny: BitNetModel) -> None:
    for options in ({"window": 2.5}, {"stride": "a"}):
        with pytest.raises(DTypeError, match="whole number"):
            tiny.perplexity("First Citizen", **options)
    with pytest.raises(ArgumentError, match="window"):
        tiny.perplexity("First Citizen", window=2**80)
    with pytest.raises(DTypeError, match="text is None"):
        tiny.perplexity(None)


def test_text_that_is_not_unicode_is_refused_where_it_stands(tiny: BitNetModel) -> None:
    with pytest.raises(ArgumentError, match=r"text\[3\] = '\\udce9'"):
        tiny.generate("caf\udce9")


def test_messages_and_templates_have_their_types(tiny: BitNetModel) -> None:
    for messages in (None, 5, [5], ["text"]):
        with pytest.raises(DTypeError, match="messages"):
            tiny.chat(messages, chat_template="x")
    with pytest.raises(DTypeError, match="chat_template is of type PosixPath"):
        tiny.chat("text", chat_template=Path("template.jinja"))  # type: ignore[call-overload]
    with pytest.raises(TokenizerError, match="line 2 of the chat template is malformed"):
        tiny.chat("text", chat_template="a\n{{ b")


# --- configurations and names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "NoneType"),
        ([1], "list"),
        ({"vocab_size": float("nan")}, "vocab_size = nan: must be a finite number"),
        ({"rope_scaling": {"factor": float("inf")}}, "rope_scaling"),
        ({"vocab_size": object()}, "vocab_size = <object"),
    ],
)
def test_what_is_no_config_is_described(config: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        BitNetModel.from_config(config)
    with pytest.raises(ConfigError, match=says):
        register_model("no-config", config)


@pytest.mark.parametrize(("seed", "kind"), [(-1, ArgumentError), (2**70, ArgumentError), ("a", DTypeError)])
def test_bad_seeds_of_random_weights_are_refused(seed: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="seed"):
        BitNetModel.from_config("char", seed=seed)


@pytest.mark.parametrize("name", ["", "~no-such-user/model", "a\0b"])
def test_names_that_are_no_paths_are_not_found(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        BitNetModel.from_pretrained(name)


def test_a_config_file_is_not_taken_for_a_model(tiny_dir: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="pass its directory"):
        BitNetModel.from_pretrained(tiny_dir / "config.json")


def test_a_head_dtype_is_a_text() -> None:
    with pytest.raises(ArgumentError, match="head_dtype"):
        BitNetModel.from_pretrained("bitnet-shakespeare", head_dtype=np.float32)  # type: ignore[arg-type]


def test_hub_ids_are_checked_when_registered() -> None:
    with pytest.raises(ArgumentError, match="owner/name"):
        register_model("bad-hub", find_model("char").config, hub_id="no hub id")


def test_the_class_called_says_what_to_call() -> None:
    with pytest.raises(TypeError, match="from_pretrained"):
        BitNetModel("bitnet-shakespeare")  # type: ignore[arg-type]


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_model_is_neither_pickled_nor_copied(tiny: BitNetModel, take: Any) -> None:
    with pytest.raises(TypeError, match="from_pretrained in each process"):
        take(tiny)
