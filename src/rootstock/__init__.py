"""One frozen foundation model, many adapters, uploaded and served per request.

The names here are those of the Python client (docs/python-client.md). Each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootstock.adapters.client.async_client import AsyncClient
    from rootstock.adapters.client.client import Client
    from rootstock.adapters.client.composition.weighted_adapters import WeightedAdapters
    from rootstock.adapters.client.errors import (
        AccessDenied,
        ClientError,
        InvalidRequest,
        Misused,
        NotFound,
        Refused,
        RejectedBundle,
        ServerBusy,
        ServerFault,
        StateConflict,
        TimedOut,
        Unreachable,
        Unreadable,
    )
    from rootstock.adapters.client.predictions import (
        AnswerResult,
        AudioClassificationResult,
        AudioEmbeddingResult,
        ClassificationResult,
        EmbeddingResult,
        EntitiesResult,
        FillMaskResult,
        ImageClassificationResult,
        ImageEmbeddingResult,
        RelevanceResult,
        TaskResult,
        ZeroShotResult,
    )
    from rootstock.adapters.media import AudioFile, ImageFile

__all__ = [
    "AccessDenied",
    "AnswerResult",
    "AsyncClient",
    "AudioClassificationResult",
    "AudioEmbeddingResult",
    "AudioFile",
    "ClassificationResult",
    "Client",
    "ClientError",
    "EmbeddingResult",
    "EntitiesResult",
    "FillMaskResult",
    "ImageClassificationResult",
    "ImageEmbeddingResult",
    "ImageFile",
    "InvalidRequest",
    "Misused",
    "NotFound",
    "Refused",
    "RejectedBundle",
    "RelevanceResult",
    "ServerBusy",
    "ServerFault",
    "StateConflict",
    "TaskResult",
    "TimedOut",
    "Unreachable",
    "Unreadable",
    "WeightedAdapters",
    "ZeroShotResult",
]

_CLIENT = "rootstock.adapters.client"
_MODULES = {
    "AsyncClient": f"{_CLIENT}.async_client",
    "AudioFile": "rootstock.adapters.media",
    "Client": f"{_CLIENT}.client",
    "ImageFile": "rootstock.adapters.media",
    "WeightedAdapters": f"{_CLIENT}.composition.weighted_adapters",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    other = f"{_CLIENT}.{'predictions' if name.endswith('Result') else 'errors'}"
    return getattr(import_module(_MODULES.get(name, other)), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
