"""Options of commands that load a model. They are apart from the package ``cli``, which imports the benchmarks."""

from typing import Annotated, Literal

import typer

Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub repository.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use local files only.")]
HeadDType = Annotated[
    Literal["auto", "exact", "float32", "bfloat16", "float16", "int8", "int4"],
    typer.Option(help="How embedding and head are held."),
]
KVDType = Annotated[
    Literal["float32", "float16", "bfloat16", "int8"], typer.Option(help="How keys and values are held.")
]
Packing = Annotated[
    Literal["auto", "2bit", "base3"], typer.Option(help="How ternary weights are held; base3 takes 1.6 bits each.")
]
Resident = Annotated[
    Literal["auto", "map", "copy"], typer.Option(help="Where the weights of a native file are kept: mapped or copied.")
]
