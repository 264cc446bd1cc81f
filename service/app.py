"""The HTTP app: its routes, middleware, start and stop."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from rootstock.service.api import console, errors, health, keys, pages, predict, rerank, tokenize
from rootstock.service.api.adapters import (
    aliases,
    cards,
    deletions,
    events,
    listing,
    rollback_rules,
    shadows,
    sharing,
    splits,
    uploads,
    versions,
)
from rootstock.service.api.compat import (
    bento_schema,
    cohere,
    infinity,
    lora,
    mlflow,
    probes,
    shared_paths,
    tei,
    tei_tokens,
    vllm,
)
from rootstock.service.api.compat.hugging_face import inference_api
from rootstock.service.api.compat.inference_protocol import open_inference
from rootstock.service.api.document import tags
from rootstock.service.api.document.document import OpenApiDocument
from rootstock.service.api.middleware.gate import Gate
from rootstock.service.api.middleware.security_headers import SecurityHeaders
from rootstock.service.api.middleware.site import Sites
from rootstock.service.api.openai import chat, completions, embeddings, models, moderations
from rootstock.service.composition.server_parts import open_server
from rootstock.service.settings import Settings, read_settings
from rootstock.service.startup import Startup
from rootstock.service.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from rootstock.service.api.server import Server

_MIB = 2**20
# The routes of each group in the OpenAPI document, without those that have to come last.
_ROUTERS = {
    tags.PREDICTIONS: (predict.router, rerank.router),
    tags.OPENAI: (embeddings.router, chat.router, completions.router, moderations.router),
    tags.TOKENS: (tokenize.router,),
    tags.MODELS: (models.router,),
    tags.ADAPTERS: (
        # Before the form's route, which has the same path.
        uploads.sources,
        *(part.router for part in (uploads, listing, versions, deletions, cards, aliases, splits, sharing)),
        *(part.router for part in (events, shadows, rollback_rules)),
        lora.router,
    ),
    tags.KEYS: (keys.router,),
    tags.SERVER: (health.router, pages.router, console.router, probes.router, bento_schema.router),
    tags.EMBEDDING_SERVERS: tuple(part.router for part in (tei, tei_tokens, infinity, cohere, shared_paths)),
    tags.VLLM: (vllm.router,),
    tags.KSERVE: (open_inference.router, open_inference.v1_router, mlflow.router),
}

# The headers of an answer that a page of another site may read.
_EXPOSED = ("X-Request-Id", "X-Model-Version", "X-Model-Digest", "Retry-After", "RateLimit", "RateLimit-Policy")

OpenServer = Callable[[Settings], AbstractAsyncContextManager["Server"]]


def create_app(settings: Settings, opened: OpenServer | None = None) -> FastAPI:
    """Return the HTTP app.

    The server opens when the app starts and closes when it stops. Tests replace it by `opened`.
    """
    configure_logs(settings.log_level)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (opened or open_server)(settings) as server:
            app.state.server = server
            previous = _chain_sigterm(server, settings.drain_delay)
            server.ready = True
            _log_ready(server)
            try:
                yield
            finally:
                server.ready = False
                _restore_sigterm(previous)

    app = FastAPI(
        title="Rootstock",
        summary="One frozen foundation model, many adapters, uploaded and served per request.",
        lifespan=lifespan,
        redirect_slashes=False,
        # FastAPI's page loads Swagger UI from another host; service/api/pages.py serves it from a package.
        docs_url=None,
        redoc_url=None,
        # FastAPI's spans would duplicate those of telemetry/tracing.py, and cost time in each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        openapi_tags=[{"name": tag.name, "description": tag.description} for tag in tags.TAGS],
    )
    for tag, routers in _ROUTERS.items():
        for router in routers:
            app.include_router(router, tags=[tag.name])
    # A client of TEI appends a path to its base address, so the address alone has to name an adapter.
    for part in (tei, tei_tokens, shared_paths):
        app.include_router(part.router, prefix="/models/{reference}", include_in_schema=False)
    # The last one, because its paths begin with a reference, which may hold slashes.
    app.include_router(inference_api.router, tags=[tags.HUGGING_FACE.name])
    errors.install(app)
    app.add_exception_handler(predict.ClientLeft, errors.no_answer)
    app.openapi = OpenApiDocument(app)  # type: ignore[method-assign]
    app.add_middleware(
        Gate,
        sites=Sites(settings.host_names, settings.origins),
        max_body=settings.max_body_mb * _MIB,
        # 1 MiB on top of the bundle is for the form's other fields and the multipart framing.
        max_upload=settings.max_bundle_mb * _MIB + _MIB,
    )
    if settings.origins:
        # It stands before the gate, because a browser sends no key when it asks whether it may call.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    app.add_middleware(SecurityHeaders)
    return app


def _log_ready(server: Server) -> None:
    first, *others = server.foundations
    more = {"others": [host.spec.name for host in others]} if others else {}
    structlog.get_logger().info("ready", foundation=first.spec.name, runner=first.engine.runner.name, **more)


def _chain_sigterm(server: Server, delay: float) -> Any:
    """Turn /readyz to 503 on SIGTERM, and stop the server by the previous handler `delay` seconds later."""
    if threading.current_thread() is not threading.main_thread():
        return None
    previous = signal.getsignal(signal.SIGTERM)
    loop = asyncio.get_running_loop()

    def drain(number: int, frame: FrameType | None) -> None:
        server.ready = False
        if callable(previous):
            # A server whose engine has ended answers nothing, and takes no new connection.
            wait = 0.0 if server.foundations.fallen else delay
            loop.call_soon_threadsafe(loop.call_later, wait, previous, number, frame)
        else:
            sys.exit(0)

    signal.signal(signal.SIGTERM, drain)
    return previous


def _restore_sigterm(previous: Any) -> None:
    if previous is not None:
        signal.signal(signal.SIGTERM, previous)


def asgi_from_environment() -> Startup:
    """Return the app with the settings from the environment, for ASGI servers that take a factory.

    If it cannot start, it writes the reason to stderr in one line.
    """
    return Startup(create_app(read_settings()))
