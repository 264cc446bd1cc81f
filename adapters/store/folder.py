"""A store that keeps the bytes of bundles as files in a folder."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from rootstock.adapters.errors import MissingBundle, StoreFull
from rootstock.adapters.reference import check_digest
from rootstock.adapters.store.port import StoredBytes

_TEMPORARY = ".writing-"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ATTEMPTS = 3


class FolderStore:
    """A store with one file for each bundle under `root`, safe for many threads and processes (POSIX).

    A file is either whole or absent. The digest is of the bundle's manifest, not of the stored bytes, so a
    reader has to check the bytes. Only the user who runs the program may read the folders and files.
    """

    def __init__(self, root: Path, *, as_is: bool = False) -> None:
        """Use the folder `root`, create it as needed, and remove the left-over files of interrupted writes.

        With `as_is`, neither create it nor remove anything.
        """
        self._root = Path(root)
        if not as_is:
            self._root.mkdir(0o700, parents=True, exist_ok=True)
            self.leftovers(remove=True)

    def path(self, digest: str) -> Path:
        """Return the path for a bundle, which is always under the root; raise InvalidDigest for another text."""
        digits = check_digest(digest).removeprefix("sha256:")
        return self._root / digits[:2] / f"{digits}.zip"

    def put(self, digest: str, data: bytes) -> None:
        """Store `data` under `digest`, durably when the call returns; raise StoreFull if there is no room."""
        path = self.path(digest)
        if _holds(path, data):
            # The program that wrote the file may have been killed before the file's name was on the disk.
            settle(path.parent)
            settle(path.parent.parent)
            return
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    path.parent.mkdir(0o700, exist_ok=True)
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
                f"the store has no room for the {len(data)} bytes of {digest} ({error.strerror}); free some "
                "space, or delete unused versions",
                place=path,
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
        for path in self._bundles():
            yield f"sha256:{path.stem}"

    def entries(self) -> Iterator[StoredBytes]:
        """Yield every digest in the store, in order, with the size and the time of its bytes."""
        for path in self._bundles():
            # Another program may have deleted the file since the folder was listed.
            with suppress(FileNotFoundError):
                status = path.stat()
                written = datetime.fromtimestamp(status.st_mtime, UTC)
                yield StoredBytes(f"sha256:{path.stem}", status.st_size, written)

    def leftovers(self, *, remove: bool) -> list[str]:
        """Return the names of the files that interrupted writes left, and remove these files if `remove`.

        A write in progress is none of them.
        """
        found = sorted(self._root.glob(f"??/{_TEMPORARY}*"))
        return [str(path.relative_to(self._root)) for path in found if _is_left(path, remove)]

    def _bundles(self) -> Iterator[Path]:
        for path in sorted(self._root.glob("??/*.zip")):
            digits = path.stem
            if len(digits) == 64 and set(digits) <= set("0123456789abcdef") and path.parent.name == digits[:2]:
                yield path


def _missing(path: Path, digest: str, error: OSError) -> MissingBundle:
    fault = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return MissingBundle(
        f"the stored bundle {digest} {fault}; restore it from a backup, or publish it again", place=path
    )


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _is_left(path: Path, remove: bool) -> bool:
    # A writer locks its file, and the system releases the locks of a dead process. So a locked file is in use.
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if remove:
                path.unlink()
    except OSError:
        return False
    return True


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(_TEMPORARY + secrets.token_hex(8))
    try:
        with open(temporary, "xb", opener=_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    settle(path.parent)
    settle(path.parent.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def settle(folder: Path) -> None:
    """Make the names in a folder durable: a power cut could undo them, even if the bytes are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
