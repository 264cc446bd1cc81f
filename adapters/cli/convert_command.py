"""The command `rootstock adapters convert`, which turns models and adapters of other kinds into LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rootstock.adapters.cli.options import (
    FOUNDATION_HELP,
    Json,
    Labels,
    Length,
    MaxDifference,
    Problem,
    Rank,
    Task,
    Texts,
    TrustPickle,
    listed,
)
from rootstock.adapters.cli.output import fail, failures, in_options, tell
from rootstock.adapters.cli.source_commands import (
    LocatedSource,
    SourceArguments,
    conversion_lines,
    located,
    source_bundle,
)
from rootstock.adapters.sources.limits import MAX_DIFFERENCE, MAX_RANK


def convert(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A plain PEFT folder of a kind that is served as LoRA, or its zip; a folder of "
            "sentence-transformers, SetFit or transformers; an estimator of scikit-learn (.skops); or "
            "org/name@revision of the Hugging Face hub.",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT.zip", help="The zip to write.")],
    foundation: Annotated[
        str | None,
        typer.Option(help=f"{FOUNDATION_HELP} Default: `default`, if the adapter names no other base."),
    ] = None,
    rank: Rank = "auto",
    max_difference: MaxDifference = MAX_DIFFERENCE,
    texts: Texts = None,
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    trust_pickle: TrustPickle = False,
    as_json: Json = False,
) -> None:
    """Convert a model or an adapter to one that servers take.

    The command measures by how much the outputs differ. A PEFT adapter becomes a LoRA in a plain folder's
    zip; a server does the same on upload. A whole model becomes a bundle with a LoRA: the difference of its
    weights from the foundation's, cut to a rank. A head of scikit-learn or SetFit goes into the bundle unchanged.

    Nothing is written if an output differs by more than the limit: a hundredth of the largest output for a PEFT
    adapter, --max-difference for a whole model.
    """
    found = located(path, trust_pickle)
    plain: dict[str, Any] = {"task": task, "problem_type": problem_type, "max_length": max_length}
    plain |= {"labels": listed(labels)}
    arguments = SourceArguments(rank, max_difference, texts, trust_pickle, foundation)
    made = source_bundle(found, plain, arguments)
    if made is None:
        _convert_adapter(found, output, arguments, task, as_json)
        return
    with failures():
        output.write_bytes(made.bundle.to_zip())
    document = {**made.to_json(), **found.provenance, "file": str(output), "digest": made.bundle.digest}
    tell(document, as_json, f"{output} holds a bundle", *found.lines, *conversion_lines(made))


def _convert_adapter(
    found: LocatedSource, output: Path, arguments: SourceArguments, task: str | None, as_json: bool
) -> None:
    """Convert a PEFT adapter of a kind that is served as LoRA."""
    from rootstock.adapters.client.upload import read_source
    from rootstock.adapters.convert.conversion import convert as converted
    from rootstock.adapters.foundation.location import FoundationError, locate
    from rootstock.adapters.home.offline import check_plain_base
    from rootstock.adapters.spec import Rejected

    try:
        with failures():
            data, _ = read_source(found.path)
            files = locate(arguments.foundation or "default")
            if arguments.foundation is None:
                check_plain_base(data, files)
            done = converted(data, files, arguments.largest_rank or MAX_RANK, task)
            output.write_bytes(done.data)
    except FoundationError as error:
        fail(str(error), 2)
    except Rejected as error:
        fail(in_options(f"cannot convert {found.path}: {error}"))
    tell(
        {**done.to_json(), "file": str(output)},
        as_json,
        f"{output} holds the {done.kind} adapter as a LoRA of rank {done.rank}; its outputs differ by at most "
        f"{done.max_difference:.2g} of the largest output",
    )
