"""The folder from which a request may name adapters by path, and the reading of one as a zip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rootstock.adapters.bundle import Limits
from rootstock.adapters.bundle.archive import pack
from rootstock.adapters.bundle.plain.extras import extra_of, may_be_read, system_file
from rootstock.adapters.errors import AdapterError
from rootstock.adapters.reference import DEFAULT_TENANT, shown
from rootstock.adapters.spec import Rejected

# An adapter has five files, and sentence-transformers describes it in at most 13 more.
_MAX_FILES = 64
_PUSH = "send the adapter with `rootstock adapters push` instead"


class PathNotAllowed(AdapterError):
    """The path lies outside the folder that the server allows, or the server allows none."""

    code = "path_not_allowed"


class PathNotFound(AdapterError):
    """Nothing that can be read lies at the path."""

    code = "path_not_found"


@dataclass(frozen=True)
class AdapterFolder:
    """The folder `root`, in which each adapter is a folder or the zip of a bundle; None allows no path at all.

    A path may be absolute or relative to `root`. Symbolic links and `..` are followed first, and then the result
    must lie inside, for the path itself and for each file in it. A tenant other than the default one has the
    folder of its name inside.
    """

    root: Path | None
    limits: Limits

    def of_tenant(self, tenant: str) -> AdapterFolder:
        """Return the folder of a tenant: all of it for the default tenant, else the part of the tenant's name."""
        if self.root is None or tenant == DEFAULT_TENANT:
            return self
        return AdapterFolder(self.root / tenant, self.limits)

    def find(self, path: str) -> Path:
        """Return the real path of an adapter. Raise PathNotAllowed or PathNotFound; neither reads a file."""
        if self.root is None:
            raise PathNotAllowed(
                "this server takes adapters from no folder, because ROOTSTOCK_ADAPTER_FOLDER is not set; set it, "
                f"or {_PUSH}",
                param="lora_path",
            )
        try:
            root = self.root.expanduser().resolve()
            found = (root / path).resolve()
            # The answer for a path outside does not tell whether something is there.
            if not found.is_relative_to(root) or found == root:
                raise PathNotAllowed(
                    f"{shown(path)} is not inside ROOTSTOCK_ADAPTER_FOLDER once links and `..` are followed; "
                    f"name an adapter inside that folder, or {_PUSH}",
                    param="lora_path",
                )
            exists = found.is_dir() or found.is_file()
        except (OSError, RuntimeError, ValueError) as error:
            # A loop of links is a RuntimeError, and a null byte is a ValueError.
            raise _unreadable(error) from None
        if not exists:
            raise PathNotFound(
                f"ROOTSTOCK_ADAPTER_FOLDER has no folder and no file {shown(path)}; name an adapter's folder or "
                f"the zip of a bundle, or {_PUSH}",
                param="lora_path",
            )
        return found

    def read(self, found: Path) -> bytes:
        """Return the adapter at a path of `find` as a zip, without known extras. Raise Rejected if it is too big.

        Raise PathNotAllowed for a link that leads outside, and PathNotFound for a file that cannot be read.
        """
        try:
            if found.is_file():
                self._check_size(found.stat().st_size, self.limits.max_bundle_bytes)
                return found.read_bytes()
            return pack(self._members(found))
        except OSError as error:
            raise _unreadable(error) from None

    def _members(self, folder: Path) -> dict[str, bytes]:
        members: dict[str, bytes] = {}
        size = 0
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if (system_file(name) or extra_of(name)) and not may_be_read(name):
                continue
            real = self.find(str(path))
            if real.is_dir():
                continue
            size += real.stat().st_size
            self._check_size(size, self.limits.max_unpacked_bytes)
            if len(members) == _MAX_FILES:
                raise Rejected(
                    "members",
                    "bundle",
                    f"the folder has more than {_MAX_FILES} files; name the folder of one adapter",
                )
            members[name] = real.read_bytes()
        return members

    @staticmethod
    def _check_size(size: int, limit: int) -> None:
        if size > limit:
            raise Rejected(
                "size",
                "bundle",
                f"the adapter has {size} bytes or more and the limit is {limit}; make it smaller",
            )


def _unreadable(error: Exception) -> PathNotFound:
    # The text of a loop of links holds a path.
    reason = getattr(error, "strerror", None) or ("a loop of links" if isinstance(error, RuntimeError) else error)
    return PathNotFound(
        f"the server cannot read that path ({reason}); name an adapter's folder or the zip of a bundle in "
        f"ROOTSTOCK_ADAPTER_FOLDER, or {_PUSH}",
        param="lora_path",
    )
