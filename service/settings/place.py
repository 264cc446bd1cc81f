"""Where the server keeps and finds files, and where clients find the server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from rootstock.adapters.home_folder import DEFAULT_HOME

if TYPE_CHECKING:
    pass


class PlaceSettings(BaseSettings):
    """Where the server keeps and finds files, and where clients find the server."""

    home: Path = Field(
        DEFAULT_HOME, description="Folder that holds the registry, the store and the cache of exports."
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

    @property
    def home_folder(self) -> Path:
        """Return `home` as an absolute path, with ~ expanded."""
        return self.home.expanduser().absolute()

    @property
    def export_folders(self) -> tuple[Path, ...]:
        """Return the folders to search for an export, in order: `exports`, then the home, which gets new ones."""
        ahead = () if self.exports is None else (self.exports.expanduser().absolute(),)
        return (*ahead, self.home_folder)
