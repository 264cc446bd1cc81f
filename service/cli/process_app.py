"""The app of one of several processes under uvicorn.

It reaches its process by pickle, which imports this module before the process answers its supervisor. So this
module imports little.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from rootstock.adapters.home.lock import KeptLock

if TYPE_CHECKING:
    from rootstock.service.startup import Startup


class ProcessApp:
    """Makes the app in a process that the supervisor has started, with the lock on the home."""

    def __init__(self, lock: KeptLock) -> None:
        self._lock = lock

    def __call__(self) -> Startup:
        """Return the app with the settings of the environment."""
        from rootstock.adapters.child_process import signal_at_parents_death
        from rootstock.service.lean_imports import lean_imports

        # The supervisor passes signals on, but not after SIGKILL: then the kernel sends this one.
        signal_at_parents_death(signal.SIGTERM)
        with lean_imports():
            from rootstock.service.app import asgi_from_environment
            from rootstock.service.startup import keep_files_private

            keep_files_private()
            return asgi_from_environment()
