"""From what a user calls a model to a path on this machine, downloading where that is what the name means."""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from .errors import ArgumentError, ModelNotFoundError
from .registry import HUB_ID, find_model

# What a model consists of; the rest of a repository stays there.
_FILES = ("*.json", "*.safetensors", "*.jinja", "*.bitnet", "README.md")


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
    """
    try:
        path = Path(name).expanduser()
        found = fspath(name) != "" and path.exists()
        if "\0" in str(path):
            raise ValueError("a path has no null character")
    except (RuntimeError, ValueError) as error:  # RuntimeError: the home of nobody
        raise ModelNotFoundError(f"there is no {name!r}: {error}") from error
    if found and path.name == "config.json":
        raise ModelNotFoundError(f"{path} is the configuration of a model: pass its directory, {path.parent}")
    if found:
        return path
    if not isinstance(name, str) or path.is_absolute() or name.startswith((".", "~")):
        raise ModelNotFoundError(
            f"there is no {fspath(name)}: pass the directory of a model (with config.json and *.safetensors), "
            "a .bitnet, .gguf or .onnx file, or a name that `bitnet models` lists"
        )
    try:
        entry = find_model(name)
    except ArgumentError as unknown:
        if not HUB_ID.fullmatch(name):
            raise ModelNotFoundError(
                f"there is no model directory {name!r} here and no registered model of that name ({unknown}); "
                "pass a directory, a name that `bitnet models` lists, or a Hugging Face repository as 'owner/name'"
            ) from None
        hub_id, here = name, f"there is no directory {name!r} here, and "
    else:
        if entry.embedded is not None:
            return entry.embedded
        if entry.hub_id is None:
            raise ModelNotFoundError(
                f"{entry.name} has no published weights: pass the directory of a model of your own, "
                f"or make one with random weights by BitNetModel.from_config({entry.name!r})"
            )
        hub_id, here = entry.hub_id, ""
    return _download(hub_id, here, revision, cache_dir, local_files_only, token, files)


def _download(
    hub_id: str,
    here: str,
    revision: str | None,
    cache_dir: str | PathLike[str] | None,
    local_files_only: bool,
    token: str | bool | None,
    files: Sequence[str],
) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    where = f"{hub_id}" + (f" at revision {revision}" if revision else "")
    instead = "pass the directory of a local copy instead, or the embedded 'bitnet-shakespeare'"
    try:
        path = huggingface_hub.snapshot_download(
            hub_id,
            revision=revision,
            cache_dir=None if cache_dir is None else fspath(cache_dir),
            local_files_only=local_files_only,
            token=token,
            allow_patterns=list(files),
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as missing:
        raise ModelNotFoundError(f"{here}the hub has no {where} (or it needs a token); {instead}") from missing
    except errors.LocalEntryNotFoundError as absent:
        why = "and only local files may be used" if local_files_only else "and the hub cannot be reached"
        raise ModelNotFoundError(f"{here}{where} is not in the local cache {why}; {instead}") from absent
    except (errors.HfHubHTTPError, OSError) as failed:
        reason = " ".join(str(failed).split())
        raise ModelNotFoundError(f"{here}{where} could not be downloaded: {reason}; {instead}") from failed
    if not any(Path(path).glob("*")):
        raise ModelNotFoundError(f"the repository {where} has none of {', '.join(files)}; {instead}")
    return Path(path)
