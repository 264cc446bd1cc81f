"""The demo adapters of the named foundations, which a new server publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.errors import InvalidName, StoreFull
from rootstock.adapters.spec import Rejected
from rootstock.service.engine.core.errors import EngineError

if TYPE_CHECKING:
    from rootstock.adapters.registry.port import Registry
    from rootstock.service.publishing import Publisher

# The demo adapters of the default foundation, of the chat foundation and of the vision foundation.
DEMO, CHAT_DEMO, VISION_DEMO = (Path(__file__).parents[1] / name for name in ("demo", "demo_chat", "demo_vision"))


async def register_demo(publisher: Publisher, registry: Registry) -> None:
    """Publish the demo adapters of this server's foundations if nobody has used the registry yet.

    They are verified like any upload. If an earlier start was killed midway, or had fewer foundations, publish
    the remaining ones. Skip an adapter whose name a foundation has, or that the limits or a full disk refuse.
    """
    folders = DEMO, CHAT_DEMO, VISION_DEMO
    bundles: Mapping[str, Path] = {path.stem: path for folder in folders for path in folder.glob("*.zip")}
    events = registry.events(limit=4 * len(bundles))
    if any(event.name not in bundles or event.what != "published" for event in events):
        return
    log = structlog.get_logger()
    for name in sorted(bundles.keys() - {event.name for event in events}):
        read = partial(_read, bundles[name])
        try:
            if not await publisher.serves(await read()):
                continue
            done = await publisher.publish(read, name, PlainFields(), True)
        except (Rejected, EngineError, StoreFull, InvalidName) as error:
            log.warning("demo adapter skipped", name=name, reason=str(error))
        else:
            log.info("demo adapter published", name=name, task=done.task)


async def _read(path: Path) -> bytes:
    return await asyncio.to_thread(path.read_bytes)
