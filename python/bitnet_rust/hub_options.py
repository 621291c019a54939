"""Options of commands whose model may come from the hub. They are apart from the package ``cli``, which imports the benchmarks."""

from typing import Annotated

import typer

Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub repository.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use local files only.")]
