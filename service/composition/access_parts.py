"""Opens what decides who may call a server: its keys and its identity provider."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from rootstock.service.settings import Settings

if TYPE_CHECKING:
    from rootstock.adapters.registry.key_port import KeyRegistry
    from rootstock.service.tenancy.access import Access


def check_openness(settings: Settings) -> None:
    """Raise SettingsError if strangers could call a server with these settings and the keys in its registry."""
    from rootstock.adapters.home.home import Home

    with closing(Home(settings.home_folder).open_registry(settings.registry_address)) as registry:
        stored_keys = bool(registry.keys.snapshot().keys)
    settings.check_openness(stored_keys)
    settings.check_approval(stored_keys)


@contextmanager
def open_access(settings: Settings, registry: KeyRegistry) -> Iterator[Access]:
    """Read the keys, and follow their changes until the end. Raise SettingsError if strangers could call."""
    from rootstock.service.tenancy.access import Access
    from rootstock.service.tenancy.key_ring import KeyRing

    issuer = None
    if settings.oidc_issuer:
        from rootstock.service.tenancy.oidc import OidcIssuer

        issuer = OidcIssuer(
            settings.oidc_issuer, settings.oidc_audience, settings.oidc_tenant_claim, settings.oidc_role_claim
        )
    given = settings.api_key, settings.admin_key
    api_key, admin_key = (None if key is None else key.get_secret_value() for key in given)
    ring = KeyRing(registry)
    settings.check_openness(not ring.empty)
    settings.check_approval(not ring.empty)
    ring.start()
    try:
        yield Access(ring, api_key, admin_key, issuer)
    finally:
        ring.close()
