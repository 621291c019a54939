"""BitNetModel: a loaded model, in the manner of Hugging Face's classes."""

import json
import logging
import math
import re
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, NoReturn, Self, SupportsIndex, Unpack, cast, overload

from . import _bitnet, tracing
from .arrays import as_prompts, batch_ids, is_batch, pad_logits, token_ids, whole_number
from .config import BitNetConfig, fields_json
from .configuration import settings
from .errors import ArgumentError, DeviceError, DTypeError, ModelWarning, warn
from .file_like import file_name, is_file
from .file_like import load as load_file
from .files import place_of
from .generation import GenerationOptions, GenerationResult, Session, generation_defaults, sampling_json
from .hub import name_of, resolve
from .logs import delivered, event
from .metadata import decode as decode_metadata
from .metadata import encode as encode_metadata
from .progress import Progress, progress_of
from .registry import find_model
from .tokenizer import SENTENCEPIECE, TOKENIZER_FILES, Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .model_graph import ModelGraph, PassOptions
    from .nn.module import Parameter
    from .onnx_export import ONNXType
    from .profile import Profile
    from .tensor import Tensor
    from .weights import QuantizationError, Weight

_LOG = logging.getLogger(__name__)
LinearClass = Literal["autobitlinear", "bitlinear"]
GGUFType = Literal["i2_s", "tq1_0", "tq2_0", "f16", "bf16", "f32"]
I2SLayout = Literal["x86", "arm64", "row4"]


class BitNetModel:
    """A BitNet b1.58 (or ternary Llama) language model.

    >>> with BitNetModel.from_pretrained("bitnet-shakespeare") as model:
    ...     for piece in model.generate("First Citizen:", stream=True):
    ...         print(piece, end="", flush=True)

    Calls release the GIL: several threads may use one model at once, each gets the text it would get alone. Ctrl-C ends
    a call within half a second. A model is closed by ``close()``, by ``with``, or when it is garbage collected.

    ``from_pretrained``, ``from_config`` and ``from_state_dict`` make models.

    config: what fixes its shapes and its arithmetic.
    kv_dtype: how generation keeps keys and values: "float32", "float16", "bfloat16" or "int8".
    """

    def __init__(self, model: _bitnet.Model, path: Path | None = None) -> None:
        if not isinstance(model, _bitnet.Model):
            raise TypeError(f"BitNetModel({model!r}) makes no model: use BitNetModel.from_pretrained or .from_config")
        self._model = model
        self._path = path
        self._closed = False
        self._passes: ModelGraph | None = None
        # Now: the files may change while the model lives.
        self._asset_texts = _bitnet.assets(path) if path else "{}"
        own = model.assets()
        if own != "null":  # of a file object
            self._asset_texts = own
        self._tokenizer: Tokenizer | None = None
        self._template: str | None = None  # of the tokenizer, as it is among the assets
        described = json.loads(model.info())
        self.config: BitNetConfig = BitNetConfig._of(described["config"])
        self._info: dict[str, Any] = described["info"]
        self._notes: dict[str, Any] = {}  # metadata that is newer than that of the file
        for text in self._info.get("warnings", ()):
            warn(text, ModelWarning)

    _title = "a model made by from_config"
    _name = "bitnet"

    kv_dtype: str = "float32"

    # --- making and saving -------------------------------------------------------------------------------------------

    @classmethod
    @delivered()
    def from_pretrained(
        cls,
        name: str | PathLike[str] | IO[bytes],
        *,
        device: Any = "cpu",
        head_dtype: str = "auto",
        kv_dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float32",
        verify: bool | Literal["background"] = "background",
        resident: Literal["auto", "map", "copy"] = "auto",
        packing: Literal["auto", "2bit", "base3"] = "auto",
        trainable: bool = False,
        quantize: bool = False,
        i2s_layout: I2SLayout = "x86",
        revision: str | None = None,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        progress: Progress | bool | None = None,
    ) -> Self:
        """Loads a model.

        name: a model directory (Hugging Face checkpoint or our own ``.bitnet`` format), a ``.gguf`` or ``.onnx`` file, a registered name
            (``bitnet models`` lists them; ``"bitnet-shakespeare"`` comes with the package), or a Hugging Face repository
            ("owner/name"), which is downloaded into the hub's cache. Or a file object with read() and seek() that has the
            bytes of a ``.bitnet`` file, such as io.BytesIO, an open file, or one of fsspec: it is read once, into memory.
        device: "cpu"; for any other DeviceError says what is missing.
        head_dtype: how the embedding and output head are kept: "float32", "bfloat16", "float16", "int8" (one scale a row), "int4" (one
            scale for each 64 columns of a row, 4.25 bits a weight), or "auto" for the checkpoint's own precision. "exact" is that precision with int8 scores beside it: greedy decoding, and
            sampling with top_k up to 256, give what "auto" gives, at about the speed of "int8" and the memory of both.
        kv_dtype: how generation keeps the keys and values of the context. "float16" and "bfloat16" take half and "int8" a
            quarter of the memory of "float32", long contexts are read as much faster, and the numbers change a little: see
            docs/reference/precision.md. "bfloat16" has the range of "float32" and is coarser than "float16". A ``Trainer`` uses float32 whatever this says.
        verify: when the checksums of a native file are compared, and its ternary codes looked at: 3 is none. "background": of files
            from 64 MB on while the model already runs; should one turn out to be damaged, every later call raises FormatError.
            True: before this call returns. False: never; loading touches no weight at all. What a damaged file computes is then
            wrong without an error, and where it has codes 3 not the same on every processor; memory stays safe, and
            `verify_model` finds it.
        resident: where a native file's weights are kept. "map": in the file's mapping, which starts at once and which
            processes share. "copy": in huge-page memory, which streams about a quarter faster. "auto": mapped to start,
            and copied in the background while the model already runs.
        packing: how ternary weights lie in memory. "base3" packs five in a byte, four fifths of the bytes of "2bit", and gives
            the same bits: one sequence, whose speed is that of reading the weights, decodes up to a seventh faster where they do
            not fit the processor's caches; steps with a few rows become a little slower. A processor without AVX-512
            VBMI has no kernels for it: a token takes ten times as long or more, which is a ModelWarning. The
            up and down projections of models with squared ReLU keep two bits, as neurons that are off are not read. Saved models
            keep it. "auto" takes a native file as it is, on a processor without AVX-512 VBMI with two bits, and else "2bit".
        trainable: keep float32 master weights and gradients for ``Trainer``, as in ``from_config``; head_dtype must be
            "auto". A checkpoint of master weights (quantization_mode "online") is what it was; of packed ternary weights
            only codes and scales are left, so that their masters begin at what the checkpoint computes but not at where
            its training had left them.
        quantize: take the float weights of a checkpoint without a quantization_config, of a Llama or a GPT-2, as master weights of ternary
            layers. Such a model has to be trained before it is good for anything. ArgumentError for a native file of float layers.
        i2s_layout: how the I2_S tensors of a GGUF file have their codes, which the file does not say: "x86" (the published files),
            "arm64" (quantized on ARM) or "row4" (x86 builds of bitnet.cpp without ACT_PARALLEL). With the wrong one a model
            loads and talks nonsense.
        revision: branch, tag or commit of a Hugging Face repository.
        cache_dir, local_files_only, token: as in huggingface_hub, for what is downloaded.
        progress: called as progress(bytes_done, bytes_total) while loading; True draws a bar, in a terminal or a notebook. An
            exception that it raises ends the loading, as Ctrl-C does, and leaves nothing in memory.

        Raises ModelNotFoundError, FormatError, ConfigError, OutOfMemoryError; each names the file and what is wrong. ArgumentError
        for an option that says nothing about this model: a quantize without float layers, an i2s_layout of others than "x86"
        without I2_S tensors, a revision of what is here already, resident="map" of anything but a native file, a packing of what has
        no ternary layers.
        """
        settings.check()
        _device(device)
        options = {
            "head_format": checked_head_dtype(head_dtype),
            "kv_dtype": _kv_dtype(kv_dtype),
            "verify": _verify(verify),
            "resident": _resident(resident),
            "trainable": bool(trainable),
            "quantize": bool(quantize),
            "packing": checked_packing(packing),
            "i2s_layout": i2s_layout,
        }
        named = file_name(name) if is_file(name) else name_of(cast("str | PathLike[str]", name))
        with tracing.loading(named) as attributes:
            if is_file(name):
                if revision is not None:
                    raise ArgumentError(
                        f"revision = {revision!r}: {named} is a file object: expected it to be left out"
                    )
                with progress_of(progress, f"loading {file_name(name)}") as told:
                    model = cls(load_file(name, options, told))
                model._title = named
            else:
                path = resolve(
                    cast("str | PathLike[str]", name),
                    revision=revision,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    token=token,
                )
                path = path.absolute()  # which a change of the working directory leaves alone
                with progress_of(progress, f"loading {fspath(cast('str | PathLike[str]', name))}") as told:
                    model = cls(_bitnet.load(path, json.dumps(options), told), path)
                model._name = named
            attributes["bitnet.model.parameters"] = model.num_parameters()
            attributes["bitnet.model.bytes"] = model.memory_footprint()
        model.kv_dtype = kv_dtype
        return model

    @classmethod
    def from_config(
        cls,
        config: BitNetConfig | Mapping[str, Any] | str | PathLike[str],
        *,
        seed: int = 0,
        device: Any = "cpu",
        head_dtype: str = "auto",
        kv_dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float32",
        packing: Literal["auto", "2bit", "base3"] = "auto",
        trainable: bool = False,
    ) -> Self:
        """Makes a model with random weights.

        config: a BitNetConfig, a dictionary of its fields, a registered name, or a .json or .yaml file.
        seed: 0 to 2^64 - 1; equal seeds give equal weights.
        device, head_dtype, kv_dtype, packing: as in ``from_pretrained``; "auto" is "2bit".
        trainable: keep float32 master weights and gradients, which ``Trainer`` changes and from which the ternary weights
            follow. Embedding and head are float32 then, and head_dtype must be "auto". Linear layers that the config's
            modules_to_not_convert names stay float32 and are trained as such.
        """
        _device(device)
        if trainable and head_dtype != "auto":
            raise ArgumentError(
                f"head_dtype = {head_dtype!r}: expected 'auto' with trainable=True, whose head is float32"
            )
        return cls._random(
            config,
            seed,
            trainable,
            head_format=checked_head_dtype(head_dtype),
            kv_dtype=_kv_dtype(kv_dtype),
            packing=checked_packing(packing),
        )

    @classmethod
    def from_state_dict(
        cls,
        config: BitNetConfig | Mapping[str, Any],
        state: Mapping[str, Any],
        *,
        head_dtype: str = "auto",
        kv_dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float32",
        packing: Literal["auto", "2bit", "base3"] = "auto",
        trainable: bool = False,
    ) -> Self:
        """Makes a model of arrays that are in memory, which it copies into the form of its kernels.

        config: a BitNetConfig or a dictionary of its fields; its quantization_config says what the arrays of ternary layers are.
        state: what a Hugging Face checkpoint has in its files, by the same names: arrays of float32, float16 or bfloat16, and uint8
            for packed weights; Tensors, NumPy arrays, or others with ``__dlpack__``.
        head_dtype, kv_dtype, packing, trainable: as in ``from_pretrained``.

        Raises ConfigError, FormatError for an array that is missing, has no place or another shape, DTypeError, OutOfMemoryError.
        """
        from .tensor import Tensor

        settings.check()
        if not isinstance(state, Mapping):
            raise DTypeError(f"state is of type {type(state).__name__}: expected a dictionary of arrays by name")
        options = {
            "head_format": checked_head_dtype(head_dtype),
            "kv_dtype": _kv_dtype(kv_dtype),
            "packing": checked_packing(packing),
            "trainable": bool(trainable),
        }
        tensors = [value if isinstance(value, Tensor) else _shared(value) for value in state.values()]
        handles = tuple(t._handle for t in tensors)
        made = _bitnet.from_tensors(fields_json(config), json.dumps(list(state)), handles, json.dumps(options))
        model = cls(made)
        model.kv_dtype = kv_dtype
        return model

    @classmethod
    @delivered()
    def _random(
        cls,
        config: BitNetConfig | Mapping[str, Any] | str | PathLike[str],
        seed: int,
        trainable: bool = False,
        **options: Any,
    ) -> Self:
        """from_config with the core's options for random models."""
        settings.check()
        fields: Any = config
        if isinstance(config, PathLike) or (isinstance(config, str) and config.lower().endswith(_CONFIG_FILES)):
            fields = BitNetConfig.from_file(config)
        elif isinstance(config, str):
            fields = find_model(config).config
        number = whole_number(seed, "seed", range(2**64))
        model = cls(_bitnet.random(fields_json(fields), number, json.dumps(options), trainable))
        model.kv_dtype = options.get("kv_dtype", "float32")
        return model

    def save_pretrained(
        self,
        path: str | PathLike[str],
        *,
        format: Literal["native", "hf", "gguf", "onnx"] = "native",
        masters: Literal["float32", "bfloat16"] | None = None,
        linear_class: LinearClass | None = None,
        max_shard_size: int | str | None = None,
        gguf_type: GGUFType | None = None,
        onnx_type: "ONNXType | None" = None,
        use_cache: bool = True,
        compression: Literal["zstd"] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the model, with its tokenizer and generation config if it has them.

        "native" is our own format: kernel-ready weights that load by memory mapping. A path that ends in .bitnet becomes
        one file with everything in it, any other a directory. "hf" is a Hugging Face checkpoint, a directory with
        packed ternary weights, or, with masters and of a trainable model, one of master weights in that dtype, of which
        transformers derives the ternary weights itself: from "float32" training goes on exactly, in "bfloat16" they are
        rounded. linear_class says what the scales of packed weights mean to whoever reads them: "autobitlinear" multiplies by them
        and "bitlinear" divides; by default it is what the model's config says, and transformers reads both. Tensors of more than
        max_shard_size, bytes or a text as "5GB" or "500MB", become several files with an index; by default a checkpoint's of more
        than 5 GB do, and a native model is one file. "gguf" is one file that ends in .gguf, or with max_shard_size a directory of
        NAME-00001-of-0000N.gguf and so on, called as it is, whose ternary layers are of gguf_type: "i2_s" (unless stated), which only bitnet.cpp
        reads, keeps the scales as they are, and the others, which llama.cpp reads too where it knows the architecture, round
        them to float16 ("bf16" to bfloat16, "f32" not at all). Layers whose columns are no multiple of the type's block, 128 of "i2_s" and 256 of "tq1_0" and
        "tq2_0", are F16 there, with a ModelWarning. "onnx" is a file that ends in .onnx for onnxruntime, with config.json and the
        tokenizer beside it, and its weights in a .onnx.data if they are large; it needs the package onnx. Its ternary weights are of
        onnx_type: "int8" (unless stated), or "int2", a quarter as large, for newer versions of onnx and onnxruntime. With use_cache the graph takes and gives
        the keys and values of the context, under the names that Optimum's exports have. Directories on the way are made; a file appears complete or not at all. FileSystemError if
        the place cannot be written to, ArgumentError for an option of another format.

        Of the native format only:

        compression: "zstd" makes the file about a fifth smaller, for shipping; it is then decompressed into memory when it is loaded.
        metadata: texts, or what JSON has, by key, in addition to what is there: see ``metadata``; None removes a key. "model_card"
            (Markdown) and "license" have a meaning to readers.
        """
        for name, value, its in (
            ("masters", masters, ("hf",)),
            ("linear_class", linear_class, ("hf",)),
            ("max_shard_size", max_shard_size, ("hf", "native", "gguf")),
            ("gguf_type", gguf_type, ("gguf",)),
            ("onnx_type", onnx_type, ("onnx",)),
            ("use_cache", None if use_cache else False, ("onnx",)),
            ("compression", compression, ("native",)),
            ("metadata", metadata, ("native",)),
        ):
            if value is not None and format not in its:
                wanted = " or ".join(f"format={name!r}" for name in its)
                raise ArgumentError(f"{name} = {value!r}: expected {wanted} with it, found {format!r}")
        options = {
            "masters": masters or "",
            "linear_class": linear_class or "",
            "max_shard_size": 0 if max_shard_size is None else shard_bytes(max_shard_size),
            "gguf_type": gguf_type or "i2_s",
            "onnx_type": onnx_type or "int8",
            "use_cache": use_cache,
            "compression": compression or "",
            "metadata": encode_metadata(self._notes | dict(metadata or {})),
        }
        self._save(path, format, options, None)

    def _save(
        self, path: str | PathLike[str], format: str, options: Mapping[str, Any], progress: Progress | None
    ) -> tuple[int, list[str]]:
        """Writes the model as the core's options say; gives the size that a dry run finds, and what was warned of."""
        start, written = time.monotonic(), not options.get("dry_run")
        warnings: list[str] = []
        if self._tokenizer is not None and self._tokenizer.chat_template != self._template:
            self.tokenizer = self._tokenizer  # its files say what was set since
        if not fspath(path):
            raise ArgumentError(
                "path is empty: expected a file name that ends in .bitnet, .gguf or .onnx, or a directory"
            )
        with delivered(), place_of(path, make=written) as place:
            if format == "onnx":
                from .onnx_export import save_onnx

                texts = {name: text for name, text in self._assets.items() if name != SENTENCEPIECE}
                size = save_onnx(self._model, self.config, texts, place, options, progress)
            else:
                result = json.loads(self._model.save(place, format, json.dumps(options), progress))
                size, warnings = result["size"], result["warnings"]
        if written:
            event(_LOG, logging.INFO, "model saved", path=fspath(path), format=format, seconds=time.monotonic() - start)
        for text in warnings:
            warn(text, ModelWarning)
        return size, warnings

    def close(self) -> None:
        """Gives the memory back, after calls in flight on other threads. A closed model raises ArgumentError."""
        self._model.close()
        self._closed = True
        self._passes = None

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def __enter__(self) -> Self:
        if self._closed:
            raise ArgumentError("model is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a BitNetModel cannot be pickled or copied: call BitNetModel.from_pretrained in each process; "
            "with resident='map' they share one .bitnet file"
        )

    # --- what it is --------------------------------------------------------------------------------------------------

    def num_parameters(self) -> int:
        """Number of weights; a tied embedding counts once."""
        count: int = self._info["parameters"]
        return count

    def memory_footprint(self) -> int:
        """Bytes that the weights occupy in memory."""
        size: int = self._info["weight_bytes"]
        return size

    @property
    def head_dtype(self) -> str:
        """How the output head is kept: "float32", "bfloat16", "float16", "int8", "int4", or "exact" for that of the checkpoint with int8 scores beside it."""
        name: str = self._info["head_dtype"]
        return name

    @property
    def packing(self) -> str:
        """How ternary weights are packed: "2bit", or "base3" for 1.6 bits a weight."""
        name: str = self._info["packing"]
        return name

    @property
    def info(self) -> dict[str, Any]:
        """Where the weights came from and what they occupy: "path", "format" ("hf", "native", "gguf", "onnx", "memory", "random" or
        "trainable"), "parameters", "weight_bytes", "head_dtype", "packing", a native file's "metadata", and "warnings", the
        texts of the ModelWarnings that it was loaded with, if there were any."""
        return dict(self._info)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the native file says of the model, and what ``Trainer`` has added since; saving writes both.

        "format_version", "producer" and "created" (when, UTC); of a model that was converted "provenance": {"source",
        "revision" of a hub repository, "format", "files": [{"name", "bytes", "sha256"}]}, with its "model_card" and "license"
        where it has them; of one that was trained "training_history": [{"settings", "steps", "tokens", "best",
        "stopped_early", "records"}], run by run, with up to a thousand of the records of ``History``; and whatever else was
        given to ``save_pretrained``.
        """
        return decode_metadata(self._info.get("metadata") or {}) | self._notes

    @property
    def trainable(self) -> bool:
        """Whether ``Trainer`` can train it: made by from_config or from_pretrained with trainable=True."""
        return bool(self._info["format"] == "trainable")

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; TokenizerError if it has none. One that is assigned is saved with the model, and so is a chat_template that it is given."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_files(self._assets, self._source)
            self._template = self._tokenizer.chat_template
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        if not isinstance(tokenizer, Tokenizer):
            raise TypeError(f"tokenizer: expected a bitnet_rust.Tokenizer, found {type(tokenizer).__name__}")
        others = {name: text for name, text in self._assets.items() if name not in (*TOKENIZER_FILES, SENTENCEPIECE)}
        assets = others | tokenizer.to_files()
        self._model.set_assets(json.dumps(assets))
        self._assets, self._tokenizer, self._template = assets, tokenizer, tokenizer.chat_template

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """The content of generation_config.json; empty if there is none. Of one that was made of the config, without ids of tokens that
        the vocabulary has not. FormatError if it is not a JSON object."""
        fields = generation_defaults(self._assets.get("generation_config.json", "{}"), self._source)
        if fields.get("_from_model_config") is True:
            for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
                if isinstance(fields.get(name), int) and fields[name] >= self.config.vocab_size:
                    del fields[name]
        return fields

    @cached_property
    def _assets(self) -> dict[str, str]:
        """Texts of the files that belong to the model besides weights and config, by name."""
        texts: dict[str, str] = json.loads(self._asset_texts)
        return texts

    @property
    def _source(self) -> str:
        return str(self._path) if self._path else self._title

    def __repr__(self) -> str:
        name = f"{self._path.name!r}, " if self._path else ""
        if self._closed:
            return f"BitNetModel({name}closed)"
        return (
            f"BitNetModel({name}{self.config.architectures[0]}, {self.num_parameters():,} parameters, "
            f"{self.config.num_hidden_layers} layers, hidden size {self.config.hidden_size}, "
            f"{self.head_dtype} head, {self.memory_footprint() / 2**20:,.1f} MiB)"
        )

    def _repr_html_(self) -> str:
        from .viz.html import model_html

        return model_html(self)

    # --- weights -----------------------------------------------------------------------------------------------------

    def weights(self) -> "list[Weight]":
        """The tensors of the model in the order of a forward pass, whatever file they came from: name, shape, dtype, bytes, and the
        scale of ternary ones. A table that embedding and head share is one."""
        from .weights import list_weights

        return list_weights(self._model)

    def weight(self, name: str) -> "Tensor":
        """A copy of one of them, of a name that ``weights`` lists: the codes -1, 0 and 1 of a ternary one as int8, to be
        multiplied by its scale, and float32 of others."""
        from .weights import read_weight

        return read_weight(self._model, name)

    def quantization_error(self, name: str) -> "QuantizationError":
        """How far the ternary weight of that name is from the master weight it was made of: mse, sqnr, cosine, max.
        ArgumentError for a model that has no master weights, being loaded without trainable=True."""
        from .weights import quantization_error

        return quantization_error(self._model, name)

    def attentions(self, prompt: Any, layers: int | Sequence[int] | None = None) -> "NDArray[np.float32]":
        """How much each token of a prompt attends to those before it: float32 [layers, heads, T, T].

        prompt: a text or token ids.
        layers: numbers of layers from 0, or one of them; by default all, whose size is the square of the prompt's.

        Row i of a head belongs to token i: its weights softmax(q k^T / sqrt(head_dim)) add up to one and are zero behind i. They
        are computed beside the forward pass, which never has them as a whole, from the same queries and keys.
        """
        from .weights import attention_weights

        ids = self._prompt_ids(prompt, "prompt", True)
        return attention_weights(self._model, ids, layers, self.config.num_hidden_layers)

    # --- logits ------------------------------------------------------------------------------------------------------

    def forward(self, tokens: Any, lengths: Any = None) -> "NDArray[np.float32]":
        """The float32 logits of every position.

        tokens: an int or a sequence of ids gives [T, V]; a batch, [B, T] as array or lists that may differ in length,
            gives [B, T, V] with T the longest.
        lengths: how many leading ids of each row count, [B] (the attention lengths of a padded batch).

        Positions beyond a row's length are zero. A token id outside the vocabulary, an empty sequence, or one longer
        than the context raises ArgumentError.
        """
        return self._pass(tokens, lengths, hidden=False)

    def hidden_states(self, tokens: Any, lengths: Any = None) -> "NDArray[np.float32]":
        """The float32 hidden states of every position after the final norm, from which the head computes the logits: what
        transformers calls last_hidden_state.

        tokens, lengths: as in `forward`; [T, hidden_size], or [B, T, hidden_size] of a batch.
        """
        return self._pass(tokens, lengths, hidden=True)

    def embed(
        self,
        texts: Any,
        *,
        pooling: Literal["mean", "last"] = "mean",
        normalize: bool = True,
        add_special_tokens: bool = True,
    ) -> "NDArray[np.float32]":
        """Texts as vectors: float32 [hidden_size] of one, [N, hidden_size] of a list.

        texts: a text, a list of texts, token ids, or a batch of token ids.
        pooling: "mean" of the hidden states of all tokens, or that of the "last" token, which has seen all others.
        normalize: make their lengths 1, so that dot products are cosines.
        add_special_tokens: let the tokenizer put in BOS and the like.

        A model that was trained to predict the next token tells texts apart less well than one trained for retrieval.
        """
        from .embedding import embed

        texts = as_prompts(texts)
        many = not isinstance(texts, str) and is_batch(texts)
        ids = [
            self._prompt_ids(text, f"texts[{i}]" if many else "texts", add_special_tokens)
            for i, text in enumerate(texts if many else [texts])
        ]
        vectors = embed(self, ids, pooling, normalize)
        return vectors if many else vectors[0]

    def _pass(self, tokens: Any, lengths: Any, hidden: bool) -> "NDArray[np.float32]":
        if not is_batch(tokens):
            if lengths is not None:
                row: NDArray[np.float32] = self._pass([tokens], token_ids(lengths, "lengths"), hidden)[0]
                return row
            return self._states([token_ids(tokens)], hidden)
        rows = batch_ids(tokens, lengths)
        longest = max(len(row) for row in tokens) if not hasattr(tokens, "shape") else int(tokens.shape[1])
        if longest == 0:
            raise ArgumentError("tokens is empty: expected at least one token id in each row")
        return pad_logits(self._states(rows, hidden), [len(row) for row in rows], longest)

    # --- passes with a history ---------------------------------------------------------------------------------------

    @property
    def _graph(self) -> "ModelGraph":
        from .model_graph import ModelGraph

        if self._passes is None:
            if not self.trainable and not self._closed:
                raise ArgumentError("the model has no master weights: make one with from_config(..., trainable=True)")
            self._passes = ModelGraph(self._model)
        return self._passes

    def __call__(self, tokens: Any, lengths: Any = None, **options: Unpack["PassOptions"]) -> Any:
        """The logits of every position, as `forward`: a NumPy array, or of a trainable model a `Tensor` with a history, so
        that gradients reach the parameters.

        Options are those of a training pass, for trainable models: ``dropout`` and ``attention_dropout`` with ``seed`` and
        ``step``, ``gradient_checkpointing``, ``ste``.
        """
        if self.trainable:
            return self._graph.logits(tokens, lengths, options)
        if options:
            raise ArgumentError(f"{sorted(options)}: options of a training pass, and the model is not trainable")
        return self.forward(tokens, lengths)

    def loss(self, tokens: Any, targets: Any = None, lengths: Any = None, **options: Unpack["PassOptions"]) -> "Tensor":
        """The mean cross-entropy in nats, a scalar `Tensor` with a history; logits never exist all at once.

        tokens: one sequence [T] or a batch [B, T], as in `forward`.
        targets: as many, the token after each, -100 where it does not count; None: each token predicts the next.
        options: as in calling the model.

        Its bits are those of Trainer's loss for the same batch.
        """
        return self._graph.loss(tokens, targets, lengths, options)

    def named_parameters(self) -> "Iterator[tuple[str, Parameter]]":
        """The master weights of a trainable model with their names in a checkpoint. They share memory with the model: what
        an optimizer changes takes effect with the next pass, also of `generate` and `save_pretrained`."""
        return iter(self._graph.parameters.items())

    def parameters(self) -> "Iterator[Parameter]":
        """The master weights of a trainable model."""
        return iter(self._graph.parameters.values())

    def _states(self, rows: "Sequence[array[int]]", hidden: bool) -> "NDArray[np.float32]":
        """The logits, or hidden states, of all positions of all rows."""
        import numpy as np

        ids = array("i")
        for row in rows:
            ids.extend(row)
        width = self.config.hidden_size if hidden else self.config.vocab_size
        values = np.empty((len(ids), width), np.float32)
        self._model.forward(ids, array("q", map(len, rows)), values, hidden)
        return values

    def perplexity(self, text: Any, *, window: int | None = None, stride: int | None = None) -> float:
        """exp of the mean negative log-likelihood of a text (or token ids) under the model.

        The text is read in windows that start stride tokens apart, and each token is scored once, with at least
        window - stride tokens before it where the text has them. window is the model's context by default (at most
        2048), stride half of it.
        """
        ids = token_ids(self._encode(text), "text")
        window = whole_number(min(self.config.max_position_embeddings, 2048) if window is None else window, "window")
        stride = whole_number(max(window // 2, 1) if stride is None else stride, "stride")
        total, count = self._model.likelihood(ids, window, stride)
        return math.exp(min(-total / count, 700.0))

    def evaluate(
        self,
        data: Any,
        *,
        context_length: int | None = None,
        packing: bool | None = None,
        isolate_documents: bool = False,
        progress: Progress | bool | None = None,
    ) -> dict[str, Any]:
        """How well the model predicts data, in any form that ``Trainer.train`` takes.

        context_length: the most tokens of an example, and the length of the windows that a text is cut into; by default
            as in training, the model's context, at most 256.
        packing, isolate_documents: as in ``TrainingConfig``.
        progress: called as progress(examples_done, examples); True draws a bar.

        Gives loss (mean cross-entropy in nats), perplexity, accuracy, tokens (how many were predicted), context_length,
        and for texts bits_per_byte and bits_per_character. The loss is that of ``Trainer.evaluate`` to the last bit,
        though it comes from the engine that generates text.
        """
        from .evaluation import evaluate

        return evaluate(
            self, data, context_length=context_length, packing=packing, isolate_documents=isolate_documents,
            progress=progress,
        )  # fmt: skip

    def profile(self, *, read_limit: bool = True) -> "Profile":
        """Records where the time goes of all steps that the model takes in a ``with`` block, from any thread.

        >>> with model.profile() as profile:
        ...     model.generate("First Citizen:")
        >>> print(profile)  # milliseconds, bytes and share of the read limit for each kind of work
        >>> profile.save("trace.json")

        read_limit: measure how fast memory can be read when the block ends, which takes 0.4 seconds and 512 MiB.
        """
        from .profile import Profile

        return Profile(self._model, read_limit=read_limit)

    # --- text --------------------------------------------------------------------------------------------------------

    def _encode(self, prompt: Any, add_special_tokens: bool = True) -> Any:
        return self.tokenizer.encode(prompt, add_special_tokens) if isinstance(prompt, str) else prompt

    def _prompt_ids(self, prompt: Any, name: str, add_special_tokens: bool) -> "array[int]":
        ids = token_ids(self._encode(prompt, add_special_tokens), name)
        if not ids:
            raise ArgumentError(f"{name} is empty: expected at least one token")
        return ids

    def session(
        self, prompts: Sequence[Any], *, add_special_tokens: bool = True, **options: Unpack[GenerationOptions]
    ) -> Session:
        """A generation over prompts (texts or token ids) to iterate over: what ``generate`` is made of."""
        assistant, tokens = assistant_of(
            options.pop("assistant_model", None), options.pop("num_assistant_tokens", None)
        )
        params, stop = sampling_json(options, self.generation_config)
        text_asked = bool(stop) or any(isinstance(prompt, str) for prompt in prompts)
        tokenizer = self.tokenizer if text_asked else self._tokenizer_or_none
        ids = [
            self._prompt_ids(prompt, f"prompt {i}" if len(prompts) > 1 else "prompt", add_special_tokens)
            for i, prompt in enumerate(prompts)
        ]
        logprobs = options.get("logprobs") not in (None, -1)
        return Session(self._model, ids, params, stop, tokenizer, logprobs, assistant, tokens, self._name)

    @property
    def _tokenizer_or_none(self) -> Tokenizer | None:
        return self.tokenizer if "tokenizer.json" in self._assets else None

    @overload
    def generate(
        self,
        prompt: str,
        *,
        stream: Literal[False] = ...,
        details: Literal[False] = ...,
        add_special_tokens: bool = ...,
        return_full_text: bool = ...,
        **options: Unpack[GenerationOptions],
    ) -> str: ...
    @overload
    def generate(
        self,
        prompt: str,
        *,
        stream: Literal[True],
        details: Literal[False] = ...,
        add_special_tokens: bool = ...,
        return_full_text: bool = ...,
        **options: Unpack[GenerationOptions],
    ) -> Iterator[str]: ...
    @overload
    def generate(
        self,
        prompt: Any,
        *,
        stream: bool = ...,
        details: bool = ...,
        profile: bool = ...,
        add_special_tokens: bool = ...,
        return_full_text: bool = ...,
        **options: Unpack[GenerationOptions],
    ) -> Any: ...
    def generate(
        self,
        prompt: Any,
        *,
        stream: bool = False,
        details: bool = False,
        profile: bool = False,
        add_special_tokens: bool = True,
        return_full_text: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Any:
        """Continues a prompt; greedy unless told to sample.

        prompt: a text, a list of texts, token ids, or a batch of token ids (lists or arrays).
        stream: return an iterator that gives each piece as it comes.
        details: give GenerationResult (or, streaming, Piece) objects: token ids, finish reason, log-probabilities.
        profile: put a Profile of the call into the results of ``details``: where its time went. What streams is profiled by
            ``with model.profile()`` around the loop.
        add_special_tokens: let the tokenizer put in BOS and the like.
        return_full_text: put the prompt before the continuation.
        options: max_new_tokens, do_sample, temperature, top_k, top_p, min_p, typical_p, repetition_penalty,
            presence_penalty, frequency_penalty, logit_bias, seed, stop, stop_token_ids, ignore_eos,
            prompt_lookup_num_tokens, logprobs; see SamplingOptions. assistant_model and num_assistant_tokens let a smaller
            model guess: the text stays the same.

        A text gives a text, token ids give the list of generated ids, a batch gives a list of either. Streaming, a text
        gives pieces of text, token ids give ids, and a batch gives (index, piece) pairs as the sequences advance
        together. The pieces of a stream add up to the text that generate would return.
        """
        if options.get("logprobs") not in (None, -1) and not details:
            raise ArgumentError("logprobs are part of the details: pass details=True")
        if profile and (stream or not details):
            raise ArgumentError(
                "profile = True: expected details=True and no stream, as it is part of the results; or call the model within "
                "`with model.profile() as profile:`"
            )
        prompt = as_prompts(prompt)
        text = isinstance(prompt, str)
        batch = not text and is_batch(prompt)
        prompts = list(prompt) if batch else [prompt]
        if not prompts:
            raise ArgumentError("prompt is an empty list: expected at least one prompt")
        as_text = text or (batch and isinstance(prompts[0], str))
        if any(isinstance(one, str) != as_text for one in prompts):
            raise ArgumentError("prompt mixes texts and token ids: expected one kind")
        session = self.session(prompts, add_special_tokens=add_special_tokens, **options)
        full = prompts if return_full_text else None
        if stream:
            return _stream(session, as_text, batch, details, full)
        if profile:
            with self.profile() as recorded:
                results = session.results()
            for result in results:
                result.profile = recorded
        else:
            results = session.results()
        values = [_value(result, as_text, details, full and full[i]) for i, result in enumerate(results)]
        return values if batch else values[0]

    @overload
    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        stream: Literal[False] = ...,
        details: Literal[False] = ...,
        chat_template: str | None = ...,
        **options: Unpack[GenerationOptions],
    ) -> str: ...
    @overload
    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        stream: Literal[True],
        details: Literal[False] = ...,
        chat_template: str | None = ...,
        **options: Unpack[GenerationOptions],
    ) -> Iterator[str]: ...
    @overload
    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        stream: bool = ...,
        details: bool = ...,
        profile: bool = ...,
        chat_template: str | None = ...,
        **options: Unpack[GenerationOptions],
    ) -> Any: ...
    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        stream: bool = False,
        details: bool = False,
        profile: bool = False,
        chat_template: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Any:
        """The assistant's next message in a conversation ([{"role": "user", "content": "..."}, ...], or one text).

        The conversation is rendered by the model's chat template (or the one passed); the rest is as in ``generate``. Each call reads
        the whole conversation again; ``Engine.chat`` reads only what is new in it.
        """
        prompt = self._render(messages, chat_template)
        with tracing.called("chat"):
            return self.generate(
                prompt, stream=stream, details=details, profile=profile, add_special_tokens=False, **options
            )

    def _render(self, messages: Any, chat_template: str | None) -> str:
        """The prompt of a conversation."""
        turns: Any = messages
        if isinstance(messages, str):
            turns = [{"role": "user", "content": messages}]
        elif isinstance(messages, Mapping):
            turns = [messages]
        text: str = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, chat_template=chat_template
        )
        return text


_CONFIG_FILES = (".json", ".yaml", ".yml", ".bitnet")


def assistant_of(model: Any, tokens: Any) -> tuple[_bitnet.Model | None, int]:
    """A model that guesses, and how many tokens at a time, as the core takes them: 0 leaves that to it."""
    if not isinstance(model, BitNetModel | None):
        raise DTypeError(f"assistant_model = {model!r}: expected a BitNetModel")
    count = 0 if tokens is None else whole_number(tokens, "num_assistant_tokens", range(1, 17))
    return None if model is None else model._model, count


def _device(device: Any) -> None:
    name = str(device)
    if name in ("cpu", "cpu:0"):
        return
    kind = name.partition(":")[0]
    missing = {
        "cuda": "kernels for CUDA", "mps": "kernels for Metal", "xpu": "kernels for SYCL", "auto": "a choice of devices",
    }.get(kind, "kernels for it")  # fmt: skip
    raise DeviceError(f"device = {name!r}: bitnet_rust has kernels for CPUs, and no {missing}: expected 'cpu'")


def _shared(array: Any) -> "Tensor":
    """A tensor over an array's memory, or of a copy where it cannot be shared."""
    from .tensor import Tensor

    try:
        return Tensor.from_dlpack(array)
    except (BufferError, DTypeError):
        return Tensor(array)


def _verify(when: Any) -> str:
    if when == "background":
        return "background"
    if not isinstance(when, bool):
        raise ArgumentError(f"verify = {when!r}: expected True, False or 'background'")
    return "now" if when else "never"


def _resident(name: Any) -> Any:
    if name not in ("auto", "map", "copy"):
        raise ArgumentError(f"resident = {name!r}: expected auto, map or copy")
    return name


def _kv_dtype(name: Any) -> Any:
    if name not in ("float32", "float16", "bfloat16", "int8"):
        raise ArgumentError(f"kv_dtype = {name!r}: expected float32, float16, bfloat16 or int8")
    return name


def checked_packing(name: Any) -> Any:
    """The name of a packing of ternary weights; ArgumentError if it is none."""
    if name not in ("auto", "2bit", "base3"):
        raise ArgumentError(f"packing = {name!r}: expected auto, 2bit or base3")
    return name


def checked_head_dtype(name: Any) -> Any:
    """The name of a form of embedding and head; ArgumentError if it is none."""
    if name not in ("auto", "exact", "float32", "bfloat16", "float16", "int8", "int4"):
        raise ArgumentError(f"head_dtype = {name!r}: expected auto, exact, float32, bfloat16, float16, int8 or int4")
    return name


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B", re.IGNORECASE)


def shard_bytes(size: Any) -> int:
    """A size as huggingface_hub takes them: bytes, or a text such as "5GB" or "500MiB"; on the command line every number is a text."""
    if isinstance(size, str) and size.strip().isdecimal():
        size = int(size)
    elif isinstance(size, str) and (found := _SIZE.fullmatch(size.strip())):
        number, prefix, binary = found.groups()
        size = int(float(number) * (1024 if binary else 1000) ** " KMGT".index(prefix.upper() or " "))
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 2**63:
        raise ArgumentError(f"max_shard_size = {size!r}: expected a positive number of bytes, or a text such as '5GB'")
    return size


def _value(result: GenerationResult, as_text: bool, details: bool, prompt: Any) -> Any:
    """What generate returns for one sequence."""
    if prompt is not None:
        if as_text:
            result.text = prompt + result.text
        else:
            result.token_ids = [*token_ids(prompt), *result.token_ids]
    if details:
        return result
    return result.text if as_text else result.token_ids


def _stream(session: Session, as_text: bool, batch: bool, details: bool, full: Sequence[Any] | None) -> Iterator[Any]:
    """What generate gives out while streaming."""

    def single(value: Any, index: int) -> Any:
        return (index, value) if batch else value

    for index, prompt in enumerate(full or ()):
        if not details:
            for value in [prompt] if as_text else token_ids(prompt):
                yield single(value, index)
    for piece in session:
        if details:
            yield piece
        elif not as_text:
            yield single(piece.token_id, piece.index)
        elif piece.text:
            yield single(piece.text, piece.index)
