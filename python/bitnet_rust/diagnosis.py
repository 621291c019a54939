"""What a machine has and how this installation does on it: facts, and checks that are passed or not."""

import importlib.metadata
import json
import os
import platform
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from . import _bitnet
from .configuration import unknown_variables
from .errors import pip_command
from .runtime import build_info, memory_stats

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PACKAGES = ("numpy", "tokenizers", "huggingface_hub", "typer", "rich", "jinja2")


class Check(NamedTuple):
    """A question to this machine: what was found, and whether it is as it should be, may be slower, or is wrong.

    name: what was looked at.
    state: "ok", "note" for what may be slower or is missing, or "wrong".
    found: what there is, or what is wrong with it, in words.
    """

    name: str
    state: str
    found: str


def diagnose(known_variables: list[str], option_errors: list[str]) -> tuple[dict[str, Any], list[Check]]:
    """The facts of `bitnet doctor` and its checks; known_variables are those of commands' options, option_errors what is wrong
    with their defaults."""
    build, memory = build_info(), memory_stats()
    extras = _extras()
    facts = {
        "build": build,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "extras": extras,
        "memory": {name: memory[name] for name in ("budget", "reserved", "in_use")},
        "kernels": json.loads(_bitnet.selftest_kernels()),
    }
    return facts, [
        *_settings(build["environment_errors"] + option_errors, known_variables),
        *_processor(build),
        _threads(build),
        _memory(facts["memory"]),
        _huge_pages(),
        _kernels(facts["kernels"]),
        _cache(),
        _packages(facts["packages"]),
        *(Check(f"extra {name}", "ok" if not lacks else "note", _extra(name, lacks)) for name, lacks in extras.items()),
    ]


def _settings(errors: list[str], known: list[str]) -> list[Check]:
    checks = [Check("settings", "wrong", error) for error in errors]
    unknown = unknown_variables(known)
    if unknown:
        checks.append(Check("environment", "note", f"not known: {', '.join(unknown)}"))
    return checks or [Check("settings", "ok", "all can be honoured")]


def _processor(build: dict[str, Any]) -> list[Check]:
    best = build["supported_isas"][-1]
    chosen = "the best of" if build["isa"] == best else "chosen among"
    text = f"{build['isa']}, {chosen} {', '.join(build['supported_isas'])}"
    refused = [Check(isa, "note", f"not used: {reason}") for isa, reason in build["refused_isas"].items()]
    features = Check(
        "processor", "ok", f"{build['arch']}: {', '.join(build['features']) or 'no extensions that kernels use'}"
    )
    return [features, Check("instruction set", "ok" if build["isa"] == best else "note", text), *refused]


def _threads(build: dict[str, Any]) -> Check:
    quota = f", {build['cpu_quota']} allowed by the control group" if build["cpu_quota"] else ""
    text = f"{build['threads']} of {build['physical_cores']} cores, {build['logical_cpus']} logical CPUs{quota}"
    return Check("threads", "note" if build["threads"] > build["physical_cores"] else "ok", text)


def _memory(memory: dict[str, int]) -> Check:
    left = memory["budget"] - memory["reserved"]
    text = (
        f"{memory['budget'] / 1e9:,.1f} GB may be used for weights, caches and scratch, {left / 1e9:,.1f} GB are left"
    )
    return Check("memory", "ok" if left > 0 else "wrong", text)


def _huge_pages() -> Check:
    try:
        found = re.search(r"\[(\w+)\]", _HUGE_PAGES.read_text())
    except OSError:
        return Check("huge pages", "ok", "left to the system")
    mode = found[1] if found else "unknown"
    if mode in ("always", "madvise"):
        return Check("huge pages", "ok", mode)
    return Check(
        "huge pages", "note", f"{mode}: weights stream about a quarter slower than with madvise in {_HUGE_PAGES}"
    )


def _kernels(checks: list[dict[str, str]]) -> Check:
    wrong = [f"{check['kernel']} on {check['isa']}: {check['error']}" for check in checks if check["error"]]
    isas = len({check["isa"] for check in checks})
    return Check(
        "kernels",
        "wrong" if wrong else "ok",
        "; ".join(wrong) or f"{len(checks)} results on {isas} instruction sets, bit by bit",
    )


def _packages(versions: dict[str, str | None]) -> Check:
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check("packages", "wrong", f"missing: {', '.join(missing)}; {pip_command()} brings them")
    return Check("packages", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _cache() -> Check:
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(HF_HUB_CACHE)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Check("model cache", "wrong", f"{place} cannot be written to: {error.strerror}; name another by HF_HOME")
    return Check("model cache", "ok", f"{place}, {_free(place) / 1e9:,.1f} GB free")


def _free(place: Path) -> int:
    import shutil

    return shutil.disk_usage(os.fspath(place)).free


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extras() -> dict[str, list[str]]:
    """The extras that users install, with the packages that each lacks here."""
    extras: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("bitnet-rust") or ():
        found = re.match(r"([\w.-]+).*extra == ['\"]([\w-]+)['\"]", requirement)
        if found and found[2] not in ("test", "dev", "docs"):
            extras.setdefault(found[2], []).extend([found[1]] if _version(found[1]) is None else [])
    return extras


def _extra(name: str, lacks: list[str]) -> str:
    return "installed" if not lacks else f"not installed: {pip_command(name)}"
