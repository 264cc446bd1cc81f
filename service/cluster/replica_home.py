"""The home of one replica: a folder under the home of the machine, which the next replica there takes over."""

from __future__ import annotations

import itertools
from pathlib import Path

from rootstock.adapters.errors import HomeInUse
from rootstock.adapters.home.home import Home

_PROGRAM = "a replica of rootstock deploy ray"
_MOST_REPLICAS = 1024


def take_replica_home(base: Path) -> Path:
    """Lock the first free home of a replica until this process ends, and return its folder.

    A replica that was killed leaves marks of what it was about to store in its home. The next replica on this
    machine takes that home and settles them. Raise HomeInUse if all are taken.
    """
    for number in itertools.count():
        home = Home(Home(base).replica(number))
        try:
            home.keep(_PROGRAM)
        except HomeInUse:
            if number >= _MOST_REPLICAS:
                raise
        else:
            break
    return home.folder


def keep_only_home(base: Path) -> Path:
    """Lock the machine's home for the only replica, and return it. Raise HomeInUse if a program uses it."""
    Home(base).keep(_PROGRAM)
    return base
