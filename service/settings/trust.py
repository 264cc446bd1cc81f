"""The signers that the server trusts, and the hosts from which it fetches adapters."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from rootstock.adapters.signing.trusted_keys import TrustedKeys
from rootstock.adapters.sources.remote.source_hosts import SourceHosts


class TrustSettings(BaseSettings):
    """The signers that the server trusts, and the hosts from which it fetches adapters."""

    trusted_keys: str = Field(
        "",
        description="Public keys, separated by commas, each `name=base64`, or the path of a file with one in "
        "each line. An upload then needs a signature by one of them. If empty, uploads need no signature.",
    )
    source_hosts: str = Field(
        "",
        description="Host names and buckets (`s3://bucket` or `s3://bucket/prefix/`), separated by commas, from "
        "which the server fetches adapters that `POST /v1/adapters` names by address. If empty, it fetches none.",
    )

    @field_validator("trusted_keys")
    @classmethod
    def _names_keys(cls, text: str) -> str:
        TrustedKeys.parse(text)
        return text

    @field_validator("source_hosts")
    @classmethod
    def _names_hosts(cls, text: str) -> str:
        SourceHosts.parse(text)
        return text

    @cached_property
    def trusted(self) -> TrustedKeys:
        """Return the keys in `trusted_keys`."""
        return TrustedKeys.parse(self.trusted_keys)
