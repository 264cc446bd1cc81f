"""A server's home folder: its registry, its store and its lock."""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import AbstractContextManager

from rootstock.adapters.errors import RegistryLost
from rootstock.adapters.home.journal import BundleJournal, marks_in
from rootstock.adapters.home.lock import KeptLock, holding, keep
from rootstock.adapters.home_folder import HomeFolder
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.store.folder import FolderStore
from rootstock.adapters.store.port import Store


class Home(HomeFolder):
    """One home folder with what it holds.

    Example: `with Home(Path("~/.rootstock").expanduser()).hold("my program"): …`
    """

    def open_registry(self, url: str = "") -> SqlRegistry:
        """Open the registry at `url`, by default the one in the home, and create or upgrade it as needed.

        Raise UnsafeRegistry if a newer program changed it, RegistryUnavailable if it cannot be reached.
        """
        return SqlRegistry(url or f"sqlite:///{self.registry_file}")

    def open_store(self, url: str = "") -> Store:
        """Open the store at `url`, by default the one in the home, and create it as needed.

        Raise StoreUnavailable if it cannot be reached.
        """
        if not url:
            return FolderStore(self._store)
        from rootstock.adapters.store.object_store import ObjectStore

        return ObjectStore(url)

    def registry_to_check(self, url: str = "") -> SqlRegistry:
        """Open the registry at `url`, by default the home's, beside servers: it is neither created nor upgraded.

        Raise RegistryUnavailable if there is none.
        """
        return SqlRegistry(url or f"sqlite:///{self.registry_file}", upgrade=False)

    def store_to_check(self, url: str = "") -> Store:
        """Open the store at `url`, by default the home's, beside servers: left-over files stay."""
        return self.open_store(url) if url else FolderStore(self._store, as_is=True)

    def journal(self, registry: Registry, store: Store) -> BundleJournal:
        """Return this home's journal of changes to a store that belong to changes of a registry."""
        return BundleJournal(self.pending_folder, registry, store)

    @property
    def is_open_to_others(self) -> bool:
        """Return whether every user of the machine may read the folder."""
        return self.folder.exists() and bool(self.folder.stat().st_mode & 0o007)

    def process_homes(self) -> list[Home]:
        """Return the homes of all processes that have served this home, those that run now included."""
        folders = sorted(self._processes.glob("*"))
        return [Home(folder) for folder in folders if folder.name.isdigit() and folder.is_dir()]

    def marked(self) -> set[str]:
        """Return the digests of the changes that processes of this home have begun."""
        folders = [home.pending_folder for home in (self, *self.process_homes())]
        return {digest for folder in folders for digest in marks_in(folder)}

    def hold(self, program: str) -> AbstractContextManager[None]:
        """Lock the home for a program; if another program holds it, raise HomeInUse that names the holder."""
        return holding(self._lock, program)

    def keep(self, program: str) -> None:
        """Lock the home as `hold` does, until this process and all that inherit its handles have ended."""
        keep(self._lock, program)

    @property
    def kept_lock(self) -> KeptLock:
        """Return the lock that `keep` took, for processes that multiprocessing starts."""
        return KeptLock()


def shared_registry() -> str:
    """Return ROOTSTOCK_REGISTRY_URL: the registry that this process shares with others; empty for none."""
    return os.environ.get("ROOTSTOCK_REGISTRY_URL", "")


def shared_store() -> str:
    """Return ROOTSTOCK_STORE_URL: the store that this process shares with others; empty for none."""
    return os.environ.get("ROOTSTOCK_STORE_URL", "")


def check_not_lost(registry: Registry, store: Store, marked: Container[str] = ()) -> None:
    """Raise RegistryLost if nobody has ever used the registry, and the store has bundles.

    A program that went on would publish new versions beside bundles whose names are lost. Bundles that are
    `marked` belong to a publication that was interrupted.
    """
    if is_used(registry):
        return
    first = next((digest for digest in store.digests() if digest not in marked), None)
    # Another server may be about to publish its first bundle. To ask for the removal waits for it.
    if first is not None and registry.remove_unused(first, lambda digest: None) and not is_used(registry):
        raise RegistryLost(
            "the registry was never used, and the store beside it has bundles: the registry is lost, or another "
            "one is meant; restore it (`rootstock adapters restore`), or move the store away to begin anew"
        )


def is_used(registry: Registry) -> bool:
    """Return whether anybody has ever used a registry."""
    return bool(registry.count() or registry.events(limit=1))
