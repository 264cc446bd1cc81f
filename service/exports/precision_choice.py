"""The choice of a precision where the settings leave it open: int8 if it pays and every golden set passes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rootstock.adapters.bundle import Limits
from rootstock.adapters.errors import explained
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Rejected
from rootstock.service.exports.cache import is_whole, path_of
from rootstock.service.exports.int8_check import GoldenReplay
from rootstock.service.exports.pointed_versions import PointedVersion, PointedVersions
from rootstock.service.exports.processor import has_int8_products
from rootstock.service.tolerance import compare

INT8 = "int8"
# In the home: the digests whose golden sets have passed in int8, by the fingerprint of the foundation.
PASSED_FILE = "int8-passed.json"


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
    name = path_of(files, Path(), INT8)
    export = next((folder / name for folder in folders if is_whole(folder / name)), None)
    if export is None:
        return PrecisionChoice("fp32", "there is no int8 export; `rootstock foundation export --int8` makes one")
    if not fast():
        return PrecisionChoice("fp32", "the processor has no products of 8-bit numbers, so int8 is no faster")
    replay = GoldenReplay(export, threads)
    pointed = PointedVersions(home, files.folder, replay.spec, limits, passed_in=INT8)
    notes = _PassedNotes(home / PASSED_FILE, replay.spec.fingerprint)
    pointed.leave_out(notes.digests)
    passed: list[str] = []
    refusal = _first_refusal(pointed, replay, passed)
    notes.add(passed)
    if refusal is not None:
        return PrecisionChoice("fp32", refusal)
    return PrecisionChoice(INT8, "every golden set passes in int8")


def _first_refusal(pointed: PointedVersions, replay: GoldenReplay, passed: list[str]) -> str | None:
    """Return the reason of the first version that does not pass, or None; add the digests of those before it."""
    for version in pointed.open(lambda done, total: None):
        refusal = _refusal(version, replay)
        if refusal is not None:
            return f"{version.name} {refusal}"
        passed.append(version.adapter.digest)
    return next((f"{name} cannot be checked: {why}" for name, why in pointed.not_checked.items()), None)


def _refusal(version: PointedVersion, replay: GoldenReplay) -> str | None:
    golden = version.golden
    if golden is None:
        return "has no golden set; publish it with one, or set ROOTSTOCK_PRECISION to int8"
    outputs = replay.outputs(version.adapter, golden.texts)
    try:
        for i, (output, expected) in enumerate(zip(outputs, golden.outputs, strict=True)):
            compare(output, expected, version.adapter.task, INT8, f"golden.json: outputs[{i}]")
    except Rejected as error:
        return f"does not pass in int8: {explained(error)}"
    return None


class _PassedNotes:
    """The digests that have passed, in a file of the home; a file that cannot be read or written is left."""

    def __init__(self, file: Path, fingerprint: str) -> None:
        self._file = file
        self._fingerprint = fingerprint
        self._all = self._read()
        self.digests = frozenset(self._all.get(fingerprint, ()))

    def add(self, digests: Iterable[str]) -> None:
        """Note further digests."""
        more = sorted(self.digests | set(digests))
        if len(more) == len(self.digests):
            return
        try:
            self._file.write_text(json.dumps({**self._all, self._fingerprint: more}), encoding="utf-8")
        except OSError:
            return

    def _read(self) -> dict[str, list[str]]:
        try:
            value = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
