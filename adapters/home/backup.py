"""Copies a home to a backup while a server uses it, and a backup to a home."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rootstock.adapters.errors import MissingBundle, RegistryUnavailable, StoreFull, UnusableBackup
from rootstock.adapters.home.fsck import Check, Progress, fsck
from rootstock.adapters.home.home import Home, is_used
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.port import VersionIndex
from rootstock.adapters.registry.sql.backends.sqlite_file import takes_no_more
from rootstock.adapters.store.folder import settle
from rootstock.adapters.store.port import Store

_RECORD = "backup.json"
_FORM = 1
# Versions that are deleted while the bundles are copied make a new copy of the registry necessary.
_ROUNDS = 5
# Beyond these kinds of findings, a backup gives back every version.
_LOSSES = ("missing", "wrong", "empty-registry")


@dataclass(frozen=True)
class Copied:
    """The result of a backup or of a restoration: the check of the copy, and the number of bundles copied."""

    check: Check
    copied: int

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {**self.check.to_json(), "copied": self.copied}


def back_up(
    home: Home, target: Path, progress: Progress = lambda done, total: None, *, store_url: str = ""
) -> Copied:
    """Copy a home's registry and bundles into the folder `target`, and check the copy.

    The bundles come from the store at `store_url`, by default the home's. A server may publish and delete
    meanwhile: the backup is the state of one moment. If `target` holds an earlier backup, only new bundles are
    copied. Raise UnusableBackup for a folder with other content, and StoreFull.
    """
    _check_target(home, target)
    target.mkdir(0o700, parents=True, exist_ok=True)
    backup = Home(target)
    copied = 0
    store, kept = home.store_to_check(store_url), backup.open_store()
    with closing(home.registry_to_check()) as registry:
        for _ in range(_ROUNDS):
            _snapshot(home.registry_file, backup.registry_file)
            with closing(backup.registry_to_check()) as index:
                wanted = sorted({one.digest for one in index.index()})
            done, is_state = _copy(registry, store, kept, wanted, progress)
            copied += done
            if is_state:
                break
    for digest in set(kept.digests()) - set(wanted):
        kept.delete(digest)
    with closing(backup.registry_to_check()) as index:
        check = fsck(index, kept, grace=timedelta())
    _write_record(target, check)
    return Copied(check, copied)


def restore(
    source: Path,
    home: Home,
    *,
    force: bool = False,
    progress: Progress = lambda done, total: None,
    store_url: str = "",
) -> Copied:
    """Copy a backup into a home and the store at `store_url`, by default the home's, and check the home.

    Raise HomeInUse while another program uses the home. Without `force`, raise UnusableBackup for a home that was
    used, and for a backup whose bundles are missing or damaged. With `force`, the backup's registry takes the
    place of the home's, and bundles that are in the home stay there.
    """
    backup = Home(source)
    if not backup.registry_file.is_file():
        raise UnusableBackup(f"{source} has no registry, so it is no backup; name the folder of a backup")
    with home.hold("rootstock adapters restore"):
        if not force:
            _check_unused(home, store_url)
        arrived = home.registry_file.with_name(f"{home.registry_file.name}.restoring")
        _snapshot(backup.registry_file, arrived)
        store, kept = home.open_store(store_url), backup.store_to_check()
        with closing(SqlRegistry(f"sqlite:///{arrived}", upgrade=False)) as registry:
            lost = [one for one in fsck(registry, kept).findings if one.kind in _LOSSES]
            if lost and not force:
                arrived.unlink()
                raise UnusableBackup(
                    f"{len(lost)} bundles of the backup are missing or damaged, the first: {lost[0].problem}; "
                    "use another backup, or --force to restore the others"
                )
            wanted = sorted({one.digest for one in registry.index()})
            copied, _ = _copy(registry, kept, store, wanted, progress)
        _replace(arrived, home.registry_file)
        with closing(home.registry_to_check()) as registry:
            return Copied(fsck(registry, store), copied)


def _check_target(home: Home, target: Path) -> None:
    if not home.registry_file.is_file():
        raise UnusableBackup(f"{home.folder} has no registry to back up; name a server's home")
    if target.exists() and not (target / _RECORD).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise UnusableBackup(
            f"{target} is not empty and holds no earlier backup; name a new folder, or one of an earlier backup"
        )


def _check_unused(home: Home, store_url: str) -> None:
    used = home.registry_file.is_file()
    if used:
        # A registry that cannot be read may hold versions all the same.
        with suppress(RegistryUnavailable), closing(home.registry_to_check()) as registry:
            used = is_used(registry)
    if used or next(iter(home.store_to_check(store_url).digests()), None) is not None:
        raise UnusableBackup(
            f"{home.folder} was used: it has a registry or bundles; name another home, or give --force to "
            "replace its registry"
        )


def _copy(
    registry: VersionIndex, source: Store, target: Store, digests: list[str], progress: Progress
) -> tuple[int, bool]:
    """Copy the bundles that the target lacks; return how many, and whether their versions are still there.

    Versions may be deleted meanwhile, and then their bundles. A bundle that is missing although a version has it
    is left to the check.
    """
    held = set(target.digests())
    missing = [digest for digest in digests if digest not in held]
    copied, is_state = 0, True
    for done, digest in enumerate(missing):
        progress(done, len(missing))
        try:
            target.put(digest, source.get(digest))
            copied += 1
        except MissingBundle:
            is_state &= registry.digest_in_use(digest)
    progress(len(missing), len(missing))
    return copied, is_state


def _snapshot(source: Path, target: Path) -> None:
    """Copy a database while other programs write to it, durably and as one file. An old target is replaced."""
    temporary = target.with_name(f"{target.name}.writing")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            _translated(source),
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as origin,
            closing(sqlite3.connect(temporary)) as copy,
        ):
            origin.backup(copy)
            # Else the copy needs the other files of a database that several programs write to.
            copy.execute("PRAGMA journal_mode = DELETE").close()
        _replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _translated(source: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if takes_no_more(error):
            raise StoreFull(f"no room for the copy of the registry ({error}); free some space") from error
        raise UnusableBackup(f"the registry cannot be copied: {error}; check the file", place=source) from error


def _replace(temporary: Path, target: Path) -> None:
    """Give a database that no program uses the name of another one, durably."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    # The changes in these files belong to the old database. SQLite would apply them to the new one.
    for ending in ("-wal", "-shm"):
        target.with_name(target.name + ending).unlink(missing_ok=True)
    temporary.replace(target)
    settle(target.parent)


def _write_record(target: Path, check: Check) -> None:
    record = {
        "form": _FORM,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "program": version("rootstock"),
        "versions": check.versions,
        "bundles": check.bundles,
    }
    (target / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
