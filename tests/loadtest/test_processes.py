"""Memory is counted for a process and all its descendants, as psutil counts it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rootstock.loadtest.measure.processes import has_proc, memory

psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.skipif(not has_proc(), reason="no /proc")

PROGRAM = """
import subprocess, sys
held = bytearray(30_000_000)
depth = int(sys.argv[1])
child = depth and subprocess.Popen([sys.executable, "-c", sys.argv[2], str(depth - 1), sys.argv[2]], stdin=0)
if not depth:
    print("up", flush=True)
sys.stdin.read()
"""


def test_it_is_psutil_s_for_a_process_with_descendants() -> None:
    command = [sys.executable, "-c", PROGRAM, "2", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        used = memory(process.pid)
        root = psutil.Process(process.pid)
        family = [root, *root.children(recursive=True)]
        assert used.processes == len(family) == 3
        expected = sum(one.memory_full_info().rss for one in family) / 1e6
        assert used.resident == pytest.approx(expected, rel=0.02)
        assert used.proportional == pytest.approx(sum(p.memory_full_info().pss for p in family) / 1e6, rel=0.02)
        assert 90 < used.proportional < used.resident
