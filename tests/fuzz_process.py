"""Runs a fuzz program in a separate process, whose memory can be measured and limited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bounds import HANG

ROOT = Path(__file__).parents[1]


def run_fuzz(
    script: Path, count: int, seed: int, folder: Path, *flags: str, **environment: str
) -> dict[str, Any]:
    """Return the report that a program prints after `count` inputs; `flags` are Python's."""
    done = subprocess.run(
        [sys.executable, *flags, str(script), str(count), str(seed)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **environment},
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
