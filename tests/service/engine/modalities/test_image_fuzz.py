"""No bytes make the reading of images crash, leak, take much memory or raise anything but the engine's errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bounds import HANG

ROOT = Path(__file__).parents[4]
# The most MiB that reading a file may take. An image of the most pixels takes up to 800.
MOST_MIB = 1024
# The most seconds of one file, on a busy machine.
MOST_SECONDS = 20


def fuzz(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return the report of a fresh process, which has its limit of memory and the warnings of a server."""
    script = Path(__file__).with_name("image_fuzz.py")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, str(script), str(count), str(seed)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=HANG * max(1, count // 1000),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout)
    print(report)
    return report


def assert_within_limits(report: dict[str, Any], count: int) -> None:
    outcomes = report["outcomes"]
    assert sum(outcomes.values()) == count
    # The files are not all alike: some are read, some refused for their form, some for their size.
    assert min(outcomes[kind] for kind in ("read", "InvalidInput", "TooLarge")) > count / 50
    assert report["peak_growth_mib"] < MOST_MIB
    assert report["kept_mib"] < 64
    assert report["files_left_open"] == 0
    assert report["slowest_seconds"] < MOST_SECONDS


def test_1500_mutated_and_forged_files_are_read_or_refused(tmp_path: Path) -> None:
    assert_within_limits(fuzz(1500, 1, tmp_path), 1500)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_20000_mutated_and_forged_files_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    assert_within_limits(fuzz(5000, seed, tmp_path), 5000)
