"""BitNetModel.from_state_dict: the arrays of a checkpoint make the model that its files do."""

import json
from typing import Any

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by it
import numpy as np
import pytest
from safetensors.numpy import load_file

from bitnet_rust import BitNetModel, ConfigError, DTypeError, FormatError, Tensor
from conftest import GOLDEN

IDS = [[5, 6, 7, 8, 100], [9, 10, 11]]


def stored(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    config = json.loads((GOLDEN / folder / "config.json").read_text())
    return config, load_file(GOLDEN / folder / "model.safetensors")


@pytest.mark.parametrize("folder", ["bitnet_offline_packed", "bitnet_online_bf16", "llama_bitlinear_packed"])
@pytest.mark.parametrize("trainable", [False, True])
def test_arrays_and_files_make_the_same_model(folder: str, trainable: bool) -> None:
    config, state = stored(folder)
    model = BitNetModel.from_state_dict(config, state, trainable=trainable)
    want = BitNetModel.from_pretrained(GOLDEN / folder, trainable=trainable)
    assert np.array_equal(model.forward(IDS), want.forward(IDS))
    assert model.trainable == trainable
    if trainable:
        for (name, ours), (_, theirs) in zip(model.named_parameters(), want.named_parameters(), strict=True):
            assert np.array_equal(ours.numpy(), theirs.numpy()), name


def test_tensors_lists_and_frozen_arrays_do_too() -> None:
    config, state = stored("bitnet_offline_packed")
    want = BitNetModel.from_state_dict(config, state).forward(IDS)
    mixed: dict[str, Any] = {}
    for i, (name, array) in enumerate(state.items()):
        frozen = array.copy()
        frozen.setflags(write=False)
        transposed = array.T.copy().T
        mixed[name] = (frozen, Tensor(array), transposed)[i % 3]
    assert np.array_equal(BitNetModel.from_state_dict(config, mixed, head_dtype="bfloat16").forward(IDS), want)


def test_the_model_keeps_no_array() -> None:
    config, state = stored("bitnet_online_bf16")
    own = {name: array.copy() for name, array in state.items()}
    model = BitNetModel.from_state_dict(config, own)
    before = model.forward(IDS)
    for array in own.values():
        array[...] = 0
    assert np.array_equal(model.forward(IDS), before)


def test_what_does_not_fit_is_named() -> None:
    config, state = stored("bitnet_offline_packed")
    name = "model.layers.1.mlp.up_proj.weight"
    for change, message in (
        ({name: None}, f'no such tensor: state_dict: tensor "{name}"'),
        ({name: state[name][:, 1:].copy()}, "shape"),
        ({"model.extra": np.zeros(3, np.float32)}, 'unexpected tensor: state_dict: tensor "model.extra"'),
    ):
        wrong = {key: value for key, value in (state | change).items() if value is not None}
        with pytest.raises(FormatError, match=message):
            BitNetModel.from_state_dict(config, wrong)
    with pytest.raises(DTypeError, match=f"{name} is int64"):
        BitNetModel.from_state_dict(config, state | {name: np.zeros((2, 2), np.int64)})
    with pytest.raises(DTypeError, match="dictionary of arrays"):
        BitNetModel.from_state_dict(config, list(state.values()))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="hidden_size"):
        BitNetModel.from_state_dict(config | {"hidden_size": 0}, state)
