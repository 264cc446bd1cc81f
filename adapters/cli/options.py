"""The arguments and options that several `rootstock adapters` commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.adapters.cli.output import fail

if TYPE_CHECKING:
    from rootstock.adapters.signing.trusted_keys import TrustedKeys

URL = "http://127.0.0.1:3000"

# Of a group and of a single command. The option of a command in a group reads no variable, because click would
# prefer the variable to the group's option.
ServerUrl = Annotated[str, typer.Option("--url", envvar="ROOTSTOCK_URL", help="The server's address.")]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        help=f"The server's address. Default: the value of ROOTSTOCK_URL, else {URL}.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="The server's admin key, sent as a bearer token. Others on this machine can see it in the list of "
        "processes. Default: the value of ROOTSTOCK_ADMIN_KEY, which they cannot see.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The adapter's name.")]
Source = Annotated[
    Path,
    typer.Argument(
        metavar="PATH",
        exists=True,
        help="A bundle, or a plain PEFT folder (the output of save_pretrained); zipped or not.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(help="For a plain PEFT folder: the task. Default: from task_type in adapter_config.json."),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="For a plain PEFT folder: the labels in id order, as a,b,c, as a JSON list, or as a JSON object "
        "like id2label. Default: LABEL_0, LABEL_1 and so on."
    ),
]
Problem = Annotated[
    str | None,
    typer.Option(
        help="For a plain PEFT folder: the problem type, one of single_label_classification, "
        "multi_label_classification and regression. Default: from the number of labels."
    ),
]
Length = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="For a plain PEFT folder: the longest input in tokens. Default: from the folder, else from the "
        "foundation.",
    ),
]
Rank = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="Largest rank of a layer. `auto`: for a whole model the smallest of 1, 2, 4 … 64 within "
        "--max-difference, else at most 64.",
    ),
]
MaxDifference = Annotated[
    float,
    typer.Option(
        min=0,
        help="For a whole model: the largest difference of an output from the model's own, as a share of the "
        "largest output.",
    ),
]
Texts = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="For a model of another library: a file with one text a line, to measure the difference and for "
        "the golden set. Default: four English texts.",
    ),
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Read a pickled estimator (.joblib, .pkl). A pickle can run any code; trust only your own files.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--foundation",
        help="For a plain PEFT folder: the foundation that it was trained on. Default: from "
        "base_model_name_or_path in adapter_config.json.",
    ),
]
Activate = Annotated[bool, typer.Option(help="Point the alias `live` at the new version.")]
MaxBundle = Annotated[
    int, typer.Option("--max-bundle-mb", envvar="ROOTSTOCK_MAX_BUNDLE_MB", min=1, help="The largest zip, in MiB.")
]
MaxRank = Annotated[
    int, typer.Option("--max-rank", envvar="ROOTSTOCK_MAX_RANK", min=1, help="The largest rank of an adapter.")
]
TrustedKeysText = Annotated[
    str,
    typer.Option(
        "--trusted-keys",
        envvar="ROOTSTOCK_TRUSTED_KEYS",
        help="Public keys, each NAME=BASE64, separated by commas, or a file with one in each line. An adapter "
        "then needs a signature by one of them. Default: none is needed.",
        show_default=False,
    ),
]
SignKey = Annotated[
    Path | None,
    typer.Option(
        "--sign-key",
        help="Sign the adapter with the private key in this file, which `rootstock adapters keygen` made.",
        exists=True,
        dir_okay=False,
    ),
]
FOUNDATION_HELP = (
    "The foundation: `default`, `chat`, a folder, or a Hugging Face id with its commit, org/name@COMMIT."
)


def examples(*commands: str) -> str:
    """Return the epilog of a command's help: its examples, a line each."""
    # Click keeps the lines of a paragraph that begins with \b.
    return "\n".join(("\b", "Examples:", *(f"  {command}" for command in commands)))


def trusted_keys(text: str) -> TrustedKeys:
    """Return the keys in the option --trusted-keys. Exit with code 2 if they cannot be read."""
    from rootstock.adapters.signing.trusted_keys import TrustedKeys

    try:
        return TrustedKeys.parse(text)
    except ValueError as error:
        fail(f"--trusted-keys: {error}", 2)


def listed(labels: str | None) -> tuple[str, ...] | None:
    """Return the labels in an option's text: `a,b,c`, a JSON array, or a JSON object that maps ids to labels.

    Exit with code 2 for any other text.
    """
    if labels is None:
        return None
    from rootstock.adapters.bundle.labels import given_labels, read_labels
    from rootstock.adapters.spec import Rejected

    try:
        if labels.lstrip().startswith(("[", "{")):
            return read_labels(labels)
        return given_labels([label.strip() for label in labels.split(",")])
    except Rejected as error:
        fail(f"--labels: {error.message}", 2)
