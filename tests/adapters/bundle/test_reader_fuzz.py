"""No bytes make the reading of a bundle crash, take long or take much memory, or raise anything but Rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fuzz_process import run_fuzz

# Seconds of processor time for one upload, which is read twice: as an upload, and as a file of the store.
MOST_SECONDS = 2
# The MiB that reading may take. An upload may unpack to 128 MiB; what is read of it comes on top.
MOST_MIB = 512
# The MiB that may stay. Large uploads leave holes that the allocator keeps; without them nothing stays.
MOST_KEPT_MIB = 128


def fuzz(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return the report of a fresh process, which has its limit of addresses and the warnings of a server."""
    script = Path(__file__).with_name("bundle_fuzz.py")
    return run_fuzz(script, count, seed, folder, "-W", "error", OMP_NUM_THREADS="1")


def assert_within_limits(report: dict[str, Any], count: int) -> None:
    outcomes = report["outcomes"]
    for way in ("upload", "stored"):
        assert sum(n for outcome, n in outcomes.items() if outcome.startswith(way)) == count
        # The uploads are not all alike: some are read, and each part of a bundle is at fault in some.
        assert min(outcomes[f"{way} {outcome}"] for outcome in ("read", "members", "schema")) > count / 50
    assert min(outcomes[f"upload {check}"] for check in ("safetensors", "names", "sites")) > count / 500
    assert report["slowest_seconds"] < MOST_SECONDS
    assert report["peak_growth_mib"] < MOST_MIB
    assert report["kept_mib"] < MOST_KEPT_MIB
    assert report["files_left_open"] == 0


def test_1000_mutated_and_forged_uploads_are_read_or_refused(tmp_path: Path) -> None:
    assert_within_limits(fuzz(1000, 1, tmp_path), 1000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2, 6))
def test_200000_mutated_and_forged_uploads_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    assert_within_limits(fuzz(50_000, seed, tmp_path), 50_000)
