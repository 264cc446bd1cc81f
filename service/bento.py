"""The BentoML service: one worker process around the app.

Run `bentoml serve rootstock.service.bento:Rootstock`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")

import bentoml
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootstock.service.app import app_from_environment

_PR_SET_PDEATHSIG = 1

app = app_from_environment()


class Front:
    """The worker's ASGI app: requests go straight to our app, the lifespan to BentoML's, which runs ours.

    Inside BentoML's app our routes would be shadowed by its own (/livez, /readyz, /metrics, its 404s, in another
    shape), and each request would leave behind the timer that its timeout sets. See docs/adr/0004.
    """

    def __init__(self, lifespan: ASGIApp) -> None:
        self.lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request, or the lifespan, on. A start that fails ends BentoML too: it would retry for ever."""
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.failed":
                os.kill(os.getppid(), signal.SIGTERM)

        await self.lifespan(scope, receive, watched)


def _end_with_parent() -> None:
    """On Linux: SIGTERM to this worker when BentoML's parent is killed, which could not pass a signal on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class FrontedService(bentoml.Service[Any]):  # type: ignore[misc]
    """A BentoML service whose worker runs Front."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """The ASGI app that BentoML's worker serves; RuntimeError in a second worker."""
        if (bentoml.server_context.worker_index or 0) > 1:
            raise RuntimeError(
                "rootstock runs in one worker process, which batches all requests; set workers to 1"
            )
        _end_with_parent()
        return Front(super().to_asgi(is_main))


@bentoml.service(name="rootstock", workers=1, metrics={"enabled": False}, service_class=FrontedService)
@bentoml.asgi_app(app)
class Rootstock:
    """Its parts are opened by the app's lifespan."""
