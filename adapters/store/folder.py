"""Bundles' bytes by digest, in a folder."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rootstock.adapters.errors import MissingBundle, StoreFull
from rootstock.adapters.reference import check_digest

_TEMPORARY = ".writing-"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ATTEMPTS = 3


class FolderStore:
    """One file per bundle under `root`, whole or not there; safe for many threads and processes (POSIX).

    A digest is that of a bundle's manifest and not of the stored bytes, so whoever reads them checks them.
    """

    def __init__(self, root: Path) -> None:
        """Use the folder `root`, creating it as needed; what an interrupted write left behind is removed."""
        self._root = Path(root)
        self._root.mkdir(parents=True, exist_ok=True)
        for left in self._root.glob(f"??/{_TEMPORARY}*"):
            _sweep(left)

    def path(self, digest: str) -> Path:
        """Return where the bundle is or would be; always under the root, else raise InvalidDigest."""
        digits = check_digest(digest).removeprefix("sha256:")
        return self._root / digits[:2] / f"{digits}.zip"

    def put(self, digest: str, data: bytes) -> None:
        """Keep `data` under `digest`, durable on return; raise StoreFull where there is no room for it."""
        path = self.path(digest)
        if _holds(path, data):
            return
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    path.parent.mkdir(exist_ok=True)
                    _write(path, data)
                    break
                except FileNotFoundError:
                    # Another process opened the store before the file was locked, and took it for a left-over.
                    if attempt == _ATTEMPTS:
                        raise
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise StoreFull(
                f"no room in {self._root} for the {len(data)} bytes of {digest} ({error.strerror}): "
                "free some space, or delete versions that nothing uses"
            ) from error

    def get(self, digest: str) -> bytes:
        """Return the bytes kept under `digest`; else raise MissingBundle."""
        path = self.path(digest)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise MissingBundle(
                f"{path} is not there, so the bytes of {digest} are lost: restore the file, or publish the "
                "bundle again"
            ) from error

    def delete(self, digest: str) -> None:
        """Drop the bytes kept under `digest`, if there are any."""
        self.path(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """Give every digest that bytes are kept under, in order."""
        for path in sorted(self._root.glob("??/*.zip")):
            digits = path.stem
            if len(digits) == 64 and set(digits) <= set("0123456789abcdef") and path.parent.name == digits[:2]:
                yield f"sha256:{digits}"


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _sweep(left: Path) -> None:
    # A file that is being written is locked; the system lets go of a dead process's locks.
    with suppress(OSError), left.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left.unlink()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(_TEMPORARY + secrets.token_hex(8))
    try:
        with temporary.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _settle(path.parent)
    _settle(path.parent.parent)


def _settle(folder: Path) -> None:
    # Without this a power cut could take back the file's name, though its bytes are on the disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
