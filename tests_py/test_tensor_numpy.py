"""Tensor against NumPy: random shapes (also of size zero), broadcasting, views with any strides, every operation."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bitnet_rust import Tensor

DTYPES = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")
FLOATS = ("float32", "float16")
INTS = ("int8", "uint8", "int32", "int64")
TOLERANCE = {"float32": 2e-6, "float16": 2e-3}

quick = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """NumPy warns of the overflows, divisions by zero and empty means that are wanted here."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def promoted(*dtypes: str) -> str:
    """The documented table: NumPy's without the dtypes that are not there."""
    found = np.result_type(*dtypes).name
    kinds = {np.dtype(d).kind for d in dtypes}
    if "f" in kinds and kinds & {"i", "u"}:
        return "float32"
    return {"int16": "int32", "float64": "float32"}.get(found, found)


def floating(dtype: str) -> str:
    return dtype if dtype in FLOATS else "float32"


def agree(want: Callable[[], Any], got: Callable[[], Tensor], rtol: float | None = None, atol: float = 0.0) -> None:
    """Both answer alike, or both refuse."""
    try:
        expected = np.asarray(want())
    except (ValueError, IndexError, TypeError) as error:
        with pytest.raises((ValueError, IndexError, TypeError)):
            pytest.fail(f"NumPy refused ({error}), the tensor answered {got()}", pytrace=False)
        return
    actual = got().numpy()
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    tolerance = TOLERANCE.get(actual.dtype.name, 0.0) if rtol is None else rtol
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=atol, equal_nan=True)


shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
dtypes = st.sampled_from(DTYPES)


def elements(dtype: str, special: bool = False, limit: float = 100.0) -> st.SearchStrategy[Any]:
    if dtype == "bool":
        return st.booleans()
    if dtype in FLOATS:
        plain = st.floats(-limit, limit, width=16).map(lambda v: np.dtype(dtype).type(v))
        return st.one_of(plain, st.sampled_from([math.nan, math.inf, -math.inf, -0.0])) if special else plain
    info = np.iinfo(dtype)
    small = st.integers(max(info.min, -int(limit)), min(info.max, int(limit)))
    return st.one_of(small, st.sampled_from([int(info.min), int(info.max)])) if special else small


@st.composite
def pairs(
    draw: st.DrawFn, shape: Any = shapes, dtype: Any = dtypes, special: bool = False, limit: float = 100.0
) -> tuple[np.ndarray, Tensor]:
    """An array and the tensor with its values; often both are views with permuted, negative or wide strides."""
    want = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    name = draw(dtype) if isinstance(dtype, st.SearchStrategy) else dtype
    order = draw(st.permutations(range(len(want))))
    steps = draw(st.tuples(*(st.sampled_from([1, 1, -1, 2, -2]) for _ in want)))
    base_shape = tuple(want[axis] * abs(step) for axis, step in zip(order, steps, strict=True))
    base = draw(hnp.arrays(name, base_shape, elements=elements(name, special, limit)))
    key = tuple(slice(None, None, step) for step in steps)
    back = tuple(int(i) for i in np.argsort(order)) if order else ()
    array, tensor = np.asarray(base[key]).transpose(back), Tensor(base)[key].permute(back)
    assert array.shape == tensor.shape == want
    return array, tensor


@st.composite
def operands(
    draw: st.DrawFn, n: int = 2, dtype: Any = dtypes, special: bool = False
) -> list[tuple[np.ndarray, Tensor]]:
    """Arrays of shapes that broadcast."""
    found = draw(hnp.mutually_broadcastable_shapes(num_shapes=n, min_side=0, max_side=4, max_dims=3))
    return [draw(pairs(shape, dtype, special)) for shape in found.input_shapes]


# --- in and out ------------------------------------------------------------------------------------------------------


@quick
@given(pairs(special=True))
def test_arrays_come_back_as_they_went_in(pair):
    array, tensor = pair
    assert tensor.dtype == array.dtype.name
    assert (tensor.ndim, tensor.size) == (array.ndim, array.size)
    assert tensor.contiguous().is_contiguous()
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(Tensor(array).numpy(), array)
    np.testing.assert_array_equal(np.asarray(tensor), array)
    assert str(tensor.tolist()) == str(array.tolist())


def test_what_a_tensor_is_made_of():
    assert Tensor([1, 2]).dtype == "int64"
    assert Tensor([1.0, 2]).dtype == "float32"
    assert Tensor(True).dtype == "bool"
    assert Tensor(np.float32(2)).shape == ()
    assert Tensor(np.zeros(2), dtype=np.float32).dtype == "float32"
    assert Tensor(np.array([1, 2], ">i4")).tolist() == [1, 2]
    assert Tensor(np.array([1, 2], ">i2"), dtype="int32").tolist() == [1, 2]
    assert Tensor([1, 0, -1], dtype="ternary").tolist() == [1, 0, -1]
    assert Tensor(Tensor([1.5]), dtype="int8").tolist() == [1]
    assert Tensor.full(3, True).dtype == "bool"
    assert Tensor.full((1, 2), 7).tolist() == [[7, 7]]
    assert Tensor.zeros(2).tolist() == [0, 0]
    assert Tensor.ones((2, 0)).shape == (2, 0)
    assert Tensor.arange(3).tolist() == [0, 1, 2]
    assert Tensor.arange(1, 2, 0.25).tolist() == np.arange(1, 2, 0.25).tolist()
    assert Tensor.eye(2, "int8").tolist() == [[1, 0], [0, 1]]
    for bad in (np.zeros(2), np.zeros(2, "complex64"), np.zeros(2, "uint16"), ["a"], None):
        with pytest.raises(TypeError):
            Tensor(bad)
    for dtype in ("float64", "uint16", np.float64):
        with pytest.raises(TypeError):
            Tensor([1], dtype=dtype)
    with pytest.raises(ValueError, match="copy=False"):
        np.array(Tensor([1], dtype="ternary"), copy=False)
    with pytest.raises(MemoryError):
        Tensor.zeros((1 << 45,))
    with pytest.raises(ValueError, match="finite"):
        Tensor.arange(math.inf)
    with pytest.raises(ValueError, match="out of range"):
        Tensor.full(1, 300, "int8")
    with pytest.raises(ValueError, match="int64"):
        Tensor([1]) + 2**70


def test_one_element_is_a_python_number():
    assert float(Tensor([2.5])) == 2.5
    assert int(Tensor(7)) == 7
    assert bool(Tensor(0.0)) is False
    assert [10, 20, 30][Tensor(2)] == 30
    assert 2.0 in Tensor([1.0, 2.0])
    assert len(Tensor([[1, 2], [3, 4], [5, 6]])) == 3
    assert [row.tolist() for row in Tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
    for wrong in (lambda: bool(Tensor([1, 2])), lambda: Tensor([]).item()):
        with pytest.raises(ValueError, match="expected one"):
            wrong()
    for not_possible in (
        lambda: len(Tensor(1)),
        lambda: [0][Tensor(1.0)],
        lambda: hash(Tensor(1)),
        lambda: Tensor(1) < None,
        lambda: Tensor([1.0]) & Tensor([1.0]),
        lambda: ~Tensor([1]),
        lambda: Tensor([True]) - Tensor([True]),
        lambda: -Tensor([True]),
    ):
        with pytest.raises(TypeError):
            not_possible()
    assert (Tensor(1) == None) is False  # noqa: E711


def test_copies_and_pickles():
    import copy
    import pickle

    for dtype in (*DTYPES, "bfloat16", "ternary"):
        x = Tensor([[1, 0, 1]], dtype=dtype)
        for y in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.clone(), Tensor(x)):
            assert (y.dtype, y.tolist()) == (x.dtype, x.tolist())
    x = Tensor([1, 2])
    y = x.clone()
    y[0] = 5
    assert x.tolist() == [1, 2]


def test_repr_shows_values_shape_and_dtype():
    assert repr(Tensor([[1.5, 2]])) == "Tensor([[1.5, 2. ]], dtype=float32)"
    assert repr(Tensor(np.zeros((0, 3), "int8"))) == "Tensor([], shape=(0, 3), dtype=int8)"
    assert repr(Tensor([0.5], "bfloat16")) == "Tensor([0.5], dtype=bfloat16)"


# --- views -----------------------------------------------------------------------------------------------------------


@quick
@given(st.data())
def test_indexing(data):
    array, tensor = data.draw(pairs())
    key = data.draw(hnp.basic_indices(array.shape, allow_newaxis=True, allow_ellipsis=True))
    agree(lambda: array[key], lambda: tensor[key])


@quick
@given(st.data())
def test_assignment_through_an_index(data):
    array, tensor = data.draw(pairs(special=True))
    array, tensor = array.copy(), tensor.clone()
    key = data.draw(hnp.basic_indices(array.shape, allow_newaxis=True, allow_ellipsis=True))
    shape = data.draw(
        hnp.broadcastable_shapes(np.shape(array[key]), min_side=0, max_dims=np.ndim(array[key]), max_side=6)
    )
    assume(np.broadcast_shapes(shape, np.shape(array[key])) == np.shape(array[key]))
    value = data.draw(hnp.arrays(array.dtype, shape, elements=elements(array.dtype.name)))
    array[key] = value
    tensor[key] = Tensor(value)
    np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("key", [5, -4, (0, 0, 0), (..., ...), "a", 1.0, True, [0], slice("a", None)])
def test_bad_indices_raise_as_in_numpy_or_are_refused(key):
    with pytest.raises((IndexError, TypeError)):
        Tensor([[1, 2], [3, 4], [5, 6]])[key]


@quick
@given(pairs(), st.data())
def test_axis_moves(pair, data):
    array, tensor = pair
    axis = st.integers(-array.ndim - 1, array.ndim)
    a, b = data.draw(axis), data.draw(axis)
    agree(lambda: array.T, lambda: tensor.T)
    agree(lambda: array.swapaxes(a, b), lambda: tensor.swapaxes(a, b))
    agree(lambda: np.expand_dims(array, a), lambda: tensor.unsqueeze(a))
    agree(lambda: np.squeeze(array), lambda: tensor.squeeze())
    if array.ndim:  # NumPy takes axis 0 of an array without axes for some functions
        agree(lambda: np.squeeze(array, a), lambda: tensor.squeeze(a))
    order = data.draw(st.permutations(range(array.ndim)))
    agree(lambda: array.transpose(order), lambda: tensor.permute(order))
    agree(lambda: array.transpose(order), lambda: tensor.transpose(*order))
    agree(lambda: array.ravel(), lambda: tensor.ravel())
    agree(lambda: array.reshape(-1), lambda: tensor.contiguous().flatten() if tensor.size else tensor.ravel())
    if array.ndim > 1:
        agree(
            lambda: np.matrix_transpose(array) if hasattr(np, "matrix_transpose") else array.swapaxes(-1, -2),
            lambda: tensor.mT,
        )


@quick
@given(pairs(), st.data())
def test_reshape_and_broadcast(pair, data):
    array, tensor = pair
    shape = data.draw(shapes)
    agree(lambda: array.reshape(shape), lambda: tensor.reshape(shape))
    if array.size:
        agree(lambda: array.reshape((*shape, -1)), lambda: tensor.reshape(*shape, -1))
    agree(lambda: np.broadcast_to(array, shape), lambda: tensor.expand(shape))
    wider = data.draw(hnp.broadcastable_shapes(array.shape, min_side=0, max_side=6))
    agree(lambda: np.broadcast_to(array, wider), lambda: tensor.broadcast_to(wider))


def test_views_share_memory():
    x = Tensor(np.arange(12).reshape(3, 4))
    x.T[1] = 0
    x[::-1][0, 2:] = Tensor([70, 80])
    x.reshape(12)[0] = -1
    assert x.tolist() == [[-1, 0, 2, 3], [4, 0, 6, 7], [8, 0, 70, 80]]
    x[:] = x[::-1]
    assert x.tolist() == [[8, 0, 70, 80], [4, 0, 6, 7], [-1, 0, 2, 3]]


# --- element by element ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "maximum", "minimum", "floor_divide", "mod"])
@quick
@given(operands(special=True))
def test_arithmetic(name, pair):
    (a, x), (b, y) = pair
    dtype = promoted(a.dtype.name, b.dtype.name)
    ours = {"subtract": "sub", "multiply": "mul"}.get(name, name)
    agree(lambda: getattr(np, name)(a.astype(dtype), b.astype(dtype)), lambda: getattr(x, ours)(y))


@quick
@given(operands(special=True))
def test_division(pair):
    (a, x), (b, y) = pair
    dtype = floating(promoted(a.dtype.name, b.dtype.name))
    agree(lambda: np.true_divide(a.astype(dtype), b.astype(dtype)), lambda: x / y)


@quick
@given(operands(dtype=st.sampled_from(FLOATS)))
def test_power_of_floats(pair):
    (a, x), (b, y) = pair
    dtype = promoted(a.dtype.name, b.dtype.name)
    want = np.power(a.astype(np.float64), b.astype(np.float64)).astype(dtype)
    agree(lambda: want, lambda: x**y, atol=1e-7)


@quick
@given(operands(dtype=st.sampled_from(INTS)))
def test_power_of_integers(pair):
    (a, x), (b, y) = pair
    dtype = promoted(a.dtype.name, b.dtype.name)
    a, b = np.broadcast_arrays(a, b)  # NumPy looks only at exponents it uses
    agree(
        lambda: np.power(a.astype(dtype), b.astype(dtype)), lambda: x.broadcast_to(a.shape) ** y.broadcast_to(a.shape)
    )


@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
@quick
@given(operands(special=True))
def test_comparisons(name, pair):
    (a, x), (b, y) = pair
    dtype = promoted(a.dtype.name, b.dtype.name)
    agree(lambda: getattr(np, name)(a.astype(dtype), b.astype(dtype)), lambda: getattr(x, name)(y))


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
@quick
@given(operands(special=True))
def test_logic(name, pair):
    (a, x), (b, y) = pair
    agree(lambda: getattr(np, name)(a, b), lambda: getattr(x, name)(y))


@quick
@given(operands(dtype=st.just("bool")))
def test_bool_operators(pair):
    (a, x), (b, y) = pair
    agree(lambda: a & b, lambda: x & y)
    agree(lambda: a | b, lambda: x | y)
    agree(lambda: a ^ b, lambda: x ^ y)
    agree(lambda: ~a, lambda: ~x)


@quick
@given(pairs(special=True), st.data())
def test_python_numbers_take_the_dtype_of_the_tensor(pair, data):
    array, tensor = pair
    assume(array.dtype != bool)
    number = data.draw(st.one_of(st.integers(1, 100), st.floats(0.5, 100, width=16), st.booleans()))
    dtype = array.dtype.name
    if isinstance(number, float):
        dtype = floating(dtype)
    want = array.astype(dtype)
    other = np.asarray(number).astype(dtype)
    agree(lambda: want + other, lambda: tensor + number)
    agree(lambda: other + want, lambda: number + tensor)
    agree(lambda: want - other, lambda: tensor - number)
    agree(lambda: other - want, lambda: number - tensor)
    agree(lambda: want * other, lambda: number * tensor)
    agree(lambda: want > other, lambda: tensor > number)
    agree(lambda: other // want, lambda: number // tensor)
    agree(lambda: other % want, lambda: number % tensor)
    agree(lambda: other.astype(floating(dtype)) / want.astype(floating(dtype)), lambda: number / tensor)


@quick
@given(operands(special=True))
def test_arrays_meet_tensors_on_both_sides(pair):
    (a, x), (b, y) = pair
    np.testing.assert_array_equal((a + y).numpy(), (x + y).numpy())
    np.testing.assert_array_equal((x * b).numpy(), (x * y).numpy())
    assert isinstance(a == y, Tensor)


def test_integers_out_of_range_compare_as_numbers():
    x = Tensor([1, -1], "int8")
    assert (x < 300).tolist() == [True, True]
    assert (x == 2**40).tolist() == [False, False]
    assert (Tensor([True]) + 2).tolist() == [3]
    assert (2.0 ** Tensor([3])).tolist() == [8.0]
    assert (np.ones((2, 2), "float32") @ Tensor([1.0, 2.0])).tolist() == [3.0, 3.0]


def _logistic(v: Any) -> Any:
    return 1 / (1 + np.exp(-v))


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p,
    "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
    "rsqrt": lambda v: 1 / np.sqrt(v), "reciprocal": lambda v: 1 / v, "sigmoid": _logistic,
    "silu": lambda v: v * _logistic(v), "softplus": lambda v: np.logaddexp(0, v),
    "erf": np.vectorize(math.erf, otypes=["f8"]),
    "gelu": np.vectorize(lambda v: v * math.erfc(-v / math.sqrt(2)) / 2, otypes=["f8"]),
    "gelu_tanh": lambda v: v / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@quick
@given(pairs(limit=30))
def test_functions_are_the_float64_ones_rounded(name, pair):
    array, tensor = pair
    want = FUNCTIONS[name](array.astype(np.float64)).astype(floating(array.dtype.name))
    agree(lambda: want, lambda: getattr(tensor, name)(), atol=1e-7)


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sin", "tanh", "floor", "rint", "trunc", "ceil"])
@quick
@given(pairs(dtype=st.sampled_from(FLOATS), special=True))
def test_functions_at_nan_and_infinity_and_zero(name, pair):
    array, tensor = pair
    agree(lambda: getattr(np, name)(array), lambda: getattr(tensor, {"rint": "round"}.get(name, name))(), atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "negative",
        "abs",
        "sign",
        "square",
        "floor",
        "ceil",
        "trunc",
        "round",
        "logical_not",
        "isnan",
        "isinf",
        "isfinite",
    ],
)
@quick
@given(pairs(special=True))
def test_functions_that_keep_the_dtype(name, pair):
    array, tensor = pair

    def want() -> Any:
        if name in ("floor", "ceil", "trunc", "round") and array.dtype.kind != "f":
            return array  # as in NumPy 2.1
        return getattr(np, name)(array)

    agree(want, lambda: getattr(tensor, {"negative": "neg"}.get(name, name))())


@quick
@given(pairs(special=True))
def test_rectifiers(pair):
    array, tensor = pair
    array = array.astype("int8") if array.dtype == bool else array
    zero = array.dtype.type(0)
    agree(lambda: np.maximum(array, zero), lambda: tensor.relu())
    agree(lambda: np.square(np.maximum(array, zero)), lambda: tensor.relu2())


@quick
@given(operands(3, special=True))
def test_where_and_clip(triple):
    (c, z), (a, x), (b, y) = triple
    dtype = promoted(a.dtype.name, b.dtype.name)
    agree(lambda: np.where(c != 0, a.astype(dtype), b.astype(dtype)), lambda: Tensor.where(z, x, y))
    dtype = promoted(c.dtype.name, a.dtype.name)
    both = promoted(dtype, b.dtype.name)
    limited = np.minimum(np.maximum(c.astype(dtype), a.astype(dtype)).astype(both), b.astype(both))
    agree(lambda: limited, lambda: z.clip(x, y))
    agree(lambda: np.maximum(c.astype(dtype), a.astype(dtype)), lambda: z.clamp(min=x))
    agree(lambda: np.minimum(c.astype(dtype), a.astype(dtype)), lambda: z.clamp(max=x))


def test_where_with_python_numbers():
    x = Tensor([1.0, -1.0], "float16")
    assert Tensor.where(x > 0, x, 0).dtype == "float16"
    assert Tensor.where(x > 0, 7, x).tolist() == [7.0, -1.0]
    assert Tensor.where([True, False], 1.0, 2.0).tolist() == [1.0, 2.0]


@settings(quick, max_examples=200)
@given(dtypes, dtypes, st.data())
def test_casts(source, target, data):
    array, tensor = data.draw(pairs(hnp.array_shapes(max_dims=2, max_side=4), source, special=source not in FLOATS))
    if source in FLOATS and target == "uint8":
        array, tensor = np.abs(array), tensor.abs()  # NumPy leaves negative floats to the machine
    agree(lambda: array.astype(target), lambda: tensor.astype(target), rtol=0)


@quick
@given(pairs(dtype=st.just("float32"), special=True))
def test_bfloat16_is_that_of_ml_dtypes(pair):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    array, tensor = pair
    half = tensor.astype("bfloat16")
    want = array.astype(bfloat16)
    assert half.numpy().dtype == want.dtype
    np.testing.assert_array_equal(half.numpy().view("uint16"), want.view("uint16"))
    np.testing.assert_array_equal((half * half).numpy().view("uint16"), (want * want).view("uint16"))
    np.testing.assert_array_equal(Tensor(want).astype("float32").numpy(), want.astype("float32"))


def test_bfloat16_without_ml_dtypes_is_float32(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    array = Tensor([1.0, 2.5], "bfloat16").numpy()
    assert (array.dtype, array.tolist()) == (np.float32, [1.0, 2.5])


# --- reductions ------------------------------------------------------------------------------------------------------


@st.composite
def axes(draw: st.DrawFn, ndim: int) -> Any:
    """None, one axis, several; sometimes one that does not exist."""
    if ndim == 0:  # NumPy takes axis 0 here, for some functions
        return draw(st.sampled_from([None, (), 1]))
    one = st.integers(-ndim - 1, ndim)
    return draw(st.one_of(st.none(), one, st.lists(st.integers(-ndim, ndim - 1), max_size=ndim).map(tuple)))


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "max", "min", "any", "all"])
@quick
@given(st.data())
def test_reductions(name, data):
    limit = 2.0 if name == "prod" else 100.0
    array, tensor = data.draw(pairs(special=name in ("max", "min", "any", "all"), limit=limit))
    axis = data.draw(axes(array.ndim))
    keepdims = data.draw(st.booleans())
    ddof = {"ddof": data.draw(st.integers(0, 2))} if name in ("var", "std") else {}
    dtype = array.dtype.name
    wide = array
    if name in ("sum", "prod"):
        wide = array.astype("int64" if dtype not in FLOATS else "float64")
        dtype = "int64" if dtype not in FLOATS else dtype
    elif name in ("mean", "var", "std"):
        wide, dtype = array.astype("float64"), floating(dtype)
    elif name in ("any", "all"):
        dtype = "bool"
    agree(
        lambda: np.asarray(getattr(wide, name)(axis=axis, keepdims=keepdims, **ddof)).astype(dtype),
        lambda: getattr(tensor, name)(axis=axis, keepdims=keepdims, **ddof),
        atol=1e-6 if name in ("sum", "mean") and dtype in FLOATS else 0.0,
    )


@settings(quick, max_examples=10)
@given(st.integers(1, 3), st.integers(0, 2), st.integers(100, 3000), st.randoms(use_true_random=False))
def test_long_reductions(outer, axis, n, random):
    shape = [outer, 9, 9]
    shape[axis] = n
    array = np.random.default_rng(random.randrange(2**32)).normal(size=shape).astype("float32")
    tensor = Tensor(array)
    wide = array.astype("float64")
    for name in ("sum", "mean", "std", "max"):
        agree(
            lambda name=name: getattr(wide, name)(axis=axis).astype("float32"),
            lambda name=name: getattr(tensor, name)(axis=axis),
            rtol=1e-6,
        )
        agree(
            lambda name=name: getattr(wide, name)().astype("float32"),
            lambda name=name: getattr(tensor, name)(),
            rtol=1e-6,
        )


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@quick
@given(st.data())
def test_arg_extremes(name, data):
    array, tensor = data.draw(pairs(special=True))
    axis = data.draw(st.one_of(st.none(), st.integers(-array.ndim - 1, array.ndim)))
    assume(array.ndim or axis is None)
    keepdims = data.draw(st.booleans())
    agree(lambda: getattr(np, name)(array, axis=axis, keepdims=keepdims), lambda: getattr(tensor, name)(axis, keepdims))


@quick
@given(st.data())
def test_norms(data):
    array, tensor = data.draw(pairs(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)))
    order = data.draw(st.sampled_from([0, 1, 2, 3, 0.5, math.inf, -math.inf]))
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    wide = array.astype("float64")
    agree(
        lambda: np.linalg.norm(wide, order, axis, keepdims=True).astype(floating(array.dtype.name)),
        lambda: tensor.norm(order, axis, keepdims=True),
    )
    agree(lambda: np.linalg.norm(wide.ravel()).astype(floating(array.dtype.name)), lambda: tensor.norm())


@quick
@given(st.data())
def test_softmax_and_cumsum(data):
    array, tensor = data.draw(pairs(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)))
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    wide, dtype = array.astype("float64"), floating(array.dtype.name)
    if array.size:
        shifted = wide - wide.max(axis, keepdims=True)
        total = np.exp(shifted).sum(axis, keepdims=True)
        agree(lambda: (np.exp(shifted) / total).astype(dtype), lambda: tensor.softmax(axis), atol=1e-7)
        agree(lambda: (shifted - np.log(total)).astype(dtype), lambda: tensor.log_softmax(axis), atol=1e-6)
    summed = "int64" if array.dtype.kind != "f" else dtype
    agree(lambda: np.cumsum(wide, axis).astype(summed), lambda: tensor.cumsum(axis), atol=1e-5)
    agree(lambda: np.cumsum(wide).astype(summed), lambda: tensor.cumsum(), atol=1e-5)


# --- products --------------------------------------------------------------------------------------------------------


@quick
@given(st.data())
def test_matmul(data):
    found = data.draw(
        hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, min_side=0, max_side=4)
    )
    (a, x), (b, y) = (data.draw(pairs(shape)) for shape in found.input_shapes)
    dtype = promoted(a.dtype.name, b.dtype.name)
    dtype = "int32" if dtype in ("int8", "uint8") else dtype
    wide = dtype if dtype not in FLOATS else "float64"
    agree(lambda: np.matmul(a.astype(wide), b.astype(wide)).astype(dtype), lambda: x @ y, atol=1e-3)


@settings(quick, max_examples=25)
@given(st.integers(1, 90), st.integers(1, 300), st.integers(1, 90), st.booleans(), st.booleans(), st.integers(0, 99))
def test_larger_matmul_with_transposed_operands(m, k, n, left, right, seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(m, k)).astype("float32"), random.normal(size=(k, n)).astype("float32")
    x = Tensor(np.ascontiguousarray(a.T)).T if left else Tensor(a)
    y = Tensor(np.ascontiguousarray(b.T)).T if right else Tensor(b)
    np.testing.assert_allclose((x @ y).numpy(), a.astype("f8") @ b.astype("f8"), rtol=1e-5, atol=1e-4)
    c, d = random.integers(-128, 128, (m, k)).astype("int8"), random.integers(-128, 128, (k, n)).astype("int8")
    np.testing.assert_array_equal((Tensor(c) @ Tensor(d)).numpy(), c.astype("int32") @ d.astype("int32"))


@quick
@given(st.data())
def test_dot_and_outer(data):
    shape = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    (a, x), (b, y) = (data.draw(pairs(shape, "float32")) for _ in range(2))
    agree(lambda: np.dot(a.astype("f8"), b.astype("f8")).astype("float32"), lambda: x.dot(y), rtol=1e-5, atol=1e-3)
    agree(lambda: np.outer(a, b), lambda: x.outer(y))


# --- joining, cutting, choosing --------------------------------------------------------------------------------------


@quick
@given(st.data())
def test_concat_stack_split(data):
    shape = data.draw(hnp.array_shapes(max_dims=3, min_side=0, max_side=3))
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    found = [data.draw(pairs(shape)) for _ in range(data.draw(st.integers(1, 3)))]
    dtype = found[0][0].dtype.name
    for array, _ in found[1:]:
        dtype = promoted(dtype, array.dtype.name)
    arrays, tensors = [array.astype(dtype) for array, _ in found], [tensor for _, tensor in found]
    agree(lambda: np.concatenate(arrays, axis), lambda: Tensor.concat(tensors, axis))
    agree(lambda: np.stack(arrays, axis), lambda: Tensor.stack(tensors, axis))
    if -len(shape) <= axis < len(shape):
        n = data.draw(st.integers(1, 4))
        for want, got in zip(np.array_split(arrays[0], n, axis), tensors[0].astype(dtype).chunk(n, axis), strict=True):
            np.testing.assert_array_equal(got.numpy(), want)
        cut = data.draw(st.integers(0, shape[axis]))
        first, second = tensors[0].split([cut, shape[axis] - cut], axis)
        want, rest = np.split(found[0][0], [cut], axis)
        np.testing.assert_array_equal(first.numpy(), want)
        np.testing.assert_array_equal(second.numpy(), rest)


@quick
@given(st.data())
def test_take_along_axis_and_scatter_add(data):
    array, tensor = data.draw(pairs(hnp.array_shapes(max_dims=3, max_side=4)))
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    shape = list(array.shape)
    shape[axis] = data.draw(st.integers(0, 4))
    n = array.shape[axis]
    index = data.draw(hnp.arrays(st.sampled_from(["int32", "int64"]), tuple(shape), elements=st.integers(-n, n - 1)))
    agree(lambda: np.take_along_axis(array, index, axis), lambda: tensor.take_along_axis(index, axis))
    if array.dtype != bool:
        source = data.draw(hnp.arrays(array.dtype, tuple(shape), elements=elements(array.dtype.name)))
        want = array.astype("float64" if array.dtype.kind == "f" else array.dtype)
        where = list(np.indices(shape))
        where[axis] = index
        np.add.at(want, tuple(where), source)
        agree(lambda: want.astype(array.dtype), lambda: tensor.scatter_add(index, Tensor(source), axis), atol=1e-4)
    with pytest.raises(IndexError):
        tensor.take_along_axis(np.full(array.shape, n), axis)


@quick
@given(st.data())
def test_embedding(data):
    table, tensor = data.draw(pairs(hnp.array_shapes(max_dims=3, max_side=4)))
    ids = data.draw(
        hnp.arrays(
            "int64", hnp.array_shapes(min_dims=0, max_dims=2, min_side=0), elements=st.integers(0, len(table) - 1)
        )
    )
    agree(lambda: table[ids], lambda: tensor.embedding(ids))
    for bad in (len(table), -1):
        with pytest.raises(IndexError, match="out of range"):
            tensor.embedding([bad])


@quick
@given(st.data())
def test_topk(data):
    array, tensor = data.draw(pairs(hnp.array_shapes(max_dims=3, max_side=6)))
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    k = data.draw(st.integers(0, array.shape[axis]))
    largest = data.draw(st.booleans())
    key = array.astype("float64") * (-1 if largest else 1)
    order = np.take(np.argsort(key, axis, kind="stable"), range(k), axis)
    values, indices = tensor.topk(k, axis, largest)
    np.testing.assert_array_equal(indices.numpy(), order)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(array, order, axis))
    with pytest.raises(ValueError, match="topk"):
        tensor.topk(array.shape[axis] + 1, axis)


@quick
@given(pairs(hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4)), st.integers(-6, 6))
def test_triangles(pair, k):
    array, tensor = pair
    agree(lambda: np.triu(array, k), lambda: tensor.triu(k))
    agree(lambda: np.tril(array, k), lambda: tensor.tril(k))


# --- errors ----------------------------------------------------------------------------------------------------------


def test_errors_name_both_shapes_and_are_the_builtin_kinds():
    x = Tensor(np.zeros((2, 3), "float32"))
    for wrong in (lambda: x + Tensor([1, 2]), lambda: x @ Tensor([1, 2]), lambda: Tensor.where(x, x, Tensor([1, 2]))):
        with pytest.raises(ValueError, match=r"\(2, 3\).*\(2,\)"):
            wrong()
    with pytest.raises(ValueError, match=r"\(2, 3\) to \(4, 2\)"):
        x.reshape(4, 2)
    with pytest.raises(IndexError, match=r"axis 2 .* \(2, 3\)"):
        x.sum(axis=2)
    with pytest.raises(IndexError, match="axis 2"):
        x.swapaxes(0, 2)
    with pytest.raises(TypeError, match="float32"):
        x.embedding([0.5])


def test_threads_work_on_tensors_at_once():
    from concurrent.futures import ThreadPoolExecutor

    x = Tensor(np.random.default_rng(0).normal(size=(200, 200)).astype("float32"))
    want = (x @ x).numpy()
    with ThreadPoolExecutor(4) as threads:
        for got in threads.map(lambda _: (x @ x).numpy(), range(16)):
            np.testing.assert_array_equal(got, want)
