"""`rootstock adapters convert`: an adapter of another kind made a LoRA, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootstock.adapters.cli.options import FOUNDATION_HELP, Json, Task
from rootstock.adapters.cli.output import fail, failures, in_options, tell


def convert(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", exists=True, help="A plain PEFT folder, or its zip.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT.zip", help="Where the LoRA is written.")],
    foundation: Annotated[str | None, typer.Option(help=FOUNDATION_HELP)] = None,
    rank: Annotated[int, typer.Option(min=1, help="Largest rank of the LoRA.")] = 64,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Make a LoRA of a PEFT adapter of another kind, and measure by how much its outputs differ.

    A server does the same on upload. Nothing is written where the outputs differ by more than a hundredth.

    Example: rootstock adapters convert ./loha-output loha-as-lora.zip
    """
    from rootstock.adapters.client.client import read_source
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
        fail(in_options(f"{folder} is not converted: {error}"))
    tell(
        {**done.to_json(), "file": str(output)},
        as_json,
        f"{output} holds the {done.kind} as LoRA of rank {done.rank}; its outputs differ by at most "
        f"{done.max_difference:.2g} of the largest",
    )
