"""A store that keeps the bytes of bundles as objects in S3, Google Cloud Storage or Azure, through fsspec."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, TypeVar, cast

from rootstock.adapters.errors import MissingBundle, StoreFull, StoreUnavailable
from rootstock.adapters.reference import check_digest
from rootstock.adapters.store.port import StoredBytes

# Each scheme with the package that reads it, and the extra that brings the package, if one does.
PACKAGES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", None),
    "gcs": ("gcsfs", None),
    "az": ("adlfs", None),
    "abfs": ("adlfs", None),
    "abfss": ("adlfs", None),
}
# Seconds, attempts by botocore and attempts by s3fs. A request waits for a load, so a store that is gone has to
# be given up before the request's own time is over.
_S3 = {"connect_timeout": 3, "read_timeout": 20, "retries": {"max_attempts": 1}}
_ATTEMPTS = 3
# Bytes of one read of an open bundle: its directory and a card are smaller.
_BLOCK = 256 * 1024
# The codes of S3 and of servers that speak its protocol for a lack of room.
_NO_ROOM = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}
_OBJECT = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})\.zip", re.ASCII)
T = TypeVar("T")


class ObjectStore:
    """A store with one object for each bundle under a bucket and a prefix, for many servers at the same time.

    Object stores replace an object as a whole and durably, so an object is either whole or absent. Credentials
    come from the environment of the provider's library, such as AWS_ACCESS_KEY_ID, and stand in no message.
    """

    def __init__(self, url: str) -> None:
        """Use the place `url` names, such as s3://bucket/prefix.

        Raise StoreUnavailable if the package for its scheme is not installed or the place cannot be reached.
        """
        scheme, _, place = url.partition("://")
        if scheme not in PACKAGES:
            raise StoreUnavailable(f"a store cannot be at {scheme}://; give s3://bucket/prefix, gs:// or az://")
        self._place = f"{scheme}://{place.strip('/')}"
        self._fs = _file_system(scheme)
        self._root = place.strip("/")
        self._check()

    def put(self, digest: str, data: bytes) -> None:
        """Store `data` under `digest`, durably when the call returns; raise StoreFull if there is no room."""
        path = self._path(digest)
        if not self._try(lambda: self._holds(path, data), digest):
            self._try(lambda: self._fs.pipe_file(path, data), digest)

    def get(self, digest: str) -> bytes:
        """Return the bytes under `digest`; raise MissingBundle or, on a failure, StoreUnavailable."""
        path = self._path(digest)
        data: bytes = self._try(lambda: self._fs.cat_file(path), digest)
        return data

    def open(self, digest: str) -> BinaryIO:
        """Return the bytes under `digest` as an open file that can seek; raise as `get` does, also on a read."""
        path = self._path(digest)
        file = self._try(lambda: self._fs.open(path, "rb", block_size=_BLOCK, cache_type="readahead"), digest)
        return cast(BinaryIO, _StoredObject(file, lambda call: self._try(call, digest)))

    def delete(self, digest: str) -> None:
        """Remove the bytes under `digest`, if there are any."""
        path = self._path(digest)
        with suppress(MissingBundle):
            self._try(lambda: self._fs.rm_file(path), digest)

    def digests(self) -> Iterator[str]:
        """Yield every digest in the store, in order."""
        for digest, _ in self._objects():
            yield digest

    def entries(self) -> Iterator[StoredBytes]:
        """Yield every digest in the store, in order, with the size and the time of its bytes."""
        for digest, info in self._objects():
            yield StoredBytes(digest, info["size"], _written_at(info))

    def leftovers(self, *, remove: bool) -> list[str]:
        """Return no name: an interrupted write leaves nothing that the bucket lists."""
        return []

    def _objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every digest in the store, in order, with what the provider says about its object."""
        try:
            found: dict[str, dict[str, Any]] = self._try(
                lambda: self._fs.find(self._root, detail=True), "the list of bundles"
            )
        except MissingBundle:
            return
        for path, info in sorted(found.items()):
            if match := _OBJECT.fullmatch(path.removeprefix(f"{self._root}/")):
                yield f"sha256:{match[2]}", info

    def _path(self, digest: str) -> str:
        digits = check_digest(digest).removeprefix("sha256:")
        return f"{self._root}/{digits[:2]}/{digits}.zip"

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return bool(self._fs.info(path)["size"] == len(data) and self._fs.cat_file(path) == data)
        except FileNotFoundError:
            return False

    def _check(self) -> None:
        """Raise StoreUnavailable unless the bucket answers; nothing has to lie under the prefix yet."""
        with suppress(MissingBundle):
            self._try(lambda: self._fs.info(self._root), "anything")
            return
        bucket = self._root.partition("/")[0]
        try:
            # A policy may allow the prefix alone, so that the bucket as a whole is refused. Then it exists.
            with suppress(StoreUnavailable):
                self._try(lambda: self._fs.info(bucket), "anything")
        except MissingBundle:
            raise StoreUnavailable(
                f"there is no bucket {bucket!r} for {self._place}; create it, or correct ROOTSTOCK_STORE_URL"
            ) from None

    def _try(self, call: Callable[[], T], what: str) -> T:
        """Return what a call of fsspec returns; raise its failures as typed errors without the library's text."""
        try:
            return call()
        except FileNotFoundError as error:
            raise MissingBundle(
                f"the store lacks the bytes of {what}; restore the object, or publish the bundle again",
                place=self._place,
            ) from error
        except Exception as error:  # Each provider's library has its own errors.
            code = _code(error)
            if code in _NO_ROOM:
                raise StoreFull(
                    f"the store has no room for {what} ({code}); free some space, or delete unused versions",
                    place=self._place,
                ) from error
            raise StoreUnavailable(
                f"the store cannot be used: {code}; check that it can be reached and that the server's "
                "credentials allow this",
                place=self._place,
            ) from error


class _StoredObject(io.RawIOBase):
    """An open object whose failures are those of the store."""

    def __init__(self, file: Any, attempt: Callable[[Callable[[], Any]], Any]) -> None:
        self._file = file
        self._attempt = attempt

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position: int = self._file.seek(offset, whence)
        return position

    def tell(self) -> int:
        position: int = self._file.tell()
        return position

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._attempt(lambda: self._file.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _file_system(scheme: str) -> Any:
    """Open fsspec's file system for a scheme. Raise StoreUnavailable if its package is not installed."""
    import fsspec

    package, extra = PACKAGES[scheme]
    options: dict[str, Any] = {"config_kwargs": _S3} if scheme == "s3" else {}
    try:
        # Nothing is remembered, because each write and removal of another server has to be seen at once.
        system = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **options)
    except ImportError:
        install = f"rootstock[{extra}]" if extra else package
        raise StoreUnavailable(
            f"a store at {scheme}:// needs the package {package}, which is not installed; pip install '{install}'"
        ) from None
    if scheme == "s3":
        system.retries = _ATTEMPTS
    return system


def _written_at(info: dict[str, Any]) -> datetime:
    """Return the time of an object (UTC), which each provider's library names in another way."""
    for name in ("LastModified", "mtime", "last_modified"):
        if isinstance(written := info.get(name), datetime):
            return written.astimezone(UTC)
    # An object without a time is as young as can be, so that no check takes it for an old one.
    return datetime.now(UTC)


def _code(error: Exception) -> str:
    """Return the provider's code of a failure, else the kind of the error. Messages may hold what is secret."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict) and (code := response.get("Error", {}).get("Code")):
            return str(code)
        cause = cause.__cause__
    return type(error).__name__
