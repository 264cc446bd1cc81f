"""Child processes that end with their parent and within a bound, whatever they compute.

A parent gives its child a pipe as standard input, and holds the other end until it wants nothing more of it. The
child calls `end_with_parent` and `limit_cpu` before anything else.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

# The exit code of a child whose parent let go of the pipe.
ORPHANED = 3
_STDIN = 0
_PR_SET_PDEATHSIG = 1
# A process that ignores SIGXCPU gets SIGKILL this much later.
_GRACE_SECONDS = 5


class OverTime(Exception):
    """A child ran for longer than it may; it is gone."""


def end_with_parent() -> None:
    """End this process when its parent closes the pipe on standard input, as it does when it dies.

    A thread reads the pipe, which works on every platform but waits for code that holds Python's lock. Linux
    kills the process in that case too.
    """
    signal_at_parents_death(signal.SIGKILL)
    if not _is_pipe(_STDIN):
        return
    if select.select([_STDIN], [], [], 0)[0]:
        _exit_at_end_of_input()
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def signal_at_parents_death(number: int) -> None:
    """Send this process the signal when the thread that started it ends; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def limit_cpu(seconds: float) -> None:
    """End this process once it has computed for so long, on all cores together."""
    soft = max(1, int(seconds))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    hard = soft + _GRACE_SECONDS
    if most != resource.RLIM_INFINITY:
        hard = min(hard, most)
    resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard), hard))


def run_child(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> int:
    """Run a command that calls `end_with_parent`, and return the exit code.

    Raise OverTime after `seconds`, the child killed.
    """
    with subprocess.Popen(command, env=dict(environment), stdin=subprocess.PIPE) as process:  # noqa: S603 - no shell
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise OverTime(f"the process took longer than {seconds:g} s") from None
        finally:
            process.kill()


def _is_pipe(handle: int) -> bool:
    """Tell whether it is a pipe, or the pair of sockets that asyncio makes of one."""
    try:
        mode = os.fstat(handle).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _exit_at_end_of_input() -> None:
    with suppress(OSError):
        while os.read(_STDIN, 4096):
            pass
    os._exit(ORPHANED)
