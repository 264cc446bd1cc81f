"""The keys of a server: which bearer token allows which call."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

from rootstock.service.tenancy.principal import Principal

# Health checks and scrapes need no key, and are not traced.
OPEN_PATHS = ("/livez", "/readyz", "/metrics", "/health", "/ping", "/v2/health/live", "/v2/health/ready")
# These hold no data. A browser loads them before its user can give a key.
_REFERENCE_PATHS = ("/docs", "/redoc", "/openapi.json")
_REFERENCE_FILES = "/docs"
ADAPTERS_PATH = "/v1/adapters"
CONSOLE_PATH = "/console"
ASSETS_PATH = "/console/assets/"
# vLLM's routes that publish and delete.
_LORA_PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
# A model's route that deletes it; other methods on these paths are inference.
_MODELS_PATH = "/v1/models/"


def is_console(scope: Scope) -> bool:
    """Tell whether a request is for the console's page or a file of it.

    They hold no data, and a browser loads them before its user can give a key.
    """
    path: str = scope["path"]
    if scope["method"] not in ("GET", "HEAD"):
        return False
    if path == "/":
        return "text/html" in Headers(scope=scope).get("accept", "")
    return path in (CONSOLE_PATH, f"{CONSOLE_PATH}/") or path.startswith(ASSETS_PATH)


@dataclass(frozen=True)
class Keys:
    """The bearer tokens: `api` allows inference and listing, `admin` allows everything. None: no such key."""

    api: str | None = None
    admin: str | None = None

    @property
    def none(self) -> bool:
        """Tell whether the server has no keys, so that no call needs one."""
        return self.api is None and self.admin is None

    def open(self, path: str) -> bool:
        """Tell whether calls of this path never need a key."""
        return path in (*OPEN_PATHS, *_REFERENCE_PATHS) or path.rpartition("/")[0] == _REFERENCE_FILES

    def principal(self, header: str | None) -> Principal:
        """Return who a request with this Authorization header is from; it need not be allowed."""
        token = (header or "").partition(" ")[2].strip()
        if self.none or (self.admin is not None and hmac.compare_digest(token.encode(), self.admin.encode())):
            return Principal()
        return Principal(role="predict")

    def changes(self, method: str, path: str) -> bool:
        """Tell whether a call changes adapters, and so needs the admin key."""
        if path.startswith((ADAPTERS_PATH, *_LORA_PATHS)):
            return method not in ("GET", "HEAD")
        return path.startswith(_MODELS_PATH) and method == "DELETE"

    def refusal(self, method: str, path: str, header: str | None) -> tuple[int, str, str] | None:
        """Return status, code and message if this Authorization header does not allow this call, else None."""
        if self.open(path) or self.none:
            return None
        changes = self.changes(method, path)
        if not changes and self.api is None:
            return None
        scheme, _, token = (header or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return (
                401,
                "missing_key",
                "the request has no key and this call needs one; send Authorization: Bearer <key>",
            )
        allowed = [self.admin] if changes else [self.api, self.admin]
        # Compare every key in constant time, so that the time of a refusal tells nothing about any of them.
        matches = [hmac.compare_digest(token.encode(), key.encode()) for key in allowed if key is not None]
        if any(matches):
            return None
        return (
            403,
            "wrong_key",
            "this key does not allow this call; use the "
            + ("admin key" if changes else "API key or the admin key"),
        )
