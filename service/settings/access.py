"""Who may call the server, and from which sites and hosts."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from rootstock.service.api.middleware.site import is_loopback
from rootstock.service.settings.lists import split

_HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+\]?", re.ASCII)
# Half the length of a hex text of 128 random bits. A shorter key is a word that someone chose.
_SHORTEST_KEY = 16
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)


class AccessSettings(BaseSettings):
    """Who may call the server, and from which sites and hosts."""

    api_key: SecretStr | None = Field(
        None,
        description="Bearer token for inference and for reading, of at least 16 characters. If unset, these "
        "calls need no key unless the registry has keys.",
    )
    admin_key: SecretStr | None = Field(
        None,
        description="Bearer token for every call, of at least 16 characters. If unset and without keys in the "
        "registry, the server listens on loopback only.",
    )
    oidc_issuer: str = Field(
        "",
        description="Address of an OpenID Connect provider whose tokens the server takes as bearer tokens, such "
        "as https://login.example.com. If empty, it takes none.",
    )
    oidc_audience: str = Field(
        "", description="Audience that a token of `ROOTSTOCK_OIDC_ISSUER` must name. The two are set together."
    )
    oidc_tenant_claim: str = Field(
        "tenant",
        description="Claim of a token with its tenant. If empty, every token is of the tenant `default`.",
    )
    oidc_role_claim: str = Field(
        "role",
        min_length=1,
        description="Claim of a token with its role, or a list with it: `predict`, `publish` or `admin`.",
    )
    allowed_hosts: str = Field(
        "",
        description="Host names, separated by commas, that a server without keys accepts besides loopback names. "
        "If empty, it accepts loopback names alone.",
    )
    cors_origins: str = Field(
        "",
        description="Origins, separated by commas, whose pages may call the server from a browser, such as "
        "https://app.example.com; `*` with keys means all. If empty, no page of another site may.",
    )
    media_hosts: str = Field(
        "",
        description="Host names, separated by commas, from which the server downloads images and recordings that "
        "a request names by address. If empty, it downloads none.",
    )

    @field_validator("allowed_hosts", "media_hosts")
    @classmethod
    def _names_hosts(cls, hosts: str) -> str:
        for host in split(hosts):
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"{host!r} is not a host name; give names such as models.example.com or addresses, without a "
                    "scheme, a port or a path"
                )
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _names_origins(cls, origins: str) -> str:
        for origin in split(origins):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin; give a scheme and a host, and a port if need be, such as "
                    "https://app.example.com, without a path"
                )
        return origins

    @field_validator("api_key", "admin_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None:
            return None
        secret = key.get_secret_value()
        if not re.fullmatch(r"[\x21-\x7e]*", secret):
            raise ValueError("a key is sent in a header; use visible ASCII characters only, without spaces")
        if len(secret) < _SHORTEST_KEY:
            raise ValueError(
                f"the key has {len(secret)} characters, and one under {_SHORTEST_KEY} can be guessed; make one: "
                "openssl rand -hex 32"
            )
        return key

    @field_validator("oidc_issuer")
    @classmethod
    def _names_an_issuer(cls, issuer: str) -> str:
        # Over plain HTTP anyone on the way could hand out keys of their own.
        parts = urlsplit(issuer)
        local = parts.scheme == "http" and is_loopback(parts.hostname or "")
        safe = parts.scheme == "https" or local
        if issuer and not (safe and parts.hostname and not parts.query and not parts.fragment):
            raise ValueError(
                f"{issuer!r} is not an issuer; give its https address, as it stands in its tokens' claim iss"
            )
        return issuer

    @property
    def host_names(self) -> tuple[str, ...]:
        """Return the names in `allowed_hosts`, without duplicates and without the brackets of IPv6 addresses."""
        return tuple(host.strip("[]") for host in split(self.allowed_hosts))

    @property
    def media_host_names(self) -> tuple[str, ...]:
        """Return the names in `media_hosts`, without duplicates and without the brackets of IPv6 addresses."""
        return tuple(host.strip("[]") for host in split(self.media_hosts))

    @property
    def origins(self) -> tuple[str, ...]:
        """Return the origins in `cors_origins`, in lower case and without duplicates."""
        return split(self.cors_origins.lower())
