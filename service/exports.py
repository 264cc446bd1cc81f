"""The cache of exported foundations: one folder a fingerprint, written in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from adapters.foundation import FoundationError, FoundationFiles, fingerprint

# Raised with the layout of an export; older exports are then made anew.
FORMAT = 3


def export_path(home: Path, digest: str) -> Path:
    """Where the export of a foundation with this fingerprint is or would be."""
    return home / "foundations" / digest.removeprefix("sha256:")[:32] / f"onnx-{FORMAT}"


def is_whole(folder: Path) -> bool:
    """Whether an export has all its files, each of the size that it was written with."""
    try:
        files = json.loads((folder / "foundation.json").read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def ensure_export(setting: str, files: FoundationFiles, home: Path) -> Path:
    """The folder of the foundation's export, made in a subprocess if need be: this process imports no torch."""
    folder = export_path(home, fingerprint(files.folder))
    if not is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "service.exports", setting, str(folder)]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, env=environment, check=False)  # noqa: S603 - our own module
        if done.returncode != 0 or not is_whole(folder):
            raise FoundationError(
                f"the export of {files.name} failed with exit code {done.returncode}; see above"
            )
    return folder


def write_export(setting: str, folder: Path) -> None:
    """Export a foundation to `folder` with progress on stderr; an export that is there already is kept."""
    from adapters.architecture import describe
    from adapters.foundation import locate
    from service.engine.runners.onnx_export import export

    if is_whole(folder):
        return
    files = locate(setting)
    sys.stderr.write(f"exporting {files.name} to ONNX, once\n")
    try:
        export(files.folder, describe(files), folder, lambda step: _progress(step))
    except OSError:
        # Another process finished the same export first: its result is the same.
        if not is_whole(folder):
            raise


def _progress(step: str) -> None:
    sys.stderr.write(f"  {step}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    write_export(sys.argv[1], Path(sys.argv[2]))
