"""A server's home folder: its registry, its store and its lock."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rootstock.adapters.home.lock import holding, keep
from rootstock.adapters.home_folder import HomeFolder
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.store.folder import FolderStore

if TYPE_CHECKING:
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

    def hold(self, program: str) -> AbstractContextManager[None]:
        """Lock the home for a program; if another program holds it, raise HomeInUse that names the holder."""
        return holding(self._lock, program)

    def keep(self, program: str) -> None:
        """Lock the home as `hold` does, until this process and all that inherit its handles have ended."""
        keep(self._lock, program)


def shared_registry() -> str:
    """Return ROOTSTOCK_REGISTRY_URL: the registry that this process shares with others; empty for none."""
    return os.environ.get("ROOTSTOCK_REGISTRY_URL", "")


def shared_store() -> str:
    """Return ROOTSTOCK_STORE_URL: the store that this process shares with others; empty for none."""
    return os.environ.get("ROOTSTOCK_STORE_URL", "")
