"""The choice of a precision where the settings leave it open: int8 if it pays and every golden set passes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from rootstock.adapters.bundle import Limits
from rootstock.adapters.errors import explained
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Rejected
from rootstock.service.exports.cache import existing_export
from rootstock.service.exports.int8_check import GoldenReplay
from rootstock.service.exports.pointed_versions import PointedVersion, PointedVersions
from rootstock.service.exports.processor import has_int8_products
from rootstock.service.tolerance import compare_golden

INT8 = "int8"
# In the home: the digests whose golden sets have passed in int8, by the export.
PASSED_FILE = "int8-passed.json"
# So many more have passed before the file is written again.
_NOTED_AT_ONCE = 32


class PrecisionChoice(NamedTuple):
    """A precision and the reason for it, a clause without a subject."""

    precision: str
    reason: str


def choose_precision(
    files: FoundationFiles,
    folders: Sequence[Path],
    home: Path,
    limits: Limits,
    threads: int,
    fast: Callable[[], bool] = has_int8_products,
) -> PrecisionChoice:
    """Return int8 if the processor has 8-bit products, an export is there, and all golden sets pass; else fp32.

    The golden sets are those of the versions that aliases point to. A version that a server in int8 has verified
    has passed, and a digest that passes is noted in the home. `folders` may hold the export.
    """
    export = existing_export(files, folders, INT8)
    if export is None:
        return PrecisionChoice("fp32", "there is no int8 export; `rootstock foundation export --int8` makes one")
    if not fast():
        return PrecisionChoice("fp32", "the processor has no products of 8-bit numbers, so int8 is no faster")
    replay = GoldenReplay(export, threads)
    pointed = PointedVersions(home, files.folder, replay.spec, limits, passed_in=INT8)
    with _PassedNotes(home / PASSED_FILE, f"{replay.spec.fingerprint} {export.name}") as notes:
        pointed.leave_out(notes.digests)
        refusal = _first_refusal(pointed, replay, notes)
    if refusal is not None:
        return PrecisionChoice("fp32", refusal)
    return PrecisionChoice(INT8, "every golden set passes in int8")


def _first_refusal(pointed: PointedVersions, replay: GoldenReplay, notes: _PassedNotes) -> str | None:
    """Return the reason of the first version that does not pass, or None; note those before it."""
    for version in pointed.open(lambda done, total: None):
        refusal = _refusal(version, replay)
        if refusal is not None:
            return f"{version.name} {refusal}"
        notes.add(version.adapter.digest)
    return next((f"{name} cannot be checked: {why}" for name, why in pointed.not_checked.items()), None)


def _refusal(version: PointedVersion, replay: GoldenReplay) -> str | None:
    golden = version.golden
    if golden is None:
        return "has no golden set; publish it with one, or set ROOTSTOCK_PRECISION to int8"
    try:
        outputs = replay.outputs(version.adapter, golden.texts)
        compare_golden(outputs, golden, version.adapter.task, INT8)
    except Rejected as error:
        return f"does not pass in int8: {explained(error)}"
    except Exception as error:  # The start must not fail where fp32 serves.
        return f"cannot be checked: {error}"
    return None


class _PassedNotes(AbstractContextManager["_PassedNotes"]):
    """The digests that have passed on one export, in a file of the home.

    The file is written now and then, and at the end, so that a start that is killed need not begin anew. One that
    cannot be read or written is left.
    """

    def __init__(self, file: Path, export: str) -> None:
        self._file = file
        self._export = export
        self._all = _read_notes(file)
        self.digests = set(self._all.get(export, ()))
        self._written = len(self.digests)

    def add(self, digest: str) -> None:
        """Note another digest."""
        self.digests.add(digest)
        if len(self.digests) - self._written >= _NOTED_AT_ONCE:
            self._write()

    def __exit__(self, *_: object) -> None:
        if len(self.digests) > self._written:
            self._write()

    def _write(self) -> None:
        self._written = len(self.digests)
        text = json.dumps({**self._all, self._export: sorted(self.digests)})
        with suppress(OSError):
            new = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            new.write_text(text, encoding="utf-8")
            new.replace(self._file)


def _read_notes(file: Path) -> dict[str, list[str]]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        return {str(export): [str(digest) for digest in digests] for export, digests in value.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
