"""Define what the engine's core needs of a runner: to hold adapters in slots."""

from __future__ import annotations

from typing import Any, Protocol

from rootstock.adapters.spec import Adapter


class AdapterHost(Protocol):
    """A holder of adapters in numbered slots: the part of a runner that slots, residency and verification use.

    `warm` opens the graphs or task classes that an adapter needs beside its arrays. It may be slow, and any
    thread may call it. `stage` prepares an adapter and may fail. `place` puts a staged adapter into a slot and
    does not fail. `clear` empties a slot. Only one thread at a time calls `stage`, `place` and `clear`.
    """

    slots: int

    def warm(self, adapter: Adapter) -> None: ...

    def stage(self, adapter: Adapter) -> Any: ...

    def place(self, slot: int, staged: Any) -> None: ...

    def clear(self, slot: int) -> None: ...
