"""The BentoML service, which runs the app in one worker process.

Run `bentoml serve rootstock.service.bento:Rootstock`.
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
from rootstock.service.lean_imports import lean_imports
from rootstock.service.settings import read_settings
from rootstock.service.startup import Startup, tell_parent

# BentoML starts uvicorn itself with http="auto"; this makes "auto" our protocol.
HTTP_PROTOCOLS["auto"] = "rootstock.service.api.protocol:BoundedHeadProtocol"

# A wrong setting stops BentoML's parent process here, before it starts a worker.
settings = read_settings()


def _stop() -> None:
    """Stop BentoML's parent process, which would otherwise start another worker for ever."""
    tell_parent()
    os.kill(os.getppid(), signal.SIGTERM)


class FrontedService(bentoml.Service[Any]):  # type: ignore[misc]
    """A BentoML service whose worker passes requests straight to our app, and the lifespan to BentoML's app.

    In BentoML's app, its own routes (/livez, /readyz, /metrics) and 404s would shadow ours, in another shape. Its
    timeout would leave a timer behind for each request. See docs/adr/0004.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the ASGI app that BentoML's worker serves. Raise RuntimeError in a second worker."""
        if (bentoml.server_context.worker_index or 0) > 1:
            raise RuntimeError(
                "rootstock runs in one worker process, which batches all requests; set workers to 1"
            )
        # BentoML's parent passes signals on, but not after SIGKILL: then the kernel sends this one.
        signal_at_parents_death(signal.SIGTERM)
        with lean_imports():
            # The parent imports this module too, and needs no app.
            from rootstock.service.app import create_app

            app = create_app(settings)
        self.mount_asgi_app(app)
        return Startup(app, super().to_asgi(is_main), _stop)


@bentoml.service(name="rootstock", workers=1, metrics={"enabled": False}, service_class=FrontedService)
class Rootstock:
    """The BentoML service. The lifespan of the app opens its parts."""
