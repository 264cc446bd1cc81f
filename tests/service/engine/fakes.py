"""A runner and a catalog that can be held, failed and inspected, behind the engine's own seams.

The runner's output is a hash of the adapter's digest and the row's own ids, so that any mix-up of rows, adapters
or slots gives another answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.spec import (
    Adapter,
    AdapterWeights,
    EmbeddingSpec,
    FoundationSpec,
    HeadSpec,
    Preprocessing,
)
from rootstock.service.engine.core.admission import Capacity
from rootstock.service.engine.core.answer import RequestRecord
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.errors import TooLong
from rootstock.service.engine.core.observer import BatchStats, Observer, Tier
from rootstock.service.engine.core.request import Request
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.encode.engine import Engine, EngineLimits
from rootstock.service.engine.encode.modalities.text import Input, Tokenizer
from rootstock.service.engine.encode.packing import BatchLimits
from rootstock.service.engine.encode.tasks import TASKS
from tests.bounds import HANG

WORDS = [f"w{i}" for i in range(64)]
MAX_LENGTH = 512
SPEC = FoundationSpec(
    fingerprint="sha256:foundation",
    name="fake",
    revision=None,
    model_type="fake",
    hidden_size=8,
    layers=1,
    max_tokens=MAX_LENGTH,
    parameters=0,
    embedding=EmbeddingSpec(max_tokens=MAX_LENGTH),
    inputs=("input_ids",),
    sites={},
    classes={},
)


def make_adapter(digest: str, task: str = "text-classification", nbytes: int = 0) -> Adapter:
    return Adapter(
        digest=digest,
        task=task,
        problem_type=None,
        labels=("a", "b", "c", "d"),
        head=HeadSpec("linear"),
        preprocessing=Preprocessing(MAX_LENGTH),
        weights=AdapterWeights({}, {"head.weight": np.zeros(nbytes // 4, np.float32)} if nbytes else {}),
    )


def text(length: int, seed: int = 0) -> str:
    """A text of so many tokens, [CLS] and [SEP] included."""
    return " ".join(WORDS[(seed * 31 + i * 7 + seed * i) % len(WORDS)] for i in range(length - 2))


@lru_cache
def tokenizer() -> Tokenizer:
    """One token a word."""
    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    special = {"[CLS]": 2, "[SEP]": 3}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": ["[SEP]", special["[SEP]"]],
            "cls": ["[CLS]", special["[CLS]"]],
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return Tokenizer(path)


def raw_output(digest: str, ids: Sequence[int]) -> np.ndarray:
    """What the model "computes" for a row: four numbers."""
    content = f"{digest}:{list(ids)}".encode()
    return np.frombuffer(hashlib.sha256(content).digest()[:4], np.uint8).astype(np.float32) / 32


def expected(adapter: Adapter, value: Input, **parameters: Any) -> Any:
    """What the engine must answer for this input under this adapter, whatever else runs."""
    encoded = tokenizer().encode(value, adapter.preprocessing, truncate=False)
    raw = raw_output(adapter.digest, encoded.ids)
    return TASKS[adapter.task].predict([raw], [encoded], adapter, parameters, tokenizer())


class Unknown(LookupError):
    """The catalog's own error."""


class FakeRunner:
    """`gate` closed: `run` waits in it. `entered` counts the runs that have begun. `rows`: what was computed."""

    name = "fake"
    precision = "fp32"

    def __init__(self, slots: int = 6) -> None:
        self.slots = slots
        self.placed: dict[int, Adapter] = {}
        self.staged: Counter[str] = Counter()
        self.unstageable: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[tuple[str, tuple[int, ...]]]] = []
        self.fault: Callable[[set[str]], None] = lambda digests: None
        self.not_finite: set[str] = set()
        self.staging = threading.Event()
        self.stage_gate = threading.Event()
        self.stage_gate.set()

    @property
    def rows(self) -> list[tuple[str, tuple[int, ...]]]:
        return [row for batch in self.batches for row in batch]

    def computed(self, digest: str) -> int:
        return sum(d == digest for d, _ in self.rows)

    def warm(self, adapter: Adapter) -> None:
        """Nothing needs opening."""

    def stage(self, adapter: Adapter) -> Adapter:
        self.staging.set()
        assert self.stage_gate.wait(HANG)
        if adapter.digest in self.unstageable:
            raise MemoryError(f"no room for {adapter.digest}")
        self.staged[adapter.digest] += 1
        return adapter

    def place(self, slot: int, staged: Adapter) -> None:
        self.placed[slot] = staged

    def clear(self, slot: int) -> None:
        self.placed.pop(slot, None)

    def run(self, batch: Batch) -> list[np.ndarray]:
        digests = [self.placed[slot].digest for slot in batch.slots]
        rows = [
            (digest, tuple(int(t) for t in batch.arrays["input_ids"][i, : batch.lengths[i]]))
            for digest, i in zip(digests, batch.inputs, strict=True)
        ]
        self.batches.append(rows)
        self.entered.release()
        assert self.gate.wait(HANG)
        self.fault(set(digests))
        assert [self.placed[slot].digest for slot in batch.slots] == digests, "a slot changed under a batch"
        outputs = [raw_output(digest, ids) for digest, ids in rows]
        return [o * np.nan if d in self.not_finite else o for o, d in zip(outputs, digests, strict=True)]

    def output(self, adapter: Adapter, value: Input) -> np.ndarray:
        """What `run` gives for this input alone."""
        return raw_output(adapter.digest, tokenizer().encode(value, adapter.preprocessing, truncate=False).ids)

    async def busy(self) -> None:
        """Wait until one more run has begun."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=HANG)


class FakeCatalog:
    """References in `names`, adapters in `adapters`. `gate` closed: loading waits in it."""

    def __init__(self) -> None:
        self.names: dict[str, ResolvedReference] = {}
        self.adapters: dict[str, Adapter] = {}
        self.loads: Counter[str] = Counter()
        self.resolved: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.loading = threading.Semaphore(0)

    def add(self, name: str, adapter: Adapter, version: int = 1) -> Adapter:
        self.adapters[adapter.digest] = adapter
        self.names[name] = ResolvedReference(name, version, adapter.digest)
        return adapter

    def resolve(self, reference: str) -> ResolvedReference:
        self.resolved.append(reference)
        if reference not in self.names:
            raise Unknown(reference)
        return self.names[reference]

    def load(self, digest: str) -> Adapter:
        self.loads[digest] += 1
        self.loading.release()
        assert self.gate.wait(HANG)
        return self.adapters[digest]


class FakeObserver(Observer):
    def __init__(self) -> None:
        self.batches: list[BatchStats] = []
        self.reasons: list[str] = []
        self.ends: list[RequestRecord] = []
        self.moves: list[tuple[str, Tier]] = []

    def batch(self, stats: BatchStats) -> None:
        self.batches.append(stats)

    def refused(self, reason: str) -> None:
        self.reasons.append(reason)

    def served(self, served: RequestRecord) -> None:
        self.ends.append(served)

    def loaded(self, tier: Tier, seconds: float, ok: bool) -> None:
        assert seconds >= 0
        self.moves.append(("in" if ok else "failed", tier))

    def evicted(self, tier: Tier) -> None:
        self.moves.append(("out", tier))


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """An engine with everything around it in hand. A fake `clock` is the event loop's as well."""

    def __init__(
        self,
        slots: int = 6,
        capacity: Capacity | None = None,
        batches: BatchLimits | None = None,
        limits: EngineLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.runner = FakeRunner(slots)
        self.catalog = FakeCatalog()
        self.observer = FakeObserver()
        self.clock = clock
        timed = {} if clock is None else {"clock": clock}
        self.engine = Engine(
            SPEC, self.runner, tokenizer(), self.catalog, self.observer, limits, capacity, batches, **timed
        )

    def add(self, *names: str, warm: bool = True) -> list[Adapter]:
        """Adapters whose digests are made from their names; `warm`: already in host memory."""
        adapters = [self.catalog.add(name, make_adapter(f"sha256:{name}")) for name in names]
        for adapter in adapters if warm else ():
            self.engine.cache.put(adapter)
        return adapters

    def ask(self, reference: str, *values: str, **parameters: Any) -> asyncio.Task[Any]:
        """A request under way; its result is its predictions with every score."""

        async def predictions() -> Any:
            asked = {"top_k": None, **parameters}
            return (await self.engine.predict(reference, list(values), asked)).predictions

        return asyncio.create_task(predictions())

    async def hold(self, name: str = "held") -> asyncio.Task[Any]:
        """Close the gate and let one request run into it: whatever comes later has to wait."""
        self.add(name)
        self.runner.gate.clear()
        task = self.ask(name, "w1")
        await self.runner.busy()
        return task

    async def queued(self) -> None:
        """Wait until all that was asked of warm adapters before is tokenised, and queued or refused.

        Tasks that were just made run up to the tokeniser's line; a request that is refused there, behind them,
        comes back when they are through.
        """
        await asyncio.sleep(0)
        probe = make_adapter("sha256:probe")
        now = self.engine._clock()
        request = Request(probe, [LONG], {}, now + self.engine.limits.timeout_s, now)
        assert isinstance((await self.engine._run([request]))[request], TooLong)


LONG = text(MAX_LENGTH + 1)


def run(body: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any) -> Bench:
    """Run a test's body with a started engine, which is stopped afterwards."""
    bench = Bench(**options)

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        if bench.clock is not None:
            loop.time = bench.clock  # type: ignore[method-assign]
        return loop

    bench.engine.start()
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(body(bench))
    finally:
        bench.runner.gate.set()
        bench.runner.stage_gate.set()
        bench.catalog.gate.set()
        bench.engine.stop()
    return bench
