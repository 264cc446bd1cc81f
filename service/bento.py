"""The BentoML service, which runs the app in one worker process, or in several.

Run `bentoml serve rootstock.service.bento:Rootstock`. BentoML's parent process supervises the workers. Every way
of starting BentoML imports this module in the parent before the supervisor opens, so it can close its ports.
"""

from __future__ import annotations

import os
import signal
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")

import bentoml
from starlette.types import ASGIApp
from uvicorn.config import HTTP_PROTOCOLS

from rootstock.adapters.child_process import signal_at_parents_death
from rootstock.adapters.errors import HomeInUse
from rootstock.service.composition.access_parts import check_openness
from rootstock.service.lean_imports import lean_imports
from rootstock.service.runner_choice import check_processes
from rootstock.service.settings import SettingsError, read_settings
from rootstock.service.startup import Startup, keep_files_private, tell_parent

# BentoML starts uvicorn itself with http="auto"; this makes "auto" our protocol.
HTTP_PROTOCOLS["auto"] = "rootstock.service.api.connection.protocol:BoundedHeadProtocol"

# A wrong setting stops BentoML's parent process here, before it starts a worker.
settings = read_settings()
check_processes(settings)


def _guard_supervisor() -> None:
    """Make BentoML's supervisor take commands inside its own process alone, and check where it listens.

    BentoML gives it two TCP ports on loopback and no password. One takes commands from any local process, such
    as to run a program; the other tells what happens to workers. ZeroMQ's transport `inproc` opens no socket.
    Only `--reload` needs these ports, and it is refused. See docs/adr/0040.

    The option `--host` of `bentoml serve` does not reach the settings, so the rule for a server without keys is
    applied to the listener itself.
    """
    from bentoml._internal.utils.circus import Arbiter
    from bentoml.exceptions import BentoMLConfigException

    opened = Arbiter.__init__

    # BentoML passes these arguments by keyword. If that changes, the call fails and no server starts.
    def open_without_ports(
        self: Arbiter, watchers: Any, *arguments: Any, endpoint: str, pubsub_endpoint: str, **options: Any
    ) -> None:
        if options.get("plugins"):
            raise BentoMLConfigException(
                "--reload needs a port through which every local process can run commands, and Rootstock keeps "
                "it closed; start the server again after a change"
            )
        try:
            for listener in options["sockets"]:
                check_openness(read_settings(host=listener.host))
            if settings.processes > 1:
                # The parent of one worker needs no registry, and imports none.
                from rootstock.adapters.home.home import Home

                # The workers inherit the lock.
                Home(settings.home_folder).keep("rootstock serve")
        except (SettingsError, HomeInUse) as error:
            raise BentoMLConfigException(str(error)) from None
        if settings.processes > 1:
            for watcher in watchers:
                # BentoML does not replace a worker in a container, where the end of the last one ends it all.
                watcher.respawn = True
        inside = [f"inproc://{name}-{id(self)}" for name in ("control", "events")]
        opened(self, watchers, *arguments, endpoint=inside[0], pubsub_endpoint=inside[1], **options)

    Arbiter.__init__ = open_without_ports  # type: ignore[method-assign]


# A worker has no supervisor, and need not import one.
if bentoml.server_context.worker_index is None:
    _guard_supervisor()


def _stop() -> None:
    """Stop BentoML's parent process, which would otherwise start other workers for ever."""
    tell_parent()
    os.kill(os.getppid(), signal.SIGTERM)


class FrontedService(bentoml.Service[Any]):  # type: ignore[misc]
    """A BentoML service whose worker passes requests straight to our app, and the lifespan to BentoML's app.

    In BentoML's app, its own routes (/livez, /readyz, /metrics) and 404s would shadow ours, in another shape. Its
    timeout would leave a timer behind for each request. See docs/adr/0004.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the ASGI app that BentoML's worker serves. Raise RuntimeError in a worker too many."""
        if settings.processes == 1 and (bentoml.server_context.worker_index or 0) > 1:
            raise RuntimeError(
                "rootstock runs in one worker process, which batches all requests; set workers to 1, or "
                "ROOTSTOCK_PROCESSES to the number of workers"
            )
        # BentoML's parent passes signals on, but not after SIGKILL: then the kernel sends this one.
        signal_at_parents_death(signal.SIGTERM)
        keep_files_private()
        with lean_imports():
            # The parent imports this module too, and needs no app.
            from rootstock.service.app import create_app

            app = create_app(settings)
        self.mount_asgi_app(app)
        return Startup(app, super().to_asgi(is_main), _stop)


# Without its options --host and --port BentoML listens where the settings say, and not on all addresses.
_ADDRESS = {"host": "127.0.0.1" if settings.host == "localhost" else settings.host, "port": settings.port}


@bentoml.service(
    name="rootstock",
    workers=settings.processes,
    http=_ADDRESS,
    metrics={"enabled": False},
    service_class=FrontedService,
)
class Rootstock:
    """The BentoML service. The lifespan of the app opens its parts."""
