"""Tensors of the Go core with NumPy's semantics.

>>> from bitnet_rust import Tensor
>>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
>>> (x @ x.T).sum(axis=0)
Tensor([16., 36.], dtype=float32)

dtypes are float32, float16, bfloat16, int8, uint8, int32, int64, bool and ternary (-1, 0, 1 in two bits). There is no
float64: where NumPy answers in float64, such as the mean of integers, the answer is float32. Indexing, transposing and
reshaping give views that share memory; everything else gives a new tensor and never changes its operands.

Tensors remember how they were computed from those that require a gradient, and `backward` computes the gradients:

>>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
Tensor([2., 4., 6.], dtype=float32)
"""

import json
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

from . import _bitnet
from .autograd import Hook, HookHandle, _recording, run_backward
from .errors import ArgumentError, AutogradError, DeviceError, DTypeError, OutOfRangeError, missing_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Axes: TypeAlias = int | Sequence[int] | None

DTYPES = ("float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool", "ternary")
_FLOATS = ("float32", "float16", "bfloat16")
_INT64 = range(-(2**63), 2**63)


def _dtype_name(dtype: Any) -> str:
    """The name of a dtype given by name, as a NumPy dtype or as a type such as np.float32, float or int."""
    if isinstance(dtype, str):
        name = dtype
    elif dtype in (float, int, bool):
        name = {float: "float32", int: "int64", bool: "bool"}[dtype]
    else:
        import numpy as np

        name = np.dtype(dtype).name
    if name not in DTYPES:
        raise DTypeError(f"no tensor dtype {name!r}: expected one of {', '.join(DTYPES)}")
    return name


def _from_array(data: Any, dtype: str | None) -> _bitnet.TensorHandle:
    """Copies anything that NumPy makes an array of; Python floats become float32, Python integers int64."""
    import numpy as np

    array: NDArray[Any] = np.asarray(data)
    if dtype is None and not hasattr(data, "__array__") and array.dtype == np.float64:
        dtype = "float32"
    name = array.dtype.name
    if name not in DTYPES:
        if dtype is None or array.dtype.kind not in "biuf":
            raise DTypeError(f"an array of {name} has no tensor dtype: pass dtype= with one of {', '.join(DTYPES)}")
        # NumPy brings it to a dtype both sides have, on the way to the one asked for.
        name = dtype if dtype not in ("bfloat16", "ternary") else "float32"
        with np.errstate(over="ignore"):
            array = array.astype(name)
    array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=None)
    raw = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
    handle = _bitnet.tensor(json.dumps({"dtype": name, "shape": array.shape}), cast(Any, raw))
    return handle if dtype in (None, name) else _call("cast", handle, dtype=dtype)


def _call(name: str, *operands: _bitnet.TensorHandle, **params: Any) -> _bitnet.TensorHandle:
    return _bitnet.tensor_call(name, operands, json.dumps(params) if params else "", _recording.get())[0]


def _calls(name: str, operands: tuple[_bitnet.TensorHandle, ...], **params: Any) -> list["Tensor"]:
    """The results of an operation that has several."""
    handles = _bitnet.tensor_call(name, operands, json.dumps(params), _recording.get())
    return [Tensor._of(h) for h in handles]


def _axes(axis: "Axes") -> list[int] | None:
    return None if axis is None else [axis] if isinstance(axis, int) else [int(a) for a in axis]


def _lengths(shape: tuple[Any, ...]) -> list[int]:
    """A shape given as f(2, 3) or as f((2, 3))."""
    if len(shape) == 1 and isinstance(shape[0], Sequence):
        shape = tuple(shape[0])
    return [int(n) for n in shape]


def _number(value: float | int) -> str:
    """A number as the core reads it: integers exactly."""
    if isinstance(value, int) and value not in _INT64:
        raise ArgumentError(f"{value} is out of range for int64")
    return str(int(value)) if isinstance(value, int) else repr(float(value))


def _index_items(key: Any) -> list[Any]:
    items: list[Any] = []
    for item in key if isinstance(key, tuple) else (key,):
        if item is None:
            items.append(None)
        elif item is Ellipsis:
            items.append("...")
        elif isinstance(item, slice):
            parts = [None if p is None else operator.index(p) for p in (item.start, item.stop, item.step)]
            # Bounds far outside the axis are clipped there; the core counts in int64.
            items.append([p if p is None else max(-(2**62), min(p, 2**62)) for p in parts])
        elif hasattr(item, "__index__") and not isinstance(item, bool | Tensor):
            items.append(item.__index__())
        else:
            raise DTypeError(f"cannot index a tensor by {type(item).__name__}: expected integers, slices, None or ...")
    return items


def _unary(name: str, doc: str) -> Callable[["Tensor"], "Tensor"]:
    def method(self: "Tensor") -> "Tensor":
        return Tensor._of(_call(name, self._handle))

    method.__name__, method.__qualname__, method.__doc__ = name, f"Tensor.{name}", doc
    return method


def _binary(name: str, doc: str, compares: bool = False) -> Callable[["Tensor", Any], "Tensor"]:
    def method(self: "Tensor", other: Any) -> "Tensor":
        if compares and (other is None or isinstance(other, str)):
            return cast(Tensor, NotImplemented)
        return Tensor._of(_call(name, self._handle, self._operand(other, compares)))

    method.__name__, method.__qualname__, method.__doc__ = name, f"Tensor.{name}", doc
    return method


def _reflected(name: str) -> Callable[["Tensor", Any], "Tensor"]:
    def method(self: "Tensor", other: Any) -> "Tensor":
        return Tensor._of(_call(name, self._operand(other), self._handle))

    return method


class Tensor:
    """An N-dimensional array of the Go core.

    ``data`` is copied from a NumPy array, from anything with ``__array__``, from numbers or from nested sequences of
    them; ``dtype`` is a name or a NumPy dtype. float64 arrays need an explicit ``dtype``, Python floats become float32.
    With ``requires_grad`` backward passes compute its gradient, which needs a float dtype.
    """

    __slots__ = ("__weakref__", "_handle", "_info")
    __array_ufunc__ = None  # array + tensor asks the tensor
    __hash__ = None  # type: ignore[assignment]

    _handle: _bitnet.TensorHandle
    _info: dict[str, Any] | None

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False) -> None:
        name = None if dtype is None else _dtype_name(dtype)
        if isinstance(data, Tensor):
            data = data.detach()
            self._handle = _call("cast", _call("clone", data._handle), dtype=name or data.dtype)
        else:
            self._handle = _from_array(data, name)
        self._info = None
        if requires_grad:
            self.requires_grad_()

    @classmethod
    def _of(cls, handle: _bitnet.TensorHandle) -> Self:
        self = cls.__new__(cls)
        self._handle, self._info = handle, None
        return self

    def _operand(self, other: Any, compares: bool = False) -> _bitnet.TensorHandle:
        """The other operand. A Python number takes this tensor's dtype if that is of its kind, as in NumPy 2."""
        if isinstance(other, Tensor):
            return other._handle
        dtype = self.dtype
        if isinstance(other, bool):
            return _call("full", dtype="bool", value=_number(int(other)), shape=[])
        if isinstance(other, int):
            if dtype == "bool" or (compares and dtype not in _FLOATS):
                dtype = "int64"
            elif dtype == "ternary":
                dtype = "int8"
            return _call("full", dtype=dtype, value=_number(other), shape=[])
        if isinstance(other, float):
            return _call("full", dtype=dtype if dtype in _FLOATS else "float32", value=_number(other), shape=[])
        return _from_array(other, None)

    # --- making tensors ----------------------------------------------------------------------------------------------

    @classmethod
    def full(cls, shape: int | Sequence[int], value: float | int, dtype: Any = None) -> "Tensor":
        """A tensor of one value; the dtype is int64, bool or float32 by the value unless given."""
        name = _dtype_name(type(value) if dtype is None else dtype)
        lengths = [shape] if isinstance(shape, int) else [int(n) for n in shape]
        return cls._of(_call("full", dtype=name, value=_number(value), shape=lengths))

    @classmethod
    def zeros(cls, shape: int | Sequence[int], dtype: Any = "float32") -> "Tensor":
        """A tensor of zeros."""
        return cls.full(shape, 0, dtype)

    @classmethod
    def ones(cls, shape: int | Sequence[int], dtype: Any = "float32") -> "Tensor":
        """A tensor of ones."""
        return cls.full(shape, 1, dtype)

    @classmethod
    def arange(cls, start: float, stop: float | None = None, step: float = 1, dtype: Any = None) -> "Tensor":
        """start, start + step, ... up to but without stop; one argument is the stop."""
        if stop is None:
            start, stop = 0, start
        bounds = (start, stop, step)
        if not all(math.isfinite(b) for b in bounds):
            raise ArgumentError(f"arange: start {start}, stop {stop}, step {step} do not make a finite range")
        if dtype is None:
            dtype = "int64" if all(isinstance(b, int) for b in bounds) else "float32"
        return cls._of(_call("arange", dtype=_dtype_name(dtype), start=start, stop=stop, step=step))

    @classmethod
    def eye(cls, n: int, dtype: Any = "float32") -> "Tensor":
        """The n x n identity matrix."""
        return cls._of(_call("eye", dtype=_dtype_name(dtype), n=n))

    # --- sharing memory ----------------------------------------------------------------------------------------------

    @classmethod
    def from_dlpack(cls, array: Any) -> "Tensor":
        """A tensor over the memory of an array of NumPy, PyTorch or any other library with ``__dlpack__``: nothing is copied,
        and each side sees what the other writes. Arrays of ml_dtypes.bfloat16 become bfloat16.

        What is derived from a tensor's values, such as the quantized weight of a `BitLinear`, learns of a change only if it
        is made through the tensor: call `touch` after others.

        The array lives as long as a tensor shows its memory. The collector that finds out looks whenever tensors over 64 MiB have
        gone, so that arrays of that size are given back with the last of their tensors.

        BufferError: the array cannot be shared, as it may not be written to, or requires a gradient of PyTorch's.
        DeviceError: it is not in the memory of the CPU. DTypeError: no tensor has its dtype.
        """
        if not hasattr(array, "__dlpack__"):
            raise DTypeError(f"from_dlpack: {type(array).__name__} has no __dlpack__: Tensor(...) copies other data")
        if (device := array.__dlpack_device__())[0] != 1:
            raise DeviceError(f"from_dlpack: the array is on DLPack's device {tuple(device)}: expected the CPU, (1, 0)")
        bits = getattr(getattr(array, "dtype", None), "name", None) == "bfloat16" and hasattr(array, "view")
        source = array.view("uint16") if bits else array
        try:
            capsule = source.__dlpack__(max_version=(1, 0))
        except TypeError:  # of before DLPack 1.0
            capsule = source.__dlpack__()
        return Tensor._of(_bitnet.from_dlpack(capsule, bits))

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """The tensor's memory for ``torch.from_dlpack``, ``numpy.from_dlpack`` and others."""
        if stream is not None:
            raise BufferError(f"stream = {stream!r}: a tensor in the memory of the CPU has none")
        if dl_device not in (None, (1, 0)):
            raise BufferError(f"dl_device = {dl_device!r}: expected (1, 0), the CPU")
        if self.requires_grad:
            raise BufferError(
                "the tensor requires a gradient, of which the other side would not know: detach() it first"
            )
        return (self.clone() if copy else self)._capsule(max_version is not None and max_version[0] >= 1)

    def _capsule(self, versioned: bool, bits: bool = False) -> Any:
        return _bitnet.to_dlpack((self._handle,), versioned, bits)

    def touch(self) -> None:
        """Tells that others have changed the values, through memory that they share: what was derived from them is made
        anew, and a model whose parameter this is computes with it."""
        self._function("changed")

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def _facts(self) -> dict[str, Any]:
        if self._info is None:
            self._info = json.loads(self._handle.info())
        return self._info

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return tuple(self._facts["shape"])

    @property
    def dtype(self) -> str:
        """The name of the dtype."""
        return str(self._facts["dtype"])

    @property
    def strides(self) -> tuple[int, ...]:
        """The step of each axis in elements (NumPy counts bytes)."""
        return tuple(self._facts["strides"])

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._facts["shape"])

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self._facts["shape"])

    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return bool(self._facts["contiguous"])

    # --- to NumPy and Python -----------------------------------------------------------------------------------------

    def numpy(self, *, copy: bool = True) -> "NDArray[Any]":
        """A copy as a NumPy array. bfloat16 comes as ml_dtypes.bfloat16 if that package is installed and as float32
        otherwise, ternary as int8.

        With ``copy=False`` an array over the tensor's memory, see `from_dlpack`; of bfloat16 that needs ml_dtypes, and of
        ternary there is none (ArgumentError). NumPy before 2.1 only reads it.
        """
        import numpy as np

        if not copy:
            return self._shared()
        if self.dtype == "ternary":
            return self.astype("int8").numpy()
        if self.dtype != "bfloat16":
            return self._read(np.empty(self.shape, self.dtype))
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            return self.astype("float32").numpy()
        bits: NDArray[Any] = self._read(np.empty(self.shape, np.uint16))
        return bits.view(bfloat16)

    def _shared(self) -> "NDArray[Any]":
        """An array over the tensor's memory."""
        import numpy as np

        if self.dtype == "ternary":
            raise ArgumentError("ternary numbers share bytes, which NumPy cannot see: copy=False is not possible")
        if self.dtype != "bfloat16":
            return np.from_dlpack(_Lent(self.detach()))
        try:
            from ml_dtypes import bfloat16
        except ImportError as missing:
            raise missing_extra("bfloat16 in NumPy without a copy", "ml_dtypes", "bfloat16") from missing
        bits: NDArray[Any] = np.from_dlpack(_Lent(self.detach(), bits=True))
        return bits.view(bfloat16)

    def _read(self, out: "NDArray[Any]") -> "NDArray[Any]":
        if out.size:
            self._handle.read(cast(Any, out.reshape(-1).view("uint8")))
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> "NDArray[Any]":
        array = self.numpy(copy=copy is not False)
        if copy is False and dtype not in (None, array.dtype):
            raise ValueError(f"{array.dtype} cannot become {dtype} without a copy: copy=False is not possible")
        return array if dtype is None else array.astype(dtype, copy=False)

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return (self.astype("float32") if self.dtype == "bfloat16" else self).numpy().tolist()

    def item(self) -> Any:
        """The one element as a Python number."""
        if self.size != 1:
            raise ArgumentError(f"a tensor of shape {self.shape} has {self.size} elements, expected one")
        return self.reshape(()).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __index__(self) -> int:
        if self.dtype in _FLOATS or self.dtype == "bool":
            raise DTypeError(f"only integer tensors are indices, this one is {self.dtype}")
        return int(self.item())

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def _repr_html_(self) -> str:
        from .viz.html import tensor_html

        return tensor_html(self)

    def __repr__(self) -> str:
        import numpy as np

        array = (self.astype("float32") if self.dtype == "bfloat16" else self).numpy()
        text = np.array2string(array, separator=", ", prefix="Tensor(")
        if not self.size:
            text = f"[], shape={self.shape}"
        fn = self.grad_fn
        history = f", grad_fn={fn}" if fn else ", requires_grad=True" if self.requires_grad else ""
        return f"{type(self).__name__}({text}, dtype={self.dtype}{history})"

    def __reduce__(self) -> tuple[Any, ...]:
        plain = self.astype("float32") if self.dtype == "bfloat16" else self
        return Tensor, (plain.numpy(), self.dtype, self.requires_grad and self.is_leaf)

    # --- gradients ---------------------------------------------------------------------------------------------------

    def _function(self, name: str, params: Any = None, *operands: _bitnet.TensorHandle) -> tuple[Any, list[Any]]:
        """A function of the core that asks about this tensor's history."""
        text, handles = _bitnet.function(name, json.dumps(params), (self._handle, *operands))
        return json.loads(text), handles

    @property
    def requires_grad(self) -> bool:
        """Whether backward passes reach this tensor: it was told to, or was computed from one that was."""
        return bool(self._handle.flags() & 1)

    @requires_grad.setter
    def requires_grad(self, want: bool) -> None:
        self.requires_grad_(want)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Says whether a leaf gets a gradient, and returns it."""
        self._function("require_grad", bool(requires_grad))
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made it."""
        return bool(self._handle.flags() & 2)

    @property
    def grad_fn(self) -> str | None:
        """The name of the recorded operation that made it; None for a leaf."""
        return self._function("operation")[0] or None

    @property
    def grad(self) -> "Tensor | None":
        """The gradient that backward passes have added up, or None. It shares memory with the sum that later passes add
        to. Assign None to forget it, or anything of the tensor's shape to replace it."""
        handle = self._function("grad")[1][0]
        return None if handle is None else Tensor._of(handle)

    @grad.setter
    def grad(self, gradient: Any) -> None:
        self._function("set_grad", None, *(() if gradient is None else (_tensor(gradient)._handle,)))

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Adds the gradients of this tensor to the leaves that it was computed from.

        ``gradient`` is that of a last result for this tensor, of its shape; it may be left out for a single element. The
        graph is freed on the way unless ``retain_graph``. AutogradError: nothing requires a gradient, the graph was freed
        before, or a value that it needs was changed in place."""
        run_backward([self], [gradient], retain_graph)

    def detach(self) -> "Tensor":
        """The same memory without history: no gradient passes through it."""
        return Tensor._of(self._function("detach")[1][0])

    def retain_grad(self) -> None:
        """Keeps the gradient of a tensor that is not a leaf in `grad`."""
        self._function("retain_grad")

    def register_hook(self, hook: Hook) -> HookHandle:
        """Calls ``hook(gradient)`` in every backward pass once the tensor's gradient is complete; what it returns, unless
        None, is used instead. For a leaf it is what the pass adds. The handle's ``remove()`` takes it away."""
        return HookHandle(self, hook)

    # --- views -------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> "Tensor":
        return Tensor._of(_call("index", self._handle, index=_index_items(key)))

    def __setitem__(self, key: Any, value: Any) -> None:
        source = value._handle if isinstance(value, Tensor) else self._operand(value)
        _calls("copy", (self._handle, source), index=_index_items(key))

    @property
    def T(self) -> "Tensor":
        """The axes in reverse order."""
        return Tensor._of(_call("permute", self._handle))

    @property
    def mT(self) -> "Tensor":
        """The last two axes swapped."""
        return self.swapaxes(-1, -2)

    def permute(self, *axes: Any) -> "Tensor":
        """The axes in the given order; none given: reversed."""
        return Tensor._of(_call("permute", self._handle, axes=_lengths(axes) if axes else None))

    transpose = permute

    def swapaxes(self, a: int, b: int) -> "Tensor":
        """Two axes swapped."""
        order = list(range(self.ndim))
        for axis in (a, b):
            if not -self.ndim <= axis < self.ndim:
                raise OutOfRangeError(f"swapaxes: axis {axis} is out of range for shape {self.shape}")
        order[a], order[b] = order[b], order[a]
        return self.permute(order) if order else self

    def reshape(self, *shape: Any) -> "Tensor":
        """Another shape of the same elements; -1 stands for the length that fits. A view where strides allow it."""
        return Tensor._of(_call("reshape", self._handle, shape=_lengths(shape)))

    def ravel(self) -> "Tensor":
        """One axis of all elements."""
        return self.reshape(-1) if self.size else self.reshape(0)

    def flatten(self, start: int = 0, end: int = -1) -> "Tensor":
        """The axes from start to end, both included, as one."""
        shape = self.shape
        if not shape:
            return self.reshape(1)
        first, last = range(len(shape))[start], range(len(shape))[end]
        return self.reshape(*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])

    def expand(self, *shape: Any) -> "Tensor":
        """Broadcast to a shape without copying; -1 keeps a length."""
        return Tensor._of(_call("expand", self._handle, shape=_lengths(shape)))

    broadcast_to = expand

    def squeeze(self, axis: "Axes" = None) -> "Tensor":
        """Without the given axes of length one, or without all of them."""
        if axis is not None and not isinstance(axis, int) and not len(axis):
            return self[...]
        return Tensor._of(_call("squeeze", self._handle, axes=_axes(axis)))

    def unsqueeze(self, axis: int) -> "Tensor":
        """With a new axis of length one before axis."""
        return Tensor._of(_call("unsqueeze", self._handle, axis=axis))

    expand_dims = unsqueeze

    def split(self, sizes: Sequence[int], axis: int = 0) -> list["Tensor"]:
        """Views of the given lengths along an axis."""
        return _calls("split", (self._handle,), sizes=[int(n) for n in sizes], axis=axis)

    def chunk(self, n: int, axis: int = 0) -> list["Tensor"]:
        """n views along an axis, as equal as can be, as numpy.array_split cuts."""
        return _calls("chunk", (self._handle,), n=n, axis=axis)

    # --- copies ------------------------------------------------------------------------------------------------------

    def astype(self, dtype: Any) -> "Tensor":
        """Converted to a dtype: floats round to nearest even; floats to integers truncate, saturate, and NaN becomes 0;
        wider integers wrap. The tensor itself if it has the dtype."""
        name = _dtype_name(dtype)
        return self if name == self.dtype else Tensor._of(_call("cast", self._handle, dtype=name))

    to = astype

    def clone(self) -> "Tensor":
        """A contiguous copy."""
        return Tensor._of(_call("clone", self._handle))

    copy = clone

    def __copy__(self) -> "Tensor":
        return self.clone()

    def __deepcopy__(self, memo: Any) -> "Tensor":
        if not self.is_leaf:
            raise AutogradError("only leaves can be copied deeply: detach() the tensor first")
        copied = type(self)._of(_call("clone", self.detach()._handle))
        return copied.requires_grad_() if self.requires_grad else copied

    def contiguous(self) -> "Tensor":
        """A copy if the tensor is not contiguous, otherwise itself."""
        return self if self.is_contiguous() else self.clone()

    @staticmethod
    def concat(tensors: Sequence[Any], axis: int = 0) -> "Tensor":
        """Tensors one after another along an axis."""
        return Tensor._of(_call("concat", *(_tensor(t)._handle for t in tensors), axis=axis))

    @staticmethod
    def stack(tensors: Sequence[Any], axis: int = 0) -> "Tensor":
        """Tensors of one shape along a new axis."""
        return Tensor._of(_call("stack", *(_tensor(t)._handle for t in tensors), axis=axis))

    # --- arithmetic --------------------------------------------------------------------------------------------------

    __add__ = add = _binary("add", "Sum, broadcast and promoted; bools are or-ed.")
    __sub__ = sub = _binary("sub", "Difference; not defined for two bools.")
    __mul__ = mul = _binary("mul", "Product; bools are and-ed.")
    __truediv__ = div = _binary("div", "True quotient, always a float.")
    __floordiv__ = floor_divide = _binary("floor_div", "Quotient rounded down; an integer by zero gives 0.")
    __mod__ = mod = _binary("mod", "Remainder with the sign of the divisor; an integer by zero gives 0.")
    __pow__ = pow = _binary("pow", "Power; integers wrap and refuse negative exponents.")
    __matmul__ = matmul = _binary("matmul", "Matrix product as in NumPy; int8 and int32 multiply exactly in int32.")
    __radd__, __rsub__, __rmul__ = _reflected("add"), _reflected("sub"), _reflected("mul")
    __rtruediv__, __rfloordiv__, __rmod__ = _reflected("div"), _reflected("floor_div"), _reflected("mod")
    __rpow__, __rmatmul__ = _reflected("pow"), _reflected("matmul")

    maximum = _binary("maximum", "The larger element; NaN wins.")
    minimum = _binary("minimum", "The smaller element; NaN wins.")
    dot = _binary("dot", "numpy.dot: the last axis of self meets the second to last of other.")
    outer = _binary("outer", "All products of the elements, [self.size, other.size].")

    __eq__ = equal = _binary("equal", "self == other, element by element.", True)  # type: ignore[assignment]
    __ne__ = not_equal = _binary("not_equal", "self != other.", True)  # type: ignore[assignment]
    __lt__ = less = _binary("less", "self < other.", True)
    __le__ = less_equal = _binary("less_equal", "self <= other.", True)
    __gt__ = greater = _binary("greater", "self > other.", True)
    __ge__ = greater_equal = _binary("greater_equal", "self >= other.", True)

    logical_and = _binary("logical_and", "Whether both are not zero.")
    logical_or = _binary("logical_or", "Whether one is not zero.")
    logical_xor = _binary("logical_xor", "Whether exactly one is not zero.")

    def _both_bool(self, other: Any, sign: str) -> "Tensor":
        other = _tensor(other)
        if self.dtype != "bool" or other.dtype != "bool":
            raise DTypeError(f"{sign} is defined for bool tensors, got {self.dtype} and {other.dtype}")
        return cast(Tensor, other)

    def __and__(self, other: Any) -> "Tensor":
        return self.logical_and(self._both_bool(other, "&"))

    def __or__(self, other: Any) -> "Tensor":
        return self.logical_or(self._both_bool(other, "|"))

    def __xor__(self, other: Any) -> "Tensor":
        return self.logical_xor(self._both_bool(other, "^"))

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> "Tensor":
        if self.dtype != "bool":
            raise DTypeError(f"~ is defined for bool tensors, got {self.dtype}")
        return self.logical_not()

    def __pos__(self) -> "Tensor":
        return self.clone()

    # --- functions of one element ------------------------------------------------------------------------------------

    __neg__ = neg = _unary("neg", "-x; not defined for bool.")
    __abs__ = abs = _unary("abs", "|x|.")
    sign = _unary("sign", "-1, 0 or 1, NaN for NaN; not defined for bool.")
    square = _unary("square", "x * x.")
    relu = _unary("relu", "max(x, 0).")
    relu2 = _unary("relu2", "max(x, 0) squared.")
    exp = _unary("exp", "e to the x.")
    expm1 = _unary("expm1", "exp(x) - 1 without cancellation.")
    log = _unary("log", "Natural logarithm.")
    log2 = _unary("log2", "Binary logarithm.")
    log10 = _unary("log10", "Decimal logarithm.")
    log1p = _unary("log1p", "log(1 + x) without cancellation.")
    sqrt = _unary("sqrt", "Square root.")
    rsqrt = _unary("rsqrt", "1 / sqrt(x).")
    reciprocal = _unary("reciprocal", "1 / x, always a float.")
    sin = _unary("sin", "Sine of x radians.")
    cos = _unary("cos", "Cosine of x radians.")
    tanh = _unary("tanh", "Hyperbolic tangent.")
    erf = _unary("erf", "Error function.")
    sigmoid = _unary("sigmoid", "1 / (1 + exp(-x)).")
    silu = _unary("silu", "x * sigmoid(x).")
    softplus = _unary("softplus", "log(1 + exp(x)).")
    gelu = _unary("gelu", "x * Phi(x), exact.")
    gelu_tanh = _unary("gelu_tanh", "The tanh approximation of gelu.")
    floor = _unary("floor", "Rounded down.")
    ceil = _unary("ceil", "Rounded up.")
    trunc = _unary("trunc", "Rounded toward zero.")
    round = _unary("round", "Rounded to the nearest integer, ties to even.")
    logical_not = _unary("logical_not", "Whether x is zero.")
    isnan = _unary("isnan", "Whether x is not a number.")
    isinf = _unary("isinf", "Whether x is infinite.")
    isfinite = _unary("isfinite", "Whether x is neither infinite nor NaN.")

    def clamp(self, min: Any = None, max: Any = None) -> "Tensor":
        """Limited to [min, max], numbers or tensors; where min > max the result is max."""
        out = self.clone() if min is None else self.maximum(min)
        return out if max is None else out.minimum(max)

    clip = clamp

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> "Tensor":
        """a where condition is not zero, b elsewhere. A Python number takes the dtype of the other side."""
        if isinstance(a, Tensor) or not isinstance(b, Tensor):
            a = _tensor(a)
            other = a._operand(b)
            first = a._handle
        else:
            first, other = b._operand(a), b._handle
        return Tensor._of(_call("where", _tensor(condition)._handle, first, other))

    # --- reductions --------------------------------------------------------------------------------------------------

    def _reduce(self, name: str, axis: "Axes", keepdims: bool, **params: Any) -> "Tensor":
        return Tensor._of(_call(name, self._handle, axes=_axes(axis), keepdims=keepdims, **params))

    def sum(self, axis: "Axes" = None, keepdims: bool = False) -> "Tensor":
        """Sum over axes; integers and bools in int64, floats accumulated in float64."""
        return self._reduce("sum", axis, keepdims)

    def prod(self, axis: "Axes" = None, keepdims: bool = False) -> "Tensor":
        """Product over axes; dtypes as in sum."""
        return self._reduce("prod", axis, keepdims)

    def mean(self, axis: "Axes" = None, keepdims: bool = False) -> "Tensor":
        """Mean over axes; float32 for integers."""
        return self._reduce("mean", axis, keepdims)

    def var(self, axis: "Axes" = None, ddof: int = 0, keepdims: bool = False) -> "Tensor":
        """Variance over axes with divisor n - ddof."""
        return self._reduce("var", axis, keepdims, ddof=ddof)

    def std(self, axis: "Axes" = None, ddof: int = 0, keepdims: bool = False) -> "Tensor":
        """Standard deviation over axes with divisor n - ddof."""
        return self._reduce("std", axis, keepdims, ddof=ddof)

    def max(self, axis: "Axes" = None, keepdims: bool = False) -> "Tensor":
        """Largest element over axes; NaN wins. Of nothing: ArgumentError."""
        return self._reduce("max", axis, keepdims)

    def min(self, axis: "Axes" = None, keepdims: bool = False) -> "Tensor":
        """Smallest element over axes; NaN wins. Of nothing: ArgumentError."""
        return self._reduce("min", axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> "Tensor":
        """Index of the first largest element along an axis, or in all."""
        return self._reduce("argmax", axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> "Tensor":
        """Index of the first smallest element along an axis, or in all."""
        return self._reduce("argmin", axis, keepdims)

    def any(self, axis: "Axes" = None, keepdims: bool = False) -> "Tensor":
        """Whether some element is not zero."""
        return self._reduce("any", axis, keepdims)

    def all(self, axis: "Axes" = None, keepdims: bool = False) -> "Tensor":
        """Whether no element is zero."""
        return self._reduce("all", axis, keepdims)

    def norm(self, ord: float = 2, axis: "Axes" = None, keepdims: bool = False) -> "Tensor":
        """Vector norm of an order (0, 1, 2, inf, -inf or any other) over axes."""
        return self._reduce("norm", axis, keepdims, order=repr(float(ord)))

    # --- along one axis ----------------------------------------------------------------------------------------------

    def softmax(self, axis: int = -1) -> "Tensor":
        """exp(x) / sum(exp(x)) along an axis."""
        return Tensor._of(_call("softmax", self._handle, axis=axis))

    def log_softmax(self, axis: int = -1) -> "Tensor":
        """log(softmax(x)) without the loss of precision."""
        return Tensor._of(_call("log_softmax", self._handle, axis=axis))

    def cumsum(self, axis: int | None = None) -> "Tensor":
        """Running sum along an axis, or of all elements in one."""
        if axis is None:
            return self.ravel().cumsum(0)
        return Tensor._of(_call("cumsum", self._handle, axis=axis))

    def topk(self, k: int, axis: int = -1, largest: bool = True) -> tuple["Tensor", "Tensor"]:
        """The k largest (or smallest) elements, best first, and their indices."""
        values, indices = _calls("topk", (self._handle,), k=k, axis=axis, largest=largest)
        return values, indices

    def take_along_axis(self, indices: Any, axis: int) -> "Tensor":
        """Elements chosen along an axis: out[..., i, ...] = self[..., indices[..., i, ...], ...]."""
        return Tensor._of(_call("gather", self._handle, _tensor(indices)._handle, axis=axis))

    gather = take_along_axis

    def scatter_add(self, indices: Any, source: Any, axis: int = -1) -> "Tensor":
        """A copy with source added at the indices along an axis, repeated ones in order."""
        index, src = _tensor(indices)._handle, self._operand(source)
        return Tensor._of(_call("scatter_add", self._handle, index, src, axis=axis))

    def embedding(self, ids: Any) -> "Tensor":
        """Rows of this table [V, ...] for integer ids of any shape."""
        return Tensor._of(_call("embedding", self._handle, _tensor(ids)._handle))

    def triu(self, k: int = 0) -> "Tensor":
        """The last two axes with zeros below diagonal k."""
        return Tensor._of(_call("triu", self._handle, k=k))

    def tril(self, k: int = 0) -> "Tensor":
        """The last two axes with zeros above diagonal k."""
        return Tensor._of(_call("tril", self._handle, k=k))


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor(value)


class _Lent:
    """A tensor's memory as NumPy takes it, with bits as that of the uint16 that bfloat16 is made of."""

    def __init__(self, tensor: Tensor, bits: bool = False) -> None:
        self._tensor, self._bits = tensor, bits

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.__dlpack_device__()

    def __dlpack__(self, *, max_version: Any = None, **_: Any) -> Any:
        return self._tensor._capsule(max_version is not None and max_version[0] >= 1, self._bits)
