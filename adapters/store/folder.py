"""A store that keeps the bytes of bundles as files in a folder."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from rootstock.adapters.errors import MissingBundle, StoreFull
from rootstock.adapters.reference import check_digest

_TEMPORARY = ".writing-"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ATTEMPTS = 3


class FolderStore:
    """A store with one file for each bundle under `root`, safe for many threads and processes (POSIX).

    A file is either whole or absent. The digest is of the bundle's manifest, not of the stored bytes, so a
    reader has to check the bytes.
    """

    def __init__(self, root: Path) -> None:
        """Use the folder `root`, create it as needed, and remove the left-over files of interrupted writes."""
        self._root = Path(root)
        self._root.mkdir(parents=True, exist_ok=True)
        for left in self._root.glob(f"??/{_TEMPORARY}*"):
            _sweep(left)

    def path(self, digest: str) -> Path:
        """Return the path for a bundle, which is always under the root; raise InvalidDigest for another text."""
        digits = check_digest(digest).removeprefix("sha256:")
        return self._root / digits[:2] / f"{digits}.zip"

    def put(self, digest: str, data: bytes) -> None:
        """Store `data` under `digest`, durably when the call returns; raise StoreFull if there is no room."""
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
                    # Another process opened the store before this file was locked, and removed it as a left-over.
                    if attempt == _ATTEMPTS:
                        raise
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise StoreFull(
                f"no room in {self._root} for the {len(data)} bytes of {digest} ({error.strerror}); "
                "free some space, or delete unused versions"
            ) from error

    def get(self, digest: str) -> bytes:
        """Return the bytes under `digest`; raise MissingBundle if there are none that can be read."""
        with self.open(digest) as file:
            try:
                return file.read()
            except OSError as error:
                raise _missing(self.path(digest), digest, error) from error

    def open(self, digest: str) -> BinaryIO:
        """Return the bytes under `digest` as an open file that can seek; raise MissingBundle as `get` does."""
        path = self.path(digest)
        try:
            return path.open("rb")
        except OSError as error:
            raise _missing(path, digest, error) from error

    def delete(self, digest: str) -> None:
        """Remove the bytes under `digest`, if there are any."""
        self.path(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """Yield every digest in the store, in order."""
        for path in sorted(self._root.glob("??/*.zip")):
            digits = path.stem
            if len(digits) == 64 and set(digits) <= set("0123456789abcdef") and path.parent.name == digits[:2]:
                yield f"sha256:{digits}"


def _missing(path: Path, digest: str, error: OSError) -> MissingBundle:
    fault = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return MissingBundle(
        f"{path} {fault}, so the store lacks the bytes of {digest}; restore the file, or publish the bundle again"
    )


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _sweep(left: Path) -> None:
    # A writer locks its file, and the system releases the locks of a dead process. So a locked file is in use.
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
    # Without this, a power cut could undo the file's name, even though its bytes are on the disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
