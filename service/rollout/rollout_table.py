"""The adapters with a shadow or a rollback rule, as this server knows them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from rootstock.adapters.registry.port import RolloutRegistry
from rootstock.adapters.registry.rollout_records import Rollout


class RolloutTable:
    """The adapters of all tenants that have a shadow or a rollback rule, in memory. Requests read it."""

    def __init__(self, registry: RolloutRegistry) -> None:
        self._registry = registry
        self._revision = -1
        self._rollouts: dict[str, Rollout] = {}
        self._turn = asyncio.Lock()

    def __iter__(self) -> Iterator[Rollout]:
        return iter(list(self._rollouts.values()))

    def get(self, name: str) -> Rollout | None:
        """Return what is known of an adapter, by the name that the registry keeps; None if it has neither."""
        return self._rollouts.get(name)

    async def refresh(self) -> None:
        """Read the registry if it has changed. Raise as the registry does; then what was known stays."""
        async with self._turn:
            found = await asyncio.to_thread(self._registry.rollouts, self._revision)
            if found is not None:
                self._revision, rollouts = found
                self._rollouts = {rollout.name: rollout for rollout in rollouts}
