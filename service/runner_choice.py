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


def check_processes(settings: Settings) -> None:
    """Raise SettingsError if several processes would compute on one device, or in different precisions."""
    from rootstock.service.settings import SettingsError

    if settings.processes > 1 and settings.precision == "auto":
        raise SettingsError(
            f"ROOTSTOCK_PROCESSES is {settings.processes} and ROOTSTOCK_PRECISION is auto: each process chooses "
            "at its start, and two could answer in different precisions; set ROOTSTOCK_PRECISION to int8 or fp32"
        )
    if settings.processes > 1 and _has_cuda() and runs_on_torch(settings):
        raise SettingsError(
            f"ROOTSTOCK_PROCESSES is {settings.processes}, and the runner computes on a GPU: each process would "
            "hold the foundation in the memory of the device, and their batches would take turns there; set "
            "ROOTSTOCK_PROCESSES to 1, or ROOTSTOCK_RUNNER to onnx to compute on the cores"
        )


def _has_cuda() -> bool:
    """Tell whether there is an NVIDIA device. This imports no torch, which serving on a CPU does not need."""
    return Path("/dev/nvidiactl").exists()


def _has_torch() -> bool:
    return lack("torch", "") is None
