"""A server's home folder: the paths of its registry, store, exports and lock."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from rootstock.adapters.home.lock import holding
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.store.folder import FolderStore


class Home:
    """One home folder. Only this class knows the paths in it.

    Example: `with Home(Path("~/.rootstock").expanduser()).hold("my program"): …`
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def registry_file(self) -> Path:
        """Return the path of the registry's database file, which need not exist."""
        return self.folder / "registry.db"

    @property
    def exports(self) -> Path:
        """Return the folder of the exported foundations, which are in it by fingerprint."""
        return self.folder / "foundations"

    def open_registry(self) -> SqlRegistry:
        """Open the registry, and create or upgrade it as needed.

        Raise UnsafeRegistry if a newer program wrote it.
        """
        return SqlRegistry(f"sqlite:///{self.registry_file}")

    def open_store(self) -> FolderStore:
        """Open the store, and create it as needed."""
        return FolderStore(self.folder / "store")

    def hold(self, program: str) -> AbstractContextManager[None]:
        """Lock the home for a program; if another program holds it, raise HomeInUse that names the holder."""
        return holding(self.folder, program)
