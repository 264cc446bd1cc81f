"""Converts a file of a package to a folder of safetensors in a home, once, in a child process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from rootstock.adapters.child_process import OverTime, end_with_parent, limit_cpu, module_command, run_child
from rootstock.adapters.foundation.files import FoundationError

# The file that lists the others. The last one to be written.
_MANIFEST = "conversion.json"
# The time limit of one conversion.
_SECONDS = 1800.0
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def has_all_files(manifest: Path) -> bool:
    """Tell whether the files that a manifest lists under "files" lie beside it, each with its original size."""
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return all((manifest.parent / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def is_converted(folder: Path) -> bool:
    """Tell whether a folder holds a whole conversion."""
    return has_all_files(folder / _MANIFEST)


def ensure_converted(title: str, module: str, source: Path, folder: Path, cost: str) -> None:
    """Convert `source` to the new folder `folder` with a module that calls `run_conversion`.

    One line on stderr says what is made, where, and what it costs. Raise FoundationError if the child fails.
    """
    sys.stderr.write(f"converting {title} to safetensors in {folder}, once; this takes {cost}\n")
    sys.stderr.flush()
    command = module_command(module, str(source), str(folder))
    try:
        code = run_child(command, {**os.environ, **_QUIET}, _SECONDS)
    except OverTime:
        raise FoundationError(
            f"the conversion of {title} took longer than the limit of {_SECONDS:g} s; make it on a faster "
            "machine and set ROOTSTOCK_EXPORTS to a copy of that machine's home"
        ) from None
    if code != 0 or not is_converted(folder):
        raise FoundationError(
            f"the conversion of {title} failed with exit code {code}; its output above has the cause"
        )


def run_conversion(convert: Callable[[Path, Path], None]) -> int:
    """Run one conversion as a child process, with the command line's file and folder; return the exit code.

    `convert` writes what it makes of the file into an empty folder.
    """
    end_with_parent()
    limit_cpu(_SECONDS * (os.cpu_count() or 1))
    source, target = map(Path, sys.argv[1:])
    try:
        with _appearing_whole(target) as folder:
            convert(source, folder)
    except OSError as error:
        sys.stderr.write(f"{target} cannot be written: {error}\n")
        return 1
    return 0


@contextmanager
def _appearing_whole(target: Path) -> Iterator[Path]:
    """Yield an empty folder and move it to `target` at the end, so that `target` is whole or not there at all.

    Several processes may make the same target at once. The first one's stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".conversion-") as temporary:
        folder = Path(temporary) / "conversion"
        folder.mkdir()
        yield folder
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        (folder / _MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
        if is_converted(target):
            return
        with suppress(FileNotFoundError):
            os.replace(target, Path(temporary) / "incomplete")
        try:
            os.replace(folder, target)
        except OSError:
            if not is_converted(target):
                raise
