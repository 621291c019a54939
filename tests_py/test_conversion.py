"""convert() and `bitnet convert`: every format into every other."""

import itertools
import json
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetModel,
    ModelNotFoundError,
    _bitnet,
    build_info,
    conversion,
    convert,
    inspect_model,
    onnx_export,
    verify_model,
)
from conftest import GOLDEN, TINY, Terminal

MASTERS = GOLDEN / "bitnet_online_bf16"

TARGETS = {
    "native": "m.bitnet",
    "native-dir": "native",
    "hf": "hf",
    "hf-master": "masters",
    "gguf": "m.gguf",
    "onnx": "onnx/m.onnx",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded model in every format."""
    place = tmp_path_factory.mktemp("sources")
    out = {}
    for name, file in TARGETS.items():
        kind: Any = name.removesuffix("-dir")
        done = convert("bitnet-shakespeare", place / file, kind, derive_masters=kind == "hf-master")
        assert done.same_argmax == 1
        out[name] = place / file
    return out


@pytest.mark.parametrize(("source", "to"), list(itertools.product(TARGETS, TARGETS)))
def test_every_format_becomes_every_other(source: str, to: str, sources: dict[str, Path], tmp_path: Path) -> None:
    kind: Any = to.removesuffix("-dir")
    derived = kind == "hf-master" and source != "hf-master"
    done = convert(sources[source], tmp_path / TARGETS[to], kind, derive_masters=derived)
    assert done.same_argmax == 1
    assert done.max_difference == 0
    assert done.target_bytes
    with BitNetModel.from_pretrained(tmp_path / TARGETS[to]) as model:
        assert model.tokenizer.encode("First Citizen:")
    assert done.different_text is None


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = convert("bitnet-shakespeare", tmp_path / "m.gguf", type="tq1_0", dry_run=True)
    assert (done.format, done.weights, done.written, done.same_argmax) == ("gguf", "tq1_0", False, None)
    assert list(tmp_path.iterdir()) == []
    real = convert("bitnet-shakespeare", tmp_path / "m.gguf", type="tq1_0")
    assert 0 < real.target_bytes - done.target_bytes < 100_000  # header and tokenizer
    for target, to in (("hf", "hf"), ("native", "native"), ("m.bitnet", "native"), ("onnx/m.onnx", "onnx")):
        assert convert("bitnet-shakespeare", tmp_path / target, to, dry_run=True).target_bytes > 1_000_000  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def test_a_dry_run_to_onnx_knows_the_size_and_what_cannot_be(tmp_path: Path) -> None:
    for kind in ("int8", "int2"):
        place: Any = tmp_path / kind / "m.onnx"
        planned = convert(TINY, place, type=kind, dry_run=True)
        assert not place.parent.exists()
        real = convert(TINY, place, type=kind)
        assert 0 < place.stat().st_size - planned.target_bytes < 200_000  # the graph
        assert real.written
        assert not planned.written
    with pytest.raises(ArgumentError, match=r"int3.*expected one of int8, int2"):
        convert(TINY, tmp_path / "m.onnx", type="int3", dry_run=True)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="of another model"):
        convert("bitnet-shakespeare", tmp_path / "int8" / "other.onnx", dry_run=True)


def test_master_weights_that_are_lost_are_not_made_up(tmp_path: Path) -> None:
    for dry in (True, False):
        with pytest.raises(ArgumentError, match=r"q_proj is packed: the master weights .* are not in the model"):
            convert(TINY, tmp_path / "masters", to="hf-master", dry_run=dry)
    assert list(tmp_path.iterdir()) == []
    convert(MASTERS, tmp_path / "masters", to="hf-master", masters="bfloat16")
    stored = (tmp_path / "masters" / "model.safetensors").read_bytes()
    convert(MASTERS, tmp_path / "f32.gguf", type="f32")  # ternary values
    convert(MASTERS, tmp_path / "onnx" / "m.onnx")
    for packed in ("f32.gguf", "onnx/m.onnx"):
        with pytest.raises(ArgumentError, match="is packed"):
            convert(tmp_path / packed, tmp_path / "again", to="hf-master")
    convert(tmp_path / "masters", tmp_path / "again", to="hf-master", masters="bfloat16")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == stored


def test_a_directory_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "hf"
    convert(TINY, target, to="hf")
    convert(TINY, target, to="hf", linear_class="bitlinear")  # takes the place of the other
    with BitNetModel.from_pretrained(target) as model:
        assert model.config["quantization_config"]["linear_class"] == "bitlinear"
    split: Any = {"to": "gguf", "max_shard_size": "200kB"}
    convert("bitnet-shakespeare", tmp_path / "split", **split)
    for place, options in ((target, {"to": "hf"}), (tmp_path / "split", split)):
        (place / "notes.txt").write_text("mine")
        before = sorted(place.iterdir())
        for dry in (True, False):
            with pytest.raises(ArgumentError, match=r"holds notes\.txt, which belongs to no checkpoint"):
                convert("bitnet-shakespeare", place, dry_run=dry, **options)
        assert sorted(place.iterdir()) == before


def test_a_gguf_model_is_divided_among_files(tmp_path: Path) -> None:
    """As llama.cpp divides them, named by their directory; one file if that is enough."""
    place = tmp_path / "parts"
    options: Any = {"to": "gguf", "type": "tq2_0"}
    planned = convert("bitnet-shakespeare", place, max_shard_size="500kB", dry_run=True, **options)
    assert list(tmp_path.iterdir()) == []
    done = convert("bitnet-shakespeare", place, max_shard_size="500kB", **options)
    files = sorted(place.iterdir())
    assert len(files) > 3
    assert [file.name for file in files] == [
        f"parts-{i:05d}-of-{len(files):05d}.gguf" for i in range(1, len(files) + 1)
    ]
    assert 0 < done.target_bytes - planned.target_bytes < 200_000  # what stands before the tensors
    assert done.target_bytes == sum(file.stat().st_size for file in files)
    assert max(file.stat().st_size for file in files[1:]) < 510_000  # the table is the largest tensor
    whole = convert("bitnet-shakespeare", tmp_path / "whole.gguf", type="tq2_0")
    assert done.max_difference == whole.max_difference
    for name in (place, *files):  # by whichever file
        assert content(name) == content(tmp_path / "whole.gguf")
        assert inspect_model(name)["format"] == "gguf"
    assert len(inspect_model(place)["tensors"]) == len(inspect_model(tmp_path / "whole.gguf")["tensors"])
    convert("bitnet-shakespeare", place, max_shard_size="5GB", **options)
    assert [file.name for file in place.iterdir()] == ["parts.gguf"]
    with pytest.raises(ArgumentError, match="is the name of one gguf file: expected a directory with max_shard_size"):
        convert("bitnet-shakespeare", tmp_path / "m.gguf", max_shard_size="500kB", dry_run=True)
    with pytest.raises(ArgumentError, match="is the name of one native file"):
        convert("bitnet-shakespeare", tmp_path / "m.bitnet", max_shard_size="500kB", dry_run=True)
    with BitNetModel.from_pretrained("bitnet-shakespeare") as model:
        with pytest.raises(
            ArgumentError, match=r"^gguf: .*m\.gguf ends in \.gguf: expected a directory with max_shard_size$"
        ):
            model.save_pretrained(tmp_path / "m.gguf", format="gguf", max_shard_size="500kB")
        model.save_pretrained(tmp_path / "saved", format="gguf", max_shard_size="500kB")
    assert len(list((tmp_path / "saved").glob("saved-0000*.gguf"))) > 3


def test_defaults_of_sampling_go_through_gguf(tmp_path: Path) -> None:
    """By the keys of llama.cpp, and to a checkpoint whose generation still ends where it did."""
    convert(TINY, tmp_path / "hf", to="hf")
    stated = {"temperature": 0.6, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1}
    (tmp_path / "hf" / "generation_config.json").write_text(json.dumps(stated | {"do_sample": True, "max_length": 64}))
    convert(tmp_path / "hf", tmp_path / "m.gguf", type="i2_s")
    entries = inspect_model(tmp_path / "m.gguf")["metadata"]
    assert entries["general.sampling.temp"] == pytest.approx(0.6)
    assert (entries["general.sampling.top_k"], entries["general.sampling.penalty_last_n"]) == (40, -1)
    convert(tmp_path / "m.gguf", tmp_path / "again", to="hf")
    ids = [3, 1, 4, 1, 5]
    with BitNetModel.from_pretrained(tmp_path / "hf") as source:
        wanted = source.generate(ids, do_sample=True, seed=3, max_new_tokens=20)
        assert wanted != source.generate(ids, temperature=1.5, top_k=0, seed=3, max_new_tokens=20)
        ends = source.config.eos_token_id
    for place in (tmp_path / "m.gguf", tmp_path / "again"):
        with BitNetModel.from_pretrained(place) as model:
            fields = model.generation_config
            assert stated.items() <= fields.items()
            assert fields["eos_token_id"] == ends
            assert model.generate(ids, do_sample=True, seed=3, max_new_tokens=20) == wanted
    (tmp_path / "hf" / "generation_config.json").write_text('{"temperature": "warm"}')
    with pytest.raises(ArgumentError, match=r"generation_config\.json: temperature = warm: must be a number"):
        convert(tmp_path / "hf", tmp_path / "m.gguf", dry_run=True)


def test_mistakes_are_named(sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is the source itself"):
        convert(sources["native"], sources["native"])
    with pytest.raises(ArgumentError, match="may be of several formats"):
        convert("bitnet-shakespeare", tmp_path / "somewhere")
    with pytest.raises(ArgumentError, match="to = 'pickle': expected one of native, hf, hf-master, gguf, onnx"):
        convert("bitnet-shakespeare", tmp_path / "somewhere", to="pickle")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="is the name of a gguf file"):
        convert("bitnet-shakespeare", tmp_path / "m.gguf", to="hf")
    with pytest.raises(ArgumentError, match=r"expected a name that ends in \.gguf"):
        convert("bitnet-shakespeare", tmp_path / "m", to="gguf")
    with pytest.raises(ArgumentError, match="would hide the checkpoint"):
        convert("bitnet-shakespeare", sources["native-dir"], to="hf")
    with pytest.raises(ArgumentError, match="holds a Hugging Face checkpoint"):
        convert("bitnet-shakespeare", sources["hf"], to="native")
    with pytest.raises(ModelNotFoundError):
        convert(tmp_path / "nothing.gguf", tmp_path / "m.bitnet")


# Options that some format has, those that have it, and how the command says it.
OPTIONS: list[tuple[str, Any, tuple[str, ...], tuple[str, ...]]] = [
    ("type", "tq2_0", ("gguf", "onnx"), ("--type", "tq2_0")),
    ("use_cache", False, ("onnx",), ("--no-cache",)),
    ("masters", "bfloat16", ("hf-master",), ("--masters", "bfloat16")),
    ("derive_masters", True, ("hf-master",), ("--derive-masters",)),
    ("linear_class", "bitlinear", ("hf",), ("--linear-class", "bitlinear")),
    ("compression", "zstd", ("native",), ("--compression", "zstd")),
    ("max_shard_size", "1MB", ("native", "hf", "hf-master", "gguf"), ("--max-shard-size", "1MB")),
]


@pytest.mark.parametrize(("name", "value", "formats", "options"), OPTIONS, ids=[option[0] for option in OPTIONS])
def test_options_of_another_format_are_refused(
    name: str, value: Any, formats: tuple[str, ...], options: tuple[str, ...], bitnet: Terminal, tmp_path: Path
) -> None:
    for to in ("native", "hf", "hf-master", "gguf", "onnx"):
        if to in formats:
            continue
        said = f"{name} = {value!r}: expected to={' or '.join(map(repr, formats))} with it, found {to!r}"
        with pytest.raises(ArgumentError, match=re.escape(said)):
            convert(TINY, tmp_path / TARGETS[to], to, **{name: value}, dry_run=True)  # type: ignore[arg-type]
        status, _, err = bitnet("convert", str(TINY), str(tmp_path / TARGETS[to]), "--to", to, *options)
        typed = f"{' '.join(options)}: expected --to {' or '.join(formats)} with it, found {to!r}"
        assert (status, err) == (1, f"bitnet: {typed}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "gguf", "type": "q9"}, "type = 'q9': expected one of i2_s, tq1_0, tq2_0, f16, bf16, f32 with to='gguf'"),
        ({"to": "gguf", "type": "int8"}, "type = 'int8': expected one of i2_s, tq1_0, tq2_0, f16, bf16, f32 with to='gguf'"),
        ({"to": "onnx", "type": "tq2_0"}, "type = 'tq2_0': expected one of int8, int2 with to='onnx'"),
        ({"to": "native", "head_dtype": "int3"}, "head_dtype = 'int3': expected auto, "),
        ({"to": "hf", "max_shard_size": "many"}, "max_shard_size = 'many': expected"),
    ],
)  # fmt: skip
def test_values_that_an_option_has_not_are_refused_before_a_model_is_looked_for(
    options: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)):
        convert(tmp_path / "nothing", tmp_path / TARGETS[options["to"]], **options)


@pytest.mark.parametrize("head", ["float32", "bfloat16", "float16", "int8", "int4"])
def test_a_native_file_gets_the_head_that_is_asked_for(head: str, shakespeare: BitNetModel, tmp_path: Path) -> None:
    done = convert("bitnet-shakespeare", tmp_path / "m.bitnet", head_dtype=head)
    assert done.agrees
    assert done.rounding == (None if head == "float32" else f"the head to {head}")
    assert (done.max_difference == 0) == (head == "float32")  # against the source, whose head is float32
    with (
        BitNetModel.from_pretrained(tmp_path / "m.bitnet") as written,
        BitNetModel.from_pretrained("bitnet-shakespeare", head_dtype=head) as wanted,
    ):
        assert written.head_dtype == head
        assert written.generate("First Citizen:") == wanted.generate("First Citizen:")


@pytest.mark.parametrize("isa", ["scalar", None])
def test_a_native_file_gets_the_packing_that_is_asked_for_on_every_processor(isa: str | None, tmp_path: Path) -> None:
    active = build_info()["isa"]
    _bitnet.set_isa(isa or active)
    try:
        small = convert("bitnet-shakespeare", tmp_path / "small.bitnet", packing="base3")
        large = convert("bitnet-shakespeare", tmp_path / "large.bitnet")
        again = convert(tmp_path / "small.bitnet", tmp_path / "again.bitnet", compression="zstd")
        wide = convert(tmp_path / "small.bitnet", tmp_path / "wide.bitnet", packing="2bit")
        info = build_info()
        has_kernels = "avx512vbmi" in info["features"] and info["isa"] in ("avx512", "amx")
        with BitNetModel.from_pretrained(tmp_path / "small.bitnet") as model:
            assert model.packing == ("base3" if has_kernels else "2bit")
    finally:
        _bitnet.set_isa(active)
    assert [c.weights for c in (small, large, again, wide)] == ["base3", "2bit", "base3", "2bit"]
    assert {c.max_difference for c in (small, large, again, wide)} == {0}
    assert small.target_bytes < large.target_bytes == wide.target_bytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "hf", "head_dtype": "int8"}, r"head_dtype = 'int8': expected to='native' with it, found 'hf'"),
        ({"to": "gguf", "packing": "base3"}, r"packing = 'base3': expected to='native' with it, found 'gguf'"),
        ({"head_dtype": "exact"}, r"head_dtype = 'exact': expected auto, float32, .* load the result with head_dtype='exact'"),
        ({"head_dtype": "int2"}, r"head_dtype = 'int2': expected auto, "),
        ({"packing": "3bit"}, r"packing = '3bit': expected auto, 2bit or base3"),
    ],
)  # fmt: skip
def test_heads_and_packings_that_no_file_has_are_refused(options: Any, message: str, tmp_path: Path) -> None:
    name = {"hf": "m", "gguf": "m.gguf"}.get(options.get("to"), "m.bitnet")
    with pytest.raises(ArgumentError, match=message):
        convert("bitnet-shakespeare", tmp_path / name, **options)
    assert not any(tmp_path.iterdir())


def test_the_command_takes_a_head(bitnet: Terminal, tmp_path: Path) -> None:
    status, out, err = bitnet("convert", "bitnet-shakespeare", str(tmp_path / "m.bitnet"), "--head-dtype", "int8")
    assert (status, err) == (0, "")
    assert "rounds the head to int8" in out
    assert json.loads(bitnet("inspect", str(tmp_path / "m.bitnet"), "--json")[1])["head_dtype"] == "int8"


def test_an_exact_head_is_saved_as_the_precision_that_it_has(shakespeare: BitNetModel, tmp_path: Path) -> None:
    with BitNetModel.from_pretrained("bitnet-shakespeare", head_dtype="exact") as model:
        model.save_pretrained(tmp_path / "m.bitnet")
    for dtype, found in (("auto", shakespeare.head_dtype), ("exact", "exact")):
        with BitNetModel.from_pretrained(tmp_path / "m.bitnet", head_dtype=dtype) as model:
            assert model.head_dtype == found


def test_master_weights_of_no_dtype_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match='masters = "nonsense": expected "float32" or "bfloat16"'):
        convert(MASTERS, tmp_path / "masters", "hf-master", masters="nonsense")  # type: ignore[arg-type]


def split_in_two(path: Path, place: Path) -> Path:
    """The tensors of a GGUF file in two files of version 3; gives the first."""
    data, at = path.read_bytes(), 24
    count, entries = struct.unpack_from("<QQ", data, 8)

    def number(kind: str) -> int:
        nonlocal at
        value: int = struct.unpack_from(f"<{kind}", data, at)[0]
        at += struct.calcsize(kind)
        return value

    def skip(kind: int) -> None:
        nonlocal at
        if kind == 8:
            length = number("Q")
            at += length
        elif kind == 9:
            inner, length = number("I"), number("Q")
            for _ in range(length):
                skip(inner)
        else:
            at += {0: 1, 1: 1, 2: 2, 3: 2, 7: 1, 10: 8, 11: 8, 12: 8}.get(kind, 4)

    for _ in range(entries):
        skip(8)
        skip(number("I"))
    metadata, tensors = data[24:at], []
    for _ in range(count):
        begin = at
        skip(8)
        dimensions = number("I")
        at += 8 * dimensions + 4
        tensors.append((data[begin:at], number("Q")))
    start = at + -at % 32
    ends = [*(offset for _, offset in tensors[1:]), len(data) - start]
    place.mkdir()
    for part, half in enumerate((range(count // 2), range(count // 2, count))):
        own = b"".join(
            struct.pack("<Q", len(key)) + key + value
            for key, value in (
                (b"split.no", struct.pack("<IH", 2, part)),
                (b"split.count", struct.pack("<IH", 2, 2)),
                (b"split.tensors.count", struct.pack("<Ii", 5, count)),
            )
        )
        first = tensors[half[0]][1]
        header = b"GGUF" + struct.pack("<IQQ", 3, len(half), 3 + (entries if part == 0 else 0)) + own
        header += metadata if part == 0 else b""
        header += b"".join(tensors[i][0] + struct.pack("<Q", tensors[i][1] - first) for i in half)
        header += bytes(-len(header) % 32)
        content = data[start + first : start + ends[half[-1]]]
        (place / f"m-{part + 1:05}-of-00002.gguf").write_bytes(header + content + bytes(-len(content) % 32))
    return place / "m-00001-of-00002.gguf"


def _stop(step: str, done: int, total: int) -> None:
    if step == "writing":
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("to", "options", "error"),
    [
        ("onnx", {"progress": _stop}, KeyboardInterrupt),
        ("native", {"compression": "lz4"}, ArgumentError),
        ("hf", {"linear_class": "q"}, ArgumentError),
        ("gguf", {"type": "q9"}, ArgumentError),
    ],
)
def test_a_conversion_that_fails_leaves_no_directory(
    to: Any, options: dict[str, Any], error: type[BaseException], tmp_path: Path
) -> None:
    """But those that were there."""
    (tmp_path / "mine").mkdir()
    for place in (tmp_path / "mine", tmp_path / "a" / "b"):
        with pytest.raises(error):
            convert(TINY, place / TARGETS[to], to, **options)
        assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["mine"]


def test_the_size_of_a_source_is_that_of_all_its_files(sources: dict[str, Path], tmp_path: Path) -> None:
    """By whichever file of a split one, and by its directory; others that are there do not count."""
    first = split_in_two(sources["gguf"], tmp_path / "split")
    second = first.with_name("m-00002-of-00002.gguf")
    for source in (first, second, first.parent):
        done = convert(source, tmp_path / "m.bitnet")
        assert done.max_difference == 0
        assert done.source_bytes == first.stat().st_size + second.stat().st_size
    first.with_name("m-00001-of-00003.gguf").write_bytes(b"of another")
    assert convert(second, tmp_path / "again.bitnet").source_bytes == done.source_bytes
    convert(sources["gguf"], tmp_path / "shards", "native", max_shard_size="500kB")
    index = tmp_path / "shards" / "model.bitnet.index.json"
    whole = sum(file.stat().st_size for file in index.parent.glob("model*"))
    assert convert(index, tmp_path / "once.bitnet").source_bytes == whole > 1_000_000


def test_the_size_of_a_run_is_that_of_its_model(sources: dict[str, Path], tmp_path: Path) -> None:
    """A run leaves records, and exports of the model, beside it."""
    run = tmp_path / "run"
    alone = convert(sources["gguf"], run, "native").target_bytes
    for name in ("train.jsonl", "recipe.yaml", "model.gguf", "pytorch_model.bin"):
        (run / name).write_bytes(bytes(1000))
    assert (
        convert(run, tmp_path / "m.bitnet").source_bytes == alone == sum(p.stat().st_size for p in run.iterdir()) - 4000
    )


def test_the_size_of_a_checkpoint_is_not_that_of_a_native_export_beside_it(tmp_path: Path) -> None:
    """Which loading passes over, as its name is not model.bitnet."""
    alone = convert(TINY, tmp_path / "hf", "hf").target_bytes
    (tmp_path / "hf" / "mine.bitnet").write_bytes(bytes(1000))
    assert convert(tmp_path / "hf", tmp_path / "m.bitnet").source_bytes == alone


def test_a_directory_of_several_models_names_them(sources: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(sources["gguf"], tmp_path / name)
    with pytest.raises(
        ArgumentError,
        match=r"^model: directory .* holds several models, a\.gguf, b\.gguf: expected one of these files$",
    ):
        BitNetModel.from_pretrained(tmp_path)
    (tmp_path / "b.gguf").unlink()
    with BitNetModel.from_pretrained(tmp_path) as model:
        assert model.tokenizer.encode("First Citizen:")


def test_the_command_warns_of_a_layout_on_one_line(bitnet: Terminal, sources: dict[str, Path], tmp_path: Path) -> None:
    """Of weights that were trained: every command that reads them says that another layout looks right."""
    source, text = str(sources["gguf"]), tmp_path / "text"
    text.write_text("First Citizen: speak. " * 60)
    said = f'{source} was read with i2s_layout="arm64" and looks as if it had "x86"'
    for command in (
        ("convert", source, str(tmp_path / "m.bitnet")),
        ("inspect", source),
        ("diff", source, "bitnet-shakespeare"),
        ("generate", "First", "-n", "1", "-m", source),
        ("perplexity", str(text), "-m", source),
        ("eval", "--data", str(text), "-m", source),
    ):
        status, _, err = bitnet(*command, "--i2s-layout", "arm64")
        assert status == (command[0] == "diff"), err
        assert err.startswith(f"bitnet: warning: {said}"), err
        assert err.count("\n") == 1, err
        assert bitnet(*command)[2] == ""
    told = json.loads(bitnet("inspect", source, "--i2s-layout", "arm64", "--log-format", "json")[2])
    assert (told["level"], told["event"], told["type"]) == ("warning", "warned", "ModelWarning")
    assert told["warning"].startswith(said)
    with pytest.raises(ArgumentError, match='i2s_layout "bogus": must be one of x86, arm64, row4'):
        BitNetModel.from_pretrained("bitnet-shakespeare", i2s_layout="bogus")  # type: ignore[arg-type]
    status, _, err = bitnet("inspect", source, "--hex", "output_norm.weight", "--i2s-layout", "arm64")
    assert (status, "go together" in err and "--i2s-layout" in err) == (2, True), err


def test_verify_doubts_a_layout(bitnet: Terminal, sources: dict[str, Path]) -> None:
    found = verify_model(sources["gguf"], i2s_layout="arm64")
    assert found.ok
    assert [warning["check"] for warning in found.warnings] == ["values"]
    status, out, err = bitnet("verify", str(sources["gguf"]), "--i2s-layout", "arm64")
    assert (status, "sound, 1 warning\n" in out) == (0, True), out
    assert 'read with i2s_layout="arm64" and looks as if it had "x86"' in err
    assert verify_model(sources["gguf"]).warnings == []


def test_the_command_says_what_it_did(bitnet: Terminal, tmp_path: Path) -> None:
    status, out, err = bitnet("convert", "bitnet-shakespeare", str(tmp_path / "m.gguf"), "--type", "tq2_0")
    assert (status, err) == (0, "")
    assert "gguf, tq2_0" in out
    assert "same next token at 100.0% of positions" in out
    status, out, err = bitnet("convert", str(tmp_path / "m.gguf"), str(tmp_path / "hf"), "--to", "hf", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["format"] == "hf"
    status, out, err = bitnet("convert", str(tmp_path / "m.gguf"), str(tmp_path / "x"))
    assert (status, out) == (1, "")
    assert "expected --to one of" in err


@pytest.fixture(scope="module")
def shallow_logits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, whose next tokens are nearly as probable as others: rounding changes some."""
    file = tmp_path_factory.mktemp("random") / "m.bitnet"
    shape = {
        "preset": "tiny",
        "vocab_size": 2000,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 12,
    }
    with BitNetModel.from_config(shape | {"num_attention_heads": 4, "num_key_value_heads": 2}, seed=3) as model:
        model.save_pretrained(file)
    return file


def test_a_type_that_rounds_scales_may_change_tokens(shallow_logits: Path, bitnet: Terminal, tmp_path: Path) -> None:
    status, out, err = bitnet("convert", str(shallow_logits), str(tmp_path / "m.gguf"), "--type", "bf16")
    assert (status, err) == (0, "")
    assert "the format rounds scales to bfloat16" in out
    done = convert(shallow_logits, tmp_path / "m.gguf", type="bf16")
    assert done.same_argmax is not None
    assert done.same_argmax < 1
    assert done.agrees
    exact = convert(shallow_logits, tmp_path / "m.gguf", type="i2_s")
    assert (exact.same_argmax, exact.max_difference, exact.agrees, exact.rounding) == (1, 0, True, None)


@pytest.mark.parametrize(
    ("kind", "says"), [("bf16", "rounding scales to bfloat16 does not explain"), ("i2_s", "keeps every number")]
)
def test_a_target_that_computes_something_else_is_a_failure(
    kind: Any, says: str, shallow_logits: Path, bitnet: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a token in two the logits of another: what a wrong row of the embedding does."""
    compare = conversion.fixed_logits
    monkeypatch.setattr(
        conversion,
        "fixed_logits",
        lambda model: (
            compare(model) if str(model._path) == str(shallow_logits) else np.repeat(compare(model)[::2], 2, axis=0)
        ),
    )
    for more in ([], ["--json"]):
        status, out, err = bitnet("convert", str(shallow_logits), str(tmp_path / "m.gguf"), "--type", kind, *more)
        assert status == 1
        assert out
        assert says in err


def test_a_target_that_cuts_texts_otherwise_is_a_failure(
    bitnet: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GGUF file whose tokenizer cannot be said in its words would be."""
    read = conversion._read

    def lowered(path: Path, *more: Any, **options: Any) -> BitNetModel:
        model = read(path, *more, **options)
        if path.suffix == ".gguf":
            texts = dict(model._assets)
            file = json.loads(texts["tokenizer.json"])
            file["normalizer"] = {"type": "Lowercase"}
            model._assets = texts | {"tokenizer.json": json.dumps(file)}
        return model

    monkeypatch.setattr(conversion, "_read", lowered)
    for more in ([], ["--json"]):
        status, out, err = bitnet("convert", "bitnet-shakespeare", str(tmp_path / "m.gguf"), *more)
        assert status == 1
        assert "Hello, world!" in out
        assert 'makes other ids of "Hello, world!' in (json.loads(err)["error"] if more else err)
    done = convert("bitnet-shakespeare", tmp_path / "m.bitnet")
    assert (done.different_text, done.agrees) == (None, True)


# argv: source, target, options as JSON, the weights from which on an ONNX model has a data file, and when it is killed: at a byte of the
# file that is written ("byte 100"), when a share of a step is done ("writing 0.5"), or before so many renames of Python's ("rename 2").
KILLED = """
import json, os, resource, signal, sys
from bitnet_rust import convert, onnx_export
options, onnx_export._MOST_INSIDE = json.loads(sys.argv[3]), int(sys.argv[4])
what, number = sys.argv[5].split()
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if what == "byte":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), int(number)))
elif what == "rename":
    renames, rename = [], os.replace
    os.replace = lambda *names: renames.append(names) or (die() if len(renames) > int(number) else rename(*names))
else:
    options["progress"] = lambda step, done, total: step == what and done >= float(number) * total and die()
convert(sys.argv[1], sys.argv[2], **options, check=what == "checking")
"""
MASTERS_OF_PACKED = {"to": "hf-master", "derive_masters": True}
KILLABLE = {
    "gguf": ("m.gguf", {"to": "gguf"}),
    "gguf-split": ("split", {"to": "gguf", "max_shard_size": "1MB"}),
    "native": ("m.bitnet", {"to": "native"}),
    "hf": ("hf", {"to": "hf"}),
    "hf-master": ("masters", MASTERS_OF_PACKED),
    "hf-master-shards": ("masters", MASTERS_OF_PACKED | {"max_shard_size": "5MB"}),
    "onnx": ("m.onnx", {"to": "onnx"}),
    "onnx-beside": ("m.onnx", {"to": "onnx"}),
}


class Killed:
    """Conversions of one model and another to the same place, of which some are killed."""

    def __init__(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target, self.options = KILLABLE[name]
        self.inside = 1 << (16 if name == "onnx-beside" else 30)
        monkeypatch.setattr(onnx_export, "_MOST_INSIDE", self.inside)
        self.place, self.sources = tmp_path / "out" / target, (tmp_path / "old", tmp_path / "new")
        shape = {
            "preset": "tiny",
            "vocab_size": 4096,
            "hidden_size": 512,
            "intermediate_size": 1024,
            "num_hidden_layers": 4,
        }
        for seed, source in enumerate(self.sources):
            with BitNetModel.from_config(shape, seed=seed) as model:
                model.save_pretrained(source, format="hf")
        self.old, self.new = (content(source) for source in self.sources)

    def convert(self, source: Path) -> None:
        convert(source, self.place, **self.options)

    def kill(self, moment: str, by: signal.Signals) -> None:
        words = [str(self.sources[1]), str(self.place), json.dumps(self.options), str(self.inside), moment]
        killed = subprocess.run([sys.executable, "-B", "-c", KILLED, *words], capture_output=True, text=True)
        assert killed.returncode == -by, killed.stderr[-2000:]

    def files(self) -> list[str]:
        """Names of all that is there. That of an ONNX model's data is another where there was one before."""
        names = (path.relative_to(self.place.parent).as_posix() for path in self.place.parent.rglob("*"))
        return sorted(re.sub(r"(\.[0-9a-f]{12})?\.data$", ".data", name) for name in names)


@pytest.mark.parametrize("name", KILLABLE)
def test_a_killed_conversion_leaves_the_old(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed as it begins to write, halfway, and at the last byte; and the next conversion to the same place takes away what is left."""
    there = Killed(name, tmp_path, monkeypatch)

    def kill(limit: int) -> None:
        """The system does, at the byte after the limit."""
        there.kill(f"byte {limit}", signal.SIGXFSZ)
        assert list(there.place.parent.glob(".*.tmp"))

    kill(0)  # where nothing was
    assert not there.place.exists()
    there.convert(there.sources[0])
    made = there.files()
    assert not any(name.startswith(".") for name in made)
    size = max(file.stat().st_size for file in there.place.parent.rglob("*") if file.is_file())
    for limit in (0, size // 2, size - 1):
        kill(limit)
        assert content(there.place) == there.old
    there.convert(there.sources[1])
    assert content(there.place) == there.new
    assert there.files() == made


@pytest.mark.parametrize("name", ["hf-master", "hf-master-shards", "onnx", "onnx-beside"])
def test_a_conversion_that_is_killed_at_any_moment_leaves_the_old_or_the_new(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGKILL: while it writes, when all is written, between the renames, and when it compares."""
    there = Killed(name, tmp_path, monkeypatch)
    there.convert(there.sources[0])
    made = there.files()
    renames = {"onnx": 2, "onnx-beside": 3}.get(name, 0)  # config.json, the graph, the data
    for moment in ("writing 0", "writing 0.5", "writing 1", *(f"rename {at}" for at in range(renames))):
        there.kill(moment, signal.SIGKILL)
        assert content(there.place) in (there.old, there.new)
        if moment.startswith("rename"):  # of which the last is that of the graph
            assert content(there.place) == there.old
        there.convert(there.sources[0])
        assert content(there.place) == there.old
        assert there.files() == made
    there.kill("checking 0", signal.SIGKILL)
    assert content(there.place) == there.new
    assert there.files() == made


def content(place: Path) -> Any:
    """What a model computes."""
    with BitNetModel.from_pretrained(place) as model:
        return model.forward([3, 1, 4, 1, 5]).tobytes()


MEASURED = """
import json, sys
from pathlib import Path
from bitnet_rust import convert
convert(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024)
"""


def largest_and_peak(source: Path, target: Path, options: dict[str, Any]) -> tuple[int, int]:
    """The largest tensor of either side in bytes, and the most memory of a process that converts and checks."""
    words = [str(source), str(target), json.dumps(options)]
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = [tensor["bytes"] for place in (source, target) for tensor in inspect_model(place)["tensors"]]
    return max(sizes), int(done.stdout)


Step = tuple[str, dict[str, Any]]
MASTERS_AND_BACK: list[Step] = [
    ("masters", MASTERS_OF_PACKED | {"masters": "bfloat16"}),
    ("m.bitnet", {"to": "native"}),
]
ALL: list[Step] = [
    ("hf", {"to": "hf"}),
    ("i2_s.gguf", {"type": "i2_s"}),
    ("tq1_0.gguf", {"type": "tq1_0"}),
    ("tq2_0.gguf", {"type": "tq2_0"}),
    ("split", {"to": "gguf", "type": "tq2_0", "max_shard_size": "20MB"}),
    ("f16.gguf", {"type": "f16"}),
    ("int8/m.onnx", {"type": "int8"}),
    ("int2/m.onnx", {"type": "int2"}),
    ("z.bitnet", {"compression": "zstd"}),
    ("shards", {"to": "native", "max_shard_size": "20MB"}),
    ("hf-shards", {"to": "hf", "max_shard_size": "20MB"}),
    *MASTERS_AND_BACK,
]


def conversions(shape: dict[str, Any], steps: list[Step], tmp_path: Path) -> None:
    """Converts a model of a shape, from one format to the next, within the memory that is promised."""
    with BitNetModel.from_config(shape, head_dtype="bfloat16") as model:
        model.save_pretrained(tmp_path / "native.bitnet")
    source = "native.bitnet"
    for target, options in steps:
        largest, peak = largest_and_peak(tmp_path / source, tmp_path / target, options)
        said = f"{source} to {target}: {peak / 1e6:.0f} MB, largest tensor {largest / 1e6:.0f} MB"
        print(said)
        assert peak <= 3 * largest + 200_000_000, said
        made = tmp_path / Path(source).parts[0]
        shutil.rmtree(made) if made.is_dir() else made.unlink()
        source = target


WIDE = {
    "vocab_size": 8192,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 8,
    "tie_word_embeddings": True,
}


def test_conversions_of_masters_need_memory_for_the_largest_tensor_only(tmp_path: Path) -> None:
    """Of a model whose master weights are 0.3 GB as float32 and whose largest tensor is 8 MB."""
    shape = WIDE | {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 16}
    conversions(shape, MASTERS_AND_BACK, tmp_path)


@pytest.mark.full
def test_conversions_need_memory_for_the_largest_tensor_only(tmp_path: Path) -> None:
    """Of a model whose master weights are 0.3 GB as float32 and whose largest tensor is 17 MB."""
    conversions(WIDE | {"num_hidden_layers": 4}, ALL, tmp_path)


@pytest.mark.full
def test_conversions_of_the_2b_shape_need_memory_for_the_largest_tensor_only(tmp_path: Path) -> None:
    conversions({"preset": "bitnet-2b"}, ALL, tmp_path)
