"""The server's settings: environment variables that begin with ROOTSTOCK_, checked at start."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rootstock.adapters.errors import InvalidReference
from rootstock.adapters.foundation.location import FoundationError
from rootstock.adapters.foundation.names import reference_names
from rootstock.adapters.home_folder import DEFAULT_HOME
from rootstock.adapters.reference import FOUNDATION, Reference
from rootstock.adapters.served_names import ServedNames, read_names
from rootstock.service.api.middleware.site import is_loopback

if TYPE_CHECKING:
    from rootstock.adapters.bundle import Limits

PREFIX = "ROOTSTOCK_"
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+\]?", re.ASCII)

_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)


class SettingsError(ValueError):
    """Settings that the server cannot start with. The message has one line for each wrong setting."""


class Settings(BaseSettings):
    """The settings with their defaults. docs/operations.md lists them; a test compares the two."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

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
    foundation: str = Field(
        "default",
        description="Foundation model to serve: `default`, `chat`, a local folder, or org/name@<40 hex "
        "revision>.",
    )
    foundations: str = Field(
        "",
        description="Foundation models to serve, separated by commas. If empty, the server serves "
        "`ROOTSTOCK_FOUNDATION` alone.",
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Any but loopback needs `ROOTSTOCK_ADMIN_KEY`."
    )
    port: int = Field(3000, ge=1, le=65535, description="TCP port to listen on.")
    server: Literal["bentoml", "uvicorn"] = Field(
        "bentoml", description="HTTP server that runs the app: `bentoml` or `uvicorn`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged: `debug`, `info`, `warning` or `error`."
    )
    demo: bool = Field(
        True, description="Publish the demo adapters at start if nobody has used the registry yet."
    )
    api_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="Bearer token for inference and for reading lists. If unset, these calls need no key.",
    )
    admin_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="Bearer token for every call, publishing included. If unset, the server listens on loopback "
        "only.",
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
    served_names: str = Field(
        "",
        description="Other names for models, separated by commas, each `name=reference`, such as "
        "`text-embedding-3-small=foundation`. If empty, there are none.",
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

    runner: Literal["auto", "onnx", "torch"] = Field(
        "auto",
        description="`onnx` (ONNX Runtime), `torch` or `auto`. `auto` takes ONNX where torch or an NVIDIA device "
        "is missing or the precision is `int8`, and torch otherwise.",
    )
    precision: Literal["fp32", "int8"] = Field(
        "fp32",
        description="Precision of the foundation's weights: `fp32`, or `int8` on ONNX Runtime alone. `int8` "
        "needs `rootstock foundation export --int8` first.",
    )
    threads: int = Field(
        0, ge=0, description="CPU threads of the runner. 0: one for each core that the process may use."
    )
    slots: int = Field(256, ge=3, description="Adapter slots in the runner; two are reserved.")
    pin: str = Field(
        "",
        description="Adapter references, or names of `ROOTSTOCK_SERVED_NAMES`, to keep in memory and in slots, "
        "separated by commas. If empty, none is pinned.",
    )
    cache_mb: int = Field(
        512, ge=1, description="Host memory for adapters, in MiB. Several foundations share it equally."
    )
    trunk_cache_mb: int = Field(
        0,
        ge=0,
        description="Memory for trunk outputs that ONNX Runtime reuses for adapters with a head alone, in MiB. "
        "Several foundations share it equally. 0: none are kept.",
    )
    queue_items: int = Field(
        2048,
        ge=1,
        description="Most inputs in the queue; more get 429. One model may hold at most four times what it "
        "leaves free.",
    )
    queue_tokens: int = Field(
        262_144,
        ge=1,
        description="Most tokens in the queue; more get 429. One model may hold at most four times what it "
        "leaves free.",
    )
    batch_rows: int = Field(
        32, ge=1, description="Most distinct inputs in one forward pass, and most rows of one adapter in it."
    )
    batch_tokens: int = Field(
        512,
        ge=1,
        description="Most tokens in one forward pass, padding included. With a larger value, a single request "
        "waits longer for others.",
    )
    max_inputs: int = Field(
        256, ge=1, le=2**14, description="Most inputs in one request, multiplied by the number of its models."
    )
    max_body_mb: int = Field(
        16,
        ge=1,
        description="Largest request body, in MiB, and the most that one request may download. Base64 makes a "
        "file a third longer. Uploads have `ROOTSTOCK_MAX_BUNDLE_MB`.",
    )
    max_bundle_mb: int = Field(64, ge=1, description="Largest uploaded bundle, in MiB.")
    max_rank: int = Field(64, ge=1, description="Largest LoRA rank that the server accepts.")
    request_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds that a request may wait before it gets 504. A request may ask for fewer.",
    )
    generation_timeout: float = Field(
        300.0,
        gt=0,
        le=3600,
        description="Seconds that a generated answer may take before it ends with an error. A request may ask "
        "for fewer.",
    )
    generation_precision: Literal["fp32", "bf16", "int4"] = Field(
        "fp32",
        description="Precision of a decoder's weights: `fp32`, `bf16`, or `int4`, which is fastest for few "
        "sequences. An encoder–decoder foundation stays in fp32.",
    )
    generation_rows: int = Field(
        32, ge=1, le=1024, description="Most sequences that decode together on a foundation that generates text."
    )
    generation_cache_tokens: int = Field(
        65_536,
        ge=1024,
        description="Room for the keys and values of sequences, in tokens, on each foundation that generates.",
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds from a stop signal, when /readyz turns 503, until the listener closes. 0: it closes "
        "at once.",
    )
    grace_period: float = Field(
        30.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds that admitted requests get to finish after the listener has closed.",
    )

    @model_validator(mode="after")
    def _open_only_with_a_key(self) -> Self:
        if self.admin_key is None and not is_loopback(self.host):
            raise ValueError(
                f"ROOTSTOCK_HOST is {self.host}, which other machines can reach, and there is no "
                "ROOTSTOCK_ADMIN_KEY: anyone could publish adapters; set the key, or listen on 127.0.0.1"
            )
        return self

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

    @field_validator("pin")
    @classmethod
    def _names_references(cls, pin: str, info: ValidationInfo) -> str:
        names = ServedNames(read_names(info.data.get("served_names", "")), {})
        for reference in map(names.reference, _split(pin)):
            try:
                name = Reference.parse(reference).name
            except InvalidReference as error:
                raise ValueError(str(error)) from None
            if name == FOUNDATION:
                raise ValueError(f"{FOUNDATION} is always in memory and cannot be pinned; name adapters")
        return pin

    @field_validator("allowed_hosts", "media_hosts")
    @classmethod
    def _names_hosts(cls, hosts: str) -> str:
        for host in _split(hosts):
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"{host!r} is not a host name; give names such as models.example.com or addresses, without a "
                    "scheme, a port or a path"
                )
        return hosts

    @field_validator("served_names")
    @classmethod
    def _names_models(cls, names: str) -> str:
        try:
            read_names(names)
        except InvalidReference as error:
            raise ValueError(str(error)) from None
        return names

    @field_validator("cors_origins")
    @classmethod
    def _names_origins(cls, origins: str) -> str:
        for origin in _split(origins):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin; give a scheme and a host, and a port if need be, such as "
                    "https://app.example.com, without a path"
                )
        return origins

    @model_validator(mode="after")
    def _every_page_only_with_keys(self) -> Self:
        if "*" in self.origins and (self.api_key is None or self.admin_key is None):
            raise ValueError(
                "ROOTSTOCK_CORS_ORIGINS is *, and a call without a key would work from every web page; set "
                "ROOTSTOCK_API_KEY and ROOTSTOCK_ADMIN_KEY, or name the origins"
            )
        return self

    @model_validator(mode="after")
    def _int8_on_onnx(self) -> Self:
        if self.precision == "int8" and self.runner == "torch":
            raise ValueError(
                "ROOTSTOCK_RUNNER=torch does not support ROOTSTOCK_PRECISION=int8: set the runner to onnx, or "
                "the precision to fp32"
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

    @field_validator("api_key", "admin_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()):
            raise ValueError("a key is sent in a header; use visible ASCII characters only, without spaces")
        return key

    @model_validator(mode="after")
    def _one_list_of_foundations(self) -> Self:
        listed = _split(self.foundations)
        if listed and "foundation" in self.model_fields_set and self.foundation != listed[0]:
            raise ValueError(
                f"ROOTSTOCK_FOUNDATION is {self.foundation}, but ROOTSTOCK_FOUNDATIONS begins with {listed[0]}; "
                "set one of the two"
            )
        try:
            reference_names(listed or (self.foundation,))
        except FoundationError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def hosted(self) -> dict[str, str]:
        """Return the setting of each foundation to serve, by its reference, in the order of the settings."""
        listed = _split(self.foundations) or (self.foundation,)
        return dict(zip(reference_names(listed), listed, strict=True))

    @property
    def home_folder(self) -> Path:
        """Return `home` as an absolute path, with ~ expanded."""
        return self.home.expanduser().absolute()

    @property
    def export_folders(self) -> tuple[Path, ...]:
        """Return the folders to search for an export, in order: `exports`, then the home, which gets new ones."""
        ahead = () if self.exports is None else (self.exports.expanduser().absolute(),)
        return (*ahead, self.home_folder)

    @property
    def pinned(self) -> tuple[str, ...]:
        """Return the references in `pin`, without duplicates."""
        return _split(self.pin)

    @property
    def host_names(self) -> tuple[str, ...]:
        """Return the names in `allowed_hosts`, without duplicates and without the brackets of IPv6 addresses."""
        return tuple(host.strip("[]") for host in _split(self.allowed_hosts))

    @property
    def media_host_names(self) -> tuple[str, ...]:
        """Return the names in `media_hosts`, without duplicates and without the brackets of IPv6 addresses."""
        return tuple(host.strip("[]") for host in _split(self.media_hosts))

    @property
    def origins(self) -> tuple[str, ...]:
        """Return the origins in `cors_origins`, in lower case and without duplicates."""
        return _split(self.cors_origins.lower())

    @property
    def names(self) -> dict[str, str]:
        """Return the names in `served_names`, in lower case, each with its reference."""
        return read_names(self.served_names)

    @property
    def runner_threads(self) -> int:
        """Return `threads`; if it is 0, the number of cores that this process may use."""
        return self.threads or len(os.sched_getaffinity(0))

    @property
    def bundle_limits(self) -> Limits:
        """Return the limits of a bundle that these settings name."""
        from rootstock.adapters.bundle import Limits

        return Limits(max_bundle_bytes=self.max_bundle_mb * 2**20, max_rank=self.max_rank)


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


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
