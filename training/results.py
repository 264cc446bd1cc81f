"""Writes the files of a run into its output folder, each completely or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rootstock.adapters.bundle import Bundle
from rootstock.adapters.bundle.archive import MANIFEST
from rootstock.training.report.report import PLOTS, write_report

_STAGING = ".staging-"


@dataclass(frozen=True)
class Results:
    """The paths of a run's results."""

    folder: Path
    name: str

    @property
    def bundle(self) -> Path:
        """The folder of the bundle's files."""
        return self.folder / "bundle"

    @property
    def zip(self) -> Path:
        """The bundle's zip, named after the adapter."""
        return self.folder / f"{self.name}.zip"

    @property
    def metrics(self) -> Path:
        """The run's figures as JSON."""
        return self.folder / "metrics.json"

    @property
    def report(self) -> Path:
        """The report as an HTML page."""
        return self.folder / "report.html"

    @property
    def resume(self) -> Path:
        """The checkpoints, from which a killed run resumes."""
        return self.folder / ".resume"


@dataclass(frozen=True)
class RunResult:
    """A finished run: the digest of its bundle, its metrics, and its files."""

    digest: str
    metrics: dict[str, Any]
    results: Results


def write_results(
    results: Results,
    bundle: Bundle,
    metrics: Mapping[str, Any],
    recipe: str,
    log: str,
    pictures: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write the results of a run into its folder. `pictures` are PNG files by name, for the report.

    Each file is written beside its place and then renamed, so that an interrupted run leaves no half-written
    file.
    """
    results.folder.mkdir(parents=True, exist_ok=True)
    for leftover in results.folder.glob(f"{_STAGING}*"):
        # A run that was killed while it wrote left this folder.
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=_STAGING, dir=results.folder) as staging:
        new = Path(staging)
        (new / "bundle").mkdir()
        for member, content in {**bundle.files, MANIFEST: bundle.manifest.to_bytes()}.items():
            (new / "bundle" / member).write_bytes(content)
        (new / results.zip.name).write_bytes(bundle.to_zip())
        (new / "metrics.json").write_text(
            json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (new / "recipe.yaml").write_text(recipe, encoding="utf-8")
        (new / "log.jsonl").write_text(log, encoding="utf-8")
        (new / PLOTS).mkdir()
        for name, picture in pictures.items():
            (new / PLOTS / f"{name}.png").write_bytes(picture)
        write_report(metrics, new)
        for path in sorted(new.iterdir()):
            _replace(path, results.folder / path.name, new / "old" / path.name)


def _replace(new: Path, place: Path, old: Path) -> None:
    """Move a file or folder to its place; an earlier folder is moved aside first, for it cannot be replaced."""
    if place.is_dir():
        old.parent.mkdir(exist_ok=True)
        place.rename(old)
        new.rename(place)
    else:
        os.replace(new, place)
