"""The cache of exported foundations: one folder a checkpoint and precision; a separate process writes fp32."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rootstock.adapters.child_process import OverTime, end_with_parent, limit_cpu, run_child
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, fingerprint, heads_digest
from rootstock.adapters.installation import lack

# Raised with the layout of an export; older exports are then made anew.
FORMAT = 5
# Of one export: a foundation of 110 M parameters takes a minute on one core.
_SECONDS = 3600.0


def export_path(home: Path, digest: str, precision: str = "fp32", heads: str | None = None) -> Path:
    """Return where the export of a foundation with this fingerprint is or would be.

    `heads`: the digest of what its checkpoint brings beside the trunk, which the fingerprint does not cover.
    """
    beside = "" if heads is None else f"-{heads.removeprefix('sha256:')[:32]}"
    return home / "foundations" / digest.removeprefix("sha256:")[:32] / f"onnx-{FORMAT}-{precision}{beside}"


def path_of(files: FoundationFiles, home: Path, precision: str = "fp32") -> Path:
    """Return where the export of these files is or would be."""
    return export_path(home, fingerprint(files.folder), precision, heads_digest(files.folder))


def is_whole(folder: Path) -> bool:
    """Tell whether an export has all its files, each of the size that it was written with."""
    try:
        files = json.loads((folder / "foundation.json").read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def find_export(setting: str, files: FoundationFiles, folders: Sequence[Path], precision: str) -> Path:
    """Return the foundation's export in the first of the folders that has one, whole.

    Where none has, the last gets fp32's, made here. Raise FoundationError for int8, which is never made here.
    """
    name = path_of(files, Path(), precision)
    for folder in folders:
        if is_whole(folder / name):
            return folder / name
    if precision == "fp32":
        return ensure_export(setting, files, folders[-1])
    searched = " and ".join(map(str, folders)) + (" holds" if len(folders) == 1 else " hold")
    raise FoundationError(
        f"ROOTSTOCK_PRECISION is {precision}, and {searched} no {precision} export of {files.name}: make one, "
        f"and see what it changes, with `rootstock foundation export --{precision}`; or set fp32"
    )


def ensure_export(setting: str, files: FoundationFiles, home: Path) -> Path:
    """Return the folder of the fp32 export, made in a subprocess if need be: this process imports no torch."""
    folder = path_of(files, home)
    if not is_whole(folder):
        if problem := lack("torch", f"{home} holds no export of {files.name}: making one"):
            raise FoundationError(problem)
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "rootstock.service.exports.cache", setting, str(folder)]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        try:
            code = run_child(command, environment, _SECONDS)
        except OverTime:
            raise FoundationError(
                f"the export of {files.name} took longer than {_SECONDS:g} s and was ended; make it elsewhere "
                "and name its folder in ROOTSTOCK_EXPORTS"
            ) from None
        if code != 0 or not is_whole(folder):
            raise FoundationError(f"the export of {files.name} failed with exit code {code}; see above")
    return folder


@contextmanager
def int8_candidate(fp32: Path, folder: Path) -> Iterator[Path]:
    """Give the int8 form of an fp32 export until the end of the block: what `folder` holds, or else a new one.

    A new one lies beside `folder`, so that `os.replace` accepts it.
    """
    if is_whole(folder):
        yield folder
        return
    if problem := lack("torch", "making the int8 export"):
        raise FoundationError(problem)
    from rootstock.service.engine.runners.onnx.export.int8 import quantise

    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".candidate-") as temporary:
        candidate = Path(temporary) / folder.name
        quantise(fp32, candidate)
        yield candidate


def write_export(setting: str, folder: Path) -> None:
    """Export a foundation to `folder` with progress on stderr; an export that is there already is kept."""
    from rootstock.adapters.foundation.architecture import describe
    from rootstock.adapters.foundation.location import locate
    from rootstock.service.engine.runners.onnx.export.export import export

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
    end_with_parent()
    limit_cpu(_SECONDS * (os.cpu_count() or 1))
    write_export(sys.argv[1], Path(sys.argv[2]))
