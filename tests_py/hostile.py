"""Hostile files and the process that opens them: ``python tests_py/hostile.py FOLDER`` makes each attack in a folder of its own, tries
it through the public API and prints a line of JSON: what was raised, the processor time and the memory that it took.

In a process of its own, as a failure may be a crash. docs/security.md has a table made of the output (``--table``).
"""

import base64
import json
import math
import os
import resource
import shutil
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitnet_rust import BitNetModel, Tokenizer, convert, inspect_model, verify_model
from bitnet_rust.inspection import tree_lines

TESTDATA = Path(__file__).resolve().parents[1] / "tests_go" / "testdata"
TINY = TESTDATA / "golden" / "bitnet_offline_packed"
CHAT = [{"role": "user", "content": "Hi"}]


# What is done with the files of a model: what takes them, or finds out that they cannot be taken, and what lists them.
LOADING = ("load", "trainable", "convert", "verify")
LISTING = ("inspect", "stats")


@dataclass(frozen=True)
class Attack:
    """One file, or folder of files, and what is to come of it."""

    group: str
    name: str
    make: Callable[[Path], Path]
    """Writes into an empty folder and returns what a user would pass."""
    error: str | None
    """Name of the exception, in place of which ``verify`` may list problems; None: the attack does no harm."""
    calls: tuple[str, ...] = LOADING + LISTING


class Problems(Exception):
    """What ``verify_model`` says is wrong."""


def load(path: Path) -> None:
    BitNetModel.from_pretrained(path).close()


def trainable(path: Path) -> None:
    BitNetModel.from_pretrained(path, trainable=True).close()


def verify(path: Path) -> None:
    found = verify_model(path)
    if not found.ok:
        raise Problems("; ".join(problem["message"] for problem in found.problems))


def convert_(path: Path) -> None:
    target = path.parent / f"{path.name}-converted.bitnet"
    try:
        convert(path, target)
    finally:
        target.unlink(missing_ok=True)


def inspect(path: Path) -> None:
    inspect_model(path)


def stats(path: Path) -> None:
    inspect_model(path, stats=True)


def tree(path: Path) -> None:
    for _ in tree_lines(inspect_model(path)["tensors"]):
        pass


def tokenizer(path: Path) -> None:
    one = Tokenizer.from_pretrained(path)
    for text in ("ab", "a" * 40 + "!", "a" * 200 + "b", " " * 50):
        one.decode(one.encode(text))
    one.decode([0, 1, 2] * 3)


def chat(path: Path) -> None:
    Tokenizer.from_pretrained(path).apply_chat_template(CHAT, tokenize=False)


def generate(path: Path) -> None:
    with BitNetModel.from_pretrained(path) as model:
        model.generate([1, 2], max_new_tokens=1, do_sample=True)


CALLS: dict[str, Callable[[Path], None]] = {
    "load": load, "trainable": trainable, "verify": verify, "convert": convert_, "inspect": inspect, "stats": stats, "tree": tree, "tokenizer": tokenizer, "chat": chat, "generate": generate,
}  # fmt: skip


# --- containers ------------------------------------------------------------------------------------------------------


def checkpoint(**files: bytes | str) -> Callable[[Path], Path]:
    """The golden model with some files replaced; ``None`` takes one away, double underscores are dots."""

    def make(folder: Path) -> Path:
        for file in TINY.iterdir():
            if file.suffix != ".npz":
                shutil.copy(file, folder)
        for name, content in files.items():
            place = folder / name.replace("__", ".")
            if content is None:
                place.unlink()
            else:
                place.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return make


def header(text: str, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text.encode()


def corpus() -> Iterator[Attack]:
    """The files in the repository that packages safetensors, gguf and onnx are tested with."""
    for file in sorted((TESTDATA / "attacks").iterdir()):
        yield Attack("safetensors", file.stem, checkpoint(model__safetensors=file.read_bytes()), "FormatError")
    for file in sorted((TESTDATA / "attacks_gguf").iterdir()):
        yield Attack("gguf", file.stem, lambda folder, file=file: Path(shutil.copy(file, folder)), "FormatError")  # type: ignore[misc]
    for file in sorted((TESTDATA / "attacks_onnx").iterdir()):
        yield Attack("onnx", file.stem, lambda folder, file=file: Path(shutil.copy(file, folder)), "FormatError")  # type: ignore[misc]


def sparse(folder: Path) -> Path:
    """A terabyte that takes no place on the disk, and a config to go with it."""
    checkpoint()(folder)
    config = json.loads((folder / "config.json").read_text()) | {
        "vocab_size": 1 << 24,
        "hidden_size": 1 << 15,
        "head_dim": 1 << 12,
    }
    (folder / "config.json").write_text(json.dumps(config))
    size = (1 << 24) * (1 << 15) * 2
    table = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [1 << 24, 1 << 15], "data_offsets": [0, size]}}
    content = header(json.dumps(table))
    (folder / "model.safetensors").write_bytes(content)
    os.truncate(folder / "model.safetensors", len(content) + size)
    return folder


def link(name: str, target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        checkpoint()(folder)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
        return folder

    return make


def pipe(name: str) -> Callable[[Path], Path]:
    """A pipe that nobody writes to: who opens it waits forever."""

    def make(folder: Path) -> Path:
        checkpoint()(folder)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        return folder

    return make


def sharded(index: str | dict[str, Any]) -> Callable[[Path], Path]:
    text = index if isinstance(index, str) else json.dumps({"weight_map": index})
    return checkpoint(model__safetensors=None, model__safetensors__index__json=text)  # type: ignore[arg-type]


def containers() -> Iterator[Attack]:
    many = ",".join(f'"t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(100_000))
    safetensors = {
        "header_length_2_63": header("{}", 1 << 63),
        "header_of_20_mb_of_brackets": header('{"a":' + "[" * 20_000_000),
        "header_of_20_mb_of_spaces": header("{" + " " * 20_000_000 + "}"),
        "header_of_100000_tensors": header("{" + many + "}"),
        "a_name_of_10_mb": header('{"' + "n" * 10_000_000 + '":{"dtype":"F9","shape":[0],"data_offsets":[0,0]}}'),
        "a_pickle": b"\x80\x02}q\x00.",
        "a_zip_archive": b"PK\x03\x04" + bytes(100),
        "a_gguf_file": b"GGUF\x03\x00\x00\x00" + bytes(100),
        "a_pointer_of_git_lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }
    for name, content in safetensors.items():
        yield Attack("safetensors", name, checkpoint(model__safetensors=content), "FormatError")
    yield Attack("safetensors", "a_sparse_terabyte", sparse, "FormatError", LOADING)
    yield Attack("safetensors", "a_sparse_terabyte_is_listed", sparse, None, ("inspect",))
    tensor = "model.norm.weight"
    for name, shard in {
        "parents": "../../../etc/passwd.safetensors", "root": "/etc/passwd", "drive": "C:\\x.safetensors", "backslash": "..\\x.safetensors",
        "null": "a\0.safetensors", "folder": "sub/model.safetensors", "itself": "model.safetensors.index.json", "long": "x" * 100_000 + ".safetensors",
    }.items():  # fmt: skip
        yield Attack("index", f"shard_name_{name}", sharded({tensor: shard}), "FormatError")
    for name, text in {
        "deep": '{"weight_map":' + "[" * 1_000_000, "deep_value": '{"weight_map":{"a":' + '{"a":' * 9000 + "1" + "}" * 9002,
        "list": '{"weight_map":["a"]}', "number": '{"weight_map":{"a":1}}', "null": "null", "not_utf8": '{"weight_map":{"\udcff":"x"}}',
        "empty": "", "twice": '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}',
    }.items():  # fmt: skip
        content = text.encode("utf-8", "surrogateescape")
        yield Attack(
            "index", name, checkpoint(model__safetensors=None, model__safetensors__index__json=content), "FormatError"
        )  # type: ignore[arg-type]
    for name in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json"):
        calls = LOADING + LISTING if name == "model.safetensors" else LOADING
        yield Attack("not a file", f"pipe_{name}", pipe(name), "FormatError", calls)
        yield Attack("not a file", f"link_to_dev_zero_{name}", link(name, "/dev/zero"), "FormatError", calls)
        yield Attack("not a file", f"link_to_a_folder_{name}", link(name, "/"), "FormatError", calls)
    yield Attack("not a file", "link_to_itself", link("model.safetensors", "model.safetensors"), "ModelNotFoundError")
    yield Attack("not a file", "link_to_a_text", link("model.safetensors", "/etc/passwd"), "FormatError")
    yield Attack("not a file", "shard_that_is_a_pipe", shard_pipe, "FormatError")


# --- native files ----------------------------------------------------------------------------------------------------

Q = "model.layers.0.self_attn.q_proj.weight"


class Native:
    """The golden model as a native file, to be changed."""

    def __init__(self, folder: Path) -> None:
        convert(TINY, folder / "m.bitnet", check=False)
        content = (folder / "m.bitnet").read_bytes()
        size = 8 + struct.unpack_from("<Q", content)[0]
        self.header = json.loads(content[8:size])
        self.meta = self.header.pop("__metadata__")
        self.data = {
            name: content[size + e["data_offsets"][0] : size + e["data_offsets"][1]] for name, e in self.header.items()
        }
        self.config, self.tensors = json.loads(self.meta["config"]), json.loads(self.meta["tensors"])
        self.listed = ""  # instead of tensors

    def compressed(self, name: str, data: bytes) -> None:
        """Makes a tensor one that says it is compressed; those have any size, and come last."""
        entry = self.header.pop(name)
        self.header[name] = entry | {"dtype": "U8", "shape": [len(data)]}
        self.data[name] = data
        self.tensors[name]["compression"] = "zstd"
        self.meta["format_version"] = "2"

    def content(self) -> bytes:
        at = 0
        for name, entry in self.header.items():
            entry["data_offsets"] = [at, at + len(self.data[name])]
            at += len(self.data[name])
        meta = self.meta | {"config": json.dumps(self.config), "tensors": self.listed or json.dumps(self.tensors)}
        text = json.dumps({"__metadata__": dict(sorted(meta.items()))} | self.header, separators=(",", ":"))
        return header(text + " " * (-(8 + len(text)) % 64)) + b"".join(self.data[name] for name in self.header)


def bomb(mib: int) -> bytes:
    """Zstandard frames of a MiB of zeros, 41 bytes each: eight blocks that say which byte they repeat."""
    blocks = b"".join(struct.pack("<I", (131072 << 3 | 1 << 1 | (i == 7)) & 0xFFFFFF) for i in range(8))
    return (bytes.fromhex("28b52ffda0") + struct.pack("<I", 1 << 20) + blocks) * mib


def native(change: Callable[[Native], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        model = Native(folder)
        change(model)
        (folder / "m.bitnet").write_bytes(model.content())
        return folder / "m.bitnet"

    return make


def natives() -> Iterator[Attack]:
    overlap = {
        name: {"dtype": "U8", "shape": [64], "data_offsets": [at, at + 64]} for name, at in (("a", 0), ("b", 32))
    }
    overflow = {"a": {"dtype": "U8", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 0]}}
    for name, content in {
        "header_length_2_63": header("{}", 1 << 63), "header_of_5_mb_of_brackets": header('{"a":' + "[" * 5_000_000), "a_pickle": PICKLE, "a_zip_archive": b"PK\x03\x04" + bytes(1000),
        "100000_tensors": header("{" + ",".join(f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(100_000)) + "}"),
        "overlapping_tensors": header(json.dumps(overlap)) + bytes(96), "a_shape_that_overflows": header(json.dumps(overflow)), "a_name_that_is_not_utf8": struct.pack("<Q", 7) + b'{"\xff":1}',
    }.items():  # fmt: skip
        yield Attack("native", name, alone("m.bitnet", content), "FormatError")
    for name, change in {
        "deep_list_of_tensors": lambda m: setattr(m, "listed", "[" * 500_000), "huge_vocabulary": lambda m: m.config.update(vocab_size=1 << 24),
        "1024_layers": lambda m: m.config.update(num_hidden_layers=1024), "file_outside": lambda m: _rename(m, "file/tokenizer.json", "file/../../x"),
    }.items():  # fmt: skip
        yield Attack("native", name, native(change), "FormatError", LOADING)
    for name, change in {
        "bomb_of_a_gib": lambda m: m.compressed(Q, bomb(1024)),
        "bomb_of_a_gib_whose_list_says_so": lambda m: (m.compressed(Q, bomb(1024)), m.tensors[Q].update(shape=[1 << 16, 1 << 16])),
        "bomb_of_a_file_inside": lambda m: (m.compressed("file/tokenizer.json", bomb(50)), m.tensors["file/tokenizer.json"].update(shape=[50 << 20])),
    }.items():  # fmt: skip
        yield Attack("native", name, native(change), "FormatError", LOADING)  # type: ignore[arg-type]


def without_tensors() -> Iterator[Attack]:
    """Files that are in order and empty: they can be listed, and are no models."""

    def gguf_(folder: Path) -> Path:
        (folder / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
        return folder / "m.gguf"

    def empty(model: Native) -> None:
        for table in (model.header, model.data, model.tensors):
            table.clear()

    for name, make, error in (
        ("safetensors", checkpoint(model__safetensors=header("{}")), "FormatError"),
        ("gguf", gguf_, "ConfigError"),
        ("native", native(empty), "FormatError"),
    ):
        yield Attack("no tensors", name, make, error, LOADING)
        yield Attack("no tensors", f"{name}_is_listed", make, None, LISTING)


def sparse_codes(folder: Path) -> Path:
    """64 MB of I2_S that take no place on the disk, and are four times as many codes."""
    name, rows, cols = b"a", 1 << 14, 1 << 14
    tensor = struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, cols, rows, 36, 0)
    content = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor
    content += bytes(-len(content) % 32)
    (folder / "m.gguf").write_bytes(content)
    os.truncate(folder / "m.gguf", len(content) + rows * cols // 4 + 32)
    return folder / "m.gguf"


def _rename(model: Native, old: str, new: str) -> None:
    for table in (model.header, model.data, model.tensors):
        table[new] = table.pop(old)


def named(*names: str) -> Callable[[Path], Path]:
    """A file that is in order, of small tensors with these names."""
    table = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    return checkpoint(model__safetensors=header(json.dumps(table)) + bytes(4 * len(names)))


def names() -> Iterator[Attack]:
    for name, error, tensors in (
        ("modules_that_are_alike_in_modules", None, ["0." * i + "1.w" for i in range(31)]),
        ("a_tensor_that_is_a_module", None, ["a", "a.dtype", "a.shape"]),
        ("1200_modules_in_a_row", "FormatError", ["a." * 1200 + "w"]),
        ("half_a_million_dots", "FormatError", ["." * 500_000]),
    ):
        yield Attack("names", name, named(*tensors), error, ("tree",))


def shard_pipe(folder: Path) -> Path:
    sharded({"model.norm.weight": "a.safetensors"})(folder)
    os.mkfifo(folder / "a.safetensors")
    return folder


# --- pickles, archives, code -----------------------------------------------------------------------------------------

# What runs when it is unpickled, and writes a file.
PICKLE = b"cposix\nsystem\n(S'touch ran'\ntR."


def alone(name: str, content: bytes = PICKLE) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def beside(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        checkpoint(model__safetensors=None)(folder)  # type: ignore[arg-type]
        (folder / name).write_bytes(PICKLE)
        return folder

    return make


def code(architecture: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        checkpoint()(folder)
        auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": "evil.Tokenizer"}
        for name in ("config.json", "tokenizer_config.json"):
            fields = json.loads((folder / name).read_text()) | {"auto_map": auto}
            if name == "config.json":
                fields["architectures"] = [architecture]
            (folder / name).write_text(json.dumps(fields))
        for name in ("evil.py", "__init__.py", "conftest.py", "sitecustomize.py"):
            (folder / name).write_text("open('ran', 'w')\n")
        return folder

    return make


def programs() -> Iterator[Attack]:
    for name in ("pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "model.pkl"):
        yield Attack("pickle", name, alone(name), "FormatError")
        yield Attack("pickle", f"folder_with_{name}", beside(name), "FormatError")
    bomb = b"PK\x03\x04" + bytes(1000)
    for name in ("model.npz", "model.zip", "model.tar.gz"):
        yield Attack("archive", name, alone(name, bomb), "ArgumentError")
    yield Attack("code", "auto_map", code("BitNetForCausalLM"), None, (*LOADING, *LISTING, "tokenizer", "generate"))
    yield Attack("code", "auto_map_of_an_unknown_architecture", code("EvilForCausalLM"), "ConfigError", LOADING)


# --- configs and other JSON ------------------------------------------------------------------------------------------


def with_fields(name: str, **fields: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        checkpoint()(folder)
        old = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(old | fields))
        return folder

    return make


def configs() -> Iterator[Attack]:
    texts = {
        "deep": '{"a":' * 1_000_000, "deep_list": '{"architectures":' + "[" * 9_999 + "]" * 9_999 + "}", "long": " " * (2 << 20), "not_utf8": b"{\"\xff\":1}", "null_bytes": bytes(1000),
        "number_of_a_million_digits": '{"architectures":["BitNetForCausalLM"],"vocab_size":' + "9" * 1_000_000 + "}",
        "a_million_keys": "{" + ",".join(f'"{i}":0' for i in range(90_000)) + "}",
    }  # fmt: skip
    for name, text in texts.items():
        yield Attack("config", name, checkpoint(config__json=text), "ConfigError", LOADING)
    for name, fields in {
        "vocab_2_24": {"vocab_size": 1 << 24}, "layers_1024": {"num_hidden_layers": 1024}, "hidden_2_17": {"hidden_size": 1 << 17, "head_dim": 1 << 12, "num_attention_heads": 32},
    }.items():  # fmt: skip
        yield Attack("config", f"huge_{name}_tiny_file", with_fields("config.json", **fields), "FormatError", LOADING)
    for name, fields in {
        "vocab_2_62": {"vocab_size": 1 << 62}, "heads_0": {"num_attention_heads": 0}, "eps_text": {"rms_norm_eps": "1e999"}, "eps_negative": {"rms_norm_eps": -1},
        "patterns": {"quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["(a+)+$"] * 2000}},
        "architecture_of_a_megabyte": {"architectures": ["x" * 900_000]},
    }.items():  # fmt: skip
        yield Attack("config", name, with_fields("config.json", **fields), "ConfigError", LOADING)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        name = {file.replace(".", "__"): "[" * 200_000}
        yield Attack("tokenizer", f"deep_{file}", checkpoint(**name), "TokenizerError", ("tokenizer",))
    for name, text in {"deep": "[" * 200_000, "list": "[]", "number": "7", "cut": "{", "not_utf8": b"\xff"}.items():
        yield Attack("generation config", name, checkpoint(generation_config__json=text), "FormatError", ("generate",))
    for name, fields in {
        "temperature_text": {"temperature": "hot", "do_sample": True},
        "top_k_huge": {"top_k": 1 << 80, "do_sample": True},
        "eos_huge": {"eos_token_id": [1 << 40]},
    }.items():
        yield Attack(
            "generation config", name, with_fields("generation_config.json", **fields), "ArgumentError", ("generate",)
        )
    number, text, numbers = (
        struct.Struct("<If"),
        struct.pack("<IQ", 8, 3) + b"hot",
        struct.pack("<IIQ", 9, 6, 2) + bytes(8),
    )
    for error, calls, entries in (
        ("FormatError", (*LOADING, "generate"), {
            "temp_nan": ("temp", number.pack(6, math.nan)), "temp_infinite": ("temp", number.pack(6, math.inf)), "temp_text": ("temp", text),
            "top_p_of_two_numbers": ("top_p", numbers), "top_k_2_63": ("top_k", struct.pack("<IQ", 10, 1 << 63)),
        }),
        ("ArgumentError", ("generate",), {
            "temp_negative": ("temp", number.pack(6, -1)), "top_k_of_a_half": ("top_k", number.pack(6, 0.5)),
            "top_p_huge": ("top_p", number.pack(6, 3e38)), "min_p_negative": ("min_p", number.pack(6, -1)),
            "penalty_repeat_0": ("penalty_repeat", number.pack(6, 0)),
        }),
    ):  # fmt: skip
        for name, (key, value) in entries.items():
            yield Attack("gguf sampling", name, gguf_that_says(f"general.sampling.{key}", value), error, calls)


def gguf_that_says(key: str, value: bytes) -> Callable[[Path], Path]:
    """The golden model as a GGUF file with one more entry; value has its type in front."""

    def make(folder: Path) -> Path:
        with BitNetModel.from_pretrained(TINY) as model:
            model.save_pretrained(folder / "m.gguf", format="gguf")
        content = (folder / "m.gguf").read_bytes()
        magic, version, tensors, entries = struct.unpack_from("<4sIQQ", content)
        added = struct.pack("<Q", len(key)) + key.encode() + value
        room = -(len(added) + 8 + 1 + 4 + 8) % 32  # a text after it: what follows stays aligned
        added += struct.pack("<Q", 1) + b"x" + struct.pack("<IQ", 8, room) + bytes(room)
        head = struct.pack("<4sIQQ", magic, version, tensors, entries + 2)
        (folder / "m.gguf").write_bytes(head + added + content[len(head) :])
        return folder / "m.gguf"

    return make


# --- tokenizers ------------------------------------------------------------------------------------------------------

BASE: dict[str, Any] = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
              "byte_fallback": False, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
}  # fmt: skip


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def template(copies: int) -> dict[str, Any]:
    pieces = [{"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*pieces, {"Sequence": {"id": "B", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": pieces * copies, "pair": pair, "special_tokens": {}}


def added(*tokens: tuple[int, str]) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": i, "content": text} | flags for i, text in tokens]


def tokenizers() -> Iterator[Attack]:
    model = BASE["model"]
    charsmap = base64.b64encode(struct.pack("<I", 4) + bytes(4) + b"x" * 100_000 + b"\0").decode()
    refused: dict[str, dict[str, Any] | str] = {
        "id_2_32": {"model": model | {"vocab": {"a": 1 << 32}}}, "id_negative": {"model": model | {"vocab": {"a": -1}}},
        "deep": '{"model":' + "[" * 200_000, "deep_normalizers": '{"normalizer":' + '{"type":"Sequence","normalizers":[' * 5000,
        "merges_in_a_circle": {"model": model | {"vocab": {"a": 0, "b": 1, "ab": 2, "ba": 3}, "merges": ["a b", "b a", "ab a"]}},
        "merge_of_no_token": {"model": model | {"merges": ["x y"]}},
        "regex_repeats_in_repeats": {"pre_tokenizer": split("(a+)+$")}, "regex_choices_in_repeats": {"pre_tokenizer": split("(a|a)*$")},
        "regex_repeats_in_a_row": {"pre_tokenizer": split("a*a*a*a*a*[^a]")}, "regex_counted": {"pre_tokenizer": split("((a{1000}){1000}){1000}")},
        "regex_refers_back": {"pre_tokenizer": split(r"(a*)\1\1b")}, "regex_calls_itself": {"pre_tokenizer": split(r"(?<x>a\g<x>|)b")},
        "regex_deep": {"pre_tokenizer": split("(" * 100_000 + ")" * 100_000)}, "regex_in_a_normalizer": {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
        "regex_nested": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": [split("(a+)+$")]}]}},
        "text_doubles_40_times": {"normalizer": {"type": "Sequence", "normalizers": [replace("a", "aa")] * 40}},
        "text_gets_a_million": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a" * 1000}] * 1000}},
        "text_doubles_in_decoding": {"decoder": {"type": "Sequence", "decoders": [replace("a", "aa")] * 40}},
        "charsmap_with_a_long_text": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap}},
        "charsmap_cut": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}},
        "template_of_10000_copies": {"post_processor": template(10_000)}, "strip_2_62": {"decoder": {"type": "Strip", "content": "a", "start": 1 << 62, "stop": 1 << 62}},
        "unknown_token_is_none": {"model": model | {"unk_token": "zz"}}, "unigram_without_unknown": {"model": {"type": "Unigram", "unk_id": None, "vocab": [["", 0.0]], "byte_fallback": False}},
    }  # fmt: skip
    harmless: dict[str, dict[str, Any]] = {
        "ids_twice": {"model": model | {"vocab": {"a": 1, "b": 1, "ab": 1}}},
        "added_id_2_32_less_1": {"added_tokens": added((2**32 - 1, "<x>"))}, "added_ids_twice": {"added_tokens": added((0, "<x>"), (0, "<y>"))}, "added_empty": {"added_tokens": added((0, ""))},
        "merge_with_nothing": {"model": model | {"vocab": {"a": 0, "": 1, "b": 2, "ab": 3}, "merges": [["a", ""], ["a", "b"]]}},
        "padding_to_a_billion": {"padding": {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}},
        "truncation_to_nothing": {"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5}},
    }  # fmt: skip
    beyond = {"id_2_32_less_1": {"model": model | {"vocab": {"a": 2**32 - 1, "b": 1, "ab": 2}}}}
    for error, attacks in (("TokenizerError", refused), ("ArgumentError", beyond), (None, harmless)):
        for name, change in attacks.items():  # type: ignore[attr-defined]
            text = change if isinstance(change, str) else json.dumps(BASE | change)
            yield Attack("tokenizer", name, checkpoint(tokenizer__json=text), error, ("tokenizer",))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.txt", "tokenizer.model"):
        for size in (3 << 20, 250 << 20):
            if (file, size) != ("tokenizer.model", 3 << 20):  # nobody looks at it beside a tokenizer.json
                yield Attack(
                    "tokenizer",
                    f"{file}_of_{size >> 20}_mb_of_nothing",
                    sparse_asset(file, size),
                    "FormatError",
                    LOADING,
                )
    most = b"".join(piece(letter * n) for letter in "abcdefghijklmnopqrstuvwxyz" for n in range(1, 300))
    for name, content in {
        "pieces_a_aa_aaa": most,
        "pieces_million": piece("a") * 10**6,
        "pieces_of_zeros": bytes(15 << 20),
        "pieces_of_a_pickle": PICKLE,
    }.items():
        parts = {"tokenizer.json": None, "tokenizer.model": content + LIKE_LLAMA}
        yield Attack(
            "tokenizer",
            name,
            checkpoint(**{file.replace(".", "__"): part for file, part in parts.items()}),
            "TokenizerError",
            ("tokenizer",),
        )  # type: ignore[arg-type]
    yield Attack("gguf", "tokens_a_aa_aaa", gguf_of_as, "FormatError", ("tokenizer_of_gguf",))
    yield Attack("gguf", "a_sparse_matrix", sparse_codes, None, LISTING)


def sparse_asset(name: str, size: int) -> Callable[[Path], Path]:
    """The golden model with a file of zeros, of which the disk has none."""

    def make(folder: Path) -> Path:
        checkpoint()(folder)
        with (folder / name).open("wb") as file:
            file.truncate(size)
        return folder

    return make


def piece(text: str) -> bytes:
    """A piece of a tokenizer.model."""
    one = b"\x0a" + varint(len(text)) + text.encode()
    return b"\x0a" + varint(len(one)) + one


def varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


# BPE, and spaces as they are.
LIKE_LLAMA = b"\x12\x02\x18\x02" + b"\x1a\x02\x20\x00"


def gguf_of_as(folder: Path) -> Path:
    """A vocabulary of which every token can be put together from others in as many ways as it is long: merges grow with the square."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    tokens = [letter * n for letter in "abcdefghijklmnopqrstuvwxyz" for n in range(1, 300)]
    entries = text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("llama")
    entries += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(text, tokens))
    entries += text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, len(tokens)) + bytes(4 * len(tokens))
    (folder / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + entries + bytes(64))
    return folder / "m.gguf"


def tokenizer_of_gguf(path: Path) -> None:
    from bitnet_rust import _bitnet

    _bitnet.assets(path)


CALLS["tokenizer_of_gguf"] = tokenizer_of_gguf


# --- chat templates --------------------------------------------------------------------------------------------------

_GROW = "{% set ns = namespace(s=START) %}{% for i in range(60) %}{% set ns.s = MORE %}{% endfor %}{{ ns.s }}"


def _grow(start: str, more: str) -> str:
    return _GROW.replace("START", start).replace("MORE", more)


_NUMBERS = "{% set a = ('f' * 200000) | int(0, 16) %}{% set b = ('e' * 50000) | int(0, 16) %}"


def _often(expression: str, before: str, times: int = 20000) -> str:
    return f"{before}{{% for i in range({times}) %}}{{% if {expression} %}}{{% endif %}}{{% endfor %}}"


def _nested() -> str:
    """Two lists of two that are equal, with thousands in them."""
    grow = "".join(f"{{% set n.{x} = [n.{x}, n.{x}] %}}" for x in "ab")
    return "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(12) %}" + grow + "{% endfor %}"


TEMPLATES = {
    "range_of_a_billion": "{% for i in range(10**9) %}{% endfor %}",
    "loops_in_loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "loops_that_skip": "{% for i in range(100000) %}{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "loop_that_calls_itself": "{% for a in range(100000) recursive %}{{ loop(range(100000)) }}{% endfor %}",
    "loop_of_text": "{% for i in range(100000) %}" + "b" * 10000 + "{% endfor %}",
    "loop_of_sums": "{% for i in range(100000) %}{{ range(100000) | sum }}{% endfor %}",
    "loop_of_slices": "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% set y = x[1:] %}{% endfor %}",
    "loop_of_comparisons": "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% if x == x ~ '' %}{% endif %}{% endfor %}",
    "loop_of_calls": "{% set x = cycler('a','b') %}{% for i in range(100000) %}{{ x.next() }}{% endfor %}",
    "macro_that_calls_itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro_that_calls_itself_twice": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "text_times_a_billion": "{{ 'a' * 10**9 }}", "bytes_times_a_billion": "{{ 'a'.encode() * 10**9 }}", "list_times_a_million": "{{ (range(100000) | list) * 1000000 }}",
    "power_of_powers": "{{ 10 ** (10 ** 10) }}", "squares_of_squares": _grow("2", "ns.s * ns.s"),
    "text_doubles": _grow("'aaaa'", "ns.s ~ ns.s"), "text_doubles_by_plus": _grow("'aaaa'", "ns.s + ns.s"), "text_doubles_by_join": _grow("'aaaa'", "[ns.s, ns.s] | join"),
    "text_doubles_by_format": _grow("'aaaa'", "'%s%s' % (ns.s, ns.s)"), "text_doubles_by_str_format": _grow("'aaaa'", "'{0}{0}'.format(ns.s)"),
    "text_doubles_by_replace": _grow("'aaaa'", "ns.s.replace('a', 'aa')"), "text_doubles_in_a_block": "{% set ns = namespace(s='aaaa') %}{% for i in range(60) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}{% endfor %}",
    "list_of_itself": _grow("['a']", "[ns.s, ns.s]"), "tuple_of_itself_as_key": _grow("('a',)", "(ns.s, ns.s)") + "{{ {ns.s: 1} }}", "dict_of_itself_to_json": _grow("0", "{'a': ns.s, 'b': ns.s}") + "{{ ns.s | tojson }}",
    "namespace_in_itself": "{% set ns = namespace() %}{% set ns.s = ns %}{{ ns }}",
    "center": "{{ 'a' | center(10**9) }}", "ljust": "{{ 'a'.ljust(10**9) }}", "zfill": "{{ '7'.zfill(10**9) }}", "expandtabs": "{{ '\\t'.expandtabs(10**9) }}", "percent_width": "{{ '%1000000000d' % 1 }}",
    "format_width": "{{ '{:>1000000000}'.format(1) }}", "format_width_given": "{{ '{:>{w}}'.format(1, w=1000000000) }}", "format_precision": "{{ '%.1000000000f' % 1 }}",
    "indent": "{{ 'x' | indent(10**9) }}", "round": "{{ 1.5 | round(10**9) }}", "json_indent": "{{ [1] | tojson(indent=10**9) }}", "slices": "{{ range(10) | slice(10**9) | list }}", "batches": "{{ range(10) | batch(10**9, 'x') | list }}",
    "replace_nothing": "{{ ('a' * 1000000) | replace('', 'x' * 1000000) }}", "join_with_a_megabyte": "{{ range(100000) | join('x' * 1000000) }}", "strftime_width": "{{ strftime_now('%1000000000Y') }}", "lipsum": "{{ lipsum(n=10**7) }}",
    "deep_parentheses": "{{ " + "(" * 10000 + "1" + ")" * 10000 + " }}", "deep_blocks": "{% if true %}" * 5000 + "{% endif %}" * 5000, "a_megabyte": "x" * (1 << 20),
    "quotients_of_numbers": _often("a // b", _NUMBERS), "remainders_of_numbers": _often("a % b", _NUMBERS),
    "divisible_numbers": _often("a is divisibleby b", _NUMBERS),
    "list_count": _often("l.count(-1)", "{% set l = range(100000) | list %}"), "list_index": _often("l.index(99999)", "{% set l = range(100000) | list %}"),
    "numbers_compared": _often("a == b", "{% set a = ('f' * 1000000) | int(0, 16) %}{% set b = ('f' * 1000000) | int(0, 16) %}"), "number_to_bytes": "{{ (1).to_bytes(10**9, 'big') | length }}",
    "text_is_lower": _often("x is lower", "{% set x = 'a' * 1000000 %}"), "strip_of_a_megabyte": "{{ ('a' * 1000000).strip('b' * 1000000 ~ 'a') }}",
    "lists_compared": _nested() + "{% for i in range(20000) %}{% if n.a == n.b %}{% endif %}{% endfor %}", "lists_sorted": _nested() + "{% for i in range(20000) %}{% set x = [n.a, n.b] | sort %}{% endfor %}",
    "lists_summed": _often("l | sum(start=[])", "{% set l = [[1]] * 20000 %}", 30),
    "class_in_a_format": "{{ '{0.__class__.__mro__}'.format(1) }}", "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}", "globals": "{{ cycler.__init__.__globals__.os.popen('touch ran').read() }}", "include": "{% include '/etc/passwd' %}", "import": "{% import 'os' as os %}",
    "append": "{{ messages.append(1) }}", "raise": "{{ raise_exception('no') }}", "zero": "{{ 1 / 0 }}",
}  # fmt: skip
HARMLESS_TEMPLATES = {
    "class_by_attr": "{{ ''|attr('__class__') }}",
    "context": "{{ self._TemplateReference__context }}",
}


def templates() -> Iterator[Attack]:
    for error, texts in (("TokenizerError", TEMPLATES), (None, HARMLESS_TEMPLATES)):
        for name, text in texts.items():
            yield Attack("chat template", name, checkpoint(chat_template__jinja=text), error, ("chat",))


def attacks() -> list[Attack]:
    """All of them."""
    return [
        *corpus(),
        *containers(),
        *natives(),
        *without_tensors(),
        *names(),
        *programs(),
        *configs(),
        *tokenizers(),
        *templates(),
    ]


# --- the process -----------------------------------------------------------------------------------------------------


def _memory(field: str) -> float:
    """A line of /proc/self/status, in MB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(field + ":")[1].split()[0]) / 1024


def slowness() -> float:
    """How much slower this machine is than one of 2021, on which the limit is a second; at least 1."""
    started = time.process_time()
    sum(i * i for i in range(2_000_000))
    return max(1.0, (time.process_time() - started) / 0.12)


def attempt(attack: Attack, call: str, folder: Path) -> dict[str, Any]:
    """Makes an attack in an empty folder and tries it."""
    path = attack.make(folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, started = _memory("VmRSS"), time.process_time()
    error, message = None, ""
    try:
        CALLS[call](path)
    except Exception as raised:
        error, message = type(raised).__name__, str(raised)
    seconds = time.process_time() - started
    size = sum(file.stat().st_blocks * 512 for file in folder.iterdir() if file.is_file())  # which may be mapped
    return {
        "group": attack.group, "name": attack.name, "call": call, "error": error, "message": message[:2000], "characters": len(message),
        "seconds": seconds, "mb": max(0.0, _memory("VmHWM") - before), "file_mb": size / 2**20, "ran": Path("ran").exists() or (folder / "ran").exists(),
    }  # fmt: skip


def main(place: Path) -> None:
    limit = 8 << 40  # a file of a terabyte can be mapped; memory of ten cannot be had
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("ignore")
    os.environ["RUST_BACKTRACE"] = "0"  # a panic of tokenizers reads its symbols else, 40 MB
    os.chdir(place)
    CALLS["generate"](TINY)  # so that what is imported and made once does not count
    CALLS["convert"](Path(shutil.copytree(TINY, place / "warm")))
    CALLS["tokenizer"](TINY)
    chat(checkpoint(chat_template__jinja="{{ 1 }}")(Path(place / "warm")))
    for number, attack in enumerate(attacks()):
        for call in attack.calls:
            folder = place / f"{number}-{call}"
            folder.mkdir()
            result = attempt(attack, call, folder)
            shutil.rmtree(folder)
            if result["seconds"] > 0.5:  # other programs slow a processor down, now and then, and some are slow
                folder.mkdir()
                result["seconds"] = min(result["seconds"], attempt(attack, call, folder)["seconds"]) / slowness()
                shutil.rmtree(folder)
            print(json.dumps(result), flush=True)


def table(lines: list[str]) -> str:
    """The rows of docs/security.md: a line for each group, with the most that any attack of it took."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        result = json.loads(line)
        groups.setdefault(result["group"], []).append(result)
    rows = []
    for group, results in groups.items():
        names = len({r["name"] for r in results})
        raised = sorted({r["error"] for r in results if r["error"]} - {Problems.__name__})
        listed = ["problems"] if any(r["error"] == Problems.__name__ for r in results) else []
        errors = ", ".join([f"`{error}`" for error in raised] + listed)
        calls = ", ".join(sorted({r["call"] for r in results}))
        harmless = len({r["name"] for r in results if not r["error"]})
        seconds, memory = max(r["seconds"] for r in results), max(0.0, *(r["mb"] - r["file_mb"] for r in results))
        effect = f"{errors}{f', {harmless} without effect' if harmless else ''}"
        rows.append(f"| {group} | {names} | {calls} | {effect} | {seconds:.2f} s | {memory:.0f} MB |")
    return "\n".join(rows)


if __name__ == "__main__":
    if sys.argv[1] == "--table":
        print(table(sys.stdin.read().splitlines()))
    else:
        main(Path(sys.argv[1]).resolve())
