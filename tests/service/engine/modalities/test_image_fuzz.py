"""No bytes make the reading of images crash, leak, take much memory or raise anything but the engine's errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fuzz_process import run_fuzz

# The most MiB that reading a file may take. An image of the most pixels takes up to 800.
MOST_MIB = 1024
# The most seconds of one file, on a busy machine.
MOST_SECONDS = 20


def fuzz(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return the report of a fresh process, which has its limit of memory and the warnings of a server."""
    return run_fuzz(Path(__file__).with_name("image_fuzz.py"), count, seed, folder)


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
