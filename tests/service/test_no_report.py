"""What the server is made of reports to nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_onnx_runtime_starts_no_telemetry(tmp_path: Path) -> None:
    """Where it does, it keeps an identifier and what it has to send in the user's cache."""
    environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", "import rootstock.service.engine.runners.onnx.runner"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*")) == []
