"""The choice among the homes of several programs that serve together: each takes the first one that is free."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from rootstock.adapters.errors import HomeInUse
from rootstock.adapters.home.home import Home

_MOST_HOMES = 1024


def first_free(folder: Callable[[int], Path], lock: Callable[[Home], object]) -> Home:
    """Return the first home by number that `lock` locks; raise HomeInUse, as `lock` does, if all are in use.

    A program that was killed leaves marks of what it was about to store in its home. The next program that takes
    that home finds them there.
    """
    for number in itertools.count():
        home = Home(folder(number))
        try:
            lock(home)
        except HomeInUse:
            if number >= _MOST_HOMES:
                raise
        else:
            break
    return home
