"""A child process ends with its parent, also while it computes, and once it has computed for long enough."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.adapters.child_process import ORPHANED, OverTime, run_child

# Each computes for as long as it is let. The last holds Python's lock all the while, as an expression does.
COMPUTE = {
    "python": "while True: pass",
    "no lock": "import time; time.sleep(3600)",
    "lock": "import re; re.match('(a*)*b', 'a' * 64)",
}
CHILD = """
import sys
sys.platform = sys.argv[1]
from rootstock.adapters.child_process import end_with_parent, limit_cpu
end_with_parent()
print("runs", flush=True)
{compute}
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdin=subprocess.PIPE)
child.wait()
"""


@pytest.mark.parametrize(
    ("platform", "compute"), [("linux", c) for c in COMPUTE] + [("other", "python"), ("other", "no lock")]
)
def test_a_child_ends_when_its_parent_is_killed(platform: str, compute: str) -> None:
    """Parent and child hold the other end of the output: it is read to its end only once both are gone."""
    command = [sys.executable, "-c", PARENT, CHILD.format(compute=COMPUTE[compute]), platform]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "runs\n"
        parent.kill()
        assert parent.stdout.read() == ""


@pytest.mark.parametrize("module", ["rootstock.adapters.convert.conversion", "rootstock.service.exports.cache"])
def test_each_program_that_a_server_starts_ends_at_once_where_nobody_holds_its_input(
    module: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", module, "default", str(tmp_path / "out")]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=100)
    assert (done.returncode, done.stderr, done.stdout) == (ORPHANED, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_computes_for_longer_than_it_may_is_ended_by_the_system() -> None:
    limited = CHILD.format(compute="limit_cpu(1); " + COMPUTE["lock"])
    with subprocess.Popen(
        [sys.executable, "-c", limited, "linux"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as child:
        assert child.wait(100) == -signal.SIGXCPU


def test_a_child_that_takes_too_long_is_killed_and_one_in_time_tells_its_exit_code() -> None:
    with pytest.raises(OverTime, match=r"longer than 0\.1 s"):
        run_child([sys.executable, "-c", COMPUTE["no lock"]], os.environ, 0.1)
    assert run_child([sys.executable, "-c", "import sys; sys.exit(7)"], os.environ, 100) == 7
