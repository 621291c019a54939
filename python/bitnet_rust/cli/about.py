"""The commands about this installation: models, info, doctor."""

import typer

from ..errors import ArgumentError
from ..runtime import build_info
from .defaults import errors, variables
from .options import AsJSON
from .output import cell, print_json, print_table


def models(as_json: AsJSON = False) -> None:
    """List the registered models."""
    from ..registry import list_models

    entries = list_models()
    if as_json:
        fields = ("name", "aliases", "hub_id", "parameters", "memory")
        print_json([{f: getattr(e, f) for f in fields} | {"embedded": bool(e.embedded)} for e in entries])
        return
    rows = [
        [
            entry.name,
            ", ".join(entry.aliases),
            f"{entry.parameters / 1e6:,.1f} M",
            f"{entry.memory / 1e6:,.0f} MB",
            "in the package" if entry.embedded else entry.hub_id or "random weights only",
        ]
        for entry in entries
    ]
    print_table(["name", "also called", "parameters", "in memory", "weights"], rows)


def info(context: typer.Context, as_json: AsJSON = False) -> None:
    """Show the build, the instruction set in use and the threads. Exit status 1 when a setting cannot be honoured."""
    facts = build_info()
    facts["environment_errors"] += errors(context.find_root().command)
    if as_json:
        print_json(facts)
    else:
        print_table(["", ""], [[name, cell(value)] for name, value in facts.items() if name != "environment_errors"])
    if facts["environment_errors"]:
        raise ArgumentError("; ".join(facts["environment_errors"]))


def doctor(context: typer.Context, as_json: AsJSON = False) -> None:
    """Check this machine and installation: instruction set, threads, huge pages, kernels, caches, extras, settings.

    Exit status 1 when something is wrong; notes are of what is missing or could be faster.
    """
    from ..diagnosis import diagnose

    root = context.find_root().command
    facts, checks = diagnose(variables(root), errors(root))
    if as_json:
        print_json(facts | {"checks": [check._asdict() for check in checks]})
    else:
        build = facts["build"]
        print(f"bitnet-rust {build['version']}, Python {facts['python']}, {build['go_version']}, {facts['platform']}\n")
        print_table(["", "", ""], [[check.state, check.name, check.found] for check in checks])
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(1)
