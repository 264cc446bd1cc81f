"""The foundations of a server, each with its engine: a request goes to the one of its reference."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

from rootstock.adapters.reference import LIVE, Reference
from rootstock.adapters.registry import Resolution, TenantRegistry
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.spec import (
    GENERATION,
    TEXT2TEXT_GENERATION,
    ZERO_SHOT_IMAGES,
    Adapter,
)
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.catalog import COMPOSITION, ResolvedReference
from rootstock.service.engine.core.errors import EngineError, Expired, InvalidInput, WrongRoute
from rootstock.service.engine.core.request import DEFAULT_OPTIONS, RequestOptions
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.foundation_host import FoundationHost
from rootstock.service.references.composed_model import Asked, ComposedModel
from rootstock.service.references.directory import ReferenceDirectory
from rootstock.service.two_towers import TwoTowers, together

_GENERATES = "generates text; send its prompts to /v1/chat/completions or /v1/completions"
_REWRITES = "generates text; send its prompts to /v1/completions"
# The route of a task, if it has another than /v1/predict.
_ROUTES = {"feature-extraction": "/v1/embeddings", "text-ranking": "/v1/rerank"}


# A shadow that no idle moment came for within these seconds is given up.
_SHADOW_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class PredictCall:
    """The inputs of a request for one pass, with its parameters, the task that it asks for, and its options."""

    inputs: Sequence[Any]
    parameters: Mapping[str, Any]
    task: str | None
    options: RequestOptions


class LiveWatch(Protocol):
    """An observer of the requests that name an adapter's alias `live`. It must not block."""

    def follows(self, name: str) -> bool:
        """Tell whether the requests of an adapter are to be seen, by the name that the registry keeps."""

    def saw(self, target: ResolvedReference, call: PredictCall, outcome: Answer | Exception) -> None:
        """Take the outcome of a request, and the version that computed it."""


class Foundations:
    """The foundations of a server. It sends each reference to the engine of its foundation.

    The directory resolves a reference once, and an engine gets the result: it resolves no adapter itself.
    """

    def __init__(
        self,
        hosts: Sequence[FoundationHost],
        registry: Registry,
        names: Mapping[str, str] | None = None,
        replaced: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the hosts in order, and other names that requests may use, each with its reference.

        Call `replaced` for each request of a split that another version answers; see SplitChoice.
        """
        self._hosts = tuple(hosts)
        self.directory = ReferenceDirectory(hosts, registry, names, replaced)
        self._engines = tuple(engine for host in hosts for engine in host.engines)
        encoders = (engine for engine in self._engines if isinstance(engine, Engine))
        self._first_encoder = next(encoders, None)
        # The observer of the requests for `live`; None until there is one. It is set before the first request.
        self.watch: LiveWatch | None = None

    def seen_by(self, registry: TenantRegistry) -> Foundations:
        """Return the same foundations with the adapters of a tenant."""
        foundations = copy(self)
        foundations.directory = self.directory.seen_by(registry)
        return foundations

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
        return all(engine.alive for engine in self._engines)

    @property
    def fallen(self) -> bool:
        """Tell whether an engine has stopped after a fault."""
        return any(engine.fallen for engine in self._engines)

    @property
    def timeout_s(self) -> float:
        """Return the limit in seconds of a request for one pass, or of any if all foundations generate."""
        return (self._first_encoder or self._engines[0]).limits.timeout_s

    def residency(self, digest: str, foundation: str | None) -> str:
        """Return the place of an adapter: "slot", "memory" or "store"."""
        host = self.directory.hosting(foundation)
        places = [] if host is None else [engine.residency(digest) for engine in host.engines]
        return next((place for place in ("slot", "memory") if place in places), "store")

    async def forget(self, digest: str) -> None:
        """Wait until no request holds the adapter, then free its slot and memory."""
        for engine in self._engines:
            await engine.forget(digest)

    async def predict(
        self,
        reference: Asked,
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        task: str | None = None,
        options: RequestOptions = DEFAULT_OPTIONS,
    ) -> Answer:
        """Return the predictions of one reference, or of a composition.

        Raise as `Engine.predict` does, or FoundationNotHosted. A part that has left the registry since `compose`
        is unknown, and the error names it. The watch sees no composition.
        """
        if isinstance(reference, ComposedModel):
            # The engine holds the parts before anything is awaited, so a part that is deleted from now on stays.
            self.directory.check_parts(reference)
            engine, targets = _composed_encoder(reference), {COMPOSITION: reference.target}
            (answer,) = await engine.predict_many([COMPOSITION], inputs, parameters, task, options, targets)
            if isinstance(answer, EngineError) and answer.param == "model":
                answer.param = "adapters"
        else:
            (answer,) = await self.predict_many([reference], inputs, parameters, task, options)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def predict_many(
        self,
        references: Sequence[str],
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        task: str | None = None,
        options: RequestOptions = DEFAULT_OPTIONS,
    ) -> list[Answer | Exception]:
        """Return each reference's predictions for the same inputs, or its error; see `Engine.predict_many`."""
        if self._first_encoder is not None:
            self._first_encoder.check_size(len(inputs), len(references))
        outcomes: dict[int, Answer | Exception] = {}
        places: dict[Engine | TwoTowers, list[int]] = {}
        targets: dict[str, ResolvedReference] = {}
        engines: dict[str, Engine | TwoTowers | Exception] = {}
        meant = [self.directory.names.reference(reference) for reference in references]
        for place, reference in enumerate(references):
            if reference not in engines:
                engines[reference] = self._encoder(reference, meant[place], task, options.sticky, targets)
            engine_or_error = engines[reference]
            if isinstance(engine_or_error, Exception):
                outcomes[place] = engine_or_error
            else:
                places.setdefault(engine_or_error, []).append(place)
        calls = []
        for answering, chosen in places.items():
            of_engine = [meant[place] for place in chosen]
            calls.append(answering.predict_many(of_engine, inputs, parameters, task, options, targets))
        asked = PredictCall(inputs, parameters, task, options)
        try:
            if len(calls) == 1:
                results = [await calls[0]]
            else:
                # An input may be of the modality of one engine and not of another.
                several = zip(calls, places.values(), strict=True)
                results = await together([_or_invalid(call, len(chosen)) for call, chosen in several])
        except Exception as error:
            self._tell(targets, asked, dict.fromkeys(targets, error))
            raise
        for chosen, answers in zip(places.values(), results, strict=True):
            outcomes.update(zip(chosen, answers, strict=True))
        self._tell(targets, asked, {meant[place]: outcome for place, outcome in outcomes.items()})
        return [outcomes[place] for place in range(len(references))]

    async def shadow(self, name: str, version: int, call: PredictCall) -> Answer:
        """Compute a request again on a version, by the name that the registry keeps, as a shadow.

        Raise as `predict` does, and Overloaded while the server is busy.
        """
        target = self.directory.registered(f"{name}@{version}")
        host = self.directory.of(target)
        engine = host.towers if host.towers is not None and target.task == ZERO_SHOT_IMAGES else host.encoder
        if engine is None:
            raise WrongRoute(f"model {name!r} {_GENERATES}", "model")
        options = RequestOptions(call.options.tenant, "low", _SHADOW_TIMEOUT_S, shadow=True)
        resolved = {name: _resolved(target)}
        (answer,) = await engine.predict_many([name], call.inputs, call.parameters, call.task, options, resolved)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _tell(
        self,
        targets: Mapping[str, ResolvedReference],
        call: PredictCall,
        outcomes: Mapping[str, Answer | Exception],
    ) -> None:
        """Tell the watch the outcomes of the references that named `live`, each once."""
        if self.watch is None:
            return
        for meant, target in targets.items():
            if self.watch.follows(target.name) and _names_live(meant):
                self.watch.saw(target, call, outcomes[meant])

    async def adapter(self, reference: Asked, sticky: str) -> tuple[FoundationHost, Adapter | None]:
        """Return the host of a reference and its adapter, loaded; None for a foundation or several adapters.

        Raise Expired if the adapter does not load in time, or as the registry and the catalog do.
        """
        if isinstance(reference, ComposedModel):
            # A composition of one adapter, which is whole, is the adapter itself.
            host, composed = reference.host, reference.target
            if composed.composition is not None:
                return host, None
            return host, await self._loaded(host.engine_of(reference.task), composed.digest)
        host, target = self.directory.find(reference, sticky)
        return host, None if target is None else await self.load(target)

    async def load(self, target: Resolution) -> Adapter:
        """Load the adapter of a version, and return it. Raise FoundationNotHosted, or as `adapter` does."""
        return await self._loaded(self.directory.of(target).engine_of(target.task), target.digest)

    async def _loaded(self, engine: Engine | GenerationEngine, digest: str) -> Adapter:
        with engine.adapters.hold([digest]):
            try:
                adapters = await engine.adapters.get([digest], engine.limits.timeout_s)
            except TimeoutError:
                raise Expired("the adapter did not load in time; try again later") from None
        adapter = adapters[digest]
        if isinstance(adapter, Exception):
            raise adapter
        return adapter

    def generator(self, reference: Asked, sticky: str) -> tuple[GenerationEngine, ResolvedReference]:
        """Return the engine that generates under a reference, and the version that answers this sticky key.

        Raise WrongRoute if the reference does not generate text, or as the registry does.
        """
        if isinstance(reference, ComposedModel):
            return _composed_generator(reference), reference.target
        host, target = self.directory.find(reference, sticky)
        task = host.spec.own_tasks[0] if target is None else target.task
        engine = host.generator
        if engine is None or task not in (None, *GENERATION):
            route = "/v1/predict" if target is None else _ROUTES.get(task or "", "/v1/predict")
            raise WrongRoute(f"model {reference!r} does not generate text; send its inputs to {route}", "model")
        if target is not None:
            return engine, _resolved(target)
        return engine, engine.resolve(self.directory.names.reference(reference))

    def _encoder(
        self,
        reference: str,
        meant: str,
        task: str | None,
        sticky: str,
        targets: dict[str, ResolvedReference],
    ) -> Engine | TwoTowers | Exception:
        """Return a reference's engine for one pass, or the two of its towers, or an error.

        Add an adapter's resolution to `targets`.
        """
        try:
            host, target = self.directory.find(reference, sticky, meant)
        except Exception as error:  # The error of one reference must not fail the others.
            return error
        asked = (task or host.spec.own_tasks[0]) if target is None else target.task
        engine = host.encoder
        if engine is None or asked in GENERATION:
            takes = _REWRITES if TEXT2TEXT_GENERATION in host.spec.own_tasks else _GENERATES
            return WrongRoute(f"model {reference!r} {takes}", "model")
        if target is not None:
            targets[meant] = _resolved(target)
        if host.towers is not None and asked == ZERO_SHOT_IMAGES:
            return host.towers
        return engine


def _resolved(resolution: Resolution) -> ResolvedReference:
    # Metrics and spans are the operator's, so they state a name that no two tenants share.
    return ResolvedReference(resolution.stored or resolution.name, resolution.version, resolution.digest)


def _composed_encoder(model: ComposedModel) -> Engine:
    """Return the engine that computes the inputs of a composition in one pass. Raise WrongRoute if none does."""
    if model.host.encoder is None or model.task in GENERATION:
        takes = _REWRITES if model.task == TEXT2TEXT_GENERATION else _GENERATES
        raise WrongRoute(f"the composition {takes}", "adapters")
    return model.host.encoder


def _composed_generator(model: ComposedModel) -> GenerationEngine:
    """Return the engine that generates the text of a composition. Raise WrongRoute if none does."""
    if model.host.generator is None or model.task not in (None, *GENERATION):
        route = _ROUTES.get(model.task or "", "/v1/predict")
        raise WrongRoute(f"the composition does not generate text; send its inputs to {route}", "adapters")
    return model.host.generator


def _names_live(reference: str) -> bool:
    parsed = Reference.parse(reference)
    return parsed.version is None and parsed.digest_prefix is None and parsed.alias in (None, LIVE)


async def _or_invalid(
    call: Coroutine[Any, Any, list[Answer | Exception]], references: int
) -> list[Answer | Exception]:
    """Return the outcomes of an engine's call, or the error of an invalid input for each of its references."""
    try:
        return await call
    except InvalidInput as error:
        return [error] * references
