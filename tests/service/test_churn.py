"""A thousand adapters come and go through few slots and little memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle
from rootstock.adapters.registry import NewVersion, SqlRegistry
from rootstock.adapters.spec import FoundationSpec
from rootstock.adapters.store.folder import FolderStore
from rootstock.service.engine.encode.engine import Engine, EngineLimits
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.registry_catalog import RegistryCatalog
from rootstock.service.telemetry.metrics import Metrics
from tests.peft_adapters import PeftAdapter

KINDS = ("first", "tokens", "embedder", "scalar")
NAMES = [f"{kind}-{i}" for i in range(6) for kind in KINDS]
SLOTS = 6
MIB = 2**20


@pytest.fixture
def engine(
    tmp_path: Path, export_folder: Path, spec: FoundationSpec, peft_saved: dict[str, PeftAdapter]
) -> Iterator[Engine]:
    """24 adapters for 4 places in slots, and memory for about 6."""
    store = FolderStore(tmp_path / "store")
    versions = []
    for name in NAMES:
        kind, number = name.split("-")
        # One set of weights, several contents: the length limit makes each a bundle of its own.
        bundle = open_bundle(peft_saved[kind].zip(), Limits(), spec, PlainFields(max_length=256 - int(number)))
        store.put(bundle.digest, bundle.to_zip())
        versions.append(NewVersion(name, bundle.digest, bundle.manifest.task, {}, 1))
    with closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}")) as registry:
        registry.publish_all(versions)
        engine = Engine(
            spec,
            OnnxRunner(export_folder, SLOTS, 2),
            Tokenizer(export_folder / "tokenizer.json"),
            RegistryCatalog(registry, store, spec, Limits()),
            Metrics(),
            EngineLimits(cache_bytes=MIB),
        )
        engine.start()
        try:
            yield engine
        finally:
            engine.stop()


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@pytest.mark.slow
def test_a_thousand_loads_leave_memory_and_every_answer_as_they_were(engine: Engine) -> None:
    async def answer(name: str) -> Any:
        return (await engine.predict(name, ["Where is my parcel?"], {})).predictions

    async def churn(loads: int) -> None:
        turn = 0
        while engine.slots.loads < loads:
            await asyncio.gather(*(answer(NAMES[(turn + i) % len(NAMES)]) for i in range(4)))
            turn += 4
            assert engine.cache.nbytes <= MIB
            assert len(engine.slots.resident()) <= SLOTS - 2

    async def body() -> None:
        watched = ("first-0", "tokens-5")
        before = [await answer(name) for name in watched]
        await churn(300)
        warm = resident_mib()
        for loads in range(400, 1100, 100):
            await churn(loads)
            assert [await answer(name) for name in watched] == before
        assert engine.slots.evictions >= 1000 - SLOTS
        # 700 loads of some 150 kB each: kept, they would take 100 MiB.
        assert resident_mib() - warm < 25

    asyncio.run(body())
