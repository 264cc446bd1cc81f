"""Where a stage of training stands, on disk after every epoch, so that a killed run goes on."""

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
class Standing:
    """The tensors of a stage by name, and what is plain: epochs done, history."""

    tensors: Mapping[str, torch.Tensor]
    plain: Mapping[str, Any]


class Checkpoints:
    """The stages of one run, in a folder; another run's, told apart by `key`, are not seen.

    Safetensors, never pickled; each is whole or not there.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder = folder
        self._key = key

    def load(self, stage: str) -> Standing | None:
        """Where a stage stood, if it has begun."""
        path = self._path(stage)
        if path is None or not path.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                plain = json.loads(file.metadata()["standing"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None
        return Standing(tensors, plain["stage"]) if plain["key"] == self._key else None

    def save(self, stage: str, standing: Standing) -> None:
        """Put a stage's standing in place of its earlier one."""
        path = self._path(stage)
        if path is None:
            return
        from safetensors.torch import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        plain = json.dumps({"key": self._key, "stage": standing.plain})
        save_file({n: t.contiguous() for n, t in standing.tensors.items()}, new, {"standing": plain})
        os.replace(new, path)

    def clear(self) -> None:
        """Forget every stage."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()

    def _path(self, stage: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{stage}.safetensors"
