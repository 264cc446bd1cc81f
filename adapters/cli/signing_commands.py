"""The `rootstock adapters` commands that make keys and signatures. Each imports its heavy packages itself."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

import typer

from rootstock.adapters.cli.options import Base, Json, Labels, Length, Problem, Source, Task, listed
from rootstock.adapters.cli.output import fail, failures, in_options, tell


def keygen(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write. It must not exist.")],
    as_json: Json = False,
) -> None:
    """Make a private and a public key for signatures.

    The private key is in a file that only its owner can read. The command prints the public key, which
    ROOTSTOCK_TRUSTED_KEYS takes.
    """
    from rootstock.adapters.signing.signing_key import SigningKey

    with failures():
        key = SigningKey.generate()
        key.save(path)
    tell(
        {"file": str(path), "public_key": key.public},
        as_json,
        f"the private key is in {path}; keep it secret",
        f"public key {key.public}",
        f"a server trusts it with ROOTSTOCK_TRUSTED_KEYS={path.stem}={key.public}",
    )


def sign(
    path: Source,
    sign_key: Annotated[
        Path,
        typer.Option(
            "--key", help="The file with the private key, which `keygen` made.", exists=True, dir_okay=False
        ),
    ],
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    foundation: Base = None,
    as_json: Json = False,
) -> None:
    """Sign an adapter, in its zip or folder.

    The signature becomes the file signature.json there, in place of an earlier one. The digest stays the same.
    For a plain PEFT folder the signature also covers the options --task, --labels, --problem-type, --max-length
    and --foundation, so push it with the same ones.
    """
    from rootstock.adapters.bundle import PlainFields
    from rootstock.adapters.client.upload import read_source
    from rootstock.adapters.signing.signed_zip import sign_folder, signed_zip
    from rootstock.adapters.signing.signing_key import SigningKey
    from rootstock.adapters.spec import Rejected

    plain = PlainFields(task, listed(labels), problem_type, max_length, foundation)
    try:
        with failures():
            data, signature = signed_zip(read_source(path)[0], SigningKey.load(sign_key), plain)
            if path.is_dir():
                sign_folder(path, signature)
            else:
                _replace(path, data)
    except Rejected as error:
        fail(in_options(f"{path} cannot be signed: {error}"))
    tell(
        {"file": str(path), **signature.to_json()},
        as_json,
        f"{path} is signed by the key {signature.key}",
        f"{signature.statement.of} {signature.statement.digest}",
    )


def _replace(path: Path, data: bytes) -> None:
    """Write a file anew; until the end the former content stays in its place."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        written = Path(file.name)
        try:
            file.write(data)
            file.flush()
            written.chmod(path.stat().st_mode)
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)
