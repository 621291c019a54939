"""ONNX models: the graph of a model, built with the `onnx` package around weights that the core writes.

Ternary layers are integer products, as in the core: an activation row becomes int8 (offset by 128, as onnxruntime's fast kernels want
unsigned bytes on the left), MatMulInteger adds up whole numbers, and one multiplication by weight_scale / activation_scale makes the
result float. DequantizeLinear would be shorter and is not exact: onnxruntime fuses it with the MatMul behind it into a product that
quantizes activations in blocks of its own.
"""

import json
import math
import mmap
import os
import re
import secrets
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from . import _bitnet
from .config import BitNetConfig
from .errors import ArgumentError, FileSystemError, missing_extra
from .files import write_bytes, write_text

ONNXType = Literal["int8", "int2"]

CONFIG_KEY = "bitnet_rust.config"
"""The entry of an ONNX model's metadata with the content of config.json; the core's reader has the same name."""

# The weights of a larger model are in a file beside it: the graph is small then, and nothing is held in memory. ONNX itself sets 2 GB.
_MOST_INSIDE = 32 << 20

# 8 bits need nothing newer than the axes inputs of opset 18; 2 bits are a type of opset 25 and IR version 13.
_VERSIONS: dict[str, tuple[int, int]] = {"int8": (18, 8), "int2": (25, 13)}


def save_onnx(
    model: _bitnet.Model,
    config: BitNetConfig,
    texts: Mapping[str, str],
    path: Path,
    options: Mapping[str, Any],
    progress: Callable[[int, int], object] | None,
) -> int:
    """Writes an ONNX file, its data file if it is large, and config.json and the model's other texts beside it. options: onnx_type,
    use_cache, and dry_run, to write nothing and return what the tensors would take.

    Everything is written whole in a hidden directory before the first file gets its name, the graph last. An old graph keeps its data
    until then: the data of the new one has another name.
    """
    kind = options["onnx_type"]
    onnx = _package(kind)
    if path.suffix.lower() != ".onnx":
        raise ArgumentError(f"{path}: expected a name that ends in .onnx")
    beside = {**texts, "config.json": config.to_json(indent=2) + "\n"}
    _refuse_others(path, beside)
    if options.get("dry_run"):
        planned = json.loads(model.save(path, "onnx_weights", json.dumps({"onnx_type": kind, "dry_run": True}), None))
        return int(planned["size"])
    try:
        _sweep(path)
        with _staging(path) as stage:
            written = stage / "weights"
            model.save(written, "onnx_weights", json.dumps({"onnx_type": kind}), progress)
            with _tensors(written) as weights:
                outside = sum(len(weight.data) for weight in weights.values()) > _MOST_INSIDE
                data = _free_name(path) if outside else None
                initializers = {
                    name: weight.proto(onnx, data.name if data else None) for name, weight in weights.items()
                }
            proto = _Decoder(onnx, config, initializers, options["use_cache"]).model(kind)
            write_bytes(stage / path.name, proto.SerializeToString())
            for name, text in beside.items():
                write_text(stage / name, text)
            old = data_files(path)
            if data is not None:
                os.replace(written, data)
            try:
                for name in [*beside, path.name]:
                    os.replace(stage / name, path.with_name(name))
            except OSError:
                if data is not None:
                    data.unlink()
                raise
        for file in old:
            file.unlink(missing_ok=True)
        return 0
    except OSError as error:
        raise FileSystemError(f"cannot write {path}: {error}") from error


def data_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that save_onnx may have written its weights to."""
    ours = re.compile(re.escape(path.name) + r"(\.[0-9a-f]{12})?\.data")
    return sorted(file for file in path.parent.iterdir() if ours.fullmatch(file.name))


def _free_name(path: Path) -> Path:
    """A data file that no graph refers to: model.onnx.data as others call it, unless that is there."""
    data = path.with_name(path.name + ".data")
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}.data") if data.exists() else data


def _refuse_others(path: Path, beside: Mapping[str, str]) -> None:
    """What lies beside an ONNX file belongs to it, so a directory holds one model."""
    if path.exists():
        return
    for name, text in beside.items():
        there = path.with_name(name)
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                if there.read_text("utf-8") == text:
                    continue
            except UnicodeDecodeError:
                pass
            except OSError as error:
                if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                    raise
            raise ArgumentError(
                f"{path.parent} holds the {name} of another model: expected a directory of its own for {path.name}"
            )


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """A hidden directory beside path while it is being written, locked so that _sweep leaves it alone."""
    while True:
        stage = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        stage.mkdir()
        lock = _lock(stage)
        if stage.exists():  # nobody swept it before it was locked
            break
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _sweep(path: Path) -> None:
    """Removes what processes that were killed left of writing to path."""
    left = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{12}\.tmp")
    for stage in path.parent.iterdir():
        if left.fullmatch(stage.name) and (lock := _lock(stage)) is not None:
            shutil.rmtree(stage, ignore_errors=True)
            os.close(lock)


def _lock(directory: Path) -> int | None:
    """A descriptor that locks a directory until it is closed; None where somebody has it, or the system has no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _package(kind: str) -> Any:
    try:
        import onnx
    except ImportError as missing:
        raise missing_extra("format='onnx'", "the package onnx", "onnx") from missing
    if kind not in _VERSIONS:
        raise ArgumentError(f"onnx_type = {kind!r}: expected {' or '.join(_VERSIONS)}")
    if onnx.defs.onnx_opset_version() < _VERSIONS[kind][0]:
        raise ArgumentError(
            f"onnx_type = {kind!r} needs opset {_VERSIONS[kind][0]}, and onnx {onnx.__version__} has {onnx.defs.onnx_opset_version()}: "
            "install a newer onnx, or take 'int8'"
        )
    return onnx


# --- weights ---------------------------------------------------------------------------------------------------------


class _Tensor:
    """A tensor in the file of weights that the core has written."""

    def __init__(self, dtype: str, shape: list[int], offset: int, data: memoryview) -> None:
        self.dtype, self.shape, self.offset, self.data = dtype, shape, offset, data

    def proto(self, onnx: Any, file: str | None) -> Any:
        """The initializer without its name: with the bytes in it, or with their place in a file."""
        tensor = onnx.TensorProto(data_type=onnx.TensorProto.DataType.Value(self.dtype), dims=self.shape)
        if file is None:
            tensor.raw_data = bytes(self.data)
            return tensor
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": file, "offset": self.offset, "length": len(self.data)}.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


@contextmanager
def _tensors(path: Path) -> Iterator[dict[str, _Tensor]]:
    """The tensors of a safetensors file that the core has written, by name, in the file's order."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        (size,) = struct.unpack_from("<Q", view)
        header = json.loads(bytes(view[8 : 8 + size]))
        shapes = header.pop("__metadata__", {})
        found = {}
        for name, entry in header.items():
            begin, end = (8 + size + at for at in entry["data_offsets"])
            if name in shapes:
                dtype, shape = "INT2", json.loads(shapes[name])
            else:
                types = {"F32": "FLOAT", "BF16": "BFLOAT16", "F16": "FLOAT16", "I8": "INT8"}
                dtype, shape = types[entry["dtype"]], entry["shape"]
            found[name] = _Tensor(dtype, shape, begin, view[begin:end])
        try:
            yield found
        finally:
            for tensor in found.values():
                tensor.data.release()


# --- the graph -------------------------------------------------------------------------------------------------------


class _Decoder:
    """Writes the nodes of a decoder in the order of a forward pass. Values are called after the node that makes them, and nodes after
    the module they stand for: /model/layers.0/self_attn/q_proj/MatMul."""

    def __init__(self, onnx: Any, config: BitNetConfig, weights: dict[str, Any], use_cache: bool) -> None:
        self._onnx, self._config, self._weights, self._cached = onnx, config, weights, use_cache
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._widened: dict[str, str] = {}  # what a tied table is as float32, for both of its uses
        self._heads, self._kv_heads, self._head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )

    def model(self, kind: str) -> Any:
        onnx, config = self._onnx, self._config
        inputs = [
            self._value("input_ids", "INT64", ["batch_size", "sequence_length"]),
            self._value("attention_mask", "INT64", ["batch_size", self._total]),
            self._value("position_ids", "INT64", ["batch_size", "sequence_length"]),
        ]
        outputs = [self._value("logits", "FLOAT", ["batch_size", "sequence_length", config.vocab_size])]
        if self._cached:
            inputs += self._caches("past_key_values", "past_sequence_length")
            outputs += self._caches("present", self._total)
        self._forward()
        for name, tensor in self._weights.items():
            tensor.name = name
        graph = onnx.helper.make_graph(
            self._nodes, "decoder", inputs, outputs, [*self._constants.values(), *self._weights.values()]
        )
        opset, ir = _VERSIONS[kind]
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", opset)],
            ir_version=ir,
            producer_name="bitnet_rust",
            producer_version=_bitnet.__version__,
            doc_string=f"{config.architectures[0]} with ternary weights as {kind}",
        )
        onnx.helper.set_model_props(model, {CONFIG_KEY: config.to_json()})
        return model

    @property
    def _total(self) -> str:
        return "total_sequence_length" if self._cached else "sequence_length"

    def _caches(self, prefix: str, length: str) -> list[Any]:
        shape = ["batch_size", self._kv_heads, length, self._head_dim]
        return [
            self._value(f"{prefix}.{layer}.{part}", "FLOAT", shape)
            for layer in range(self._config.num_hidden_layers)
            for part in ("key", "value")
        ]

    def _value(self, name: str, dtype: str, shape: list[Any]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.DataType.Value(dtype), shape)

    def _forward(self) -> None:
        config = self._config
        x = self._op("/model/embed_tokens/Gather", "Gather", self._float32("model.embed_tokens.weight"), "input_ids")
        angles = self._angles("/model/rotary_emb")
        bias = self._mask("/model/attention_mask")
        for layer in range(config.num_hidden_layers):
            p = f"/model/layers.{layer}"
            h = self._attention(f"{p}/self_attn", layer, self._norm(f"{p}/input_layernorm", x), angles, bias)
            x = self._op(f"{p}/Add", "Add", x, h)
            h = self._feed_forward(f"{p}/mlp", self._norm(f"{p}/post_attention_layernorm", x))
            x = self._op(f"{p}/Add_1", "Add", x, h)
        x = self._norm("/model/norm", x)
        table = self._float32("lm_head.weight" if "lm_head.weight" in self._weights else "model.embed_tokens.weight")
        table = self._op("/lm_head/Transpose", "Transpose", table, perm=[1, 0])
        self._op("/lm_head/MatMul", "MatMul", x, table, to="logits")

    def _attention(self, p: str, layer: int, h: str, angles: tuple[str, str], bias: str) -> str:
        heads, kv_heads, dim = self._heads, self._kv_heads, self._head_dim
        shared = None if self._norms_inside else self._quantize(p, h)
        q, k, v = (self._linear(f"{p}/{name}_proj", h, shared) for name in "qkv")
        q = self._rotate(f"{p}/q", self._split_heads(f"{p}/q", q, heads), angles)
        k = self._rotate(f"{p}/k", self._split_heads(f"{p}/k", k, kv_heads), angles)
        v = self._split_heads(f"{p}/v", v, kv_heads)
        if self._cached:
            past, present = (f"{name}.{layer}" for name in ("past_key_values", "present"))
            k = self._op(f"{p}/k/Concat_past", "Concat", f"{past}.key", k, to=f"{present}.key", axis=2)
            v = self._op(f"{p}/v/Concat_past", "Concat", f"{past}.value", v, to=f"{present}.value", axis=2)
        # Heads that share keys and values are rows of one product.
        q = self._op(f"{p}/q/Group", "Reshape", q, self._int64s(0, kv_heads, -1, dim))
        k = self._op(f"{p}/k/Transpose_1", "Transpose", k, perm=[0, 1, 3, 2])
        scores = self._op(f"{p}/MatMul", "MatMul", q, k)
        scores = self._op(f"{p}/Ungroup", "Reshape", scores, self._int64s(0, heads, -1, 0))
        scores = self._op(f"{p}/Mul", "Mul", scores, self._float(dim**-0.5))
        scores = self._op(f"{p}/Add", "Add", scores, bias)
        weights = self._op(f"{p}/Softmax", "Softmax", scores, axis=-1)
        weights = self._op(f"{p}/Group", "Reshape", weights, self._int64s(0, kv_heads, -1, 0))
        out = self._op(f"{p}/MatMul_1", "MatMul", weights, v)
        out = self._op(f"{p}/Ungroup_1", "Reshape", out, self._int64s(0, heads, -1, dim))
        out = self._op(f"{p}/Transpose", "Transpose", out, perm=[0, 2, 1, 3])
        out = self._op(f"{p}/Reshape", "Reshape", out, self._int64s(0, 0, heads * dim))
        if f"{_module(p)}.attn_sub_norm.weight" in self._weights:
            out = self._norm(f"{p}/attn_sub_norm", out)
        return self._linear(f"{p}/o_proj", out)

    def _feed_forward(self, p: str, h: str) -> str:
        shared = None if self._norms_inside else self._quantize(p, h)
        gate = self._activation(f"{p}/act_fn", self._linear(f"{p}/gate_proj", h, shared))
        out = self._op(f"{p}/Mul", "Mul", gate, self._linear(f"{p}/up_proj", h, shared))
        if f"{_module(p)}.ffn_sub_norm.weight" in self._weights:
            out = self._norm(f"{p}/ffn_sub_norm", out)
        return self._linear(f"{p}/down_proj", out)

    # --- layers ---

    @property
    def _norms_inside(self) -> bool:
        """Whether each ternary linear normalizes its input itself, so that no two have the same integers."""
        return bool(self._config.quantization_config["use_rms_norm"])

    def _linear(self, p: str, x: str, quantized: tuple[str, str] | None = None) -> str:
        """A linear layer: ternary where its weights are integers, with quantized the integers and scale of x if others need them too."""
        name = _module(p)
        weight, scale, norm, bias = (f"{name}.{part}" for part in ("weight", "weight_scale", "rms_norm.weight", "bias"))
        if norm in self._weights:
            x, quantized = self._norm(f"{p}/rms_norm", x, self._config.quantization_config["rms_norm_eps"]), None
        if scale in self._weights:
            q, s = quantized or self._quantize(p, x)
            sums = self._op(
                f"{p}/MatMul", "MatMulInteger", q, self._codes(weight), self._constant("zero_point", "UINT8", [], [128])
            )
            sums = self._op(f"{p}/Cast", "Cast", sums, to_type="FLOAT")
            x = self._op(f"{p}/Mul", "Mul", sums, self._op(f"{p}/Div", "Div", scale, s))
        else:
            x = self._op(f"{p}/MatMul", "MatMul", x, weight)
        return self._op(f"{p}/Add", "Add", x, bias) if bias in self._weights else x

    def _codes(self, weight: str) -> str:
        """Ternary codes as int8. onnxruntime widens two bits once, when it loads the model."""
        if self._weights[weight].data_type == self._onnx.TensorProto.INT8:
            return weight
        return self._op(f"/{weight}/Cast", "Cast", weight, to_type="INT8")

    def _quantize(self, p: str, x: str) -> tuple[str, str]:
        """int8 of every row, plus 128, and its scale 127 / max(max|x|, 1e-5)."""
        p = f"{p}/quantize"
        most = self._op(f"{p}/ReduceMax", "ReduceMax", self._op(f"{p}/Abs", "Abs", x), self._int64s(-1), keepdims=1)
        most = self._op(f"{p}/Max", "Max", most, self._float(1e-5))
        s = self._op(f"{p}/Div", "Div", self._float(127), most)
        q = self._op(f"{p}/Round", "Round", self._op(f"{p}/Mul", "Mul", x, s))
        q = self._op(f"{p}/Clip", "Clip", q, self._float(-128), self._float(127))
        q = self._op(f"{p}/Add", "Add", q, self._float(128))
        return self._op(f"{p}/Cast", "Cast", q, to_type="UINT8"), s

    def _norm(self, p: str, x: str, eps: float | None = None) -> str:
        """x / sqrt(mean(x^2) + eps) * weight."""
        square = self._op(f"{p}/Mul", "Mul", x, x)
        mean = self._op(f"{p}/ReduceMean", "ReduceMean", square, self._int64s(-1), keepdims=1)
        mean = self._op(f"{p}/Add", "Add", mean, self._float(self._config.rms_norm_eps if eps is None else eps))
        inverse = self._op(f"{p}/Reciprocal", "Reciprocal", self._op(f"{p}/Sqrt", "Sqrt", mean))
        return self._op(
            f"{p}/Mul_2", "Mul", self._op(f"{p}/Mul_1", "Mul", x, inverse), self._float32(f"{_module(p)}.weight")
        )

    def _activation(self, p: str, x: str) -> str:
        name = self._config.hidden_act
        if name == "silu":
            return self._op(f"{p}/Mul", "Mul", x, self._op(f"{p}/Sigmoid", "Sigmoid", x))
        if name in ("relu", "relu2"):
            y = self._op(f"{p}/Relu", "Relu", x)
            return y if name == "relu" else self._op(f"{p}/Mul", "Mul", y, y)
        if name == "gelu":
            inner = self._op(f"{p}/Erf", "Erf", self._op(f"{p}/Mul", "Mul", x, self._float(math.sqrt(0.5))))
        else:  # the two names of the approximation by tanh
            cube = self._op(f"{p}/Mul_1", "Mul", self._op(f"{p}/Mul", "Mul", x, x), x)
            sum_ = self._op(f"{p}/Add_1", "Add", x, self._op(f"{p}/Mul_2", "Mul", cube, self._float(0.044715)))
            inner = self._op(
                f"{p}/Tanh", "Tanh", self._op(f"{p}/Mul_3", "Mul", sum_, self._float(math.sqrt(2 / math.pi)))
            )
        half = self._op(f"{p}/Mul_4", "Mul", x, self._float(0.5))
        return self._op(f"{p}/Mul_5", "Mul", half, self._op(f"{p}/Add", "Add", inner, self._float(1)))

    # --- positions ---

    def _angles(self, p: str) -> tuple[str, str]:
        """Cosines and sines [batch, 1, sequence, head_dim / 2] of the positions: products in float32, the rest in float64, as in the core."""
        positions = self._op(f"{p}/Cast", "Cast", "position_ids", to_type="FLOAT")
        positions = self._op(f"{p}/Unsqueeze", "Unsqueeze", positions, self._int64s(1, 3))
        angles = self._op(f"{p}/Mul", "Mul", positions, "model.rotary_emb.inv_freq")
        angles = self._op(f"{p}/Cast_1", "Cast", angles, to_type="DOUBLE")
        cos, sin = (
            self._op(f"{p}/{name}/Cast", "Cast", self._op(f"{p}/{name}", name, angles), to_type="FLOAT")
            for name in ("Cos", "Sin")
        )
        return cos, sin

    def _rotate(self, p: str, x: str, angles: tuple[str, str]) -> str:
        """Turns dimension i of a head together with i + head_dim / 2."""
        cos, sin = angles
        low, high = f"{p}/Split_low", f"{p}/Split_high"
        half = self._head_dim // 2
        self._node(f"{p}/Split", "Split", [x, self._int64s(half, half)], [low, high], axis=-1)
        turned_low = self._op(
            f"{p}/Sub", "Sub", self._op(f"{p}/Mul", "Mul", low, cos), self._op(f"{p}/Mul_1", "Mul", high, sin)
        )
        turned_high = self._op(
            f"{p}/Add", "Add", self._op(f"{p}/Mul_2", "Mul", high, cos), self._op(f"{p}/Mul_3", "Mul", low, sin)
        )
        return self._op(f"{p}/Concat", "Concat", turned_low, turned_high, axis=-1)

    def _split_heads(self, p: str, x: str, heads: int) -> str:
        """[batch, sequence, heads * head_dim] as [batch, heads, sequence, head_dim]."""
        x = self._op(f"{p}/Reshape", "Reshape", x, self._int64s(0, 0, heads, self._head_dim))
        return self._op(f"{p}/Transpose", "Transpose", x, perm=[0, 2, 1, 3])

    def _mask(self, p: str) -> str:
        """What is added to scores [batch, 1, sequence, total]: nothing where the mask has a 1 at a position up to the row's own."""
        length = self._op(f"{p}/Shape", "Shape", "input_ids", start=1, end=2)
        total = self._op(f"{p}/Shape_1", "Shape", "attention_mask", start=1, end=2)
        scalar, zero, one = self._constant("scalar", "INT64", [0], []), self._int64(0), self._int64(1)
        end = self._op(f"{p}/Reshape", "Reshape", total, scalar)
        first = self._op(f"{p}/Sub", "Sub", end, self._op(f"{p}/Reshape_1", "Reshape", length, scalar))
        rows = self._op(
            f"{p}/Unsqueeze", "Unsqueeze", self._op(f"{p}/Range", "Range", first, end, one), self._int64s(1)
        )
        columns = self._op(f"{p}/Range_1", "Range", zero, end, one)
        causal = self._op(f"{p}/LessOrEqual", "LessOrEqual", columns, rows)
        counted = self._op(f"{p}/Cast", "Cast", "attention_mask", to_type="BOOL")
        counted = self._op(f"{p}/Unsqueeze_1", "Unsqueeze", counted, self._int64s(1, 2))
        seen = self._op(f"{p}/And", "And", causal, counted)
        return self._op(f"{p}/Where", "Where", seen, self._float(0), self._float(-3.0e38))

    # --- nodes and constants ---

    def _op(
        self, name: str, kind: str, *inputs: str, to: str | None = None, to_type: str | None = None, **attributes: Any
    ) -> str:
        """Adds a node with one output and returns that."""
        if to_type is not None:
            attributes["to"] = self._onnx.TensorProto.DataType.Value(to_type)
        output = to or f"{name}_output"
        self._node(name, kind, list(inputs), [output], **attributes)
        return output

    def _node(self, name: str, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, outputs, name=name, **attributes))

    def _float32(self, name: str) -> str:
        """A weight as float32, whatever the file has."""
        if self._weights[name].data_type == self._onnx.TensorProto.FLOAT:
            return name
        if name not in self._widened:
            self._widened[name] = self._op(f"/{name}/Cast", "Cast", name, to_type="FLOAT")
        return self._widened[name]

    def _float(self, value: float) -> str:
        return self._constant(f"float.{value!r}", "FLOAT", [], [value])

    def _int64(self, value: int) -> str:
        return self._constant(f"int64.{value}", "INT64", [], [value])

    def _int64s(self, *values: int) -> str:
        return self._constant("int64s." + ".".join(map(str, values)), "INT64", [len(values)], list(values))

    def _constant(self, name: str, dtype: str, shape: list[int], values: list[Any]) -> str:
        """A small initializer, made once."""
        name = f"constant.{name}"
        if name not in self._constants:
            kind = self._onnx.TensorProto.DataType.Value(dtype)
            self._constants[name] = self._onnx.helper.make_tensor(name, kind, shape, values)
        return name


def _module(path: str) -> str:
    """The module's name in a checkpoint, of a node's path."""
    return path.removeprefix("/").replace("/", ".")
