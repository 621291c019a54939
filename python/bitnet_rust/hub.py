"""From what a user calls a model to a path on this machine, downloading where that is what the name means."""

import re
from os import PathLike, fspath
from pathlib import Path

from .errors import ArgumentError, ModelNotFoundError
from .registry import find_model

# What a model consists of; the rest of a repository stays there.
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.bitnet"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(
    name: str | PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The directory or file of the model called name: a path, a registered name, or a Hugging Face repository."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if not isinstance(name, str) or path.is_absolute() or name.startswith((".", "~")):
        raise ModelNotFoundError(
            f"there is no {fspath(name)}: pass the directory of a model (with config.json and *.safetensors), "
            "a .bitnet model, or a name that `bitnet models` lists"
        )
    try:
        entry = find_model(name)
    except ArgumentError as unknown:
        if not _HUB_ID.fullmatch(name):
            raise ModelNotFoundError(
                f"there is no model directory {name!r} here and no registered model of that name ({unknown}); "
                "pass a directory, a name that `bitnet models` lists, or a Hugging Face repository as 'owner/name'"
            ) from None
        hub_id = name
    else:
        if entry.embedded is not None:
            return entry.embedded
        if entry.hub_id is None:
            raise ModelNotFoundError(
                f"{entry.name} has no published weights: pass the directory of a model of your own, "
                f"or make one with random weights by BitNetModel.from_config({entry.name!r})"
            )
        hub_id = entry.hub_id
    return _download(hub_id, revision, cache_dir, local_files_only, token)


def _download(
    hub_id: str,
    revision: str | None,
    cache_dir: str | PathLike[str] | None,
    local_files_only: bool,
    token: str | bool | None,
) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    where = f"{hub_id}" + (f" at revision {revision}" if revision else "")
    instead = "pass the directory of a local copy instead, or the embedded 'bitnet-tiny'"
    try:
        path = huggingface_hub.snapshot_download(
            hub_id,
            revision=revision,
            cache_dir=None if cache_dir is None else fspath(cache_dir),
            local_files_only=local_files_only,
            token=token,
            allow_patterns=_FILES,
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as missing:
        raise ModelNotFoundError(f"the hub has no {where} (or it needs a token); {instead}") from missing
    except errors.LocalEntryNotFoundError as absent:
        why = "and only local files may be used" if local_files_only else "and the hub cannot be reached"
        raise ModelNotFoundError(f"{where} is not in the local cache {why}; {instead}") from absent
    except (errors.HfHubHTTPError, OSError) as failed:
        reason = " ".join(str(failed).split())
        raise ModelNotFoundError(f"{where} could not be downloaded: {reason}; {instead}") from failed
    if not any(Path(path).glob("*")):
        raise ModelNotFoundError(f"the repository {where} has none of {', '.join(_FILES)}; {instead}")
    return Path(path)
