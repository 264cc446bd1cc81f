"""The catalog of the engine: it resolves names to digests in the registry and loads adapters from the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from rootstock.adapters.bundle import Bundle, Limits, open_bundle
from rootstock.adapters.bundle.bundle_file import (
    BundleDescription,
    StoredBundle,
    check_bundle_file,
    open_bundle_file,
)
from rootstock.adapters.errors import CorruptBundle, FoundationNotHosted
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.registry import Resolution
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.spec import Adapter, FoundationSpec, Rejected
from rootstock.adapters.store.port import Store
from rootstock.service.engine.core.catalog import ResolvedReference

_REMEDY = "restore it from a backup, or publish the adapter again"


@dataclass(frozen=True)
class RegistryCatalog:
    """The adapters of one foundation, from the registry and the store. Each read checks the bundle again.

    `base` holds the foundation's weights, because some adapters are stored relative to them.
    """

    registry: Registry
    store: Store
    spec: FoundationSpec
    limits: Limits
    base: FoundationWeights | None = None

    def resolve(self, reference: str) -> ResolvedReference:
        """Return the version that the reference means now. Raise AdapterError if this foundation has none.

        It sees the adapters of all tenants, so a server resolves in `Foundations` instead.
        """
        resolution = self.registry.resolve(reference)
        if resolution.foundation not in (None, self.spec.fingerprint):
            raise not_hosted(resolution, [self.spec.name])
        return ResolvedReference(resolution.name, resolution.version, resolution.digest)

    def load(self, digest: str) -> Adapter:
        """Return the adapter of a digest. Raise CorruptBundle if the stored bundle is invalid or another one."""
        try:
            bundle = self._open(digest, self.store.get(digest))
            return bundle.adapter(self.spec, self.limits.max_rank, self.base)
        except Rejected as error:
            raise CorruptBundle(f"the stored bundle {digest} cannot be served: {error}; {_REMEDY}") from error

    def open(self, digest: str) -> BinaryIO:
        """Return the zip of a digest's bundle as an open file that was checked, at its beginning.

        The bundle is never in memory as a whole. Raise CorruptBundle as `load` does.
        """
        file = self.store.open(digest)
        try:
            check_bundle_file(file, digest, self.limits)
        except BaseException as error:
            file.close()
            if isinstance(error, Rejected | OSError):
                raise damaged(digest, error) from error
            raise
        return file

    def describe(self, digest: str) -> BundleDescription:
        """Return the description of a digest's bundle. Raise CorruptBundle as `load` does."""
        with self._text_of(digest) as bundle:
            return bundle.describe()

    def card(self, digest: str) -> bytes | None:
        """Return the model card of a digest's bundle, None without one. Raise CorruptBundle as `load` does."""
        with self._text_of(digest) as bundle:
            return bundle.card()

    @contextmanager
    def _text_of(self, digest: str) -> Iterator[StoredBundle]:
        try:
            with self.store.open(digest) as file, open_bundle_file(file, self.limits) as bundle:
                _check_digest(bundle.manifest.digest, digest)
                yield bundle
        except (Rejected, OSError) as error:
            raise damaged(digest, error) from error

    def _open(self, digest: str, data: bytes) -> Bundle:
        bundle = open_bundle(data, self.limits, self.spec)
        _check_digest(bundle.digest, digest)
        return bundle


def damaged(digest: str, error: Exception) -> CorruptBundle:
    """Return the error for a stored bundle whose bytes are not what its digest states."""
    # The text of an OSError holds a path.
    reason = error.strerror if isinstance(error, OSError) else error
    return CorruptBundle(f"the stored bundle {digest} is damaged: {reason}; {_REMEDY}")


def _check_digest(actual: str, digest: str) -> None:
    if actual != digest:
        raise CorruptBundle(
            f"the store has a bundle with digest {actual} under {digest}; publish the adapter again"
        )


def not_hosted(resolution: Resolution, hosted: Sequence[str]) -> FoundationNotHosted:
    """Return the error for a version whose foundation is not among those that this server hosts."""
    here = ", ".join(hosted)
    return FoundationNotHosted(
        f"version {resolution.version} of adapter {resolution.name!r} is made for the foundation "
        f"{str(resolution.foundation)[:19]}…; this server hosts {here}; add that foundation to "
        "ROOTSTOCK_FOUNDATIONS and restart",
        param="model",
    )
