"""A home folder, and the one program at a time that uses it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.adapters.errors import HomeInUse

LOCK = "lock"


# Names the handle of a lock that `keep` took, for the process itself and those that it starts with its handles.
_KEPT = "_ROOTSTOCK_HOME_LOCK"
# Between taking the lock and writing its name into the file a holder needs microseconds.
_ATTEMPTS = 50
_PAUSE_SECONDS = 0.02


@contextmanager
def holding(home: Path, program: str) -> Iterator[None]:
    """Hold a home folder, made as needed; raise HomeInUse, naming the holder, where another holds it.

    The hold is a lock of the operating system's, which ends with the process however that ends. The file that
    carries it stays. A home that this process or the one that started it keeps is held already.
    """
    if _is_kept(home):
        yield
        return
    handle = _take(home, program)
    try:
        yield
    finally:
        # A program that is being started may still share the handle: closing it here alone would not let go.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def keep(home: Path, program: str) -> None:
    """Hold a home as `holding` does, until this process and those that it starts with its handles have ended."""
    handle = _take(home, program)
    os.set_inheritable(handle, True)
    os.environ[_KEPT] = str(handle)


def _take(home: Path, program: str) -> int:
    home.mkdir(parents=True, exist_ok=True)
    handle = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.write(handle, f"{program}, process {os.getpid()}\n".encode())
    except BlockingIOError:
        holder = _holder(handle)
        os.close(handle)
        raise HomeInUse(
            f"{home} is in use by {holder or 'another program'}: one home serves one program at a time; stop "
            "that one, or give another home with ROOTSTOCK_HOME"
        ) from None
    except OSError:
        os.close(handle)
        raise
    return handle


def _holder(handle: int) -> str:
    """Return what the holder wrote into the file, waiting while the text is that of a process that is gone.

    The text stays where that lasts: a holder in another container has a process number that is unknown here.
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


def _is_kept(home: Path) -> bool:
    """Tell whether a handle of this home's lock was passed to this process, and holds it."""
    try:
        handle = int(os.environ.get(_KEPT, ""))
        if not os.path.samestat(os.fstat(handle), os.stat(home / LOCK)):
            return False
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, ValueError, OverflowError):
        return False
    return True
