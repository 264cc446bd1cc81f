"""The roles of calls: which call needs a key, and of which role."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import Scope

from rootstock.adapters.registry.key_records import Role
from rootstock.service.tenancy.access import ANONYMOUS, Access, allows
from rootstock.service.tenancy.errors import AccessError, WrongKey
from rootstock.service.tenancy.principal import Principal

METRICS_PATH = "/metrics"
# Health checks and scrapes need no key, and are not traced.
OPEN_PATHS = ("/livez", "/readyz", METRICS_PATH, "/health", "/ping", "/v2/health/live", "/v2/health/ready")
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
# The routes of keys and quotas.
_ADMIN_PATHS = ("/v1/keys", "/v1/tenants")
# A version's weights, which nobody gets without a key where there is one.
_BUNDLE = re.compile(r"/versions/[^/]+/bundle/*$")


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


def required_role(method: str, path: str) -> Role | None:
    """Return the role that a call needs on a server with keys; None if it never needs a key."""
    if path in (*OPEN_PATHS, *_REFERENCE_PATHS) or path.rpartition("/")[0] == _REFERENCE_FILES:
        return None
    if path.startswith(_ADMIN_PATHS):
        return "admin"
    if path.startswith((ADAPTERS_PATH, *_LORA_PATHS)):
        return "predict" if method in ("GET", "HEAD") else "publish"
    return "publish" if path.startswith(_MODELS_PATH) and method == "DELETE" else "predict"


def always_needs_key(path: str, role: Role) -> bool:
    """Tell whether a call needs a key on every server with one: it changes something, or downloads weights.

    Other calls need none if the only key is the admin key of the settings.
    """
    return role != "predict" or _BUNDLE.search(path) is not None


def is_counted(scope: Scope) -> bool:
    """Tell whether a request counts in the quotas: all but those that never need a key."""
    return required_role(scope["method"], scope["path"]) is not None and not is_console(scope)


async def authenticate(access: Access, scope: Scope, authorization: str | None) -> Principal:
    """Return who a request is from. Raise an AccessError if its key does not allow the call."""
    path: str = scope["path"]
    if access.none:
        return Principal()
    needed = required_role(scope["method"], path)
    if path != METRICS_PATH and (needed is None or is_console(scope)):
        return ANONYMOUS
    if needed is None or (not access.required and not always_needs_key(path, needed)):
        # Metrics are for all, and more of them for the operator. Clients of other servers send a key that means
        # nothing here.
        try:
            return await access.principal(authorization)
        except AccessError:
            return ANONYMOUS
    principal = await access.principal(authorization)
    if not allows(principal.role, needed):
        raise WrongKey(
            f"this key does not allow this call; its role is {principal.role}, and the call needs {needed}"
        )
    return principal
