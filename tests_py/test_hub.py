"""Names to paths: directories, the registry, the hub, and what is said when there is nothing."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet_rust import (
    BitNetModel,
    ModelNotFoundError,
    Tokenizer,
    find_model,
    list_models,
    register_model,
)
from bitnet_rust.hub import _only_model, resolve
from conftest import REPO, Terminal
from hub_server import HubServer


@pytest.fixture
def published(hub: HubServer, tiny_dir: Path, tmp_path: Path) -> HubServer:
    """The tiny model as a hub repository, beside files that loading does not need."""
    directory = tmp_path / "repository"
    shutil.copytree(tiny_dir, directory)
    (directory / "pytorch_model.bin").write_bytes(b"not wanted")
    hub.repositories["someone/tiny-on-the-hub"] = directory
    hub.requests.clear()
    return hub


def test_a_repository_is_downloaded_once_and_then_found_offline(published: HubServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with BitNetModel.from_pretrained("someone/tiny-on-the-hub", cache_dir=cache) as model:
        assert model.generate("First Citizen:", max_new_tokens=4)
    assert any("model.safetensors" in request for request in published.requests)
    assert not any("pytorch_model.bin" in request for request in published.requests)
    published.requests.clear()
    BitNetModel.from_pretrained("someone/tiny-on-the-hub", cache_dir=cache, local_files_only=True).close()
    assert published.requests == []


@pytest.mark.parametrize(
    "command",
    [
        "generate First -n 1 -m {id}",
        "inspect {id}",
        "inspect {id} --tensors",
        "inspect {id} --hex model.norm.weight",
        "verify {id}",
        "convert {id} {out}/m.bitnet",
        "diff {id} {id}",
        "perplexity {text} -m {id}",
        "eval --data {text} -m {id}",
        "tokenize --tokenizer {id} --data {text} --out {out}/ids.bin",
        "bench decode --model {id} --tokens 2 --prompt 1 --repeat 1",
        "bench load --model {id} --repeat 1",
        "finetune -m {id} --data {text} --out {out}/tuned --max-steps 1 --batch-size 1 --context-length 16 --eval-fraction 0 --export hf",
    ],
    ids=lambda command: command.partition(" {")[0],
)
def test_every_command_takes_a_revision_of_a_repository(
    command: str, published: HubServer, bitnet: Terminal, tmp_path: Path
) -> None:
    """Another repository for each, since the cache is shared; then again from the cache, without a request."""
    id = f"someone/{re.sub(r'[^a-z]', '', command)[:40]}"
    published.repositories[id] = published.repositories["someone/tiny-on-the-hub"]
    (tmp_path / "text").write_text("First Citizen: speak. " * 60)
    for more in (("--revision", "special"), ("--revision", "special", "--offline")):
        out = tmp_path / str(len(more))
        out.mkdir()
        published.requests.clear()
        words = [word.format(id=id, text=tmp_path / "text", out=out) for word in command.split()]
        status, _, err = bitnet(*words, *more)
        assert status == 0, err
        asked = [one for one in published.requests if "/api/models/" in one and "/tree/" not in one]
        assert all("/revision/special" in one for one in asked), asked
        assert bool(published.requests) == ("--offline" not in more)
    if command.startswith("diff"):
        published.requests.clear()
        assert bitnet("diff", id, id, "--revision", "special", "--revision-b", "other")[0] == 0
        assert any("/revision/other" in request for request in published.requests)


def test_a_model_that_guesses_has_a_revision_of_its_own(published: HubServer, bitnet: Terminal, tmp_path: Path) -> None:
    published.repositories["someone/guesser"] = published.repositories["someone/tiny-on-the-hub"]
    model = str(published.repositories["someone/guesser"])
    command = ("generate", "First", "-n", "2", "-m", model)
    status, _, err = bitnet(*command, "--assistant-model", "someone/guesser", "--assistant-revision", "quick")
    assert status == 0, err
    assert any("someone/guesser/revision/quick" in request for request in published.requests)
    status, _, err = bitnet(*command, "--assistant-revision", "quick")
    assert (status, err) == (1, "bitnet: --assistant-revision quick: expected an --assistant-model with it\n")
    status, _, err = bitnet("bench", "decode", "--revision", "quick")
    assert (status, "--revision quick: expected a model with it" in err) == (1, True)


def test_a_tokenizer_of_another_kind_is_downloaded_where_there_is_no_tokenizer_json(
    published: HubServer, tmp_path: Path
) -> None:
    directory = published.repositories["someone/tiny-on-the-hub"]
    shutil.copy(REPO / "tests_go" / "testdata" / "sentencepiece" / "tokenizer.model", directory)
    BitNetModel.from_pretrained("someone/tiny-on-the-hub", cache_dir=tmp_path / "cache").close()
    assert not any("tokenizer.model" in request for request in published.requests)
    (directory / "tokenizer.json").unlink()
    published.repositories |= {"someone/llama-of-old": directory, "someone/tokens-of-old": directory}
    with BitNetModel.from_pretrained("someone/llama-of-old") as model:
        assert model.tokenizer.encode("First")[0] == 1
    assert Tokenizer.from_pretrained("someone/tokens-of-old").encode("First")[0] == 1


def test_a_recipe_takes_revisions_and_a_command_goes_without_a_network(
    published: HubServer, bitnet: Terminal, tmp_path: Path
) -> None:
    id = "someone/tiny-teacher"
    published.repositories[id] = published.repositories["someone/tiny-on-the-hub"]
    (tmp_path / "text").write_text("First Citizen: speak. " * 60)
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{preset: tiny, num_hidden_layers: 1, hidden_size: 128, intermediate_size: 128}}\n"
        f"tokenizer: {{path: {id}, revision: vocabulary}}\nteacher: {{path: {id}, revision: wise}}\n"
        "data: {train: text, eval_fraction: 0}\n"
        "training: {max_steps: 1, batch_size: 1, context_length: 16, distillation_alpha: 0.5}\nsample: {max_new_tokens: 1}\n"
    )
    command = ("train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out"))
    status, _, err = bitnet(*command, "--offline")
    assert (status, "only local files may be used" in err, published.requests) == (1, True, []), err
    status, _, err = bitnet(*command)
    assert status == 0, err
    for revision in ("vocabulary", "wise"):
        assert any(f"{id}/revision/{revision}" in request for request in published.requests)
    status, _, err = bitnet(*command, "--offline", "--overwrite")
    assert status == 0, err


def test_a_registered_name_leads_to_its_repository(published: HubServer, tmp_path: Path, tiny: BitNetModel) -> None:
    register_model("my-registered-tiny", tiny.config, hub_id="someone/tiny-on-the-hub")
    assert find_model("My_Registered_Tiny").hub_id == "someone/tiny-on-the-hub"
    assert "my-registered-tiny" in [entry.name for entry in list_models()]
    BitNetModel.from_pretrained("my-registered-tiny", cache_dir=tmp_path).close()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("no-such-model", {}, "registered model"),
        ("bitnet-b1.58-2b", {"local_files_only": True}, "microsoft/bitnet-b1.58-2B-4T"),
        ("someone/nothing-here", {}, "the hub has no someone/nothing-here"),
        ("./no/such/directory", {}, "pass the directory of a model"),
        (Path("no-such-directory"), {}, "pass the directory of a model"),
        ("small", {}, "no published weights"),
        ("bitnet-2c", {}, "bitnet-2b"),
        ("a/b/c/d", {}, "pass a directory"),
    ],
)
def test_a_missing_model_says_what_to_pass(
    hub: HubServer, tmp_path: Path, name: str, options: dict[str, bool], says: str
) -> None:
    with pytest.raises(ModelNotFoundError, match=says) as caught:
        BitNetModel.from_pretrained(name, cache_dir=tmp_path, **options)
    assert isinstance(caught.value, FileNotFoundError)
    assert "pass" in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_told_without_how_its_client_found_out(tmp_path: Path) -> None:
    """In a process that asks a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        code = f"""
import traceback
from bitnet_rust import BitNetModel
try:
    BitNetModel.from_pretrained("someone/tiny", cache_dir={str(tmp_path)!r})
except FileNotFoundError as error:
    absent = error.__cause__
    print(type(absent).__name__, "Connect" in type(absent.__context__).__name__, absent.__context__.__traceback__ is not None)
    traceback.print_exc()
"""
        where = {"HF_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | where)
    assert done.stdout == "LocalEntryNotFoundError True True\n"
    assert done.stderr.startswith("huggingface_hub.errors.LocalEntryNotFoundError: ")
    assert done.stderr.count("Traceback") == 1
    assert not re.search(r"File .*(huggingface_hub|http)", done.stderr)
    assert (
        "ModelNotFoundError: there is no directory 'someone/tiny' here, and someone/tiny is not in the local cache"
        in done.stderr
    )


def test_a_repository_without_a_model_is_reported(published: HubServer, tmp_path: Path) -> None:
    published.repositories["someone/empty"] = tmp_path / "nothing"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ModelNotFoundError, match="someone/empty has none of"):
        BitNetModel.from_pretrained("someone/empty", cache_dir=tmp_path / "cache")


KINDS = {"gguf": ("ggml-model-i2_s.gguf",), "onnx": ("model.onnx", "model.onnx.data")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_one_model_of_another_kind_is_downloaded(
    hub: HubServer, tmp_path: Path, tiny: BitNetModel, kind: str
) -> None:
    """With its data, and without what else there is. Loading is told the file, also offline."""
    if kind == "onnx":
        pytest.importorskip("onnx")
    repository = tmp_path / "repository"
    tiny.save_pretrained(repository / KINDS[kind][0], format=kind)
    hub.repositories[f"someone/tiny-{kind}"] = repository
    (repository / "README.md").write_text("# A model")
    (repository / "model.bin").write_bytes(b"not wanted")
    for name in KINDS[kind][1:]:  # of a small model they are in the graph
        (repository / name).write_bytes(b"more")
    for offline in (False, True):
        hub.requests.clear()
        place = resolve(f"someone/tiny-{kind}", cache_dir=tmp_path / "cache", local_files_only=offline)
        assert place.name == KINDS[kind][0]
        assert {path.name for path in place.parent.iterdir()} >= {"README.md", *KINDS[kind]}
        assert not (place.parent / "model.bin").exists()
        assert (hub.requests == []) == offline
        with BitNetModel.from_pretrained(
            f"someone/tiny-{kind}", cache_dir=tmp_path / "cache", local_files_only=offline
        ) as model:
            assert model.generate([1, 2], max_new_tokens=4) == tiny.generate([1, 2], max_new_tokens=4)


def test_a_split_model_is_one_and_several_are_named(hub: HubServer, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    for part in (1, 2):
        (repository / f"m-0000{part}-of-00002.gguf").write_bytes(b"GGUF")
    hub.repositories["someone/split"] = repository
    place = resolve("someone/split", cache_dir=tmp_path / "cache")
    assert place.name == "m-00001-of-00002.gguf"
    assert (place.parent / "m-00002-of-00002.gguf").exists()
    (repository / "other.gguf").write_bytes(b"GGUF")
    hub.repositories["someone/several"] = repository
    with pytest.raises(
        ModelNotFoundError,
        match=r"several models, m-00001-of-00002\.gguf, other\.gguf: .*hf download someone/several m-00001",
    ):
        resolve("someone/several", cache_dir=tmp_path / "other cache")


def test_a_name_that_leads_out_of_a_repository_is_no_model() -> None:
    assert _only_model(["../x.gguf", "/x.gguf", "a/../../y.onnx"], "someone/outside") is None
    assert _only_model(["../x.gguf", "a..b/y.gguf"], "someone/inside") == "a..b/y.gguf"


def test_a_download_that_fails_is_reported(published: HubServer, tmp_path: Path) -> None:
    published.failing.add("model.safetensors")
    try:
        with pytest.raises(ModelNotFoundError, match="someone/tiny-on-the-hub"):
            BitNetModel.from_pretrained("someone/tiny-on-the-hub", cache_dir=tmp_path / "cache")
    finally:
        published.failing.clear()


def test_the_embedded_model_needs_no_hub(hub: HubServer) -> None:
    hub.requests.clear()
    for name in ("bitnet-shakespeare", "shakespeare", "BitNet_Shakespeare"):
        BitNetModel.from_pretrained(name).close()
    assert hub.requests == []


def test_bitnet_1_3b_is_the_xl_shape() -> None:
    entry = find_model("bitnet-1.3b")
    assert entry.name == "bitnet-b1.58-xl"
    assert entry.config.hidden_size == 2048
    assert 1.2e9 < entry.parameters < 1.4e9
