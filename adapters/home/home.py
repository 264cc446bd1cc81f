"""A server's home folder. Every path in it is written here."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from rootstock.adapters.home.lock import holding, keep
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

    def export(self, fingerprint: str, name: str) -> Path:
        """Return the folder of one export of a foundation, which need not exist.

        `name` tells the exports of one fingerprint apart.
        """
        return self._exports / fingerprint.removeprefix("sha256:")[:32] / name

    def export_files(self) -> list[Path]:
        """Return the `foundation.json` of each export, the last by name first."""
        return sorted(self._exports.glob("*/*/foundation.json"), reverse=True)

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
        return holding(self._lock, program)

    def keep(self, program: str) -> None:
        """Lock the home as `hold` does, until this process and all that inherit its handles have ended."""
        keep(self._lock, program)

    @property
    def _exports(self) -> Path:
        return self.folder / "foundations"

    @property
    def _lock(self) -> Path:
        return self.folder / "lock"
