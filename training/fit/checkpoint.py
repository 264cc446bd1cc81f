"""Checkpoints of a stage of training after every epoch, from which a killed run resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StageState:
    """The state of a stage after an epoch: tensors by name, and JSON values (`progress`)."""

    tensors: Mapping[str, torch.Tensor]
    progress: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run in a folder; those of a run with another `key` are ignored.

    They are safetensors, never pickled. Each file is written completely or not at all.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder = folder
        self._key = key

    def load(self, stage: str) -> StageState | None:
        """Return the last state of a stage; None where it has no checkpoint."""
        path = self._path(stage)
        if path is None or not path.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                header = json.loads(file.metadata()["standing"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None
        return StageState(tensors, header["stage"]) if header["key"] == self._key else None

    def save(self, stage: str, state: StageState) -> None:
        """Replace the checkpoint of a stage."""
        path = self._path(stage)
        if path is None:
            return
        from safetensors.torch import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        header = json.dumps({"key": self._key, "stage": state.progress})
        save_file({n: t.contiguous() for n, t in state.tensors.items()}, new, {"standing": header})
        os.replace(new, path)

    def clear(self) -> None:
        """Delete the checkpoint of every stage."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()

    def _path(self, stage: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{stage}.safetensors"
