"""Child processes that end when their parent ends, and within limits of time.

The parent gives its child a pipe as standard input, and keeps the other end open for as long as it needs the
child. The child calls `end_with_parent` and `limit_cpu` before anything else. It gets no secrets of its parent's.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

# The exit code of a child whose parent closed the pipe, or has ended.
ORPHANED = 3
_STDIN = 0
_PR_SET_PDEATHSIG = 1
# A process that ignores SIGXCPU gets SIGKILL this much later.
_GRACE_SECONDS = 5
# Environment variables that hold a secret: by name, or as an address with a password in it. Settings count
# TOKENS, and TOKENIZERS_PARALLELISM belongs to a library.
_SECRET_NAME = re.compile(
    r"KEY|WEBHOOK|TOKEN(?!S|IZERS)|SECRET|PASSWORD|PASSWD|CREDENTIAL|_HEADERS$", re.IGNORECASE
)
_SECRET_ADDRESS = re.compile(r"://[^/@\s]*:[^/@\s]*@")


class OverTime(Exception):
    """A child that ran longer than its limit; it has been killed."""


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a child. It imports nothing from the current folder."""
    return [sys.executable, "-P", "-m", module, *arguments]


def end_with_parent() -> None:
    """End this process when its parent closes the pipe on standard input or dies.

    A thread reads the pipe. That works on every platform, but the thread has to wait while other code holds
    Python's lock. On Linux the kernel kills the process even then.
    """
    signal_at_parents_death(signal.SIGKILL)
    if not _is_pipe(_STDIN):
        return
    if select.select([_STDIN], [], [], 0)[0]:
        _exit_at_end_of_input()
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def signal_at_parents_death(number: int) -> None:
    """Ask the kernel to signal this process when the thread that started it ends; this works only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def end_with_spawner() -> None:
    """End this process, which multiprocessing has started, by SIGTERM when the process that started it ends.

    Exit with ORPHANED if that has happened before.
    """
    from multiprocessing import parent_process

    signal_at_parents_death(signal.SIGTERM)
    spawner = parent_process()
    if spawner is not None and spawner.pid != os.getppid():
        sys.exit(ORPHANED)


def limit_cpu(seconds: float) -> None:
    """End this process after `seconds` of processor time, summed over all cores."""
    soft = max(1, int(seconds))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    hard = soft + _GRACE_SECONDS
    if most != resource.RLIM_INFINITY:
        hard = min(hard, most)
    resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard), hard))


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that hold no key, token, password or address with a password."""
    return {
        name: value
        for name, value in environment.items()
        if not (_SECRET_NAME.search(name) or _SECRET_ADDRESS.search(value))
    }


def run_child(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> int:
    """Run a command that calls `end_with_parent`, without the secrets in `environment`, and return its exit code.

    Kill the child and raise OverTime after `seconds`.
    """
    open_to_child = without_secrets(environment)
    with subprocess.Popen(command, env=open_to_child, stdin=subprocess.PIPE) as process:  # noqa: S603 - no shell
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise OverTime(f"the process took longer than {seconds:g} s") from None
        finally:
            process.kill()


def _is_pipe(handle: int) -> bool:
    """Return whether the handle is a pipe, or one of the pair of sockets that asyncio uses as a pipe."""
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
