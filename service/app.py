"""The composition root: real parts are chosen here and nowhere else. Under BentoML, also the service.

Importing this module is cheap: BentoML's parent process imports it too. Whatever is heavy is imported when the
app starts.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI

from rootstock.adapters.bundle import Limits, PlainFields
from rootstock.adapters.errors import StoreFull
from rootstock.adapters.spec import Rejected
from rootstock.service.api import adapters, errors, health, pages, predict, rerank
from rootstock.service.api.middleware.gate import Gate, Keys
from rootstock.service.api.middleware.site import Sites
from rootstock.service.api.openai import embeddings, models
from rootstock.service.engine.core.errors import EngineError
from rootstock.service.settings import Settings, read_settings
from rootstock.service.startup import Startup
from rootstock.service.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from rootstock.service.api.server import Server
    from rootstock.service.telemetry.tracing import Tracing

DEMO = Path(__file__).parent / "demo"
_MIB = 2**20

OpenServer = Callable[[Settings], AbstractAsyncContextManager["Server"]]


def create_app(settings: Settings, opened: OpenServer | None = None) -> FastAPI:
    """The HTTP app. Its server opens when the app starts and closes when it stops; tests pass their own."""
    configure_logs(settings.log_level)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (opened or open_server)(settings) as server:
            app.state.server = server
            previous = _chain_sigterm(server, settings.drain_delay)
            server.ready = True
            structlog.get_logger().info("ready", foundation=server.spec.name, runner=server.engine.runner.name)
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
        # FastAPI's own page loads Swagger UI from another host; service/api/pages.py has it from a package.
        docs_url=None,
        redoc_url=None,
        # FastAPI's own spans would double those of telemetry/tracing.py, and it looks for them each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for part in (predict, embeddings, rerank, models, adapters, health, pages):
        app.include_router(part.router)
    errors.install(app)
    app.add_exception_handler(predict.ClientLeft, errors.no_answer)
    keys = Keys(*(None if k is None else k.get_secret_value() for k in (settings.api_key, settings.admin_key)))
    app.add_middleware(
        Gate,
        keys=keys,
        sites=Sites(settings.host_names),
        max_body=settings.max_body_mb * _MIB,
        # The form's other fields and the multipart framing come on top of the bundle.
        max_upload=settings.max_bundle_mb * _MIB + _MIB,
    )
    return app


@asynccontextmanager
async def open_server(
    settings: Settings, span_exporters: Sequence[SpanExporter] | None = None
) -> AsyncIterator[Server]:
    """The real parts, started; at the end admitted requests are finished, then everything closes.

    `span_exporters`: None means those that the environment asks for. HomeInUse where another program uses the
    home. Only the process that serves comes here and takes it.
    """
    from rootstock.adapters.home.home import holding
    from rootstock.service.telemetry.span_exporters import find_exporters

    if span_exporters is None:
        span_exporters = [found.load()() for found in find_exporters()]
    with holding(settings.home_folder, "rootstock serve"):
        async with _traced(span_exporters) as tracing, _open_parts(settings, tracing) as server:
            yield server


@asynccontextmanager
async def _traced(exporters: Sequence[SpanExporter]) -> AsyncIterator[Tracing | None]:
    """Without an exporter nothing of OpenTelemetry is imported."""
    if not exporters:
        yield None
        return
    from rootstock.service.telemetry.tracing import Tracing

    tracing = Tracing(exporters)
    try:
        yield tracing
    finally:
        await asyncio.to_thread(tracing.close)


@asynccontextmanager
async def _open_parts(settings: Settings, tracing: Tracing | None) -> AsyncIterator[Server]:
    from rootstock.adapters.foundation.weights import FoundationWeights
    from rootstock.adapters.registry import SqlRegistry
    from rootstock.adapters.store.folder import FolderStore
    from rootstock.service.api.server import Server
    from rootstock.service.conversion import Converter
    from rootstock.service.engine.core.admission import Capacity
    from rootstock.service.engine.core.observer import Observers
    from rootstock.service.engine.encode.engine import Engine, EngineLimits
    from rootstock.service.engine.encode.modalities.text import Tokenizer
    from rootstock.service.engine.encode.packing import BatchLimits
    from rootstock.service.pins import Pins
    from rootstock.service.publishing import Publisher
    from rootstock.service.registry_catalog import RegistryCatalog
    from rootstock.service.telemetry.metrics import Metrics

    home = settings.home_folder
    runner, export_folder, folder = await asyncio.to_thread(open_runner, settings)
    spec = runner.spec
    base = FoundationWeights(folder, spec.model_type)
    metrics = Metrics()
    registry = SqlRegistry(f"sqlite:///{home / 'registry.db'}")
    store = FolderStore(home / "store")
    limits = Limits(max_bundle_bytes=settings.max_bundle_mb * _MIB, max_rank=settings.max_rank)
    catalog = RegistryCatalog(registry, store, spec, limits, base)
    engine = Engine(
        spec,
        runner,
        Tokenizer(export_folder / "tokenizer.json", None if spec.masked_lm is None else spec.masked_lm.mask_id),
        catalog,
        metrics if tracing is None else Observers(metrics, tracing),
        EngineLimits(settings.max_inputs, settings.request_timeout, settings.cache_mb * _MIB),
        Capacity(settings.queue_items, settings.queue_tokens),
        BatchLimits(settings.batch_rows, settings.batch_tokens),
    )
    metrics.watch(engine)
    engine.start()
    converter = Converter(settings.foundation, settings.max_rank)
    publisher = Publisher(engine, registry, store, spec, limits, metrics, base, converter)
    pins = Pins(engine, catalog, settings.pinned)
    try:
        if settings.demo:
            await register_demo(publisher, registry)
        await pins.follow()
        yield Server(
            spec=spec,
            engine=engine,
            registry=registry,
            catalog=catalog,
            publisher=publisher,
            pins=pins,
            metrics=metrics,
            bundle_limits=limits,
            max_body_bytes=settings.max_body_mb * _MIB,
            tracing=tracing,
        )
    finally:
        await pins.close()
        await asyncio.to_thread(engine.stop)
        registry.close()


def open_runner(settings: Settings) -> tuple[Any, Path, Path]:
    """The runner, the folder with its tokenizer and the foundation's own.

    ONNX Runtime from the export cache, or torch.
    """
    from rootstock.adapters.foundation.location import locate
    from rootstock.service.exports.cache import find_export

    files = locate(settings.foundation)
    on_torch = settings.runner == "torch" or (settings.runner == "auto" and _has_cuda())
    if on_torch and settings.precision == "fp32":
        from rootstock.adapters.foundation.architecture import describe
        from rootstock.service.engine.runners.torch.runner import TorchRunner

        spec = describe(files)
        torch_runner = TorchRunner(files.folder, spec, settings.slots, settings.runner_threads)
        return torch_runner, files.folder, files.folder
    from rootstock.service.engine.runners.onnx.runner import OnnxRunner

    folder = find_export(settings.foundation, files, settings.export_folders, settings.precision)
    cache_bytes = settings.trunk_cache_mb * _MIB
    return OnnxRunner(folder, settings.slots, settings.runner_threads, cache_bytes), folder, files.folder


async def register_demo(publisher: Any, registry: Any) -> None:
    """Publish the demo adapters, verified like any upload, on a registry that nobody has used yet.

    A start that was killed midway is taken up again. What this foundation, these limits or a full disk refuse
    is skipped.
    """
    bundles = {path.stem: path for path in sorted(DEMO.glob("*.zip"))}
    events = registry.events(limit=4 * len(bundles))
    if any(event.name not in bundles or event.what != "published" for event in events):
        return
    log = structlog.get_logger()
    for name in sorted(bundles.keys() - {event.name for event in events}):
        try:
            done = await publisher.publish(
                partial(asyncio.to_thread, bundles[name].read_bytes), name, PlainFields(), True
            )
        except (Rejected, EngineError, StoreFull) as error:
            log.warning("demo adapter skipped", name=name, reason=str(error))
        else:
            log.info("demo adapter published", name=name, task=done.task)


def _has_cuda() -> bool:
    """Whether there is an NVIDIA device, without importing torch: on a CPU, serving needs no torch."""
    return Path("/dev/nvidiactl").exists()


def _chain_sigterm(server: Server, delay: float) -> Any:
    """On SIGTERM turn /readyz to 503, wait `delay` with the listener still open, then let the server stop."""
    if threading.current_thread() is not threading.main_thread():
        return None
    previous = signal.getsignal(signal.SIGTERM)
    loop = asyncio.get_running_loop()

    def drain(number: int, frame: FrameType | None) -> None:
        server.ready = False
        if callable(previous):
            loop.call_soon_threadsafe(loop.call_later, delay, previous, number, frame)
        else:
            sys.exit(0)

    signal.signal(signal.SIGTERM, drain)
    return previous


def _restore_sigterm(previous: Any) -> None:
    if previous is not None:
        signal.signal(signal.SIGTERM, previous)


def app_from_environment() -> FastAPI:
    """The app with the settings of the environment."""
    return create_app(read_settings())


def asgi_from_environment() -> Startup:
    """The same app, which says in one line why it cannot start; for ASGI servers that take a factory."""
    return Startup(app_from_environment())
