"""A home serves one program at a time, and is free again however that one ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.adapters.errors import HomeInUse
from rootstock.adapters.home.home import holding

HOLD = """
import sys
from pathlib import Path
from rootstock.adapters.home.home import holding
with holding(Path(sys.argv[1]), "another program"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_home_that_another_process_holds_is_refused_by_name_and_free_once_that_is_killed(
    tmp_path: Path,
) -> None:
    home = tmp_path / "new" / "home"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(HomeInUse) as refused, holding(home, "this test"):
            pass
        assert f"{home} is in use by another program, process {other.pid}" in str(refused.value)
        other.kill()
        other.wait()
    with holding(home, "this test"):
        pass


def test_a_home_is_held_against_the_same_process_and_given_back_at_the_end(tmp_path: Path) -> None:
    with holding(tmp_path, "first"):
        for _ in range(2):
            with pytest.raises(HomeInUse, match=f"first, process {os.getpid()}"), holding(tmp_path, "second"):
                pass
    with pytest.raises(RuntimeError, match="mine"), holding(tmp_path, "third"):
        raise RuntimeError("mine")
    with holding(tmp_path, "x"):
        assert (tmp_path / "lock").read_text() == f"x, process {os.getpid()}\n"


def test_a_program_that_is_started_meanwhile_does_not_hold_the_home_longer(tmp_path: Path) -> None:
    with holding(tmp_path, "first"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        with holding(tmp_path, "second"):
            pass
    finally:
        child.kill()
        child.communicate()
