"""The app of one of several processes under uvicorn.

It reaches its process by pickle, which imports this module before the process answers its supervisor. So this
module imports little.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rootstock.adapters.home.lock import KeptLock

if TYPE_CHECKING:
    from rootstock.service.startup import Startup


class ProcessApp:
    """Makes the app in a process that the supervisor has started, with the lock on the home."""

    def __init__(self, lock: KeptLock) -> None:
        self._lock = lock

    def __call__(self) -> Startup:
        """Return the app with the settings of the environment. Exit with EXIT_CODE if they do not hold here."""
        from rootstock.adapters.child_process import end_with_spawner
        from rootstock.service.lean_imports import lean_imports

        # The supervisor passes signals on, but not after SIGKILL: then the kernel sends one.
        end_with_spawner()
        with lean_imports():
            from rootstock.service.app import asgi_from_environment
            from rootstock.service.settings import SettingsError
            from rootstock.service.startup import EXIT_CODE, keep_files_private

            keep_files_private()
            try:
                return asgi_from_environment()
            except SettingsError as error:
                # With another code the supervisor would start it again, without end.
                sys.stderr.write(f"rootstock: {error}\n")
                sys.exit(EXIT_CODE)
