"""Opens one foundation of a server: its runners, its catalog and its engines."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from rootstock.adapters.bundle import Limits
from rootstock.adapters.spec import FoundationSpec
from rootstock.service.composition.runner_parts import OpenedRunner, OpenRunner, open_decoder, open_heads_beside
from rootstock.service.settings import Settings

if TYPE_CHECKING:
    from rootstock.adapters.foundation.location import FoundationFiles
    from rootstock.adapters.registry.port import Registry
    from rootstock.adapters.store.port import Store
    from rootstock.service.engine.core.arbiter import Arbiter
    from rootstock.service.engine.core.catalog import Catalog
    from rootstock.service.engine.core.observer import Observer
    from rootstock.service.engine.encode.engine import Engine
    from rootstock.service.engine.encode.modalities.reader import Reader
    from rootstock.service.engine.generate.decoder import Decoder
    from rootstock.service.engine.generate.engine import GenerationEngine
    from rootstock.service.engine.generate.prompt import PromptTokenizer
    from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
    from rootstock.service.engine.runners.seq2seq.decoder import Seq2SeqDecoder
    from rootstock.service.foundation_host import FoundationHost
    from rootstock.service.registry_catalog import RegistryCatalog

_MIB = 2**20


async def open_foundation(
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
    from rootstock.service.foundation_host import FoundationHost
    from rootstock.service.registry_catalog import RegistryCatalog
    from rootstock.service.two_towers import TowerCatalog, TwoTowers

    files = await asyncio.to_thread(locate, setting, settings.export_folders)
    converter = Converter(setting, settings.max_rank, settings.export_folders)
    runner: OpenedRunner | TorchDecoder | Seq2SeqDecoder
    if generates(files):
        runner = await asyncio.to_thread(open_decoder, files, settings)
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
        heads = open_heads_beside(runner, spec, files)
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
        EngineLimits(settings.max_inputs, settings.request_timeout, cache_bytes, settings.max_rank),
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
        GenerationLimits(
            timeout_s=settings.generation_timeout, cache_bytes=cache_bytes, max_rank=settings.max_rank
        ),
        Capacity(settings.queue_items, settings.queue_tokens),
        StepLimits(rows=settings.generation_rows),
        name=name,
        arbiter=arbiter,
    )
