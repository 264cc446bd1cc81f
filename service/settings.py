"""The server's settings: environment variables that begin with ROOTSTOCK_, checked at start."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rootstock.adapters.errors import InvalidReference
from rootstock.adapters.foundation.location import FoundationError
from rootstock.adapters.foundation.names import reference_names
from rootstock.adapters.reference import FOUNDATION, Reference
from rootstock.service.api.middleware.site import is_loopback

PREFIX = "ROOTSTOCK_"
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+\]?", re.ASCII)


class SettingsError(ValueError):
    """Settings that the server cannot start with; one line a setting."""


class Settings(BaseSettings):
    """Every setting with its default. docs/operations.md explains each; a test holds the two together."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

    home: Path = Field(Path("~/.rootstock"), description="Folder of the registry, the store and the exports.")
    exports: Path | None = Field(
        None, description="Folder with exports made ahead, only read, looked into before `ROOTSTOCK_HOME`."
    )
    foundation: str = Field("default", description="`default`, a local folder, or org/name@<40 hex revision>.")
    foundations: str = Field(
        "", description="Foundations to serve, separated by commas, in place of `ROOTSTOCK_FOUNDATION`."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(3000, ge=1, le=65535, description="Port to listen on.")
    server: Literal["bentoml", "uvicorn"] = Field("bentoml", description="What runs the ASGI app.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    demo: bool = Field(True, description="Register the demo adapters where the registry is empty.")
    api_key: SecretStr | None = Field(None, min_length=1, description="Bearer token that may infer and list.")
    admin_key: SecretStr | None = Field(None, min_length=1, description="Bearer token that may do everything.")
    allowed_hosts: str = Field(
        "",
        description="Host names, separated by commas, that a server without keys answers to beside loopback's.",
    )
    data: Path = Field(Path("../shared/data"), description="Labelled data for recipes and tests; not served.")

    runner: Literal["auto", "onnx", "torch"] = Field(
        "auto", description="`auto`: torch where there is CUDA, ONNX Runtime otherwise."
    )
    precision: Literal["fp32", "int8"] = Field(
        "fp32", description="Of ONNX Runtime's trunk; `int8` once `rootstock foundation export --int8` made it."
    )
    threads: int = Field(0, ge=0, description="Threads of the runner; 0 takes one for each core.")
    slots: int = Field(256, ge=3, description="Places in the runner, two of them its own.")
    pin: str = Field("", description="References kept in memory and in slots, separated by commas.")
    cache_mb: int = Field(512, ge=1, description="Adapters kept in host memory, in MiB.")
    trunk_cache_mb: int = Field(
        0, ge=0, description="Outputs of the bare trunk kept for adapters that add a head alone, in MiB."
    )
    queue_items: int = Field(
        2048,
        ge=1,
        description="Inputs that may wait, of one model four times what it leaves; beyond it requests get 429.",
    )
    queue_tokens: int = Field(
        262_144,
        ge=1,
        description="Tokens that may wait, of one model four times what it leaves; beyond it requests get 429.",
    )
    batch_rows: int = Field(32, ge=1, description="Inputs in one forward pass, at most.")
    batch_tokens: int = Field(
        512,
        ge=1,
        description="Tokens in one forward pass with padding, at most. With more, one request waits longer for "
        "others.",
    )
    max_inputs: int = Field(256, ge=1, le=2**14, description="Inputs in one request, times its models.")
    max_body_mb: int = Field(8, ge=1, description="Size of a request's body in MiB, uploads aside.")
    max_bundle_mb: int = Field(64, ge=1, description="Size of an uploaded bundle in MiB.")
    max_rank: int = Field(64, ge=1, description="Largest LoRA rank that is served.")
    request_timeout: float = Field(30.0, gt=0, le=3600, description="Seconds until a waiting request gets 504.")
    drain_delay: float = Field(
        0.0, ge=0, le=3600, description="Seconds of /readyz 503 before the listener closes."
    )
    grace_period: float = Field(
        30.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds that admitted requests get to finish at a stop.",
    )

    @model_validator(mode="after")
    def _open_only_with_a_key(self) -> Self:
        if self.admin_key is None and not is_loopback(self.host):
            raise ValueError(
                f"ROOTSTOCK_HOST is {self.host}, which others can reach, and there is no ROOTSTOCK_ADMIN_KEY: "
                "anyone could publish adapters; set the key, or listen on 127.0.0.1"
            )
        return self

    @field_validator("pin")
    @classmethod
    def _names_references(cls, pin: str) -> str:
        for reference in _listed(pin):
            try:
                name = Reference.parse(reference).name
            except InvalidReference as error:
                raise ValueError(str(error)) from None
            if name == FOUNDATION:
                raise ValueError(f"{FOUNDATION} is always in memory; name adapters")
        return pin

    @field_validator("allowed_hosts")
    @classmethod
    def _names_hosts(cls, hosts: str) -> str:
        for host in _listed(hosts):
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"{host!r} is not a host name; give names such as models.example.com or addresses, without a "
                    "scheme, a port or a path"
                )
        return hosts

    @model_validator(mode="after")
    def _int8_on_onnx(self) -> Self:
        if self.precision == "int8" and self.runner == "torch":
            raise ValueError(
                "ROOTSTOCK_PRECISION is int8 and ROOTSTOCK_RUNNER is torch, which has no int8: set the runner to "
                "onnx, or the precision to fp32"
            )
        return self

    @model_validator(mode="after")
    def _pins_leave_a_slot(self) -> Self:
        if len(self.pinned) > self.slots - 3:
            raise ValueError(
                f"ROOTSTOCK_PIN names {len(self.pinned)} references, and at most {self.slots - 3} may be pinned "
                f"where ROOTSTOCK_SLOTS is {self.slots}: one slot stays for the foundation, one for verification "
                "and one for all other adapters; raise ROOTSTOCK_SLOTS or pin fewer"
            )
        return self

    @field_validator("api_key", "admin_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()):
            raise ValueError("a key goes into a header: visible ASCII characters only, no spaces")
        return key

    @model_validator(mode="after")
    def _one_list_of_foundations(self) -> Self:
        listed = _listed(self.foundations)
        if listed and "foundation" in self.model_fields_set and self.foundation != listed[0]:
            both = f"ROOTSTOCK_FOUNDATIONS begins with {listed[0]} and ROOTSTOCK_FOUNDATION is {self.foundation}"
            raise ValueError(f"{both}; set one of the two")
        try:
            reference_names(listed or (self.foundation,))
        except FoundationError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def hosted(self) -> dict[str, str]:
        """Return the settings of the foundations to serve by their references, the first one first."""
        listed = _listed(self.foundations) or (self.foundation,)
        return dict(zip(reference_names(listed), listed, strict=True))

    @property
    def home_folder(self) -> Path:
        """Return `home` with ~ expanded, absolute."""
        return self.home.expanduser().absolute()

    @property
    def export_folders(self) -> tuple[Path, ...]:
        """Return where exports may be, the first with one wins: `exports`, then the home, which gets new ones."""
        ahead = () if self.exports is None else (self.exports.expanduser().absolute(),)
        return (*ahead, self.home_folder)

    @property
    def pinned(self) -> tuple[str, ...]:
        """Return the references in `pin`, each once."""
        return _listed(self.pin)

    @property
    def host_names(self) -> tuple[str, ...]:
        """Return the names in `allowed_hosts`, each once; an IPv6 address without its brackets."""
        return tuple(host.strip("[]") for host in _listed(self.allowed_hosts))

    @property
    def runner_threads(self) -> int:
        """Return `threads`, or the number of cores that this process may use."""
        return self.threads or len(os.sched_getaffinity(0))


def read_settings(**overrides: object) -> Settings:
    """Return the settings from the environment, flags over them.

    Raise SettingsError naming each that is wrong.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    given = {name: value for name, value in overrides.items() if value is not None}
    if "foundation" in given:
        given.setdefault("foundations", "")
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False):
            name = PREFIX + str(problem["loc"][0]).upper() + ": " if problem["loc"] else ""
            lines.append(name + problem["msg"].removeprefix("Value error, "))
        raise SettingsError("\n".join(lines)) from None


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
