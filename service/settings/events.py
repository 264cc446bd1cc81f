"""Where the server sends the events of the registry."""

from __future__ import annotations

from functools import cached_property
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from rootstock.service.api.middleware.site import is_loopback
from rootstock.service.settings.lists import split
from rootstock.service.webhooks.receiver import WebhookReceiver
from rootstock.service.webhooks.secret import WebhookSecret


class EventSettings(BaseSettings):
    """Where the server sends the events of the registry."""

    webhook_urls: SecretStr = Field(
        SecretStr(""),
        description="Addresses, separated by commas, to which the server posts every event of every tenant: "
        "https, or http on loopback. If empty, it posts none.",
    )
    webhook_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret that signs the messages to `ROOTSTOCK_WEBHOOK_URLS`: `whsec_` and the base64 of 24 "
        "to 64 bytes. During a change of secrets two, separated by a comma.",
    )
    webhook_plain_http: bool = Field(
        False,
        description="Let `ROOTSTOCK_WEBHOOK_URLS` name http addresses beyond loopback. Events are then readable "
        "on the way.",
    )

    @field_validator("webhook_urls")
    @classmethod
    def _names_receivers(cls, urls: SecretStr) -> SecretStr:
        for url in split(urls.get_secret_value()):
            WebhookReceiver.parse(url)
        return urls

    @field_validator("webhook_secret")
    @classmethod
    def _holds_secrets(cls, secrets: SecretStr) -> SecretStr:
        for secret in split(secrets.get_secret_value()):
            WebhookSecret.parse(secret)
        return secrets

    @model_validator(mode="after")
    def _signs_and_encrypts(self) -> Self:
        if self.receivers and not self.webhook_secrets:
            raise ValueError(
                "ROOTSTOCK_WEBHOOK_URLS is set and ROOTSTOCK_WEBHOOK_SECRET is not: receivers could not tell the "
                'server\'s messages from those of others; set it: echo "whsec_$(openssl rand -base64 32)"'
            )
        plain = [one.host for one in self.receivers if one.plain and not is_loopback(one.host)]
        if plain and not self.webhook_plain_http:
            raise ValueError(
                f"ROOTSTOCK_WEBHOOK_URLS has an http address at {plain[0]}: others on the way could read the "
                "events; give https, or set ROOTSTOCK_WEBHOOK_PLAIN_HTTP=true"
            )
        return self

    @cached_property
    def receivers(self) -> tuple[WebhookReceiver, ...]:
        """Return the addresses in `webhook_urls`, without duplicates."""
        return tuple(map(WebhookReceiver.parse, split(self.webhook_urls.get_secret_value())))

    @cached_property
    def webhook_secrets(self) -> tuple[WebhookSecret, ...]:
        """Return the secrets in `webhook_secret`."""
        return tuple(map(WebhookSecret.parse, split(self.webhook_secret.get_secret_value())))
