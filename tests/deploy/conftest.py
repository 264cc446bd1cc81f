"""Bentos as `bentoml build` makes them from this tree."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The built bento's folder, by the bentofile's name."""

    @cache
    def build(bentofile: str) -> Path:
        home = tmp_path_factory.mktemp("bentoml")
        environment = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
        command = [sys.executable, "-m", "bentoml", "build", "--bentofile", bentofile, "--output", "tag"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (folder,) = (path.parent for path in home.glob("bentos/*/*/bento.yaml"))
        return folder

    return build
