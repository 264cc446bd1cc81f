"""Compares a registry with the store beside it, and repairs what can be repaired."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from rootstock.adapters.bundle import Limits
from rootstock.adapters.bundle.bundle_file import check_bundle_file
from rootstock.adapters.errors import MissingBundle, explained
from rootstock.adapters.registry.port import VersionIndex
from rootstock.adapters.registry.records import DAMAGED, READY
from rootstock.adapters.spec import Rejected
from rootstock.adapters.store.port import Store

Kind = Literal["orphan", "missing", "wrong", "left-over", "mark", "empty-registry"]
# Gets the number of bundles that are checked, and the number of all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StorageFinding:
    """One fault of a home: its kind, a sentence, and what was done about it (empty without a repair).

    `digest` is None for a fault that belongs to no bundle. `versions` are references; a deleted one says so.
    """

    kind: Kind
    problem: str
    digest: str | None = None
    versions: tuple[str, ...] = ()
    done: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return {
            "kind": self.kind,
            "problem": self.problem,
            "digest": self.digest,
            "versions": list(self.versions),
            "done": self.done,
        }


@dataclass
class Check:
    """The result of a check: its findings, and the numbers of what was looked at.

    `deleted` counts deleted versions, whose bundles stay until they are purged. `recent` counts bundles that no
    version has, and that are younger than the grace time: an upload may be about to publish them.
    """

    versions: int = 0
    deleted: int = 0
    bundles: int = 0
    recent: int = 0
    findings: list[StorageFinding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        findings = [finding.to_json() for finding in self.findings]
        return {
            "versions": self.versions, "deleted": self.deleted, "bundles": self.bundles, "recent": self.recent,
            "findings": findings,
        }  # fmt: skip


def fsck(
    registry: VersionIndex,
    store: Store,
    *,
    grace: timedelta = timedelta(hours=1),
    repair: bool = False,
    progress: Progress = lambda done, total: None,
    now: datetime | None = None,
) -> Check:
    """Compare the versions with the stored bundles, read every bundle that a version has, and return the result.

    Servers may publish and delete meanwhile: each fault is looked at twice. With `repair`, bundles that no
    version has and left-over files are removed, and versions without right bytes get the status `DAMAGED`, until
    the same bundle is published again. A bundle that no version has and that is younger than `grace` is no fault.
    """
    now = now or datetime.now(UTC)
    # The list of the store comes first. A version that is published after it is then not taken for a missing one.
    entries = {entry.digest: entry for entry in store.entries()}
    used: dict[str, list[str]] = defaultdict(list)
    damaged: set[str] = set()
    check = Check(bundles=len(entries))
    for version in registry.index():
        check.versions += not version.deleted
        check.deleted += version.deleted
        used[version.digest].append(f"{version.name}@{version.version}{' (deleted)' * version.deleted}")
        if version.status != READY:
            damaged.add(version.digest)
    if entries and not used and not registry.events(limit=1):
        check.findings.append(_empty_registry(len(entries)))
        return check
    unused = [entry for entry in entries.values() if entry.digest not in used]
    total = len(used) + len(unused)
    for done, (digest, versions) in enumerate(sorted(used.items())):
        progress(done, total)
        check.findings.extend(_of_used(registry, store, digest, versions, digest in damaged, repair))
    for done, entry in enumerate(unused, len(used)):
        progress(done, total)
        if now - entry.written_at < grace:
            check.recent += 1
        else:
            check.findings.extend(_of_unused(registry, store, entry.digest, entry.size, repair))
    check.findings.extend(
        StorageFinding(
            "left-over", f"{name} was left by a write that was interrupted", done="removed" if repair else ""
        )
        for name in store.leftovers(remove=repair)
    )
    progress(total, total)
    return check


def _of_used(
    registry: VersionIndex, store: Store, digest: str, versions: Sequence[str], damaged: bool, repair: bool
) -> Iterator[StorageFinding]:
    names = tuple(versions)
    fault = _fault(store, digest)
    if fault is None:
        if damaged:
            done = "marked ready" if repair and registry.mark(digest, READY) else ""
            yield StorageFinding(
                "mark", "the bytes are right and the registry calls them damaged", digest, names, done
            )
        return
    if not registry.digest_in_use(digest):
        # Its versions were deleted meanwhile, and then its bytes.
        return
    kind, problem = fault
    marked = ""
    if repair:
        registry.mark(digest, DAMAGED)
        marked = f"marked {DAMAGED}; publish the bundle again, restore it from a backup, or delete the version"
    yield StorageFinding(kind, problem, digest, names, marked)


def _of_unused(
    registry: VersionIndex, store: Store, digest: str, size: int, repair: bool
) -> Iterator[StorageFinding]:
    if registry.digest_in_use(digest):
        return
    done = "removed" if repair and registry.remove_unused(digest, store.delete) else ""
    yield StorageFinding("orphan", f"no version has these {size} bytes", digest, done=done)


def _fault(store: Store, digest: str) -> tuple[Kind, str] | None:
    """Return the kind and the sentence of a bundle's fault, or None for right bytes."""
    try:
        with store.open(digest) as file:
            check_bundle_file(file, digest, Limits())
    except MissingBundle as error:
        return "missing", explained(error)
    except Rejected as error:
        return "wrong", f"the stored bytes are not this bundle: {error}"
    except OSError as error:
        return "wrong", f"the stored bytes cannot be read: {error.strerror or error}"
    return None


def _empty_registry(bundles: int) -> StorageFinding:
    return StorageFinding(
        "empty-registry",
        f"the registry was never used, and the store has {bundles} bundles; restore the registry from a backup, "
        "or move the store away",
    )


def counts(findings: Sequence[StorageFinding]) -> Mapping[str, int]:
    """Return how many findings there are of each kind."""
    found: dict[str, int] = defaultdict(int)
    for finding in findings:
        found[finding.kind] += 1
    return dict(found)
