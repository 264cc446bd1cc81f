"""Many bundles registered at once, straight into a home folder, without a server."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from rootstock.adapters.bundle import Limits
from rootstock.adapters.bundle.archive import GOLDEN
from rootstock.adapters.client.client import read_source
from rootstock.adapters.client.errors import Misused
from rootstock.adapters.errors import InvalidName
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.home.home import Home
from rootstock.adapters.home.offline import open_arrived
from rootstock.adapters.reference import check_name
from rootstock.adapters.registry import NewVersion, Published
from rootstock.adapters.spec import FoundationSpec, Rejected
from rootstock.adapters.store.port import Store

# One transaction registers this many; an import that is killed loses at most as much work.
_TOGETHER = 100
# While some wait for the disk, others check.
_THREADS = 8


@dataclass(frozen=True)
class ImportedBundle:
    """A bundle that is registered; `created` is false where it was there already."""

    file: str
    name: str
    version: int
    created: bool


@dataclass(frozen=True)
class SkippedBundle:
    """A file that is not registered, and why."""

    file: str
    reason: str


def bundles_in(folder: Path) -> list[Path]:
    """Return the zips and folders in a folder, in order of name; hidden ones aside."""
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if path.suffix == ".zip" or path.is_dir())


def import_bundles(
    paths: Sequence[Path],
    home: Path,
    spec: FoundationSpec,
    limits: Limits,
    base: FoundationWeights | None = None,
    stopped: Event | None = None,
    stated: bool = False,
) -> Generator[ImportedBundle | SkippedBundle, None, None]:
    """Register each bundle under its file's name, telling of each when it is done; close it to stop early.

    Each is checked as an upload is, except for the golden replay, which needs the model. A new one becomes the
    live version of its name; one that its name holds already is left as it is, and so is `live`. One that fails a
    check changes nothing. What was told stays; after an interruption, doing the same again does the rest.
    `base` are the foundation's weights, as `Bundle.adapter` takes them; `stated` is as in `open_arrived`. Once
    `stopped` is set, from a signal's handler say, nothing more is registered or told of.

    Raise HomeInUse while a server or another import uses the home; StoreFull, RegistryUnavailable, OSError.
    """
    named: dict[str, Path] = {}
    for path in paths:
        if named.setdefault(_name(path), path) is not path:
            yield SkippedBundle(path.name, f"has the same name as {named[_name(path)].name}: rename one of them")
    with (
        Home(home).hold("rootstock adapters import"),
        closing(Home(home).open_registry()) as registry,
    ):
        stopped, store = stopped or Event(), Home(home).open_store()
        keep = partial(_keep, stopped=stopped, spec=spec, limits=limits, base=base, stated=stated, store=store)
        left = list(named.values())
        pool = ThreadPoolExecutor(_THREADS)
        try:
            while left:
                kept = list(zip(left, pool.map(keep, left[:_TOGETHER]), strict=False))
                if stopped.is_set():
                    return
                left = left[_TOGETHER:]
                done = registry.publish_all([outcome for _, outcome in kept if isinstance(outcome, NewVersion)])
                yield from _told(kept, done)
        finally:
            pool.shutdown(cancel_futures=True)


def _name(path: Path) -> str:
    return path.name if path.is_dir() else path.name.removesuffix(".zip")


def _keep(
    path: Path,
    stopped: Event,
    spec: FoundationSpec,
    limits: Limits,
    base: FoundationWeights | None,
    stated: bool,
    store: Store,
) -> NewVersion | SkippedBundle:
    """Return a checked bundle whose bytes are in the store."""
    if stopped.is_set():
        return SkippedBundle(path.name, "the import was stopped")
    try:
        name = check_name(_name(path))
        data, ignored = read_source(path)
        bundle = open_arrived(data, limits, spec, stated)
        adapter = bundle.adapter(spec, limits.max_rank, base)
    except (Rejected, InvalidName, Misused, OSError) as error:
        return SkippedBundle(path.name, str(error))
    # A plain PEFT folder has got its manifest only now. Packing all others anew would take most of the time.
    stored = bundle.to_zip() if bundle.warnings or bundle.ignored else data
    store.put(adapter.digest, stored)
    golden = "not replayed" if GOLDEN in bundle.files else "none"
    verification = {"golden": golden, "imported": True, "warnings": list(bundle.warnings)}
    verification["ignored"] = sorted({*bundle.ignored, *ignored})
    return NewVersion(name, adapter.digest, adapter.task, verification, len(stored), spec.fingerprint)


def _told(
    kept: Iterable[tuple[Path, NewVersion | SkippedBundle]], done: Iterable[Published]
) -> Iterator[ImportedBundle | SkippedBundle]:
    published = iter(done)
    for path, outcome in kept:
        if isinstance(outcome, SkippedBundle):
            yield outcome
        else:
            version = next(published)
            yield ImportedBundle(path.name, version.name, version.version, version.created)
