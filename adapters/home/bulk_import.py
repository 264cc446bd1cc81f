"""Registers many bundles directly in a home folder, without a server."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from rootstock.adapters.bundle import Limits, PlainFields
from rootstock.adapters.bundle.archive import GOLDEN, open_archive
from rootstock.adapters.chat_template import special_tokens
from rootstock.adapters.client.errors import Misused
from rootstock.adapters.client.upload import read_source
from rootstock.adapters.errors import InvalidName
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.home.home import Home, check_not_lost, shared_registry, shared_store
from rootstock.adapters.home.journal import BundleJournal
from rootstock.adapters.home.offline import open_arrived
from rootstock.adapters.reference import check_name
from rootstock.adapters.registry import NewVersion, Published
from rootstock.adapters.signing.trusted_keys import TrustedKeys
from rootstock.adapters.spec import FoundationSpec, Rejected
from rootstock.adapters.store.port import Store
from rootstock.adapters.template_process import TemplateProcess, check_template

# One transaction registers this many bundles, so an import that is killed loses the work on at most this many.
_TOGETHER = 100
# Some threads wait for the disk while others run checks.
_THREADS = 8


@dataclass(frozen=True)
class ImportedBundle:
    """A bundle that is registered; `created` is false if it was registered before."""

    file: str
    name: str
    version: int
    created: bool


@dataclass(frozen=True)
class SkippedBundle:
    """A file that was not registered, with the reason."""

    file: str
    reason: str


def bundles_in(folder: Path) -> list[Path]:
    """Return the zips and folders in a folder, in order of name, without hidden ones."""
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
    trusted: TrustedKeys | None = None,
) -> Generator[ImportedBundle | SkippedBundle, None, None]:
    """Register each bundle under its file's name and yield each result; close the generator to stop early.

    Each bundle passes the checks of an upload, except the golden replay, which needs the model. A new bundle
    becomes the live version of its name. A bundle that the name holds already changes nothing, not even `live`,
    and neither does one that fails a check. Yielded results are durable; after an interruption, the same call
    imports the rest.

    `base` is the foundation's weights, as for `Bundle.adapter`, and `stated` is as in `open_arrived`. With
    `trusted` keys, a bundle needs the signature of one of them. Once `stopped` is set, for instance by a signal
    handler, nothing more is registered or yielded.

    Raise HomeInUse while a server or another import uses the home. StoreFull, RegistryUnavailable and OSError
    also end the import.
    """
    by_name: dict[str, Path] = {}
    for path in paths:
        if by_name.setdefault(_name(path), path) is not path:
            first = by_name[_name(path)].name
            yield SkippedBundle(path.name, f"has the same name as {first}; rename one of them")
    with (
        Home(home).hold("rootstock adapters import"),
        closing(Home(home).open_registry(shared_registry())) as registry,
    ):
        stopped, store = stopped or Event(), Home(home).open_store(shared_store())
        journal = Home(home).journal(registry, store)
        journal.settle()
        check_not_lost(registry, store)
        keep = partial(
            _keep,
            stopped=stopped, spec=spec, limits=limits, base=base, stated=stated, store=store,
            journal=journal, templates=TemplateProcess(), trusted=trusted or TrustedKeys(),
        )  # fmt: skip
        left = list(by_name.values())
        pool = ThreadPoolExecutor(_THREADS)
        try:
            while left:
                with registry.guarding() as guard:
                    kept = list(zip(left, pool.map(partial(keep, guard=guard), left[:_TOGETHER]), strict=False))
                    if stopped.is_set():
                        return
                    left = left[_TOGETHER:]
                    versions = [outcome for _, outcome in kept if isinstance(outcome, NewVersion)]
                    done = registry.publish_all(versions)
                for version in versions:
                    journal.unmark(version.digest)
                yield from _results(kept, done)
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
    journal: BundleJournal,
    templates: TemplateProcess,
    trusted: TrustedKeys,
    guard: Callable[[str], None],
) -> NewVersion | SkippedBundle:
    """Check a bundle, put it into the store, and return the version to publish; else why it is skipped."""
    if stopped.is_set():
        return SkippedBundle(path.name, "the import was stopped")
    try:
        name = check_name(_name(path))
        data, ignored = read_source(path)
        archive = open_archive(data, limits)
        signature = trusted.check(archive, PlainFields())
        bundle = open_arrived(archive, limits, spec, stated, base=base)
        adapter = bundle.adapter(spec, limits.max_rank, base)
        check_template(templates, adapter.prompting, {} if base is None else special_tokens(base.folder))
    except (Rejected, InvalidName, Misused, OSError) as error:
        return SkippedBundle(path.name, str(error))
    # A plain PEFT folder gets its manifest only here. To pack all the others again would take most of the time.
    as_it_is = not (bundle.warnings or bundle.ignored or archive.signature or archive.tokenizer)
    stored = data if as_it_is else bundle.to_zip()
    journal.mark(adapter.digest)
    guard(adapter.digest)
    store.put(adapter.digest, stored)
    golden = "not replayed" if GOLDEN in bundle.files else "none"
    verification = {"golden": golden, "imported": True, "warnings": list(bundle.warnings)}
    verification["ignored"] = sorted({*bundle.ignored, *ignored})
    if adapter.prompting.chat_template is not None:
        verification["chat_template"] = True
    if signature is not None:
        verification["signature"] = signature
    return NewVersion(name, adapter.digest, adapter.task, verification, len(stored), spec.fingerprint)


def _results(
    kept: Iterable[tuple[Path, NewVersion | SkippedBundle]], done: Iterable[Published]
) -> Iterator[ImportedBundle | SkippedBundle]:
    published = iter(done)
    for path, outcome in kept:
        if isinstance(outcome, SkippedBundle):
            yield outcome
        else:
            version = next(published)
            yield ImportedBundle(path.name, version.name, version.version, version.created)
