"""Tensors and NumPy arrays over the same memory, through DLPack. tests_py/test_torch_tensors.py does the same with PyTorch."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from bitnet_rust import ArgumentError, DeviceError, DTypeError, Tensor, nn
from bitnet_rust.nn import functional as F

DTYPES: list[Any] = ["float32", "float16", "int8", "uint8", "int32", "int64", "bool", bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_each_side_sees_what_the_other_writes(dtype: Any) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    tensor = Tensor.from_dlpack(array)
    assert tensor.dtype == np.dtype(dtype).name
    np.testing.assert_array_equal(tensor.numpy(), array)
    array[1, 2] = 0
    tensor[0, 3] = 1
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert (array[0, 3], array[1, 2]) == (1, 0)

    back = tensor.numpy(copy=False)
    assert back.dtype == array.dtype
    assert back.__array_interface__["data"] == array.__array_interface__["data"]
    assert np.shares_memory(np.asarray(tensor, copy=False), array)


@pytest.mark.parametrize(
    "key", [np.s_[::-1, 1:], np.s_[1:1], np.s_[:, ::-2], np.s_[2], np.s_[:, 3:4], np.s_[0, 0], np.s_[None, :, 2]]
)
def test_views_of_any_strides_are_shared_both_ways(key: Any) -> None:
    array = np.arange(20, dtype=np.float32).reshape(4, 5)
    view = np.asarray(array[key]).T
    if view.ndim == 0:
        view = array[0, :1].reshape(())
    np.testing.assert_array_equal(Tensor.from_dlpack(view).numpy(), view)

    tensor = Tensor(array)
    shown = tensor[:, 1:].T.numpy(copy=False)
    np.testing.assert_array_equal(shown, array[:, 1:].T)
    tensor[3, 4] = -1.0
    assert shown[3, 3] == -1.0


def test_memory_lives_as_long_as_one_side_shows_it() -> None:
    array = np.arange(1 << 20, dtype=np.float32)
    alive = weakref.ref(array)
    tensor = Tensor.from_dlpack(array)[5:]
    del array
    gc.collect()
    assert alive() is not None
    assert int(tensor[0]) == 5

    shown = Tensor.ones(1 << 20).numpy(copy=False)
    for _ in range(50):  # Go's collector runs
        Tensor.zeros(1 << 20)
    assert shown.sum() == 1 << 20

    del tensor
    for _ in range(200):
        Tensor.zeros(1 << 20)
        if alive() is None:
            break
    assert alive() is None


def test_a_weight_that_others_changed_is_quantized_anew_after_touch() -> None:
    weight = np.eye(4, dtype=np.float32)
    shared = Tensor.from_dlpack(weight)
    x = Tensor([[1.0, 2.0, 3.0, 4.0]])
    before = F.bit_linear(x, shared).numpy()
    weight[:] = np.eye(4)[::-1]
    shared.touch()
    after = F.bit_linear(x, shared).numpy()
    np.testing.assert_array_equal(after, before[:, ::-1])


def test_gradients_reach_tensors_over_foreign_memory() -> None:
    weight = np.ones((2, 3), np.float32)
    parameter = nn.Parameter._of(Tensor.from_dlpack(weight)._handle).requires_grad_()
    (parameter * 2.0).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [[2.0] * 3] * 2
    with pytest.raises(BufferError, match="detach"):
        np.from_dlpack(parameter)
    assert np.shares_memory(np.from_dlpack(parameter.detach()), weight)


def test_what_cannot_be_shared_is_refused() -> None:
    frozen = np.zeros(3, np.float32)
    frozen.setflags(write=False)
    with pytest.raises(BufferError):
        Tensor.from_dlpack(frozen)
    with pytest.raises(DTypeError, match="no tensor dtype"):
        Tensor.from_dlpack(np.zeros(3))
    with pytest.raises(DTypeError, match="list has no __dlpack__"):
        Tensor.from_dlpack([1.0])
    with pytest.raises(ArgumentError, match="copy=False"):
        Tensor([1, 0, -1], dtype="ternary").numpy(copy=False)
    with pytest.raises(DTypeError, match="cast to int8"):
        Tensor([1, 0, -1], dtype="ternary").__dlpack__()
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(Tensor([1.0]), dtype=np.float16, copy=False)
    capsule = Tensor([1.0]).__dlpack__()
    from bitnet_rust import _bitnet

    _bitnet.from_dlpack(capsule, False)
    with pytest.raises(BufferError, match="not used before"):
        _bitnet.from_dlpack(capsule, False)
    with pytest.raises(DeviceError, match=r"\(2, 0\)"):
        Tensor.from_dlpack(_Elsewhere())
    with pytest.raises(BufferError, match="CPU"):
        Tensor([1.0]).__dlpack__(dl_device=(2, 0))
    copied = np.from_dlpack(_Copied(kept := Tensor([1.0, 2.0])))
    kept[0] = 5.0
    assert copied.tolist() == [1.0, 2.0]


class _Elsewhere:
    """An array of a graphics processor."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError


class _Copied:
    """Asks a tensor for a copy, as numpy.from_dlpack(copy=True) does in NumPy 2.1."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.__dlpack_device__()

    def __dlpack__(self, **_: Any) -> Any:
        return self._tensor.__dlpack__(copy=True)
