"""The foundation and the version that a reference means, for the tenant of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy

from rootstock.adapters.bundle.plain.base_model import is_same
from rootstock.adapters.errors import AdapterError, InvalidName, UnknownAdapter
from rootstock.adapters.reference import AUTO, DEFAULT_TENANT, FOUNDATION, Reference, is_auto
from rootstock.adapters.registry import Resolution, TenantRegistry
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.served_names import ServedNames, lowered
from rootstock.service.foundation_host import FoundationHost
from rootstock.service.references.composed_model import Asked, ComposedModel, Found, GivenPart, composed_model
from rootstock.service.references.splits import SplitChoice, noting
from rootstock.service.registry_catalog import RegistryCatalog, not_hosted


class ReferenceDirectory:
    """The hosts of a server by the references that name them or their adapters.

    A reference is resolved once, here, in the registry as the tenant of the request sees it, and the request's
    sticky key chooses among the versions of a split. The reference `foundation` means the first host.
    """

    def __init__(
        self,
        hosts: Sequence[FoundationHost],
        registry: Registry,
        names: Mapping[str, str] | None = None,
        replaced: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the hosts in order, and other names that requests may use, each with its reference.

        Call `replaced` for each request of a split that another version answers; see SplitChoice.
        """
        self._first = hosts[0]
        self._hosts = tuple(hosts)
        self.names = ServedNames(names or {}, {host.name: host.spec.name for host in hosts})
        self._registry = registry
        self._by_fingerprint = {host.spec.fingerprint: host for host in hosts}
        self._by_name = {host.name: host for host in hosts} if len(hosts) > 1 else {}
        self._by_name[FOUNDATION] = self._first
        self._splits = SplitChoice(lambda fingerprint: self.hosting(fingerprint) is not None, replaced)
        # The served names are of the default tenant's adapters.
        self._own_names = True

    def seen_by(self, registry: TenantRegistry) -> ReferenceDirectory:
        """Return the same hosts with the adapters of a tenant."""
        directory = copy(self)
        directory._registry = registry
        directory.names = self.names.of_tenant(registry.tenant, self._by_name)
        directory._own_names = registry.tenant == DEFAULT_TENANT
        return directory

    def is_routed(self, model: str) -> bool:
        """Tell whether a request for this model asks for the router. A served name of that form comes first."""
        return is_auto(model) and model.lower() not in self.names

    def check_name(self, name: str) -> None:
        """Raise InvalidName if the name is that of the router, of a foundation, or another that is served."""
        if name == AUTO:
            raise InvalidName(f"{AUTO!r} names the router; give the adapter another name", param="name")
        if name in self._by_name or name in self.names:
            what = "a foundation of this server" if name in self._by_name else "a model in ROOTSTOCK_SERVED_NAMES"
            message = f"{name!r} names {what}; give the adapter another name"
            raise InvalidName(message, param="name")

    def named(self, reference: str) -> FoundationHost | None:
        """Return the foundation that a reference names, or None if it does not name one."""
        return self._by_name.get(self.names.reference(reference))

    def resolve(self, reference: str) -> Resolution:
        """Return the version of an adapter that a reference or a served name means now, whatever its split.

        Raise as the registry does. A served name of an adapter that the tenant cannot use means nothing.
        """
        return self._resolve(reference, self.names.reference(reference))

    def meaning(self, reference: str) -> str:
        """Return the reference that a request means. A served name of an unknown adapter means itself."""
        meant, asked = self.names.reference(reference), lowered(reference)
        if self._own_names or meant == asked or meant in self._by_name:
            return meant
        try:
            self._registry.show(Reference.parse(meant).path)
        except UnknownAdapter:
            return asked
        return meant

    def pinned(self, reference: str, digest: str) -> str:
        """Return a reference to the version of the same adapter that has this digest."""
        return str(Reference.parse(self.names.reference(reference)).at(digest))

    def hosting(self, fingerprint: str | None) -> FoundationHost | None:
        """Return the host of a foundation, the first one for None; None if this server lacks the foundation."""
        return self._first if fingerprint is None else self._by_fingerprint.get(fingerprint)

    def of(self, resolution: Resolution) -> FoundationHost:
        """Return the host of a version's foundation. Raise FoundationNotHosted if this server lacks it."""
        host = self.hosting(resolution.foundation)
        if host is None:
            raise not_hosted(resolution, [one.spec.name for one in self._hosts])
        return host

    def choose(self, fingerprint: str | None, name: str | None) -> FoundationHost:
        """Return the foundation that an upload names by fingerprint or name, or the first if there is none.

        Later checks refuse an upload for a foundation that this server does not have.
        """
        if fingerprint is not None:
            return self._by_fingerprint.get(fingerprint, self._first)
        if name is None or name in self._by_name:
            return self._by_name[name or FOUNDATION]
        named = (host for host in self._hosts if is_same(name, host.spec.name, host.spec.other_names))
        return next(named, self._first)

    def catalog_of(self, foundation: str | None) -> RegistryCatalog:
        """Return a catalog that can read the bundles of a foundation, even if this server does not have it."""
        return (self.hosting(foundation) or self._first).catalog

    def compose(self, parts: Sequence[GivenPart], head: str | None, sticky: str) -> ComposedModel:
        """Return the composition of the versions that a request with this sticky key gets under references.

        Raise InvalidComposition, FoundationNotHosted, or as the registry does; the error names the part.
        """
        found: list[Found] = []
        # The headers about a split state the one version that answered, and here none answers alone.
        with noting(set()):
            for place, part in enumerate(parts):
                try:
                    found.append(self.find(part.reference, sticky))
                except AdapterError as error:
                    error.param = f"adapters[{place}].model"
                    raise
        return composed_model(parts, found, head)

    def host(self, reference: Asked, sticky: str) -> FoundationHost:
        """Return the host of the version that a request with this sticky key gets under a reference.

        Raise FoundationNotHosted, or as the registry does.
        """
        return reference.host if isinstance(reference, ComposedModel) else self.find(reference, sticky)[0]

    def fix(self, reference: str, sticky: str) -> str:
        """Return a reference to the one version that a request with this sticky key gets under `reference` now.

        Raise as `host` does.
        """
        host, target = self.find(reference, sticky)
        return host.name if target is None else f"{target.name}@{target.version}"

    def registered(self, reference: str) -> Resolution:
        """Return the version that a reference means by the name that the registry keeps. Raise as it does."""
        return self._registry.resolve(reference)

    def check_parts(self, model: ComposedModel) -> None:
        """Raise as the registry does for a part that is no longer there."""
        for place, reference in enumerate(model.fixed):
            try:
                self._registry.resolve(reference)
            except AdapterError as error:
                error.param = f"adapters[{place}].model"
                raise

    def find(
        self, reference: str, sticky: str, meant: str | None = None
    ) -> tuple[FoundationHost, Resolution | None]:
        """Return the host of a reference and, for an adapter, the version that answers this sticky key."""
        meant = meant or self.names.reference(reference)
        if (host := self._by_name.get(meant)) is not None:
            return host, None
        resolution = self._resolve(reference, meant)
        if resolution.candidates:
            resolution = self._splits.choose(resolution, sticky)
        return self.of(resolution), resolution

    def _resolve(self, reference: str, meant: str) -> Resolution:
        if is_auto(meant):
            message = f"{reference!r} is the router, which answers as `model` of POST /v1/predict alone"
            raise UnknownAdapter(f"{message}; name an adapter or a foundation", param="model")
        try:
            return self._registry.resolve(meant)
        except UnknownAdapter:
            # Of an adapter of another tenant, not even the name that the setting gives it may be told.
            if self._own_names or meant == (asked := lowered(reference)):
                raise
        return self._registry.resolve(asked)
