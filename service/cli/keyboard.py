"""The keys of the terminal that a command runs in."""

from __future__ import annotations

import os
import select
import sys
import time
from types import TracebackType
from typing import Any, Self


class Keyboard:
    """The keys on stdin, each read as soon as it is pressed.

    Without a terminal in the foreground, or on a system without termios, no key is ever pressed. At the end the
    terminal has its earlier mode.
    """

    def __init__(self) -> None:
        self._mode: list[Any] | None = None

    def __enter__(self) -> Self:
        try:
            import termios
            import tty
        except ImportError:
            return self
        if _in_foreground():
            self._mode = termios.tcgetattr(sys.stdin.fileno())
            tty.setcbreak(sys.stdin.fileno())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._mode is not None:
            import termios

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._mode)

    @property
    def reads(self) -> bool:
        """Tell whether a key can be pressed."""
        return self._mode is not None

    def pressed(self, key: str, seconds: float) -> bool:
        """Wait for `seconds`, or until the key is pressed. Return whether it was, or the terminal is gone."""
        if self._mode is None:
            time.sleep(seconds)
            return False
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([sys.stdin], [], [], left)[0]:
                return False
            read = os.read(sys.stdin.fileno(), 64)
            if not read or key.encode() in read.lower():
                return True
        return False


def _in_foreground() -> bool:
    """Tell whether this process is in the foreground of the terminal on stdin. Another one would be stopped."""
    if sys.stdin is None:
        return False  # The caller closed it.
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False
