"""A home folder with many adapters registered, as `rootstock adapters import` leaves it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from adapters.bulk_import import Skipped, import_bundles
from adapters.bundle import Limits, open_bundle
from adapters.spec import FoundationSpec
from loadtest.bench import Say
from loadtest.workload import WHOLE, Kind, folder_of, zipped

# On disk twice while they are imported.
_TOGETHER = 500


class ImportFailed(Exception):
    """A bundle that the import did not take."""


def name_of(index: int) -> str:
    """The name of adapter number `index`."""
    return f"zipf-{index:05d}"


def register(home: Path, spec: FoundationSpec, count: int, say: Say, kind: Kind = WHOLE) -> list[str]:
    """Register the first `count` adapters of a kind in `home`, under `name_of`; gives the names."""
    limits = Limits()
    for start in range(0, count, _TOGETHER):
        with tempfile.TemporaryDirectory(dir=home) as folder:
            numbers = range(start, min(count, start + _TOGETHER))
            paths = [Path(folder) / f"{name_of(i)}.zip" for i in numbers]
            for i, path in zip(numbers, paths, strict=True):
                path.write_bytes(_bundle(folder_of(spec, kind, i), spec, limits))
            for told in import_bundles(paths, home, spec, limits):
                if isinstance(told, Skipped):
                    raise ImportFailed(f"{told.file} was not imported: {told.reason}")
        if numbers.stop < count:
            say(f"registered {numbers.stop} of {count}")
    return [name_of(i) for i in range(count)]


def _bundle(files: Mapping[str, bytes], spec: FoundationSpec, limits: Limits) -> bytes:
    """A plain PEFT folder's bundle with its manifest, not compressed."""
    bundle = open_bundle(zipped(files), limits, spec)
    return zipped({**bundle.files, "bundle.json": bundle.manifest.to_bytes()})
