"""The choice between the two runners. The command that starts a server asks it before any heavy import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rootstock.adapters.installation import lack

if TYPE_CHECKING:
    from rootstock.service.settings import Settings


def runs_on_torch(settings: Settings) -> bool:
    """Tell whether the settings mean the torch runner, which needs no export, on this machine."""
    if settings.runner == "auto":
        return settings.precision != "int8" and _has_cuda() and _has_torch()
    return settings.runner == "torch"


def _has_cuda() -> bool:
    """Tell whether there is an NVIDIA device. This imports no torch, which serving on a CPU does not need."""
    return Path("/dev/nvidiactl").exists()


def _has_torch() -> bool:
    return lack("torch", "") is None
