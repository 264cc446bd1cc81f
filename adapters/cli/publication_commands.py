"""The commands that publish an adapter on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from zipfile import is_zipfile

import typer

from rootstock.adapters.cli.options import (
    URL,
    Activate,
    Base,
    Json,
    Key,
    Labels,
    Length,
    MaxDifference,
    Problem,
    Rank,
    SignKey,
    Task,
    Texts,
    TrustPickle,
    Url,
    listed,
)
from rootstock.adapters.cli.output import (
    compared,
    connected,
    fail,
    notes,
    published_lines,
    signature_line,
    tell,
)
from rootstock.adapters.cli.source_commands import SourceArguments, conversion_lines, located, source_bundle
from rootstock.adapters.sources.limits import MAX_DIFFERENCE

if TYPE_CHECKING:
    from rootstock.adapters.client.upload import UploadSource


def push(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A bundle or a plain PEFT folder, zipped or not; a folder of sentence-transformers, SetFit or "
            "transformers; an estimator of scikit-learn (.skops); or org/name@revision of the Hugging Face hub.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The name to publish under. Default: the last part of PATH, without .zip.")
    ] = None,
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    foundation: Base = None,
    rank: Rank = "auto",
    max_difference: MaxDifference = MAX_DIFFERENCE,
    texts: Texts = None,
    trust_pickle: TrustPickle = False,
    activate: Activate = True,
    sign_key: SignKey = None,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Publish an adapter as the next version of its name.

    The server verifies the adapter first. If a check fails, nothing changes.

    A model of another library becomes a bundle on this machine first, as `convert` does it. --foundation then
    names the foundation that it was trained from.
    """
    plain: dict[str, Any] = {"task": task, "problem_type": problem_type, "max_length": max_length}
    plain |= {"labels": listed(labels)}
    found = located(path, trust_pickle)
    made = source_bundle(found, plain, SourceArguments(rank, max_difference, texts, trust_pickle, foundation))
    if made is None and found.path.is_file() and not is_zipfile(found.path):
        fail(f"{path} is not a zip: give a bundle's zip, or the folder that save_pretrained wrote", 2)
    source: UploadSource = found.path
    if made is None:
        plain["foundation"] = foundation
    else:
        source, plain = made.bundle.to_zip(), {}
    with connected(url, key) as client:
        published = client.push(
            source, name or found.name, activate=activate, progress=True, sign_key=sign_key, **plain
        )
        is_live = activate and not published.awaits_approval
        live = published.version if is_live else client.show(published.name).live
    document = {**published.document, "created": published.created}
    if made is not None:
        document["source"] = {**made.to_json(), **found.provenance}
    verification = published.verification
    tell(
        document,
        as_json,
        *published_lines(published, live),
        f"digest {published.digest}",
        compared(verification),
        *([signature_line(verification["signature"])] if verification.get("signature") else []),
        *found.lines,
        *([] if made is None else conversion_lines(made)),
        *(["chats have the bundle's chat template"] if verification.get("chat_template") else []),
        *notes(verification.get("warnings") or (), verification.get("ignored") or ()),
    )


def publish_from(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An address: hf://org/name@COMMIT, https://host/path.zip or s3://bucket/key; the last two may "
            "end in #sha256=DIGITS.",
        ),
    ],
    name: Annotated[str, typer.Option(help="The name to publish under.")],
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    foundation: Base = None,
    activate: Activate = True,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Let the server fetch an adapter and publish it.

    The server verifies it as an upload. It fetches only from the hosts that its operator allows.
    """
    plain: dict[str, Any] = {"task": task, "problem_type": problem_type, "max_length": max_length}
    plain |= {"labels": listed(labels), "foundation": foundation}
    with connected(url, key) as client:
        published = client.publish_from(source, name, activate=activate, **plain)
        is_live = activate and not published.awaits_approval
        live = published.version if is_live else client.show(published.name).live
    verification = published.verification
    tell(
        {**published.document, "created": published.created},
        as_json,
        *published_lines(published, live),
        f"digest {published.digest}",
        compared(verification),
        signature_line(verification.get("signature")),
        *notes(verification.get("warnings") or (), verification.get("ignored") or ()),
    )
