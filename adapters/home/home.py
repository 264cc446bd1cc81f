"""A server's home folder: its registry, its store, its exports and its lock."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from rootstock.adapters.home.lock import holding
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.store.folder import FolderStore


class Home:
    """The paths of one home folder, each named here alone.

    Example: `with Home(Path("~/.rootstock").expanduser()).hold("my program"): …`
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def registry_file(self) -> Path:
        """Return the file of the registry's database; it need not exist."""
        return self.folder / "registry.db"

    @property
    def exports(self) -> Path:
        """Return the folder of the exported foundations, by fingerprint."""
        return self.folder / "foundations"

    def open_registry(self) -> SqlRegistry:
        """Open the registry, made or upgraded as needed.

        Raise UnsafeRegistry where it is newer than this program.
        """
        return SqlRegistry(f"sqlite:///{self.registry_file}")

    def open_store(self) -> FolderStore:
        """Open the store, made as needed."""
        return FolderStore(self.folder / "store")

    def hold(self, program: str) -> AbstractContextManager[None]:
        """Hold the home for a program; raise HomeInUse, naming the holder, where another holds it."""
        return holding(self.folder, program)
