"""What publishing takes in at a time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rootstock.adapters.bundle import PlainFields
from rootstock.service.publishing import UPLOADS_AT_ONCE, Publisher


def test_of_many_uploads_few_are_read_into_memory_at_a_time() -> None:
    reading = 0

    async def read() -> bytes:
        nonlocal reading
        reading += 1
        await asyncio.Event().wait()
        return b""

    async def body() -> None:
        foundations: Any = SimpleNamespace(directory=SimpleNamespace(check_name=lambda name: None))
        parts: Any = [None] * 4
        publisher = Publisher(foundations, *parts)
        uploads = [
            asyncio.create_task(publisher.publish(read, f"a{i}", PlainFields(), True))
            for i in range(3 * UPLOADS_AT_ONCE)
        ]
        await asyncio.sleep(0)
        assert reading == UPLOADS_AT_ONCE
        uploads[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploads[0]
        await asyncio.sleep(0)
        assert reading == UPLOADS_AT_ONCE + 1, "the next one's turn comes"
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)

    asyncio.run(body())
