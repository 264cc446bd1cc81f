"""The composition root: the only module that chooses the parts of a server.

A caller may replace a part by keyword. Heavy modules are imported when a server opens, because BentoML's parent
process imports this module too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from rootstock.adapters.bundle import Limits, PlainFields
from rootstock.adapters.errors import InvalidName, StoreFull
from rootstock.adapters.spec import FoundationSpec, Rejected
from rootstock.service.engine.core.errors import EngineError
from rootstock.service.runner_choice import runs_on_torch
from rootstock.service.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from rootstock.adapters.foundation.location import FoundationFiles
    from rootstock.adapters.registry.port import Registry
    from rootstock.adapters.store.port import Store
    from rootstock.service.api.server import Server
    from rootstock.service.engine.core.arbiter import Arbiter
    from rootstock.service.engine.core.catalog import Catalog
    from rootstock.service.engine.core.observer import Observer
    from rootstock.service.engine.encode.batch import Encoder
    from rootstock.service.engine.encode.engine import Engine
    from rootstock.service.engine.encode.modalities.reader import Reader
    from rootstock.service.engine.generate.decoder import Decoder
    from rootstock.service.engine.generate.engine import GenerationEngine
    from rootstock.service.engine.generate.prompt import PromptTokenizer
    from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
    from rootstock.service.engine.runners.seq2seq.decoder import Seq2SeqDecoder
    from rootstock.service.foundations import FoundationHost
    from rootstock.service.publishing import Publisher
    from rootstock.service.registry_catalog import RegistryCatalog
    from rootstock.service.telemetry.metrics import Metrics
    from rootstock.service.telemetry.tracing import Tracing

# The demo adapters of the default foundation, and of the chat foundation.
DEMO, CHAT_DEMO = (Path(__file__).parent / name for name in ("demo", "demo_chat"))
_MIB = 2**20


class OpenedRunner(NamedTuple):
    """A runner, the description of its foundation, and the folder with what reads its inputs.

    `texts` is the runner of the foundation's tower for texts, if it has one.
    """

    encoder: Encoder
    spec: FoundationSpec
    folder: Path
    texts: OpenedRunner | None = None


# Opens the runner of one foundation, from its setting, its files and the server's settings.
OpenRunner = Callable[[str, "FoundationFiles", Settings], OpenedRunner]


def open_runner(setting: str, files: FoundationFiles, settings: Settings) -> OpenedRunner:
    """Open the runner that the settings ask for: torch, or ONNX Runtime on the foundation's export."""
    if runs_on_torch(settings):
        from rootstock.adapters.foundation.architecture import describe
        from rootstock.service.engine.runners.torch.runner import TorchRunner

        spec = describe(files)
        limits = settings.slots, settings.runner_threads
        runner = OpenedRunner(TorchRunner(files.folder, spec, *limits), spec, files.folder)
        if spec.text_tower is None:
            return runner
        tower = spec.text_tower.trunk
        texts = OpenedRunner(TorchRunner(files.folder, tower, *limits), tower, files.folder)
        return runner._replace(texts=texts)
    from rootstock.adapters.foundation.location import with_files
    from rootstock.service.engine.runners.onnx.runner import OnnxRunner
    from rootstock.service.engine.runners.onnx.sessions import TEXT_FOLDER
    from rootstock.service.exports.cache import find_export

    folder = find_export(setting, files, settings.export_folders, settings.precision)
    cache_bytes = settings.trunk_cache_mb * _MIB // len(settings.hosted)
    onnx = OnnxRunner(folder, settings.slots, settings.runner_threads, cache_bytes)
    # The export may come from another folder with the same fingerprint.
    onnx.spec = with_files(onnx.spec, files)
    opened = OpenedRunner(onnx, onnx.spec, folder)
    if onnx.spec.text_tower is None:
        return opened
    of_texts = OnnxRunner(folder / TEXT_FOLDER, settings.slots, settings.runner_threads, cache_bytes)
    return opened._replace(texts=OpenedRunner(of_texts, of_texts.spec, folder / TEXT_FOLDER))


@asynccontextmanager
async def open_server(
    settings: Settings,
    *,
    span_exporters: Sequence[SpanExporter] | None = None,
    open_runner: OpenRunner = open_runner,
    registry: Registry | None = None,
    store: Store | None = None,
) -> AsyncIterator[Server]:
    """Open and start a server's parts; at the end, finish the admitted requests and close the parts.

    If `span_exporters` is None, the environment chooses them. Raise HomeInUse if another program uses the home.
    Only the process that serves calls this, so that it holds the home.
    """
    from rootstock.adapters.home.home import Home
    from rootstock.service.telemetry.span_exporters import find_exporters

    if span_exporters is None:
        span_exporters = [entry.load()() for entry in find_exporters()]
    home = Home(settings.home_folder)
    with home.hold("rootstock serve"):
        registry = registry or home.open_registry()
        try:
            async with (
                _traced(span_exporters) as tracing,
                _serving(settings, registry, store or home.open_store(), open_runner, tracing) as server,
            ):
                yield server
        finally:
            registry.close()


@asynccontextmanager
async def _traced(exporters: Sequence[SpanExporter]) -> AsyncIterator[Tracing | None]:
    """Yield the observer that makes spans, or None without exporters: then OpenTelemetry is not imported."""
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
async def _serving(
    settings: Settings, registry: Registry, store: Store, open_runner: OpenRunner, tracing: Tracing | None
) -> AsyncIterator[Server]:
    from rootstock.service.adapter_folder import AdapterFolder
    from rootstock.service.api.media.remote_file import RemoteFiles
    from rootstock.service.api.server import Server
    from rootstock.service.engine.core.arbiter import Arbiter
    from rootstock.service.engine.core.observer import Observers
    from rootstock.service.foundations import Foundations
    from rootstock.service.pins import Pins
    from rootstock.service.publishing import Publisher
    from rootstock.service.telemetry.metrics import Metrics

    metrics = Metrics()
    limits = settings.bundle_limits
    observer = metrics if tracing is None else Observers(metrics, tracing)
    arbiter = Arbiter()
    hosts: list[FoundationHost] = []
    try:
        for name, setting in settings.hosted.items():
            hosts.append(
                await _host(name, setting, settings, registry, store, limits, open_runner, observer, arbiter)
            )
        _start(hosts, metrics)
        foundations = Foundations(hosts, registry, settings.names)
        publisher = Publisher(foundations, registry, store, limits, metrics)
        pins = Pins(foundations, registry, settings.pinned)
        try:
            if settings.demo:
                await register_demo(publisher, registry)
            await pins.follow()
            yield Server(
                foundations=foundations,
                registry=registry,
                publisher=publisher,
                pins=pins,
                metrics=metrics,
                bundle_limits=limits,
                adapter_folder=AdapterFolder(settings.adapter_folder, limits),
                max_body_bytes=settings.max_body_mb * _MIB,
                remote_files=RemoteFiles(settings.media_host_names),
                tracing=tracing,
            )
        finally:
            await pins.close()
    finally:
        engines = [engine for host in hosts for engine in host.engines if engine.started]
        await asyncio.gather(*(asyncio.to_thread(engine.stop) for engine in engines))


def _start(hosts: Sequence[FoundationHost], metrics: Metrics) -> None:
    for host in hosts:
        metrics.watch(host.name, host.engines)
        for engine in host.engines:
            engine.start()


async def _host(
    name: str,
    setting: str,
    settings: Settings,
    registry: Registry,
    store: Store,
    limits: Limits,
    open_runner: OpenRunner,
    observer: Observer,
    arbiter: Arbiter,
) -> FoundationHost:
    """Open one foundation: its runners, its catalog and its engines. The caller starts the engines."""
    from rootstock.adapters.bundle.names.tower_names import IMAGE, TEXT
    from rootstock.adapters.foundation.location import generates, locate
    from rootstock.adapters.foundation.weights import FoundationWeights
    from rootstock.service.conversion import Converter
    from rootstock.service.foundations import FoundationHost
    from rootstock.service.registry_catalog import RegistryCatalog
    from rootstock.service.two_towers import TowerCatalog, TwoTowers

    files = await asyncio.to_thread(locate, setting, settings.export_folders)
    converter = Converter(setting, settings.max_rank, settings.export_folders)
    runner: OpenedRunner | TorchDecoder | Seq2SeqDecoder
    if generates(files):
        runner = await asyncio.to_thread(_open_decoder, files, settings)
    else:
        runner = await asyncio.to_thread(open_runner, setting, files, settings)
    spec = replace(runner.spec, other_names=(name, *files.other_names))
    base = FoundationWeights(files.folder, spec.model_type)
    catalog = RegistryCatalog(registry, store, spec, limits, base)
    cache_bytes = settings.cache_mb * _MIB // len(settings.hosted)
    engines: tuple[Engine | GenerationEngine, ...]
    if isinstance(runner, OpenedRunner):
        # An encoder has a tokenizer for its inputs. This one, for clients, takes memory only once it is used.
        tokenizer = cache(partial(_client_tokenizer, name, spec, files))
        open_engine = partial(_encoder, name, settings=settings, observer=observer, arbiter=arbiter)
        if runner.texts is not None and spec.text_tower is not None:
            catalogs = TowerCatalog(catalog, base, IMAGE), TowerCatalog(catalog, base, TEXT)
            images = open_engine(spec, runner, cache_bytes // 2, catalogs[0])
            texts = open_engine(runner.texts.spec, runner.texts, cache_bytes // 2, catalogs[1])
            towers = TwoTowers((images, texts), catalogs, spec.text_tower)
            return FoundationHost(name, towers.engines, catalog, base, converter, tokenizer, towers)
        engines = (open_engine(spec, runner, cache_bytes, catalog),)
    else:
        opened = _prompt_tokenizer(files)
        tokenizer = cache(lambda: opened)
        heads = _heads_beside(runner, spec, files)
        if heads is not None:
            cache_bytes //= 2
        engines = (_generator(name, spec, runner, opened, cache_bytes, catalog, settings, observer, arbiter),)
        if heads is not None:
            engines += (_encoder(name, spec, heads, cache_bytes, catalog, settings, observer, arbiter),)
    return FoundationHost(name, engines, catalog, base, converter, tokenizer)


def _prompt_tokenizer(files: FoundationFiles) -> PromptTokenizer:
    """Open a tokenizer with its chat template. Raise FoundationError if the template is not valid."""
    from rootstock.adapters.foundation.location import FoundationError
    from rootstock.service.engine.generate.prompt import PromptTokenizer

    try:
        return PromptTokenizer(files.folder)
    except ValueError as error:
        raise FoundationError(f"{files.folder}: {error}") from None


def _client_tokenizer(name: str, spec: FoundationSpec, files: FoundationFiles) -> PromptTokenizer:
    """Open the tokenizer with which clients count tokens. Raise WrongRoute unless the foundation takes text."""
    from rootstock.service.engine.core.errors import WrongRoute
    from rootstock.service.engine.generate.prompt import PromptTokenizer

    if spec.modality != "text":
        raise WrongRoute(f"model {name!r} takes {spec.modality} inputs and has no tokenizer", "model")
    return PromptTokenizer(files.folder, chats=False)


def _encoder(
    name: str,
    spec: FoundationSpec,
    runner: OpenedRunner,
    cache_bytes: int,
    catalog: Catalog,
    settings: Settings,
    observer: Observer,
    arbiter: Arbiter,
) -> Engine:
    from rootstock.service.engine.core.admission import Capacity
    from rootstock.service.engine.encode.engine import Engine, EngineLimits
    from rootstock.service.engine.encode.packing import BatchLimits

    return Engine(
        spec,
        runner.encoder,
        _reader(spec, runner.folder),
        catalog,
        observer,
        EngineLimits(settings.max_inputs, settings.request_timeout, cache_bytes),
        Capacity(settings.queue_items, settings.queue_tokens),
        BatchLimits(settings.batch_rows, settings.batch_tokens),
        name=name,
        arbiter=arbiter,
    )


def _reader(spec: FoundationSpec, folder: Path) -> Reader:
    """Open what reads a foundation's inputs. Raise FoundationError if the server cannot prepare them."""
    from rootstock.adapters.foundation.location import FoundationError
    from rootstock.service.engine.encode.modalities.foundation_reader import open_reader
    from rootstock.service.engine.encode.modalities.reader import UnservedPreprocessing

    try:
        return open_reader(spec, folder)
    except UnservedPreprocessing as error:
        raise FoundationError(f"{spec.name}: {error}") from None


def _open_decoder(files: FoundationFiles, settings: Settings) -> TorchDecoder | Seq2SeqDecoder:
    """Open the decoder of a foundation that generates text.

    Raise FoundationError if torch is not installed, or if the passes do not compute what transformers does.
    """
    from rootstock.adapters.foundation.architecture import describe
    from rootstock.adapters.foundation.location import FoundationError

    spec = describe(files)
    from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
    from rootstock.service.engine.runners.decoder.self_check import WrongPasses
    from rootstock.service.engine.runners.seq2seq.decoder import Seq2SeqDecoder

    limits = settings.slots, settings.generation_cache_tokens, settings.runner_threads
    try:
        if spec.seq2seq_lm is not None:
            return Seq2SeqDecoder(files.folder, spec, *limits)
        return TorchDecoder(files.folder, spec, *limits, precision=settings.generation_precision)
    except WrongPasses as error:
        raise FoundationError(f"{files.folder}: {error}") from None


def _heads_beside(
    decoder: TorchDecoder | Seq2SeqDecoder, spec: FoundationSpec, files: FoundationFiles
) -> OpenedRunner | None:
    """Return a runner for inputs of one pass on the modules of a decoder, with as many slots again.

    An encoder–decoder model has none.
    """
    from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
    from rootstock.service.engine.runners.decoder.packed_encoder import PackedEncoder

    if not isinstance(decoder, TorchDecoder):
        return None
    return OpenedRunner(PackedEncoder(decoder.trunk, decoder.slots, decoder.cores), spec, files.folder)


def _generator(
    name: str,
    spec: FoundationSpec,
    decoder: Decoder,
    tokenizer: PromptTokenizer,
    cache_bytes: int,
    catalog: RegistryCatalog,
    settings: Settings,
    observer: Observer,
    arbiter: Arbiter,
) -> GenerationEngine:
    from rootstock.service.engine.core.admission import Capacity
    from rootstock.service.engine.generate.engine import GenerationEngine, GenerationLimits
    from rootstock.service.engine.generate.scheduler import StepLimits

    return GenerationEngine(
        spec,
        decoder,
        tokenizer,
        catalog,
        observer,
        GenerationLimits(timeout_s=settings.generation_timeout, cache_bytes=cache_bytes),
        Capacity(settings.queue_items, settings.queue_tokens),
        StepLimits(rows=settings.generation_rows),
        name=name,
        arbiter=arbiter,
    )


async def register_demo(publisher: Publisher, registry: Registry) -> None:
    """Publish the demo adapters of this server's foundations if nobody has used the registry yet.

    They are verified like any upload. If an earlier start was killed midway, or had fewer foundations, publish
    the remaining ones. Skip an adapter whose name a foundation has, or that the limits or a full disk refuse.
    """
    folders = DEMO, CHAT_DEMO
    bundles: Mapping[str, Path] = {path.stem: path for folder in folders for path in folder.glob("*.zip")}
    events = registry.events(limit=4 * len(bundles))
    if any(event.name not in bundles or event.what != "published" for event in events):
        return
    log = structlog.get_logger()
    for name in sorted(bundles.keys() - {event.name for event in events}):
        read = partial(_read, bundles[name])
        try:
            if not await publisher.serves(await read()):
                continue
            done = await publisher.publish(read, name, PlainFields(), True)
        except (Rejected, EngineError, StoreFull, InvalidName) as error:
            log.warning("demo adapter skipped", name=name, reason=str(error))
        else:
            log.info("demo adapter published", name=name, task=done.task)


async def _read(path: Path) -> bytes:
    return await asyncio.to_thread(path.read_bytes)
