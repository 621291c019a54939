"""Data in all the forms users have them become the same examples; what cannot be used is named with its place."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetModel,
    DTypeError,
    FileSystemError,
    FormatError,
    ModelNotFoundError,
    ShapeError,
    TokenFile,
    Tokenizer,
    Trainer,
    _bitnet,
)
from bitnet_rust.conversations import hold_conversations
from bitnet_rust.datasets import DataOptions, make_dataset

VOCAB = 256
TEXT = "To be, or not to be, that is the question.\n" * 8
IDS = Tokenizer.bytes().encode(TEXT)
ROWS = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]]


def with_end() -> Tokenizer:
    """Bytes, and an end token, as vocabulary entry 0."""
    learned = Tokenizer.train_bpe([], 257, special_tokens=["<|end|>"])
    return Tokenizer(learned.backend, {"eos_token": "<|end|>"})


@pytest.fixture(scope="module")
def model() -> Iterator[BitNetModel]:
    shape = {
        "vocab_size": 257,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    with BitNetModel.from_config(shape) as made:
        yield made


def options(**changes: Any) -> DataOptions:
    return DataOptions(**({"length": 16, "vocab_size": 257, "tokenizer": Tokenizer.bytes} | changes))


Score = Callable[..., tuple[Any, ...]]


@pytest.fixture
def score(model: BitNetModel) -> Score:
    """What a model makes of data: equal data have equal bits, and hardly any others do."""

    def of(data: Any, **changes: Any) -> tuple[Any, ...]:
        made = make_dataset(data, "dataset", options(**changes))
        facts = json.loads(made.info())
        return (facts["kind"], facts["examples"], *_bitnet.evaluate(model._model, made, None))

    return of


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_is_a_text_or_ids_in_any_form(score: Score, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(TEXT.encode())
    TokenFile.write(tmp_path / "tokens.bin", IDS, VOCAB)
    np.save(tmp_path / "tokens.npy", np.array(IDS, np.uint16))
    np.array(IDS, "<u2").tofile(tmp_path / "nano.bin")
    forms = {
        "text": TEXT,
        "path": text,
        "list": IDS,
        "tuple": tuple(IDS),
        "int64": np.array(IDS),
        "uint16": np.array(IDS, np.uint16),
        "big-endian": np.array(IDS, ">i4"),
        "strided": np.repeat(np.array(IDS), 2)[::2],
        "token file": tmp_path / "tokens.bin",
        "npy": tmp_path / "tokens.npy",
        "TokenFile": TokenFile(tmp_path / "tokens.bin"),
        "bare": TokenFile(tmp_path / "nano.bin", dtype=np.uint16),
        "memmap": np.memmap(tmp_path / "nano.bin", dtype=np.uint16, mode="r"),
        "one text": [TEXT],
    }
    want = score(IDS)
    assert want[:2] == ("stream", (len(IDS) - 1) // 16)
    assert {form: score(data) for form, data in forms.items()} == dict.fromkeys(forms, want)


def test_a_part_of_a_memmap_is_read_from_its_file(score: Score, tmp_path: Path) -> None:
    np.array([9, 9, *IDS], "<u2").tofile(tmp_path / "nano.bin")
    whole = np.memmap(tmp_path / "nano.bin", dtype=np.uint16, mode="r", offset=2)
    assert score(whole[1:]) == score(IDS)
    assert score(whole[1:][:100][20:]) == score(IDS[20:100])
    assert score(whole[1:][::2]) == score(IDS[::2])
    from bitnet_rust.datasets import _mapped

    part = _mapped(whole[1:][:100][20:])
    assert part is not None
    assert (part.offset, len(part)) == (2 * 22, 80)
    TokenFile.write(tmp_path / "own.bin", IDS, VOCAB)
    np.save(tmp_path / "x.npy", np.array(IDS, np.int32))
    own = np.memmap(tmp_path / "own.bin", dtype=np.uint16, mode="r", offset=64)
    saved = np.load(tmp_path / "x.npy", mmap_mode="r")
    for mapped in (own, saved):
        assert score(mapped) == score(IDS)
        assert score(mapped[30:200]) == score(IDS[30:200])
        assert _mapped(mapped[30:200]) is not None
    assert _mapped(np.memmap(tmp_path / "own.bin", dtype=np.uint8, mode="r", offset=64)) is None


def test_documents_are_joined_with_the_end_token(score: Score, tmp_path: Path) -> None:
    texts = ["To be, or not to be.", "That is the question.", "Whether 'tis nobler in the mind to suffer"]
    tokenizer = with_end()
    joined = [*tokenizer.encode(texts[0]), 0, *tokenizer.encode(texts[1]), 0, *tokenizer.encode(texts[2])]
    (tmp_path / "b").mkdir()
    for place, text in zip(("a.txt", "b/c.txt", "z.md"), texts, strict=True):
        (tmp_path / place).write_text(text)
    (tmp_path / ".hidden").write_bytes(b"\xff")
    lines = tmp_path / "b" / "c.txt"
    forms: dict[str, Any] = {
        "list": texts,
        "array": np.array(texts),
        "dictionaries": [{"text": text, "id": i} for i, text in enumerate(texts)],
        "columns": {"text": texts},
        "directory": tmp_path,
    }
    want = score(joined)
    for form, data in forms.items():
        assert score(data, tokenizer=lambda: tokenizer) == want, form
    lines.write_text("")
    jsonl = tmp_path / "data.jsonl"
    jsonl.write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n\n")
    assert score(jsonl, tokenizer=lambda: tokenizer) == want

    apart = score(texts, tokenizer=lambda: tokenizer, isolate=True)
    assert apart[3] == want[3] - 2  # the end tokens have no target
    separate = [{"input_ids": tokenizer.encode(text)} for text in texts]
    assert score(texts, tokenizer=lambda: tokenizer, packing=False, length=64) == score(separate, length=64)
    TokenFile.write(tmp_path / "joined.bin", joined, 257, separator=0)
    assert score(tmp_path / "joined.bin", isolate=True) == apart


@pytest.mark.parametrize("content", ['{"a": 1} ' * 20, "{}", "no JSON " * 20, "[" * 100_000, "[1, 2]", "[]"])
def test_json_that_holds_no_records_is_text(content: str, tmp_path: Path) -> None:
    """A file, and a directory that begins with one."""
    for name in ("a.json", "b.txt"):
        (tmp_path / name).write_text(content)
    text = options(length=1)
    made = [json.loads(make_dataset(path, "data", text).info()) for path in (tmp_path / "a.json", tmp_path / "b.txt")]
    assert made[0] == made[1]
    assert not hold_conversations(tmp_path)
    assert json.loads(make_dataset(tmp_path, "data", text).info())["tokens"] >= 2 * made[0]["tokens"]


def test_nesting_without_end_is_an_error_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("[" * 100_000)
    with pytest.raises(ArgumentError, match=r"line 1 of .*x.jsonl is not JSON"):
        make_dataset(tmp_path / "x.jsonl", "data", options())


def test_isolation_needs_a_separator(tmp_path: Path) -> None:
    TokenFile.write(tmp_path / "tokens.bin", IDS, VOCAB)
    for data in (TEXT, IDS, tmp_path / "tokens.bin"):
        with pytest.raises(ArgumentError, match=r"apart|ends a document"):
            make_dataset(data, "dataset", options(isolate=True))


# --- examples --------------------------------------------------------------------------------------------------------


class TorchDataset:
    """As torch.utils.data.Dataset: elements by number, and no __iter__."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        if not 0 <= i < len(self.items):
            raise RuntimeError("beyond the end")  # torch's do not say IndexError
        return self.items[i]


class TorchLoader:
    """As torch.utils.data.DataLoader: an iterable of batches, of known length."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def test_examples_come_in_any_form(score: Score) -> None:
    array = np.array(ROWS)
    shifted = [(row[:-1], row[1:]) for row in ROWS]
    ignoring = [(row, [*row[1:], -100]) for row in array]
    forms: dict[str, Any] = {
        "lists": ROWS,
        "array": array,
        "arrays": list(array),
        "dictionaries": [{"input_ids": row, "idx": 3} for row in ROWS],
        "with labels": [{"input_ids": row, "labels": row} for row in ROWS],
        "columns": {"input_ids": array, "labels": None, "length": 3},
        "pairs": shifted,
        "pairs of arrays": [(np.array(x), np.array(y)) for x, y in shifted],
        "torch dataset": TorchDataset(ROWS),
        "torch pairs": TorchDataset(shifted),
        "torch loader": TorchLoader([array[:2], array[2:]]),
        "torch loader of pairs": TorchLoader([(array[:2, :-1], array[:2, 1:]), (array[2:, :-1], array[2:, 1:])]),
        "torch loader of dictionaries": TorchLoader([{"input_ids": array[:2]}, {"input_ids": array[2:]}]),
        "padded": [{"input_ids": [*row, 0, 0], "attention_mask": [1] * 5 + [0] * 2} for row in ROWS],
        "padded on the left": [{"input_ids": [0, *row], "attention_mask": [0, *[True] * 5]} for row in ROWS],
        "padded labels": [
            {"input_ids": [*row, 0], "labels": [*row, -100], "attention_mask": [1] * 5 + [0]} for row in ROWS
        ],
    }
    want = score(ROWS)
    assert want[:2] == ("examples", 3)
    assert want[3] == 12
    assert {form: score(data) for form, data in forms.items()} == dict.fromkeys(forms, want)
    assert score(ignoring)[2:] == want[2:]


def test_labels_say_what_counts(score: Score) -> None:
    example = {"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]}
    whole = score([[1, 2, 3, 4]])
    assert whole[3] == 3
    assert score([example])[3] == 2
    assert score([([1, 2, 3], [-100, 3, 4])]) == score([example])


def test_whole_examples_are_packed(score: Score) -> None:
    apart = score(ROWS)
    packed = score(ROWS, packing=True)
    assert packed[1] == 1
    assert packed[2:] == apart[2:]
    assert score(ROWS, packing=True, length=8)[1] == 2


def test_long_and_empty_examples_are_reported(score: Score) -> None:
    with pytest.warns(UserWarning, match="1 of 2 examples are longer than context_length = 4 and were cut"):
        assert score([[1, 2, 3], [1, 2, 3, 4, 5, 6, 7]], length=4)[3] == 6
    with pytest.warns(UserWarning, match="2 of 3 examples have nothing to learn from"):
        assert score([[1], [1, 2], {"input_ids": [1, 2], "labels": [1, -100]}])[1] == 1
    with pytest.raises(ArgumentError, match="2 examples, none with a target"):
        score([[1], [2]])


def test_an_endless_iterable_is_read_as_far_as_a_run_needs(score: Score) -> None:
    taken = []

    def endless() -> Iterator[dict[str, Any]]:
        for i in itertools.count():
            taken.append(i)
            yield {"input_ids": [i % 5, 1, 2]}

    assert score(endless(), most=7)[1] == 7
    assert len(taken) == 7
    numbers = (i % 200 for i in itertools.count())
    assert score(numbers, most=3)[:2] == ("stream", 3)
    assert next(numbers) == 49
    words = (f"word {i} " for i in itertools.count())
    assert score(words, most=3)[:2] == ("stream", 3)
    finite = ({"input_ids": row} for row in ROWS)
    assert score(finite, most=100) == score(ROWS)
    with pytest.raises(ArgumentError, match=r"dataset has no tokens and no examples .*only once"):
        score(finite, most=100)
    with pytest.raises(ArgumentError, match=r"dataset of type generator has no length and may never end: .*max_steps"):
        score(endless())


class Unusable:
    pass


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ([[1, 2], [3, 257]], ArgumentError, r"dataset\[1\].input_ids\[1\] = 257: expected 0 <= id < vocab_size = 257"),
        ([[1, 2], [3, -1]], ArgumentError, r"dataset\[1\].input_ids\[1\] = -1"),
        ([[1, 2], [3, 2.5]], DTypeError, r"dataset\[1\].input_ids\[1\] is 2.5"),
        ([[1, 2], [3, 2**40]], ArgumentError, r"dataset\[1\].input_ids\[1\] = 1099511627776"),
        ([np.array([1, 2]), np.array([3.0])], DTypeError, r"dataset\[1\].input_ids has dtype float64"),
        ([[1, 2], "text"], DTypeError, r"dataset\[1\] is of type str"),
        ([[1, 2], 3], DTypeError, r"dataset\[1\] is of type int"),
        (["text", [1]], DTypeError, r"dataset\[1\] is of type list: expected a text"),
        ([{"input_ids": [1, 2], "labels": [1]}], ShapeError, r"dataset\[0\].labels has 1 values: expected 2"),
        ([{"input_ids": [1, 2], "labels": [1, -99]}], ArgumentError, r"dataset\[0\].labels\[1\] = -99: .* or -100"),
        ([{"input_ids": [1, 2], "attention_mask": [1]}], ShapeError, r"dataset\[0\].attention_mask has 1 values"),
        ([{"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}], ArgumentError, r"attention_mask: position 1 is 0"),
        ([{"ids": [1, 2]}], ArgumentError, r"dataset\[0\] has the fields \['ids'\]: expected input_ids or text"),
        ({"ids": [[1, 2]]}, ArgumentError, r"dataset has the columns \['ids'\]"),
        ({"input_ids": [[1, 2]], "labels": [[1], [2]]}, ShapeError, "different lengths"),
        ([([1, 2], [1])], ShapeError, r"dataset\[0\]: 2 inputs and 1 targets"),
        ([([1, 2], [1, 300])], ArgumentError, r"dataset\[0\] targets\[1\] = 300"),
        (TorchLoader([np.array([[1, 2], [3, 400]])]), ArgumentError, r"dataset\[0\] row 1.input_ids\[1\] = 400"),
        (np.array([[1, 2], [3, 400]]), ArgumentError, r"dataset\[1\].input_ids\[1\] = 400"),
        (np.zeros((2, 2)), DTypeError, "dataset has dtype float64"),
        (np.zeros((2, 1), int), ArgumentError, "2 examples, none with a target"),
        (np.zeros((2, 2, 2), int), ShapeError, r"dataset has shape \(2, 2, 2\)"),
        (np.zeros(40), DTypeError, "dataset has dtype float64"),
        (np.full(40, 2**40), ArgumentError, r"dataset\[0\] = 1099511627776"),
        (b"bytes", DTypeError, "dataset is of type bytes"),
        (3.5, DTypeError, "dataset is of type float"),
        (Unusable(), DTypeError, "dataset is of type Unusable"),
        ([], ArgumentError, "dataset has no tokens"),
        ("", ArgumentError, "dataset has no tokens"),
        ([300] * 40, ArgumentError, r"dataset\[0\] = 300"),
        ([1] * 16, ArgumentError, "16 tokens: expected more than context_length = 16"),
    ],
)
def test_what_cannot_be_used_is_named(data: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make_dataset(data, "dataset", options())


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    def make(path: Path, **changes: Any) -> None:
        make_dataset(path, "dataset", options(**changes))

    with pytest.raises(ModelNotFoundError, match=r"nothing.txt"):
        make(tmp_path / "nothing.txt")
    for name in ("nothing.bin", "nothing.npy"):
        with pytest.raises(FileNotFoundError, match=name):
            make(tmp_path / name)
    with pytest.raises(ArgumentError, match="has no files"):
        make(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9" * 20)
    with pytest.raises(ArgumentError, match=r"latin.txt is not a UTF-8 text"):
        make(tmp_path)
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    with pytest.raises(
        ArgumentError, match=r'line 2 of .*x.jsonl: expected an object with a "text", found {"txt": "b"}$'
    ):
        make(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_text("{text}\n")
    with pytest.raises(ArgumentError, match=r"line 1 of .*x.jsonl is not JSON"):
        make(tmp_path / "x.jsonl")
    np.array([1, 2], "<u2").tofile(tmp_path / "nano.bin")
    with pytest.raises(DTypeError, match=r"nano.bin has no header: say which dtype"):
        make(tmp_path / "nano.bin")
    np.array([1] * 40 + [300], "<u2").tofile(tmp_path / "nano.bin")
    with pytest.raises(ArgumentError, match=r"nano.bin: id 40 is 300: expected 0 <= id < vocab_size = 257"):
        make_dataset(TokenFile(tmp_path / "nano.bin", "uint16"), "dataset", options())
    TokenFile.write(tmp_path / "own.bin", [1] * 40 + [300], 1000)
    with pytest.raises(ArgumentError, match=r"own.bin: its largest id is 300"):
        make(tmp_path / "own.bin")
    damaged = bytearray((tmp_path / "own.bin").read_bytes())
    damaged[70] ^= 1
    (tmp_path / "own.bin").write_bytes(damaged)
    with pytest.raises(FormatError, match=r"own.bin: crc32c"):
        make(tmp_path / "own.bin", vocab_size=1000)
    np.save(tmp_path / "float.npy", np.zeros(40))
    with pytest.raises(DTypeError, match=r"float.npy: found float64"):
        make(tmp_path / "float.npy")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(FormatError, match=r"bad.npy"):
        make(tmp_path / "bad.npy")


# --- in training -----------------------------------------------------------------------------------------------------


def test_training_takes_what_it_needs_in_the_order_it_was_told() -> None:
    shape = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }

    def losses(data: Any, **changes: Any) -> list[float]:
        with BitNetModel.from_config(shape, trainable=True) as model:
            trainer = Trainer(
                model, **{"batch_size": 2, "context_length": 8, "learning_rate": 1e-2, "max_steps": 6} | changes
            )
            return [record["loss"] for record in trainer.train(data)]

    rows = [[i, i + 1, i + 2, i + 3][: 2 + i % 3] for i in range(12)]
    endless = ({"input_ids": rows[i % 12]} for i in itertools.count())
    assert losses(endless) == losses(rows)
    assert next(endless)["input_ids"] == rows[0], "it was read to the twelfth"
    assert losses(rows) == losses(rows, order="shuffled") != losses(rows, order="sequential")
    assert losses(rows, order="sequential")[:3] == losses(rows[:6], order="sequential")[:3]
    assert len(losses(rows[:5], epochs=2, max_steps=None)) == 6
    assert len(losses(rows[:5], epochs=2, max_steps=None, drop_last=True)) == 4
    assert losses(rows, packing=True) != losses(rows)
    stream = list(range(50))
    assert losses(stream) == losses(stream, order="random")
    assert losses(stream, epochs=2, max_steps=None) == losses(stream, epochs=2, max_steps=None, order="shuffled")
    with pytest.raises(ArgumentError, match='order = "sorted": expected one of'):
        losses(rows, order="sorted")
    with pytest.raises(ArgumentError, match="no length"):
        losses(iter(rows), epochs=1, max_steps=None)
    with pytest.raises(ArgumentError, match="apart"):
        losses(stream, isolate_documents=True)


# --- token files -----------------------------------------------------------------------------------------------------


def test_token_files_describe_themselves(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    pieces = [[1, 2], np.array([70000]), range(3)]
    file = TokenFile.write(path, pieces, 100_000, separator=2)
    assert (len(file), file.dtype, file.separator, file.vocab_size) == (6, "uint32", 2, 100_000)
    assert np.memmap(path, dtype=np.uint32, offset=64).tolist() == [1, 2, 70000, 0, 1, 2]
    assert "6 tokens, uint32" in repr(file)
    assert TokenFile.write(path, iter([5, 6]), 10).dtype == "uint16"
    np.save(tmp_path / "x.npy", np.array([1, 2, 3], np.int64))
    found = TokenFile(tmp_path / "x.npy")
    assert (len(found), found.dtype, found.separator, found.vocab_size) == (3, "int64", None, None)


def test_a_token_file_is_split(score: Score, tmp_path: Path) -> None:
    file = TokenFile.write(tmp_path / "tokens.bin", IDS, VOCAB)
    learned, held_out = file.split(0.25)
    cut = round(len(IDS) * 0.75)
    assert (len(learned), len(held_out)) == (cut, len(IDS) - cut)
    assert score(learned) == score(IDS[:cut])
    assert score(held_out) == score(IDS[cut:])
    assert score(held_out.split(0.5)[0]) == score(IDS[cut : cut + len(held_out) // 2])
    with pytest.raises(ArgumentError, match="eval_fraction = 1"):
        file.split(1)
    with pytest.raises(ArgumentError, match="cannot be split"):
        file.split(1e-9)


def test_a_token_file_is_complete_or_not_there(tmp_path: Path) -> None:
    def broken() -> Iterator[Any]:
        yield [1, 2]
        raise LookupError("enough")

    with pytest.raises(LookupError):
        TokenFile.write(tmp_path / "tokens.bin", broken(), 10)
    with pytest.raises(ArgumentError, match=r"id 2 of .*tokens.bin is 10: expected 0 <= id < vocab_size = 10"):
        TokenFile.write(tmp_path / "tokens.bin", [[1, 2], [10]], 10)
    with pytest.raises(ArgumentError, match="ids = 10"):
        TokenFile.write(tmp_path / "tokens.bin", [1, 10], 10)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(FileSystemError, match="file is not a directory"):
        TokenFile.write(tmp_path / "file" / "tokens.bin", [1], 10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"vocab_size": 0}, "vocab_size = 0"),
        ({"vocab_size": 10, "separator": 10}, "separator = 10"),
        ({"vocab_size": 10, "separator": -1}, "separator = -1"),
    ],
)
def test_bad_arguments_of_token_files_are_named(arguments: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=says):
        TokenFile.write(tmp_path / "tokens.bin", [1], **arguments)
    (tmp_path / "nano.bin").write_bytes(b"\0" * 8)
    with pytest.raises(ArgumentError, match="dtype = 'words'"):
        TokenFile(tmp_path / "nano.bin", "words")
    with pytest.raises(ArgumentError, match="little-endian"):
        TokenFile(tmp_path / "nano.bin", ">u2")
    with pytest.raises(DTypeError, match="float32"):
        TokenFile(tmp_path / "nano.bin", "float32")
    with pytest.raises(ArgumentError, match="offset = -1"):
        TokenFile(tmp_path / "nano.bin", "uint16", offset=-1)
    with pytest.raises(FormatError, match="offset"):
        TokenFile(tmp_path / "nano.bin", "uint16", offset=9)
    with pytest.raises(FormatError, match="tokens"):
        TokenFile(tmp_path / "nano.bin", "uint16", tokens=5)


# --- the libraries themselves ----------------------------------------------------------------------------------------


@pytest.mark.full
def test_pytorchs_datasets_and_loaders(score: Score) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, Dataset, TensorDataset

    class Rows(Dataset):  # type: ignore[type-arg,misc]
        def __len__(self) -> int:
            return len(ROWS)

        def __getitem__(self, i: int) -> Any:
            return {"input_ids": torch.tensor(ROWS[i]), "labels": torch.tensor(ROWS[i])}

    tensor = torch.tensor(ROWS)
    want = score(ROWS)
    assert score(tensor) == want
    assert score(Rows()) == want
    assert score(DataLoader(Rows(), batch_size=2)) == want
    assert score(DataLoader(Rows(), batch_size=2, num_workers=2)) == want, "workers are forks of this process"
    assert score(TensorDataset(tensor[:, :-1], tensor[:, 1:])) == want
    assert score(DataLoader(TensorDataset(tensor[:, :-1], tensor[:, 1:]), batch_size=2)) == want
    assert score(torch.tensor(IDS)) == score(IDS)


@pytest.mark.full
def test_hugging_faces_datasets(score: Score, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"input_ids": ROWS, "attention_mask": [[1] * 5] * 3})
    want = score(ROWS)
    assert score(rows) == want
    assert score(rows.with_format("numpy")) == want
    assert score(rows.to_iterable_dataset(), most=3) == want
    texts = datasets.Dataset.from_dict({"text": [TEXT, TEXT]})
    assert score(texts) == score([TEXT, TEXT])
    assert score(texts.to_iterable_dataset(), most=4) == score([TEXT]), "the second text is not needed"
    with pytest.raises(ArgumentError, match="no length"):
        score(rows.to_iterable_dataset())


def test_a_short_run_draws_from_the_whole_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitnet_rust.datasets.PIECE", 16)  # texts are tokenized in pieces
    (tmp_path / "a.txt").write_text(TEXT)
    for data in (TEXT, tmp_path / "a.txt", [TEXT], [tmp_path / "a.txt"]):
        made = json.loads(make_dataset(data, "dataset", options(most=1)).info())
        assert made["tokens"] == len(TEXT.encode())


def test_a_list_of_paths_is_their_texts(score: Score, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(TEXT[:40])
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for changes in ({}, {"packing": False, "length": 64}):
        assert score(paths, **changes) == score([TEXT[:40], TEXT[:40]], **changes)
    with pytest.raises(DTypeError, match=r"dataset\[1\] = 5: expected the Path of a text file"):
        score([paths[0], 5])


def test_a_name_of_a_file_is_no_text(score: Score, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    with pytest.raises(ArgumentError, match=r"a text, and the name of a file: pass pathlib.Path\('.*a.txt'\)"):
        score(str(path))


def test_what_is_too_short_says_how_long_it_is(score: Score, tmp_path: Path) -> None:
    TokenFile.write(tmp_path / "t.bin", [1, 2, 3], 256)
    for data, says in (
        ("To be", "dataset has 5 tokens"),
        ("", "dataset has no tokens"),
        (tmp_path / "t.bin", "3 tokens"),
    ):
        with pytest.raises(ArgumentError, match=f"{says}.* context_length = "):
            score(data)


def test_a_tokenizer_that_is_too_large_is_named() -> None:
    with pytest.raises(ArgumentError, match="the tokenizer has 256 tokens: expected at most vocab_size = 40"):
        make_dataset(TEXT, "dataset", options(vocab_size=40))


def test_bare_ids_need_a_dtype(score: Score, tmp_path: Path) -> None:
    path = tmp_path / "ids.bin"
    np.arange(100, dtype=np.uint16).tofile(path)
    with pytest.raises(DTypeError, match=r'ids.bin has no header.*; pass TokenFile\(".*ids.bin", dtype=\.\.\.\)'):
        score(path)
    assert score(TokenFile(path, dtype="uint16"))
