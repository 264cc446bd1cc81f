"""The folder of a home: where it is by default, and every path in it."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_HOME = Path("~/.rootstock")


class HomeFolder:
    """One home's folder. Only this class knows the paths in a home.

    It stands below `adapters.home`, because `adapters.foundation` keeps its conversions in a home too.
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
        return self._cache(fingerprint) / name

    def export_files(self) -> list[Path]:
        """Return the `foundation.json` of each export, the last by name first."""
        return sorted(self._foundations.glob("*/*/foundation.json"), reverse=True)

    def conversion(self, sha256: str, name: str) -> Path:
        """Return the folder of a foundation that was converted from the file with this sha256.

        The folder need not exist. `name` tells the conversions of one file apart.
        """
        return self._cache(sha256) / name

    def _cache(self, digest: str) -> Path:
        return self._foundations / digest.removeprefix("sha256:")[:32]

    @property
    def _foundations(self) -> Path:
        return self.folder / "foundations"

    @property
    def pending_folder(self) -> Path:
        """Return the folder with a mark for each bundle that a program stores or deletes; it need not exist."""
        return self.folder / "pending"

    def replica(self, number: int) -> Path:
        """Return the home of one of several replicas on this machine, which need not exist."""
        return self.folder / "replicas" / str(number)

    def process(self, number: int) -> Path:
        """Return the home of one of several processes that serve this home, which need not exist."""
        return self._processes / str(number)

    @property
    def _processes(self) -> Path:
        return self.folder / "processes"

    @property
    def _store(self) -> Path:
        return self.folder / "store"

    @property
    def _lock(self) -> Path:
        return self.folder / "lock"


def home_from_environment() -> Path:
    """Return the home of this process as an absolute path: ROOTSTOCK_HOME, by default ~/.rootstock."""
    return Path(os.environ.get("ROOTSTOCK_HOME") or DEFAULT_HOME).expanduser().absolute()


def searched_homes(home: Path | None = None) -> tuple[Path, ...]:
    """Return the folders to search for what is made of foundations, in order; the last one gets what is new.

    ROOTSTOCK_EXPORTS, if it is set, comes before the home, which is the environment's if it is None.
    """
    ahead = os.environ.get("ROOTSTOCK_EXPORTS")
    folders = (Path(ahead).expanduser().absolute(),) if ahead else ()
    return (*folders, home or home_from_environment())
