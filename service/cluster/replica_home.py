"""The home of one replica: a folder under the home of the machine, which the next replica there takes over."""

from __future__ import annotations

from pathlib import Path

from rootstock.adapters.home.free_home import first_free
from rootstock.adapters.home.home import Home

_PROGRAM = "a replica of rootstock deploy ray"


def take_replica_home(base: Path) -> Path:
    """Lock the first free home of a replica until this process ends, and return its folder.

    The next replica on this machine settles what a killed one left there. Raise HomeInUse if all are taken.
    """
    return first_free(Home(base).replica, lambda home: home.keep(_PROGRAM)).folder


def keep_only_home(base: Path) -> Path:
    """Lock the machine's home for the only replica, and return it. Raise HomeInUse if a program uses it."""
    Home(base).keep(_PROGRAM)
    return base
