"""All settings of the server, read from environment variables and checked at start."""

from __future__ import annotations

import os
from typing import Self

from pydantic import ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from rootstock.service.api.middleware.site import is_loopback
from rootstock.service.settings.access import AccessSettings
from rootstock.service.settings.capacity import CapacitySettings
from rootstock.service.settings.events import EventSettings
from rootstock.service.settings.lifecycle import LifecycleSettings
from rootstock.service.settings.listener import ListenerSettings
from rootstock.service.settings.models import ModelSettings
from rootstock.service.settings.place import PlaceSettings
from rootstock.service.settings.routing import RoutingSettings
from rootstock.service.settings.trust import TrustSettings

PREFIX = "ROOTSTOCK_"


class SettingsError(ValueError):
    """Settings that the server cannot start with. The message has one line for each wrong setting."""


class Settings(
    PlaceSettings,
    ListenerSettings,
    AccessSettings,
    TrustSettings,
    EventSettings,
    LifecycleSettings,
    ModelSettings,
    RoutingSettings,
    CapacitySettings,
):
    """The settings with their defaults. docs/operations.md lists them; a test compares the two."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

    @model_validator(mode="after")
    def _issuer_with_an_audience(self) -> Self:
        if bool(self.oidc_issuer) != bool(self.oidc_audience):
            raise ValueError(
                "ROOTSTOCK_OIDC_ISSUER and ROOTSTOCK_OIDC_AUDIENCE are set together: without an audience, a "
                "token for any other service would do; set both, or neither"
            )
        return self

    @model_validator(mode="after")
    def _pins_leave_a_slot(self) -> Self:
        if len(self.pinned) > self.slots - 3:
            raise ValueError(
                f"ROOTSTOCK_PIN names {len(self.pinned)} references; at most {self.slots - 3} may be pinned with "
                f"ROOTSTOCK_SLOTS={self.slots}, because the foundation, verification and the other adapters need "
                "one slot each; raise ROOTSTOCK_SLOTS or pin fewer"
            )
        return self

    @property
    def shares_registry(self) -> bool:
        """Tell whether other servers, or other processes of this one, use the same registry and store."""
        return bool(self.registry_address) or self.processes > 1

    @property
    def runner_threads(self) -> int:
        """Return `threads`; if it is 0, the number of cores for this process of the server."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.processes)

    def check_approval(self, stored_keys: bool) -> None:
        """Raise SettingsError if versions need approval, and no keys tell who approves.

        `stored_keys` tells whether its registry has keys.
        """
        if self.approval != "none" and not (stored_keys or self.oidc_issuer or self.admin_key):
            raise SettingsError(
                f"ROOTSTOCK_APPROVAL is {self.approval}, and the server has no keys that tell who publishes and "
                "who approves; make one (rootstock keys create --role admin), or set ROOTSTOCK_ADMIN_KEY"
            )

    def check_openness(self, stored_keys: bool) -> None:
        """Raise SettingsError if strangers could use a server with these settings.

        `stored_keys` tells whether its registry has keys. A server with keys in either place requires them.
        """
        asks = stored_keys or bool(self.oidc_issuer)
        if not asks and self.admin_key is None and not is_loopback(self.host):
            raise SettingsError(
                f"ROOTSTOCK_HOST is {self.host}, which other machines can reach, and there is no "
                "ROOTSTOCK_ADMIN_KEY, and no key in the registry: anyone could publish adapters; set the key, "
                "make one (rootstock keys create --role admin), or listen on 127.0.0.1"
            )
        if not asks and "*" in self.origins and (self.api_key is None or self.admin_key is None):
            raise SettingsError(
                "ROOTSTOCK_CORS_ORIGINS is *, and a call without a key would work from every web page; set "
                "ROOTSTOCK_API_KEY and ROOTSTOCK_ADMIN_KEY, make a key (rootstock keys create --role admin), or "
                "name the origins"
            )


def read_settings(**overrides: object) -> Settings:
    """Return the settings from the environment; an override that is not None takes precedence.

    Raise SettingsError, which names every wrong or unknown setting.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    flags = {name: value for name, value in overrides.items() if value is not None}
    if "foundation" in flags:
        flags.setdefault("foundations", "")
    try:
        return Settings(**flags)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False):
            name = PREFIX + str(problem["loc"][0]).upper() + ": " if problem["loc"] else ""
            lines.append(name + problem["msg"].removeprefix("Value error, "))
        raise SettingsError("\n".join(lines)) from None
