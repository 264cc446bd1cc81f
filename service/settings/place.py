"""Where the server keeps and finds files, and where clients find the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from rootstock.adapters.home_folder import DEFAULT_HOME

_DATABASE = re.compile(r"postgresql(\+psycopg)?://[^\s/]*/[^\s/?]+(\?\S*)?")
_BUCKET = re.compile(r"(s3|gs|gcs|az|abfs|abfss)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._~=/-]*)?", re.ASCII)


class PlaceSettings(BaseSettings):
    """Where the server keeps and finds files, and where clients find the server."""

    home: Path = Field(
        DEFAULT_HOME, description="Folder that holds the registry, the store and the cache of exports."
    )
    registry_url: SecretStr = Field(
        SecretStr(""),
        description="PostgreSQL database with the registry, which several servers may share: "
        "postgresql+psycopg://user:password@host/database. If empty, the registry is a file in `ROOTSTOCK_HOME`.",
    )
    store_url: str = Field(
        "",
        description="Object storage with the bundles, which several servers may share: s3://bucket/prefix, gs:// "
        "or az://. If empty, the store is a folder in `ROOTSTOCK_HOME`.",
    )
    exports: Path | None = Field(
        None,
        description="Read-only folder of exports made ahead of time, searched before `ROOTSTOCK_HOME`. If unset, "
        "the server searches the home alone.",
    )
    adapter_folder: Path | None = Field(
        None,
        description="Folder from which `/v1/load_lora_adapter` publishes adapters by path. If unset, that route "
        "takes no path.",
    )
    demo: bool = Field(
        True, description="Publish the demo adapters at start if nobody has used the registry yet."
    )
    url: str = Field(
        "http://127.0.0.1:3000",
        description="Address of the server that `rootstock adapters`, `rootstock top` and the Python client "
        "call. The server does not read it.",
    )
    data: Path = Field(
        Path("../shared/data"),
        description="Folder of labelled data for training recipes and tests. The server does not read it.",
    )

    @field_validator("home", "data", mode="before")
    @classmethod
    def _names_a_folder(cls, folder: object) -> object:
        # Path("") is the working folder.
        if folder == "":
            raise ValueError("the path is empty; name a folder, or unset the variable")
        return folder

    @field_validator("exports", "adapter_folder", mode="before")
    @classmethod
    def _empty_is_unset(cls, folder: object) -> object:
        return None if folder == "" else folder

    @field_validator("registry_url")
    @classmethod
    def _names_a_database(cls, url: SecretStr) -> SecretStr:
        # The text may hold a password, so no message repeats it.
        text = url.get_secret_value()
        if text and not _DATABASE.fullmatch(text):
            raise ValueError(
                "this is not the URL of a PostgreSQL database; give "
                "postgresql+psycopg://user:password@host:port/database, or leave it empty for a file in the home"
            )
        return url

    @field_validator("store_url")
    @classmethod
    def _names_a_bucket(cls, url: str) -> str:
        if url and not _BUCKET.fullmatch(url):
            raise ValueError(
                "this is not a place in object storage; give s3://bucket/prefix, gs://bucket/prefix or "
                "az://container/prefix without credentials, which the provider's own variables hold"
            )
        return url

    @model_validator(mode="after")
    def _shares_both(self) -> Self:
        if self.registry_address and not self.store_url:
            raise ValueError(
                "ROOTSTOCK_REGISTRY_URL is set and ROOTSTOCK_STORE_URL is not: other servers on this registry "
                "could not read the bundles in this home; set both"
            )
        return self

    @property
    def registry_address(self) -> str:
        """Return `registry_url` as plain text, which may hold a password; empty for the file in the home."""
        return self.registry_url.get_secret_value()

    @property
    def home_folder(self) -> Path:
        """Return `home` as an absolute path, with ~ expanded."""
        return self.home.expanduser().absolute()

    @property
    def export_folders(self) -> tuple[Path, ...]:
        """Return the folders to search for an export, in order: `exports`, then the home, which gets new ones."""
        ahead = () if self.exports is None else (self.exports.expanduser().absolute(),)
        return (*ahead, self.home_folder)
