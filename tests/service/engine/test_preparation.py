"""Calls whose inputs are read share the thread that reads them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

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
