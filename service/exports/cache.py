"""The cache of exported foundations: one folder for each checkpoint and precision."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rootstock.adapters.child_process import OverTime, end_with_parent, limit_cpu, module_command, run_child
from rootstock.adapters.foundation.conversion import has_all_files
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, fingerprint, heads_digest
from rootstock.adapters.home.home import Home
from rootstock.adapters.installation import lack

# The version of an export's layout. Raise it with each change, so that older exports are made again.
FORMAT = 8
# The time limit of one export; a foundation of 110 M parameters takes a minute on one core.
_SECONDS = 3600.0


def export_path(home: Path, digest: str, precision: str = "fp32", heads: str | None = None) -> Path:
    """Return the folder for the export of a foundation with this fingerprint, whether it exists or not.

    `heads` is the digest of the checkpoint's weights outside the trunk, which the fingerprint does not cover.
    """
    beside = "" if heads is None else f"-{heads.removeprefix('sha256:')[:32]}"
    return Home(home).export(digest, f"onnx-{FORMAT}-{precision}{beside}")


def path_of(files: FoundationFiles, home: Path, precision: str = "fp32") -> Path:
    """Return the folder for the export of these files, whether it exists or not."""
    return export_path(home, fingerprint(files.folder), precision, heads_digest(files.folder))


def is_whole(folder: Path) -> bool:
    """Tell whether an export has all its files, each with its original size."""
    return has_all_files(folder / "foundation.json")


def existing_export(files: FoundationFiles, folders: Sequence[Path], precision: str) -> Path | None:
    """Return the foundation's export from the first of the folders that has a complete one, if any has."""
    name = path_of(files, Path(), precision)
    return next((folder / name for folder in folders if is_whole(folder / name)), None)


def find_export(setting: str, files: FoundationFiles, folders: Sequence[Path], precision: str) -> Path:
    """Return the foundation's export from the first of the folders that has a complete one.

    If none has, make the fp32 export in the last folder. Raise FoundationError for int8, which this function
    never makes.
    """
    if (export := existing_export(files, folders, precision)) is not None:
        return export
    if precision == "fp32":
        return ensure_export(setting, files, folders[-1])
    holders = " and ".join(map(str, folders)) + (" holds" if len(folders) == 1 else " hold")
    raise FoundationError(
        f"ROOTSTOCK_PRECISION is {precision}, and {holders} no {precision} export of {files.name}; make and "
        f"check one with `rootstock foundation export --{precision}`, or set ROOTSTOCK_PRECISION to fp32"
    )


def ensure_export(setting: str, files: FoundationFiles, home: Path) -> Path:
    """Return the folder of the fp32 export. If need be, make it in a subprocess: this one imports no torch."""
    folder = path_of(files, home)
    if not is_whole(folder):
        if problem := lack("torch", f"{home} holds no export of {files.name}: making one"):
            raise FoundationError(problem)
        shutil.rmtree(folder, ignore_errors=True)
        command = module_command("rootstock.service.exports.cache", setting, str(folder))
        # The files are here already, and the child has no token for a hub.
        settings = {"ROOTSTOCK_HOME": str(home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        try:
            code = run_child(command, {**os.environ, **settings}, _SECONDS)
        except OverTime:
            raise FoundationError(
                f"the export of {files.name} took longer than the limit of {_SECONDS:g} s; make it on a faster "
                "machine and set ROOTSTOCK_EXPORTS to its folder"
            ) from None
        if code != 0 or not is_whole(folder):
            raise FoundationError(
                f"the export of {files.name} failed with exit code {code}; its output above has the cause"
            )
    return folder


@contextmanager
def int8_candidate(fp32: Path, folder: Path) -> Iterator[Path]:
    """Yield the folder of an int8 export: `folder` if it is complete, else a temporary one that is made here.

    The temporary one is deleted at the end. It lies beside `folder`, so that `os.replace` can move it there.
    Raise FoundationError for a foundation that reads images or audio.
    """
    spec = json.loads((fp32 / "foundation.json").read_text(encoding="utf-8"))["spec"]
    if spec["modality"] != "text":
        raise FoundationError(
            f"{spec['name']} reads {spec['modality']} inputs, and int8 is only for foundations that read text, "
            "because only their outputs are checked; serve it in fp32"
        )
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
    """Export a foundation to `folder` and report progress on stderr; keep a complete export that exists."""
    from rootstock.adapters.foundation.architecture import describe
    from rootstock.adapters.foundation.location import locate
    from rootstock.service.engine.runners.onnx.export.export import export

    if is_whole(folder):
        return
    files = locate(setting)
    sys.stderr.write(f"exporting {files.name} to ONNX; later starts reuse the export\n")
    try:
        export(files.folder, describe(files), folder, lambda step: _progress(step))
    except OSError:
        # Another process may have finished the same export first; its result is the same.
        if not is_whole(folder):
            raise


def _progress(step: str) -> None:
    sys.stderr.write(f"  {step}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    end_with_parent()
    limit_cpu(_SECONDS * (os.cpu_count() or 1))
    write_export(sys.argv[1], Path(sys.argv[2]))
