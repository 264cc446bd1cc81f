"""The command `rootstock adapters convert`, which turns adapters of other kinds into LoRA without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootstock.adapters.cli.options import FOUNDATION_HELP, Json, Task
from rootstock.adapters.cli.output import fail, failures, in_options, tell


def convert(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            exists=True,
            help="A plain PEFT folder (the output of save_pretrained), or its zip.",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT.zip", help="The zip to write the LoRA to.")],
    foundation: Annotated[
        str | None,
        typer.Option(help=f"{FOUNDATION_HELP} Default: `default`, if the adapter names no other base."),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="The largest rank that the LoRA may have.")] = 64,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Convert a PEFT adapter of another kind to a LoRA.

    The command measures by how much the outputs differ. A server does the same on upload. Nothing is written
    if an output differs by more than a hundredth of the largest output.
    """
    from rootstock.adapters.client.upload import read_source
    from rootstock.adapters.convert.conversion import convert as converted
    from rootstock.adapters.foundation.location import FoundationError, locate
    from rootstock.adapters.home.offline import check_plain_base
    from rootstock.adapters.spec import Rejected

    try:
        with failures():
            data, _ = read_source(folder)
            files = locate(foundation or "default")
            if foundation is None:
                check_plain_base(data, files)
            done = converted(data, files, rank, task)
            output.write_bytes(done.data)
    except FoundationError as error:
        fail(str(error), 2)
    except Rejected as error:
        fail(in_options(f"cannot convert {folder}: {error}"))
    tell(
        {**done.to_json(), "file": str(output)},
        as_json,
        f"{output} holds the {done.kind} adapter as a LoRA of rank {done.rank}; its outputs differ by at most "
        f"{done.max_difference:.2g} of the largest output",
    )
