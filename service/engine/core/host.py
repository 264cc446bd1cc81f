"""The contract between what hosts adapters and what runs them."""

from __future__ import annotations

from typing import Any, Protocol

from rootstock.adapters.spec import Adapter


class AdapterHost(Protocol):
    """Holds adapters in numbered slots. Slots, residency and verification need no more of a runner.

    `warm` opens what an adapter needs beyond its arrays. It may be slow, and any thread may call it. `stage`
    prepares an adapter and may fail. `place` puts what was staged into a slot and does not fail. `clear` empties
    a slot. One thread at a time calls the last three.
    """

    slots: int

    def warm(self, adapter: Adapter) -> None: ...

    def stage(self, adapter: Adapter) -> Any: ...

    def place(self, slot: int, staged: Any) -> None: ...

    def clear(self, slot: int) -> None: ...
