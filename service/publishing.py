"""The publication of an upload: it is verified, replayed and stored, then published, or refused as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from rootstock.adapters.bundle import Bundle, Limits, PlainFields, open_bundle
from rootstock.adapters.bundle.archive import CONFIG, MANIFEST, Archive, open_archive
from rootstock.adapters.bundle.golden import GoldenInput
from rootstock.adapters.bundle.kinds.methods import CONVERTED, NATIVE, Unconverted
from rootstock.adapters.bundle.manifest import read_manifest
from rootstock.adapters.bundle.plain.base_model import BASE
from rootstock.adapters.home.journal import BundleJournal
from rootstock.adapters.reference import LIVE, check_name
from rootstock.adapters.registry import Published, TenantRegistry, VersionDetail
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.signing.trusted_keys import TrustedKeys
from rootstock.adapters.spec import Adapter, Array, Rejected
from rootstock.adapters.strict_json.json_member import read_json
from rootstock.service.engine.core.errors import InvalidInput, RunnerFault, TooLarge, TooLong
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.encode.modalities.probe import probe
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.foundation_host import FoundationHost
from rootstock.service.foundations import Foundations
from rootstock.service.lifecycle.deletions import Deletions
from rootstock.service.telemetry.metrics import Metrics
from rootstock.service.tolerance import compare_golden, golden_tokens

# An upload takes memory for its zip, its unpacked files and its arrays. One may wait for its conversion while
# another is verified.
UPLOADS_AT_ONCE = 2
# The limit of a golden output of generated text.
MAX_GOLDEN_TOKENS = 256
# An adapter that generates text without a golden set generates this many tokens.
_PROBE_TOKENS = 8
# Takes the size of a bundle in bytes and its digest.
CheckRoom = Callable[[int, str], None]
# Tells whether whoever publishes a version may also make it live.
MayActivate = Callable[[VersionDetail], bool]


@dataclass(frozen=True)
class Publication:
    """A published version and the result of its verification.

    `awaits_approval` tells that it was to become live, and that somebody else has to approve it first.
    """

    published: Published
    task: str
    verification: Mapping[str, Any]
    awaits_approval: bool = False


class Publisher:
    """The publisher of a server. It verifies uploads through the engine and publishes them.

    At most `UPLOADS_AT_ONCE` uploads are in memory, and one verification runs at a time. Other uploads wait
    unread. With `trusted` keys, an upload needs the signature of one of them. It goes to the foundation that it
    is made for. If its kind is served as LoRA, the foundation's converter converts it first. With `deletions`, a
    publication deletes the versions that it makes surplus.
    """

    def __init__(
        self,
        foundations: Foundations,
        registry: Registry,
        journal: BundleJournal,
        limits: Limits,
        metrics: Metrics,
        trusted: TrustedKeys | None = None,
        deletions: Deletions | None = None,
    ) -> None:
        self._trusted = trusted or TrustedKeys()
        self._foundations = foundations
        self._registry = registry
        self._journal = journal
        self._limits = limits
        self._metrics = metrics
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._turn = asyncio.Lock()
        self._deletions = deletions

    def seen_by(self, registry: TenantRegistry) -> Publisher:
        """Return this publisher for the adapters of one tenant. Both have the same limits and turns."""
        publisher = copy(self)
        publisher._registry = registry
        publisher._deletions = None if self._deletions is None else self._deletions.seen_by(registry)
        return publisher

    @property
    def kinds(self) -> list[str]:
        """Return the kinds of adapters that are accepted, by their `peft_type`; "head-only" is a head alone."""
        return [*NATIVE, "head-only", *(CONVERTED if self._foundations.first.converter.available else ())]

    async def serves(self, data: bytes) -> bool:
        """Tell whether the bundle in a zip states a foundation of this server. Raise Rejected if it is no zip."""
        archive = await asyncio.to_thread(open_archive, data, self._limits)
        fingerprint, _ = await asyncio.to_thread(stated_foundation, archive, PlainFields())
        return fingerprint in {host.spec.fingerprint for host in self._foundations}

    def check_name(self, name: str) -> None:
        """Raise InvalidName for a name that no adapter of this server can have."""
        check_name(name)
        self._foundations.directory.check_name(name)

    async def publish(
        self,
        read: Callable[[], Awaitable[bytes]],
        name: str,
        plain: PlainFields,
        activate: bool,
        check_room: CheckRoom | None = None,
        source: str | None = None,
        may_activate: MayActivate | None = None,
    ) -> Publication:
        """Publish the bundle in the zip that `read` returns. Raise Rejected if a check fails.

        `check_room` is called in a thread before the bundle is stored, and raises an error if it may not be.
        `source` is the address that the zip came from, for the version's record. If `may_activate` refuses to
        `activate` the version, its activation is requested in an event.
        """
        self.check_name(name)
        at_once = activate and may_activate is None
        async with self._uploads:
            done = await self._publish(await read(), name, plain, at_once, check_room, source)
        if activate and may_activate is not None:
            done = await asyncio.to_thread(self._activate, done, may_activate)
        if self._deletions is not None:
            self._deletions.published(done.published.name)
        return done

    def _activate(self, done: Publication, may_activate: MayActivate) -> Publication:
        """Make a published version live, or request that, unless it is live already."""
        name, number = done.published.name, done.published.version
        if done.published.live == number:
            return done
        if may_activate(self._registry.version(name, number)):
            self._registry.set_alias(name, LIVE, number)
            return replace(done, published=replace(done.published, live=number))
        self._registry.request_activation(name, number)
        return replace(done, awaits_approval=True)

    async def _publish(
        self,
        data: bytes,
        name: str,
        plain: PlainFields,
        activate: bool,
        check_room: CheckRoom | None,
        source: str | None,
    ) -> Publication:
        try:
            archive = await asyncio.to_thread(open_archive, data, self._limits)
            # Before anything else is read: what no trusted key has signed does not reach a parser of tensors.
            signature = await asyncio.to_thread(self._trusted.check, archive, plain)
            host = await asyncio.to_thread(self._host, archive, plain)
            bundle, converted = await self._open(data, archive, plain, host)
            adapter = await asyncio.to_thread(bundle.adapter, host.spec, self._limits.max_rank, host.base)
            engine = host.engine_of(adapter.task)
            adapter = await asyncio.to_thread(engine.equipped, adapter)
            if isinstance(engine, GenerationEngine):
                await engine.check_template(adapter)
            async with self._turn:
                verification = await self._replay(bundle, adapter, host) | converted
            verification |= {} if signature is None else {"signature": signature}
            verification |= {} if source is None else {"source": source}
        except Rejected as error:
            self._metrics.verified(error.check)
            raise
        self._metrics.verified("passed")
        keep = partial(
            self._keep, name, bundle, adapter.task, verification, activate, host.spec.fingerprint, check_room
        )
        published = await asyncio.to_thread(keep)
        for engine, part in host.parts(adapter):
            engine.cache.put(part)
        return Publication(published, adapter.task, verification)

    def _host(self, archive: Archive, plain: PlainFields) -> FoundationHost:
        """Return the foundation that an upload is made for; the first if this server does not have it."""
        if len(self._foundations) == 1:
            return self._foundations.first
        return self._foundations.directory.choose(*stated_foundation(archive, plain))

    async def _open(
        self, data: bytes, archive: Archive, plain: PlainFields, host: FoundationHost
    ) -> tuple[Bundle, dict[str, Any]]:
        """Return the bundle, converted to LoRA if need be, and the entry for the version's record."""
        try:
            bundle = await asyncio.to_thread(open_bundle, archive, self._limits, host.spec, plain, host.base)
            bundle.check_named_base(host.spec)
            return bundle, {}
        except Unconverted as error:
            lora = await host.converter.convert(data, error.kind, plain.task)
            bundle = await asyncio.to_thread(open_bundle, lora.data, self._limits, host.spec, plain, host.base)
            return replace(bundle, ignored=archive.ignored), {"converted": lora.record}

    def _keep(
        self,
        name: str,
        bundle: Bundle,
        task: str,
        verification: dict[str, Any],
        activate: bool,
        foundation: str,
        check_room: CheckRoom | None,
    ) -> Published:
        data = bundle.to_zip()
        if check_room is not None:
            check_room(len(data), bundle.digest)
        publish = partial(
            self._registry.publish,
            name,
            bundle.digest,
            task=task,
            verification=verification,
            size=len(data),
            activate=activate,
            foundation=foundation,
        )
        return self._journal.publish(bundle.digest, data, publish)

    async def _replay(self, bundle: Bundle, adapter: Adapter, host: FoundationHost) -> dict[str, Any]:
        (engine, adapter), *others = host.parts(adapter)
        golden = bundle.golden()
        inputs: list[Any] = [probe(host.spec.modality)] if golden is None else list(golden.inputs)
        try:
            for other, part in others:
                # A golden set has images alone. Texts only have to run.
                if isinstance(other, Engine):
                    await other.replay(part, [probe(other.spec.modality)])
            if isinstance(engine, Engine):
                outputs = await engine.replay(adapter, inputs)
            else:
                counts = [_PROBE_TOKENS] if golden is None else list(map(_token_count, golden.outputs))
                forced = None if golden is None else golden_tokens(golden, engine.runner.precision)
                outputs = await engine.replay(adapter, _texts(inputs), counts, forced)
        except (RunnerFault, TooLarge, TooLong, InvalidInput) as error:
            if error.__cause__ is not None:
                structlog.get_logger().error("verification failed", digest=adapter.digest, exc_info=error)
            raise Rejected("golden", "probe" if golden is None else "golden.json", str(error)) from error
        runner = engine.runner
        # Without a golden set no outputs are compared, so there is no difference to report.
        worst = None if golden is None else compare_golden(outputs, golden, adapter.task, runner.precision)
        return {
            "runner": runner.name,
            "precision": runner.precision,
            "golden": "none" if golden is None else "passed",
            "inputs": len(inputs),
            "max_difference": worst,
            "warnings": list(bundle.warnings),
            "ignored": list(bundle.ignored),
            **({} if adapter.prompting.chat_template is None else {"chat_template": True}),
        }


def _token_count(output: Array) -> int:
    """Return the number of tokens of a golden output. Raise Rejected (check "schema") for another form."""
    if output.ndim != 2 or output.shape[1] != 2 or len(output) > MAX_GOLDEN_TOKENS:
        raise Rejected(
            "schema",
            "golden.json: outputs",
            f"an output has shape {list(output.shape)}; text generation takes [token, log-probability] for each "
            f"of at most {MAX_GOLDEN_TOKENS} tokens",
        )
    return len(output)


def _texts(inputs: Sequence[GoldenInput]) -> list[str]:
    """Return the prompts of a golden set. Raise Rejected (check "schema") if one of them is a pair of texts."""
    for i, value in enumerate(inputs):
        if not isinstance(value, str):
            raise Rejected("schema", f"golden.json: inputs[{i}]", "a pair of texts; a prompt is one string")
    return [value for value in inputs if isinstance(value, str)]


def stated_foundation(archive: Archive, plain: PlainFields) -> tuple[str | None, str | None]:
    """Return the fingerprint and the name of the foundation that an upload states; None for each it omits."""
    members = archive.members
    if MANIFEST in members:
        stated = read_manifest(members[MANIFEST]).foundation
        return stated["fingerprint"], stated["name"]
    base = read_json(members[CONFIG], CONFIG).get(BASE)
    return None, plain.foundation or (base if isinstance(base, str) else None)
