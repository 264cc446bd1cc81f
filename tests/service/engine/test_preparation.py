"""Calls whose inputs are read share the thread that reads them, and count as what they turn out to be."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from rootstock.service.engine.core.admission import Capacity
from rootstock.service.engine.core.errors import TooLarge
from rootstock.service.engine.encode.modalities.text import TextSample
from tests.service.engine.fakes import Bench, run
from tests.service.engine.test_engine import Held, answers


class Slow(Held):
    """A tokenizer that takes longer for a text than a turn lasts, however short the text is."""

    def encode(self, value: Any, *arguments: Any, **options: Any) -> TextSample:
        encoded = super().encode(value, *arguments, **options)
        ends = time.thread_time() + 0.06
        while time.thread_time() < ends:
            pass
        return encoded


def test_a_call_of_short_inputs_that_take_long_lets_others_pass() -> None:
    async def body(bench: Bench) -> None:
        bench.add("bombs", "small")
        slow = Slow(bench.engine.preprocessor)
        bombs = bench.ask("bombs", *[f"w{i}" for i in range(10)])
        small = bench.ask("small", "w99")
        await asyncio.sleep(0)
        slow.gate.set()
        assert await small == answers(bench, "small", "w99")
        assert slow.texts.index("w99") <= 2
        await bombs

    run(body)


def test_inputs_that_cost_more_than_their_estimate_are_refused_before_all_are_read() -> None:
    async def body(bench: Bench) -> None:
        bench.add("model")
        held = await bench.hold()
        slow = Held(bench.engine.preprocessor)
        slow.gate.set()
        # A word of one letter is a token, and the estimate takes it for half of one.
        call = bench.ask("model", *["w " * 12] * 8)
        with pytest.raises(TooLarge):
            await call
        assert len(slow.texts) < 8
        bench.runner.gate.set()
        await held

    run(body, capacity=Capacity(tokens=90))
