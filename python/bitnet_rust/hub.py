"""From what a user calls a model to a path on this machine, downloading where that is what the name means."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from .errors import ArgumentError, ModelNotFoundError
from .registry import HUB_ID, find_model

# What a model consists of; the rest of a repository stays there.
_FILES = ("*.json", "*.safetensors", "*.jinja", "*.bitnet", "README.md")
# Tokenizers without a tokenizer.json: one is made of the first, of the others the error about it tells.
_OTHER_TOKENIZERS = ("tokenizer.model", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt")
# What lies in the directory of a model, and is none.
_BESIDE = dict.fromkeys(
    (
        *_OTHER_TOKENIZERS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "chat_template.jinja", "chat_template.json", "generation_config.json", "recipe.yaml", "train.jsonl", "README.md",
    ),
    "belongs to a model",
) | {"config.json": "is the configuration of a model"}  # fmt: skip
# With none of the weights among them, a repository may have one model in a file of another kind.
_WEIGHTS = ("*.safetensors", "*.bitnet")
_OTHERS = (".gguf", ".onnx")
_FILE_ENDINGS = (".bitnet", ".safetensors", *_OTHERS)
_PART = re.compile(r"-(\d{5})-of-\d{5}(?=\.gguf$)")
_INSTEAD = "pass the directory of a local copy instead, or the embedded 'bitnet-shakespeare'"


def resolve(
    name: str | PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    files: Sequence[str] = _FILES,
) -> Path:
    """The directory or file of the model called name: a path, a registered name, or a Hugging Face repository.

    files: patterns of the files that a download fetches.

    ArgumentError for a revision of what is here already.
    """
    try:
        path = Path(name).expanduser()
        found = fspath(name) != "" and path.exists()
        if "\0" in str(path):
            raise ValueError("a path has no null character")
    except (RuntimeError, ValueError) as error:  # RuntimeError: the home of nobody
        raise ModelNotFoundError(f"there is no {name!r}: {error}") from error
    if found and path.name in _BESIDE and files is _FILES:
        raise ModelNotFoundError(f"{path} {_BESIDE[path.name]}: pass its directory, {path.parent}")
    if found:
        refuse_revision(revision, f"{path} is here")
        return path
    is_path = path.is_absolute() or fspath(name).startswith((".", "~")) or path.suffix.lower() in _FILE_ENDINGS
    if not isinstance(name, str) or is_path:
        raise ModelNotFoundError(
            f"there is no {fspath(name)}: pass the directory of a model (with config.json and *.safetensors), "
            "a .bitnet, .gguf or .onnx file, or a name that `bitnet models` lists"
        )
    try:
        entry = find_model(name)
    except ArgumentError as unknown:
        if not HUB_ID.fullmatch(name):
            hint = str(unknown).rpartition("; ")[2]
            raise ModelNotFoundError(
                f"there is no model directory {name!r} here and no registered model of that name ({hint}); "
                "pass a directory, a registered name, or a Hugging Face repository as 'owner/name'"
            ) from None
        hub_id, here = name, f"there is no directory {name!r} here, and "
    else:
        if entry.embedded is not None:
            refuse_revision(revision, f"{entry.name} comes with the package")
            return entry.embedded
        if entry.hub_id is None:
            raise ModelNotFoundError(
                f"{entry.name} has no published weights: pass the directory of a model of your own, "
                f"or make one with random weights by BitNetModel.from_config({entry.name!r})"
            )
        hub_id, here = entry.hub_id, ""
    source = {
        "repo_id": hub_id,
        "revision": revision,
        "cache_dir": None if cache_dir is None else fspath(cache_dir),
        "local_files_only": local_files_only,
        "token": token,
    }
    return _download(source, here, files)


def refuse_revision(revision: str | None, place: str, argument: str = "revision") -> None:
    """ArgumentError for a revision of what is at a place, and in no repository; argument: what it was given as."""
    if revision is not None:
        raise ArgumentError(
            f"{argument} = {revision!r}: {place}, and only repositories of Hugging Face have revisions: expected it to be left out"
        )


def is_local(name: str | PathLike[str]) -> bool:
    """Whether a model of that name is here already, so that it has no revisions."""
    with suppress(OSError, RuntimeError, ValueError):  # an ArgumentError for an unknown name, too
        return Path(name).expanduser().exists() or find_model(fspath(name)).embedded is not None
    return False


def name_of(name: str | PathLike[str]) -> str:
    """What others call a model: a directory's or file's name, or the name that it is asked for by."""
    with suppress(OSError, RuntimeError, ValueError):  # resolve says what is wrong with it
        path = Path(name).expanduser()
        if path.exists():
            return path.resolve().stem if path.is_file() else path.resolve().name
    return fspath(name)


def _download(source: dict[str, Any], here: str, files: Sequence[str]) -> Path:
    """The folder of a repository's files in the cache, or the file of the one model that is not of those kinds."""
    import huggingface_hub

    revision = source["revision"]
    where = source["repo_id"] + (f" at revision {revision}" if revision else "")
    with _reported(here, where, source["local_files_only"]):
        folder = Path(huggingface_hub.snapshot_download(**source, allow_patterns=list(files)))
        if files is _FILES and not any(any(folder.rglob(pattern)) for pattern in _WEIGHTS):
            names = _names(source, folder)
            model = _only_model(names, where)
            if model is not None:
                huggingface_hub.snapshot_download(**source, allow_patterns=_with_its_data(model, names))
                return folder / model
        if not (folder / "tokenizer.json").exists():
            huggingface_hub.snapshot_download(**source, allow_patterns=list(_OTHER_TOKENIZERS))
    if not any(folder.glob("*")):
        wanted = ", ".join(files)
        raise ModelNotFoundError(f"the repository {where} has none of {wanted}; {_INSTEAD}")
    return folder


@contextmanager
def _reported(here: str, where: str, local_files_only: bool) -> Iterator[None]:
    """What goes wrong with the hub, as ModelNotFoundError."""
    from huggingface_hub import errors

    try:
        yield
    except ModelNotFoundError:  # an OSError too
        raise
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as missing:
        raise ModelNotFoundError(f"{here}the hub has no {where} (or it needs a token); {_INSTEAD}") from _alone(missing)
    except errors.LocalEntryNotFoundError as absent:
        why = "and only local files may be used" if local_files_only else "and the hub cannot be reached"
        raise ModelNotFoundError(f"{here}{where} is not in the local cache {why}; {_INSTEAD}") from _alone(absent)
    except (errors.HfHubHTTPError, OSError) as failed:
        reason = " ".join(str(failed).split())
        raise ModelNotFoundError(f"{here}{where} could not be downloaded: {reason}; {_INSTEAD}") from _alone(failed)


def _alone(error: BaseException) -> BaseException:
    """An error of the hub's client as it is shown above ours: its words, not the hundred lines of how a connection came to fail. Programs find
    what it came from in its `__context__`."""
    error.__context__, error.__cause__ = error.__cause__ or error.__context__, None
    return error.with_traceback(None)


def _names(source: dict[str, Any], folder: Path) -> list[str]:
    """The files of a repository; without a network, those that the cache has."""
    import huggingface_hub

    try:
        if not source["local_files_only"]:
            api = huggingface_hub.HfApi(token=source["token"])
            siblings = api.model_info(source["repo_id"], revision=source["revision"]).siblings or []
            return [sibling.rfilename for sibling in siblings]
    except OSError:
        pass  # as snapshot_download does
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*")]


def _only_model(names: Sequence[str], where: str) -> str | None:
    """The one GGUF or ONNX model among a repository's files, by its first file; None if there is none of either."""
    for ending in _OTHERS:
        inside = [name for name in names if not {"", ".."} & set(name.split("/"))]
        models = sorted(name for name in inside if name.lower().endswith(ending))
        first = [name for name in models if (part := _PART.search(name)) is None or int(part[1]) == 1]
        if len(first) == 1:
            return first[0]
        if first:
            raise ModelNotFoundError(
                f"the repository {where} has several models, {', '.join(first[:20])}: download one of them, as by "
                f"`hf download {where.partition(' ')[0]} {first[0]}`, and pass its path"
            )
    return None


def _with_its_data(model: str, names: Sequence[str]) -> list[str]:
    """A model's first file, the parts of a split one, and the data of an ONNX one, which begin with its name."""
    whole = _PART.sub("", model)
    return [name for name in names if _PART.sub("", name) == whole or name.startswith(model)]
