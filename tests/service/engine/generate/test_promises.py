"""The engine's promises for generated text: one resolution, one load, no eviction in vain, no work for nobody."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.core.errors import Expired, RunnerFault
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from tests.bounds import HANG
from tests.peft_adapters import PeftAdapter
from tests.service.engine.generate.engines import run_engine, tokens_of
from tests.service.engine.generate.families import TinyDecoder, make_adapters, make_decoder

PROMPT, OTHER = list(range(40, 60)), list(range(70, 83))
GREEDY = SamplingOptions(temperature=0.0, max_tokens=12, ignore_eos=True)
LONG = SamplingOptions(temperature=0.0, max_tokens=100, ignore_eos=True)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="module")
def saved(llama: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(llama, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def adapters(llama: TinyDecoder, saved: list[PeftAdapter]) -> dict[str, Adapter]:
    """Return a new catalog, which a test may change."""
    return {f"a{i}": llama.opened(one) for i, one in enumerate(saved)}


class _WatchedDecoder:
    """The real decoder, with its passes and loads. No pass begins while `gate` is not set."""

    def __init__(self, decoder: TorchDecoder) -> None:
        self._decoder = decoder
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        self.passes: list[Sequence[Segment]] = []
        self.warmed: Counter[str] = Counter()
        self.staged: Counter[str] = Counter()
        self.broken = ""
        self.on_warm: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def warm(self, adapter: Adapter) -> None:
        self.warmed[adapter.digest] += 1
        self.on_warm()
        self._decoder.warm(adapter)

    def stage(self, adapter: Adapter) -> Any:
        if adapter.digest == self.broken:
            raise MemoryError("no room")
        self.staged[adapter.digest] += 1
        return self._decoder.stage(adapter)

    def run(self, segments: Sequence[Segment]) -> Array:
        self.busy.set()
        assert self.gate.wait(HANG)
        self.passes.append(segments)
        return self._decoder.run(segments)

    def computed(self, prompt: Sequence[int], since: int = 0) -> int:
        """Return how many passes from number `since` on have a segment of the sequence with this prompt."""
        rows = {s.row for one in self.passes for s in one if list(s.tokens) == list(prompt)}
        return sum(any(s.row in rows for s in one) for one in self.passes[since:])


def _run(
    llama: TinyDecoder,
    adapters: dict[str, Adapter],
    work: Callable[[GenerationEngine, _WatchedDecoder], Awaitable[Any]],
    slots: int = 8,
    **options: Any,
) -> Any:
    watched = _WatchedDecoder(TorchDecoder(llama.folder, llama.spec, slots, 4096))
    tokenizer = PromptTokenizer(llama.folder)
    return run_engine(llama.spec, watched, tokenizer, adapters, lambda e: work(e, watched), **options)


def test_a_name_that_moves_while_its_adapter_loads_changes_neither_the_answer_nor_the_digest_in_it(
    llama: TinyDecoder, saved: list[PeftAdapter], adapters: dict[str, Adapter]
) -> None:
    adapters["name"], first = adapters["a0"], adapters["a0"].digest

    async def work(engine: GenerationEngine, watched: _WatchedDecoder) -> tuple[str, list[int]]:
        watched.on_warm = lambda: adapters.update(name=adapters["a1"])
        async with engine.generate("name", PROMPT, GREEDY) as stream:
            return stream.resolved.digest, [piece.choice.token async for piece in stream]

    digest, tokens = _run(llama, adapters, work)
    assert adapters["name"].digest != first
    assert digest == first
    assert tokens == llama.greedy(saved[0], PROMPT, 12)


def test_sequences_that_need_a_cold_adapter_at_once_share_one_load(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    async def work(engine: GenerationEngine, watched: _WatchedDecoder) -> tuple[int, int]:
        await asyncio.gather(*(tokens_of(engine, ("a1", PROMPT[:n]), GREEDY) for n in range(1, 9)))
        digest = adapters["a1"].digest
        return watched.warmed[digest], watched.staged[digest]

    assert _run(llama, adapters, work) == (1, 1)


def test_an_adapter_that_cannot_be_staged_fails_alone_and_evicts_none(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    async def work(engine: GenerationEngine, watched: _WatchedDecoder) -> None:
        before = [await tokens_of(engine, (name, PROMPT), GREEDY) for name in ("a0", "a1")]
        watched.broken = adapters["a2"].digest
        with pytest.raises(RunnerFault, match="could not be loaded"):
            await tokens_of(engine, ("a2", PROMPT), GREEDY)
        assert engine.slots.resident() == {adapters["a0"].digest, adapters["a1"].digest}
        assert [await tokens_of(engine, (name, PROMPT), GREEDY) for name in ("a0", "a1")] == before
        assert watched.staged[adapters["a0"].digest] == watched.staged[adapters["a1"].digest] == 1
        watched.broken = ""
        assert len(await tokens_of(engine, ("a2", PROMPT), GREEDY)) == 12

    # Two slots are reserved, so that two adapters fill the rest.
    _run(llama, adapters, work, slots=4)


def test_a_sequence_that_its_client_has_left_is_in_no_later_pass(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    async def work(engine: GenerationEngine, watched: _WatchedDecoder) -> None:
        async with engine.generate("a0", PROMPT, LONG) as stream:
            async for _ in stream:
                break
            watched.busy.clear()
            watched.gate.clear()
            await asyncio.to_thread(watched.busy.wait, HANG)
        # The pass that has begun goes on to its end.
        since = len(watched.passes) + 1
        watched.gate.set()
        assert len(await tokens_of(engine, ("a1", OTHER), LONG)) == 100
        assert watched.computed(OTHER, since) >= 99
        assert watched.computed(PROMPT, since) == 0

    _run(llama, adapters, work)


def test_a_sequence_that_ends_before_its_first_pass_is_in_none(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    now = 0.0

    async def work(engine: GenerationEngine, watched: _WatchedDecoder) -> None:
        nonlocal now
        watched.gate.clear()
        plug = asyncio.create_task(tokens_of(engine, ("a1", OTHER), LONG))
        await asyncio.to_thread(watched.busy.wait, HANG)

        async def late() -> None:
            async with engine.generate("a0", PROMPT, LONG, options=RequestOptions(timeout_s=60)) as stream:
                queued.set()
                async for _ in stream:
                    pass

        queued = asyncio.Event()
        expired = asyncio.create_task(late())
        await queued.wait()
        async with engine.generate("a0", PROMPT, LONG):
            pass
        now = 61.0
        watched.gate.set()
        with pytest.raises(Expired):
            await expired
        assert len(await plug) == 100
        assert watched.computed(PROMPT) == 0

    _run(llama, adapters, work, clock=lambda: now)
