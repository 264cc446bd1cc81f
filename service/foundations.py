"""The foundations of a server, each with its engine, and the choice of one for each reference."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rootstock.adapters.bundle.plain.base_model import is_same
from rootstock.adapters.errors import InvalidName
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.reference import FOUNDATION
from rootstock.adapters.registry import Resolution
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.spec import Adapter, FoundationSpec
from rootstock.service.conversion import Converter
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.errors import Expired, WrongRoute
from rootstock.service.engine.core.request import DEFAULT_OPTIONS, RequestOptions
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.encode.modalities.text import Input
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.registry_catalog import RegistryCatalog, not_hosted

_GENERATES = "generates text; send its prompts to /v1/chat/completions or /v1/completions"
_ENCODES = "does not generate text; send its inputs to /v1/predict"


@dataclass(frozen=True)
class FoundationHost:
    """A foundation of this server, with its engine, its catalog of adapters and its converter.

    `name` is its reference. `base` holds its weights, because some adapters are stored relative to them. A
    foundation that generates text has a GenerationEngine; any other computes each input in one pass. `tokenizer`
    returns its tokenizer, which may take time to open.
    """

    name: str
    engine: Engine | GenerationEngine
    catalog: RegistryCatalog
    base: FoundationWeights
    converter: Converter
    tokenizer: Callable[[], PromptTokenizer]

    @property
    def spec(self) -> FoundationSpec:
        return self.catalog.spec

    def max_tokens(self, adapter: Adapter | None) -> int:
        """Return the longest input in tokens of an adapter, or of the foundation itself."""
        if not isinstance(self.engine, GenerationEngine):
            return self.spec.embedding.max_tokens if adapter is None else adapter.preprocessing.max_length
        most = self.spec.max_tokens if adapter is None else adapter.preprocessing.max_length
        return min(most, self.engine.runner.cache.capacity)

    def one_pass(self, reference: str) -> Engine:
        """Return the engine for inputs of one pass. Raise WrongRoute if this foundation generates text."""
        if isinstance(self.engine, Engine):
            return self.engine
        raise WrongRoute(f"model {reference!r} {_GENERATES}", "model")


class Foundations:
    """The foundations of a server. It sends each reference to the engine of its foundation.

    The reference `foundation` means the first one. With several foundations, a reference is resolved once, here.
    With one, every call goes straight to its engine.
    """

    def __init__(self, hosts: Sequence[FoundationHost], registry: Registry) -> None:
        self._hosts = tuple(hosts)
        self._registry = registry
        self._by_fingerprint = {host.spec.fingerprint: host for host in hosts}
        self._by_name = {host.name: host for host in hosts} if len(hosts) > 1 else {}
        self._by_name[FOUNDATION] = self.first

    def __iter__(self) -> Iterator[FoundationHost]:
        return iter(self._hosts)

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def first(self) -> FoundationHost:
        """Return the first foundation, which the reference `foundation` means."""
        return self._hosts[0]

    @property
    def alive(self) -> bool:
        """Tell whether every engine admits requests and computes."""
        return all(host.engine.alive for host in self._hosts)

    @property
    def fallen(self) -> bool:
        """Tell whether an engine has stopped after a fault."""
        return any(host.engine.fallen for host in self._hosts)

    @property
    def timeout_s(self) -> float:
        """Return the limit in seconds of a request for one pass, or of any if all foundations generate."""
        engines = [host.engine for host in self._hosts]
        return next((engine for engine in engines if isinstance(engine, Engine)), engines[0]).limits.timeout_s

    def check_name(self, name: str) -> None:
        """Raise InvalidName if the name is the reference of a foundation."""
        if name in self._by_name:
            message = f"{name!r} names a foundation of this server; give the adapter another name"
            raise InvalidName(message, param="name")

    def of(self, resolution: Resolution) -> FoundationHost:
        """Return the host of a version's foundation. Raise FoundationNotHosted if this server lacks it."""
        if resolution.foundation is None:
            return self.first
        host = self._by_fingerprint.get(resolution.foundation)
        if host is None:
            raise not_hosted(resolution, [one.spec.name for one in self._hosts])
        return host

    def choose(self, fingerprint: str | None, name: str | None) -> FoundationHost:
        """Return the foundation that an upload names by fingerprint or name, or the first if there is none.

        Later checks refuse an upload for a foundation that this server does not have.
        """
        if fingerprint is not None:
            return self._by_fingerprint.get(fingerprint, self.first)
        if name is None or name in self._by_name:
            return self._by_name[name or FOUNDATION]
        named = (host for host in self._hosts if is_same(name, host.spec.name, host.spec.other_names))
        return next(named, self.first)

    def catalog_of(self, foundation: str | None) -> RegistryCatalog:
        """Return a catalog that can read the bundles of a foundation, even if this server does not have it."""
        host = self.first if foundation is None else self._by_fingerprint.get(foundation, self.first)
        return host.catalog

    def residency(self, digest: str, foundation: str | None) -> str:
        """Return the place of an adapter: "slot", "memory" or "store"."""
        host = self.first if foundation is None else self._by_fingerprint.get(foundation)
        return "store" if host is None else host.engine.residency(digest)

    async def forget(self, digest: str) -> None:
        """Wait until no request holds the adapter, then free its slot and memory."""
        for host in self._hosts:
            await host.engine.forget(digest)

    async def predict(
        self,
        reference: str,
        inputs: Sequence[Input],
        parameters: Mapping[str, Any],
        task: str | None = None,
        options: RequestOptions = DEFAULT_OPTIONS,
    ) -> Answer:
        """Return the predictions of one reference. Raise as `Engine.predict` does, or FoundationNotHosted."""
        (answer,) = await self.predict_many([reference], inputs, parameters, task, options)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def predict_many(
        self,
        references: Sequence[str],
        inputs: Sequence[Input],
        parameters: Mapping[str, Any],
        task: str | None = None,
        options: RequestOptions = DEFAULT_OPTIONS,
    ) -> list[Answer | Exception]:
        """Return each reference's predictions for the same inputs, or its error; see `Engine.predict_many`."""
        if len(self._hosts) == 1:
            if isinstance(self.first.engine, Engine):
                return await self.first.engine.predict_many(references, inputs, parameters, task, options)
            return [self._refusal(reference) for reference in references]
        for host in self._hosts:
            if isinstance(host.engine, Engine):
                host.engine.check_size(len(inputs), len(references))
                break
        outcomes: dict[int, Answer | Exception] = {}
        places: dict[Engine, list[int]] = {}
        targets: dict[str, ResolvedReference] = {}
        engines: dict[str, Engine | Exception] = {}
        for place, reference in enumerate(references):
            if reference not in engines:
                engines[reference] = self._engine(reference, targets)
            engine_or_error = engines[reference]
            if isinstance(engine_or_error, Exception):
                outcomes[place] = engine_or_error
            else:
                places.setdefault(engine_or_error, []).append(place)
        calls = [
            engine.predict_many(
                [references[place] for place in chosen], inputs, parameters, task, options, targets
            )
            for engine, chosen in places.items()
        ]
        for chosen, answers in zip(places.values(), await _together(calls), strict=True):
            outcomes.update(zip(chosen, answers, strict=True))
        return [outcomes[place] for place in range(len(references))]

    def host(self, reference: str) -> FoundationHost:
        """Return the host of a reference. Raise FoundationNotHosted, or as the registry does."""
        return self._host(reference)[0]

    async def adapter(self, reference: str) -> tuple[FoundationHost, Adapter | None]:
        """Return the host of a reference and its adapter, loaded; None for a foundation itself.

        Raise Expired if the adapter does not load in time, or as the registry and the catalog do.
        """
        host, target = self._host(reference)
        if target is None:
            return host, None
        engine = host.engine
        with engine.adapters.hold([target.digest]):
            try:
                adapters = await engine.adapters.get([target.digest], engine.limits.timeout_s)
            except TimeoutError:
                raise Expired("the adapter did not load in time; try again later") from None
        adapter = adapters[target.digest]
        if isinstance(adapter, Exception):
            raise adapter
        return host, adapter

    def generator(self, reference: str) -> tuple[GenerationEngine, ResolvedReference | None]:
        """Return the engine that generates under a reference, and the reference's resolution if it was made here.

        Raise WrongRoute if the reference's foundation does not generate text, or as the registry does.
        """
        host, target = self._host(reference)
        if not isinstance(host.engine, GenerationEngine):
            raise WrongRoute(f"model {reference!r} {_ENCODES}", "model")
        return host.engine, target

    def _refusal(self, reference: str) -> Exception:
        """Return the error of a reference on a server that only generates text."""
        try:
            self._host(reference)[0].one_pass(reference)
        except Exception as error:
            return error
        raise RuntimeError(f"the foundation of {reference} computes inputs in one pass")

    def _engine(self, reference: str, targets: dict[str, ResolvedReference]) -> Engine | Exception:
        """Return the engine of a reference or an error. Add an adapter's resolved reference to `targets`."""
        try:
            host, target = self._host(reference)
            engine = host.one_pass(reference)
        except Exception as error:  # The error of one reference must not fail the others.
            return error
        if target is not None:
            targets[reference] = target
        return engine

    def _host(self, reference: str) -> tuple[FoundationHost, ResolvedReference | None]:
        """Return the host of a reference and, for an adapter, its resolution."""
        if (host := self._by_name.get(reference)) is not None:
            return host, None
        resolution = self._registry.resolve(reference)
        return self.of(resolution), ResolvedReference(resolution.name, resolution.version, resolution.digest)


async def _together(calls: Sequence[Any]) -> list[list[Answer | Exception]]:
    """Run the engines' calls concurrently. If one raises an error, cancel the others and raise it."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
