"""The upload of an adapter: a zip, or a folder that is packed as one, and the form that goes with it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from rootstock.adapters.client.errors import Misused
from rootstock.adapters.reference import check_name

if TYPE_CHECKING:
    from rootstock.adapters.bundle import PlainFields

# Is called with the bytes that are sent and the bytes in all.
UploadReport = Callable[[int, int], None]
UploadSource = bytes | str | os.PathLike[str]


@dataclass(frozen=True)
class PlainAdapter:
    """The facts that a plain PEFT folder may lack; None leaves them to the folder and to the server."""

    task: str | None = None
    labels: Sequence[str] | None = None
    problem_type: str | None = None
    max_length: int | None = None
    foundation: str | None = None

    def form(self) -> dict[str, str]:
        """Return the form's fields that are stated. Raise Misused if the labels are one text."""
        if isinstance(self.labels, str):
            raise Misused(f"labels is the text {self.labels!r}; give a list with one text for each label")
        form = {
            "task": self.task,
            "labels": None if self.labels is None else json.dumps([*self.labels]),
            "problem_type": self.problem_type,
            "max_length": None if self.max_length is None else str(self.max_length),
            "foundation": self.foundation,
        }
        return {field: value for field, value in form.items() if value is not None}

    def document(self) -> dict[str, Any]:
        """Return the same fields as JSON values. Raise Misused if the labels are one text."""
        stated = self.form().keys()
        fields: dict[str, Any] = {
            "task": self.task,
            "labels": self.labels and [*self.labels],
            "problem_type": self.problem_type,
        }
        fields |= {"max_length": self.max_length, "foundation": self.foundation}
        return {field: value for field, value in fields.items() if field in stated}


@contextmanager
def opened_upload(
    source: UploadSource,
    name: str,
    plain: PlainAdapter,
    activate: bool,
    report: UploadReport,
    sign_key: str | os.PathLike[str] | None = None,
) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """Yield httpx's arguments that upload `source`, and the extras of a folder that are left out.

    `source` is the bytes of a zip, or the path of a zip or a folder. `report` is called while httpx sends. With
    `sign_key`, the path of a private key, the upload is signed first.
    """
    form = {"name": check_name(name), **plain.form(), "activate": "true" if activate else "false"}
    ignored: tuple[str, ...] = ()
    with ExitStack() as opened:
        if sign_key is not None:
            data, ignored = (source, ()) if isinstance(source, bytes) else read_source(Path(source))
            file: BinaryIO = io.BytesIO(_signed(data, plain, Path(sign_key)))
        elif isinstance(source, bytes):
            file = io.BytesIO(source)
        elif Path(source).is_dir():
            data, ignored = read_source(Path(source))
            file = io.BytesIO(data)
        else:
            file = opened.enter_context(Path(source).open("rb"))
        # httpx reads a file piece by piece while it sends, and calls only the methods that _Watched has.
        watched = cast("IO[bytes]", _Watched(file, report))
        yield {"data": form, "files": {"bundle": (f"{name}.zip", watched, "application/zip")}}, ignored


def read_source(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """Return the zip in a file, or of an adapter's folder, and the folder's known extras that it leaves out.

    The folder is a bundle's, or the output of PEFT's `save_pretrained`, the Trainer or sentence-transformers.
    Raise Misused if it is not an adapter's folder, or holds an unknown file.
    """
    return _packed(path) if path.is_dir() else (path.read_bytes(), ())


def plain_fields(plain: PlainAdapter) -> PlainFields:
    """Return the form's fields as the server reads them."""
    from rootstock.adapters.bundle import PlainFields
    from rootstock.adapters.bundle.labels import read_labels

    labels = plain.form().get("labels")
    read = None if labels is None else read_labels(labels)
    return PlainFields(plain.task, read, plain.problem_type, plain.max_length, plain.foundation)


def _signed(data: bytes, plain: PlainAdapter, path: Path) -> bytes:
    from rootstock.adapters.signing.signed_zip import signed_zip
    from rootstock.adapters.signing.signing_key import SigningKey
    from rootstock.adapters.spec import Rejected

    key = SigningKey.load(path)
    try:
        return signed_zip(data, key, plain_fields(plain))[0]
    except Rejected as error:
        raise Misused(f"the adapter cannot be signed: {error}") from None


def _packed(folder: Path) -> tuple[bytes, tuple[str, ...]]:
    from rootstock.adapters.bundle.archive import CONFIG, MEMBERS, SIGNATURE, TOKENIZER_FILE, WEIGHTS, pack
    from rootstock.adapters.bundle.plain.extras import extra_of, is_description, system_file, why_unknown

    sent: dict[str, bytes] = {}
    ignored, unknown = set(), []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        extra = system_file(name) or extra_of(name)
        wanted = is_description(name) or (name == TOKENIZER_FILE and _needs_tokenizer(folder / WEIGHTS))
        if name in (*MEMBERS, SIGNATURE) or (extra is not None and wanted):
            sent[name] = path.read_bytes()
        elif extra is not None:
            ignored.add(extra)
        else:
            unknown.append(name)
    if WEIGHTS not in sent and "adapter_model.bin" in unknown:
        problem = f"{folder} has its weights in adapter_model.bin, a pickle, which is never read"
        raise Misused(f"{problem}; save it again with save_pretrained, which writes {WEIGHTS}")
    if missing := [name for name in (CONFIG, WEIGHTS) if name not in sent]:
        reasons = [f"; {name}: {why}" for name in unknown if (why := why_unknown(name)) != "unknown"]
        problem = f"{folder} is not an adapter's folder: it has no {' and no '.join(missing)}"
        raise Misused("".join((problem, *reasons[:1])))
    if unknown:
        problem = f"{folder} holds {unknown[0]}, which is no known part of an adapter ({why_unknown(unknown[0])})"
        raise Misused(f"{problem}; move it elsewhere, or push a folder with only {', '.join(MEMBERS)}")
    return pack(sent), tuple(sorted(ignored))


def _needs_tokenizer(path: Path) -> bool:
    from rootstock.adapters.bundle.vocabulary.tokenizer_need import needs_tokenizer

    if not path.is_file():
        return False
    with path.open("rb") as file:
        return needs_tokenizer(file)


class _Watched:
    """A file to upload, which reports how many bytes have been read."""

    def __init__(self, source: BinaryIO, report: UploadReport) -> None:
        self._source = source
        self._report = report
        self._total = source.seek(0, io.SEEK_END)
        source.seek(0)

    def read(self, size: int = -1) -> bytes:
        # httpx reads the next piece only after it has sent the one before.
        self._report(self._source.tell(), self._total)
        return self._source.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()
