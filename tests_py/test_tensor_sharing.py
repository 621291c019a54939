"""Tensors and NumPy arrays over the same memory, through DLPack. tests_py/test_torch_tensors.py does the same with PyTorch."""

import ctypes
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
    for _ in range(10_000):  # some few, but for a collector that gets the processor late
        Tensor.zeros(1 << 20)
        if alive() is None:
            break
    assert alive() is None


def test_large_arrays_are_given_back_when_their_tensors_go() -> None:
    """The collector of Go does not see their memory, and has nothing else to do here."""
    arrays = []
    for _ in range(8):
        array = np.zeros(1 << 24, np.float32)  # pages that nobody touches
        arrays.append(weakref.ref(array))
        view = Tensor.from_dlpack(array)[1:]
        del array, view
        assert sum(alive() is not None for alive in arrays) <= 1
    for _ in range(4):  # also where a result remembers what it was made of
        array = np.zeros(1 << 24, np.float32)
        arrays.append(weakref.ref(array))
        total = Tensor.from_dlpack(array).requires_grad_()[1:].sum()
        del array, total
        assert sum(alive() is not None for alive in arrays) <= 2


@pytest.fixture
def python() -> ctypes.PyDLL:
    """The interpreter's own functions of capsules."""
    api = ctypes.PyDLL(None)
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = (ctypes.py_object,)
    api.PyCapsule_IsValid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    return api


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p), ("deleter", _Deleter), ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    )  # fmt: skip


class _Producer:
    """Lends 64 MiB of float32, and counts how often they are given back."""

    def __init__(self, api: ctypes.PyDLL, versioned: bool, **changes: int) -> None:
        self.given_back = 0
        self._api, self._name = api, b"dltensor_versioned" if versioned else b"dltensor"
        self._memory, self._shape = np.zeros(1 << 24, np.float32), (ctypes.c_int64 * 1)(1 << 24)
        self._managed = _Versioned(major=1) if versioned else _Managed()
        self._managed.deleter, self._end = _Deleter(self._give_back), _Deleter(self._ended)
        tensor = self._managed.tensor
        tensor.data, tensor.device_type, tensor.ndim, tensor.shape = self._memory.ctypes.data, 1, 1, self._shape
        tensor.code, tensor.bits, tensor.lanes = 2, 32, 1
        for name, value in changes.items():
            setattr(tensor if hasattr(tensor, name) else self._managed, name, value)

    def capsule(self) -> Any:
        return self._api.PyCapsule_New(
            ctypes.addressof(self._managed), self._name, ctypes.cast(self._end, ctypes.c_void_p)
        )

    def _give_back(self, managed: int) -> None:
        assert managed == ctypes.addressof(self._managed)
        self.given_back += 1

    def _ended(self, capsule: int) -> None:
        """As the specification has it: a capsule that was used under its name has nothing to give back."""
        if self._api.PyCapsule_IsValid(capsule, self._name):
            self._give_back(self._api.PyCapsule_GetPointer(capsule, self._name))


@pytest.mark.parametrize("versioned", [False, True])
def test_memory_is_given_back_once_and_not_while_a_tensor_shows_it(python: ctypes.PyDLL, versioned: bool) -> None:
    from bitnet_rust import _bitnet

    producer = _Producer(python, versioned)
    capsule = producer.capsule()
    handle = _bitnet.from_dlpack(capsule, False)
    assert python.PyCapsule_GetName(capsule) == (b"used_dltensor_versioned" if versioned else b"used_dltensor")
    del capsule
    assert producer.given_back == 0
    tensor = Tensor._of(handle)
    tensor[0] = 7.0
    assert producer._memory[0] == 7.0
    del handle, tensor
    assert producer.given_back == 1
    gc.collect()
    Tensor.from_dlpack(np.zeros(1 << 24, np.float32))  # the collector looks again
    assert producer.given_back == 1


_REFUSED: list[tuple[dict[str, int], type[Exception], str]] = [
    ({"bits": 64}, DTypeError, "code 2, 64 bits"),
    ({"device_type": 2}, ArgumentError, "device type 2"),
    ({"ndim": -1}, ArgumentError, "-1 axes"),
]
_REFUSED_SINCE_1_0: list[tuple[dict[str, int], type[Exception], str]] = [
    ({"major": 2}, BufferError, "DLPack 2, expected 1"),
    ({"flags": 1}, BufferError, "cannot be written to"),
]


@pytest.mark.parametrize(
    ("versioned", "changes", "error", "said"),
    [(False, *case) for case in _REFUSED] + [(True, *case) for case in _REFUSED + _REFUSED_SINCE_1_0],
)
def test_memory_of_a_capsule_that_is_refused_is_its_producer_s(
    python: ctypes.PyDLL, versioned: bool, changes: dict[str, int], error: type[Exception], said: str
) -> None:
    from bitnet_rust import _bitnet

    producer = _Producer(python, versioned, **changes)
    capsule = producer.capsule()
    with pytest.raises(error, match=said):
        _bitnet.from_dlpack(capsule, False)
    assert python.PyCapsule_GetName(capsule) == producer._name
    assert producer.given_back == 0
    del capsule
    gc.collect()
    assert producer.given_back == 1


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
