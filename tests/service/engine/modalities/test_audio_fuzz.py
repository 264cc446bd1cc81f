"""Damaged recordings give typed errors alone, in bounded memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Run the program in a separate process, and return what it printed."""
    program = Path(__file__).with_name("audio_fuzz.py")
    run = subprocess.run(
        [sys.executable, "-W", "error", program, str(count), str(seed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert run.returncode == 0, f"the process ended with {run.returncode}: {run.stderr[-2000:]}"
    # libmpg123 prints notes on damaged frames. An error in a callback of ours would be printed too.
    assert "Traceback" not in run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def check(result: dict[str, Any], count: int) -> None:
    outcomes = result["outcomes"]
    assert set(outcomes) == {"read", "InvalidInput", "TooLarge"}
    assert sum(outcomes.values()) == count
    assert outcomes["read"] > count / 10, "many damages are small enough for the decoders to be reached"
    assert result["growth_mib"] < 64


def test_damaged_recordings_are_refused_without_a_crash() -> None:
    check(fuzz(1500, 0), 1500)


@pytest.mark.slow
def test_twenty_thousand_damaged_recordings_are_refused_without_a_crash() -> None:
    check(fuzz(20_000, 1), 20_000)
