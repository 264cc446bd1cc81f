"""The lock on a home folder, which only one program may use at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from rootstock.adapters.errors import HomeInUse

# The environment variable with the handle of a lock that `keep` took. This process and the processes that inherit
# its handles read it.
_KEPT = "_ROOTSTOCK_HOME_LOCK"
# A holder takes only microseconds between the lock and the write of its name into the file.
_ATTEMPTS = 50
_PAUSE_SECONDS = 0.02


@contextmanager
def holding(lock: Path, program: str) -> Iterator[None]:
    """Lock a home by the file `lock` in it; raise HomeInUse with the holder's name if another program holds it.

    The home is created as needed. The lock is one of the operating system, which ends with the process in every
    case. The lock's file stays.
    If this process or its parent has taken the lock with `keep`, the home is already held and nothing is done.
    """
    if _is_kept(lock):
        yield
        return
    handle = _take(lock, program)
    try:
        yield
    finally:
        # A program that is just starting may share the handle. Then a close alone would not release the lock.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def keep(lock: Path, program: str) -> None:
    """Lock a home as `holding` does, until this process and all that inherit its handles have ended."""
    if _is_kept(lock):
        return
    handle = _take(lock, program)
    os.set_inheritable(handle, True)
    os.environ[_KEPT] = str(handle)


class KeptLock:
    """The lock that `keep` took, as an argument of a process that multiprocessing starts by `spawn`.

    Such a process inherits the handles of its arguments and no others. It keeps the lock once it has this one.
    """

    def __reduce__(self) -> tuple[Callable[..., KeptLock], tuple[Any, ...]]:
        """Return what makes the lock in the other process. Only multiprocessing can pickle it."""
        return _keep_passed, (reduction.DupFd(int(os.environ[_KEPT])),)


def _keep_passed(handle: Any) -> KeptLock:
    os.environ[_KEPT] = str(handle.detach())
    return KeptLock()


def _take(lock: Path, program: str) -> int:
    lock.parent.mkdir(0o700, parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.write(handle, f"{program}, process {os.getpid()}\n".encode())
    except BlockingIOError:
        holder = _holder(handle)
        os.close(handle)
        raise HomeInUse(
            f"{lock.parent} is in use by {holder or 'another program'}: only one program may use a home at a "
            "time; stop that program, or set ROOTSTOCK_HOME to another folder"
        ) from None
    except OSError:
        os.close(handle)
        raise
    return handle


def _holder(handle: int) -> str:
    """Return the holder's text in the file; wait for a short time while it names a process that does not run.

    After the wait, return the text all the same: the process number of a holder in another container is unknown
    here.
    """
    holder = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
        process = holder.rpartition(" ")[2]
        if process.isdigit() and _runs(int(process)):
            break
    return holder


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_kept(lock: Path) -> bool:
    """Return whether this process has a handle of this lock that holds it."""
    try:
        handle = int(os.environ.get(_KEPT, ""))
        if not os.path.samestat(os.fstat(handle), os.stat(lock)):
            return False
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, ValueError, OverflowError):
        return False
    return True
