"""A home folder, and the one program at a time that uses it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.adapters.errors import HomeInUse

LOCK = "lock"


@contextmanager
def holding(home: Path, program: str) -> Iterator[None]:
    """Hold a home folder, made as needed; HomeInUse, naming the holder, where another holds it.

    The hold is a lock of the operating system's, which ends with the process however that ends. The file that
    carries it stays.
    """
    home.mkdir(parents=True, exist_ok=True)
    handle = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip()
            raise HomeInUse(
                f"{home} is in use by {holder or 'another program'}: one home serves one program at a time; stop "
                "that one, or give another home with ROOTSTOCK_HOME"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{program}, process {os.getpid()}\n".encode())
        yield
    finally:
        # A program that is being started may still share the handle: closing it here alone would not let go.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)
