"""From an upload to a published version: verify everything, replay, store, then publish. Nothing in between."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.bundle import Bundle, Limits, PlainFields, open_bundle
from adapters.reference import check_name
from adapters.registry import Published, Registry
from adapters.spec import Adapter, Array, FoundationSpec, Rejected
from adapters.store import FolderStore
from service.engine.engine import Engine
from service.engine.errors import RunnerFault
from service.metrics import Metrics

PROBE = "The quick brown fox jumps over the lazy dog."
# |difference| ≤ ABSOLUTE + RELATIVE · |expected|, fp32.
ABSOLUTE = RELATIVE = 1e-4


@dataclass(frozen=True)
class Publication:
    """A published version and what its verification found."""

    published: Published
    task: str
    verification: Mapping[str, Any]


class Publisher:
    """Verifies uploads through the engine and publishes them. One verification runs at a time."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        store: FolderStore,
        spec: FoundationSpec,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._store = store
        self._spec = spec
        self._limits = limits
        self._metrics = metrics
        self._turn = asyncio.Lock()
        # Between "no version uses these bytes" and their removal, no version may begin to.
        self._keeping = asyncio.Lock()

    async def publish(self, data: bytes, name: str, plain: PlainFields, activate: bool) -> Publication:
        """Publish the bundle in a zip under a name. Rejected for one that fails a check; then nothing changed."""
        check_name(name)
        try:
            bundle, adapter = await asyncio.to_thread(self._open, data, plain)
            async with self._turn:
                verification = await self._replay(bundle, adapter)
        except Rejected as error:
            self._metrics.verified(error.check)
            raise
        self._metrics.verified("passed")
        async with self._keeping:
            published = await asyncio.to_thread(self._keep, name, bundle, adapter.task, verification, activate)
        self._engine.cache.put(adapter)
        return Publication(published, adapter.task, verification)

    async def delete(self, name: str, version: int | None, force: bool) -> None:
        """Remove a version or a whole adapter: unresolvable at once, gone once no request holds it."""
        if version is None:
            digests = await asyncio.to_thread(self._registry.delete_adapter, name)
        else:
            digests = [await asyncio.to_thread(self._registry.delete_version, name, version, force=force)]
        for digest in dict.fromkeys(digests):
            if await asyncio.to_thread(self._registry.digest_in_use, digest):
                continue
            await self._engine.forget(digest)
            async with self._keeping:
                if not await asyncio.to_thread(self._registry.digest_in_use, digest):
                    await asyncio.to_thread(self._store.delete, digest)

    def _open(self, data: bytes, plain: PlainFields) -> tuple[Bundle, Adapter]:
        bundle = open_bundle(data, self._limits, self._spec, plain)
        return bundle, bundle.adapter(self._spec, self._limits.max_rank)

    def _keep(
        self, name: str, bundle: Bundle, task: str, verification: dict[str, Any], activate: bool
    ) -> Published:
        data = bundle.to_zip()
        self._store.put(bundle.digest, data)
        return self._registry.publish(
            name, bundle.digest, task=task, verification=verification, size=len(data), activate=activate
        )

    async def _replay(self, bundle: Bundle, adapter: Adapter) -> dict[str, Any]:
        golden = bundle.golden()
        inputs = [PROBE] if golden is None else list(golden.inputs)
        try:
            outputs = await self._engine.replay(adapter, inputs)
        except RunnerFault as error:
            raise Rejected("golden", "probe" if golden is None else "golden.json", str(error)) from error
        worst = 0.0
        if golden is not None:
            for i, (output, expected) in enumerate(zip(outputs, golden.outputs, strict=True)):
                worst = max(worst, _difference(i, output, expected))
        runner = self._engine.runner
        return {
            "runner": runner.name,
            "precision": runner.precision,
            "golden": "none" if golden is None else "passed",
            "inputs": len(inputs),
            "max_difference": worst,
            "warnings": list(bundle.warnings),
        }


def _difference(i: int, output: Array, expected: Array) -> float:
    where = f"golden.json: outputs[{i}]"
    if output.shape != expected.shape:
        raise Rejected(
            "golden", where, f"the server's output has shape {output.shape}; expected {expected.shape}"
        )
    difference = np.abs(output - expected)
    over = difference - (ABSOLUTE + RELATIVE * np.abs(expected))
    if (over > 0).any():
        at = np.unravel_index(int(over.argmax()), over.shape)
        place = "".join(f"[{int(k)}]" for k in at)
        raise Rejected(
            "golden",
            where + place,
            f"the server computes {float(output[at]):.6g}; expected {float(expected[at]):.6g} "
            f"(tolerance {ABSOLUTE:g} + {RELATIVE:g}·|x|)",
        )
    return float(difference.max())
