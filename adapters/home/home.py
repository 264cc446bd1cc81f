"""A server's home folder: its registry, its store and its lock."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rootstock.adapters.home.lock import holding, keep
from rootstock.adapters.home_folder import HomeFolder
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.store.folder import FolderStore


class Home(HomeFolder):
    """One home folder with what it holds.

    Example: `with Home(Path("~/.rootstock").expanduser()).hold("my program"): …`
    """

    def open_registry(self) -> SqlRegistry:
        """Open the registry, and create or upgrade it as needed.

        Raise UnsafeRegistry if a newer program wrote it.
        """
        return SqlRegistry(f"sqlite:///{self.registry_file}")

    def open_store(self) -> FolderStore:
        """Open the store, and create it as needed."""
        return FolderStore(self._store)

    def hold(self, program: str) -> AbstractContextManager[None]:
        """Lock the home for a program; if another program holds it, raise HomeInUse that names the holder."""
        return holding(self._lock, program)

    def keep(self, program: str) -> None:
        """Lock the home as `hold` does, until this process and all that inherit its handles have ended."""
        keep(self._lock, program)
