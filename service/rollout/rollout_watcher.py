"""The watcher of rollback rules: it judges the versions on trial, and takes back those that break a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol

import structlog

from rootstock.adapters.errors import AdapterError
from rootstock.adapters.registry.port import RolloutRegistry
from rootstock.adapters.registry.rollout_records import Rollout, RuleVerdict, Stage
from rootstock.service.rollout.judgement import violation
from rootstock.service.rollout.live_traffic import is_on_trial
from rootstock.service.rollout.rollout_table import RolloutTable
from rootstock.service.rollout.version_windows import VersionWindows

# Seconds between two judgements. Another server's change of a shadow or a rule takes effect within them.
INTERVAL_S = 1.0


class TakeBackCounter(Protocol):
    """A counter of the versions that rules took back."""

    def took_back(self, stage: Stage) -> None:
        """Count a version that a rule took back at a stage."""


class RolloutWatcher:
    """A task that judges the adapters with a rollback rule again and again, by this server's requests alone.

    It judges each candidate of a split of `live`, the shadow, and `live` itself for the rule's window after a
    move. `moved` hears the name of an adapter whose requests for `live` go to other versions after a verdict.
    """

    def __init__(
        self,
        registry: RolloutRegistry,
        table: RolloutTable,
        windows: VersionWindows,
        counter: TakeBackCounter,
        moved: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._registry = registry
        self._table = table
        self._windows = windows
        self._counter = counter
        self._moved = moved
        self._now = now
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the registry, and begin to judge."""
        await self.refresh()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Judge no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Read what has changed in the registry, if it answers; the next judgement asks again."""
        try:
            await self._table.refresh()
        except AdapterError as error:
            structlog.get_logger().debug("rollback rules not read", reason=str(error))

    async def judge(self) -> list[RuleVerdict]:
        """Judge every version on trial once, and return the verdicts that were carried out."""
        await self.refresh()
        done = [verdict for verdict in list(self._verdicts()) if await self._carry_out(verdict)]
        if done:
            await self.refresh()
        return done

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.judge()
            except Exception:
                structlog.get_logger().exception("the judgement by rollback rules failed")

    def _verdicts(self) -> Iterator[RuleVerdict]:
        now = self._now()
        for rollout in self._table:
            for stage, version, incumbent in _on_trial(rollout, now):
                verdict = self._verdict(rollout, stage, version, incumbent)
                if verdict is not None:
                    yield verdict

    def _verdict(self, rollout: Rollout, stage: Stage, version: int, incumbent: int) -> RuleVerdict | None:
        rule, name = rollout.rule, rollout.name
        if rule is None:
            return None
        found = violation(
            rule,
            self._windows.figures(name, version, rule.window_seconds),
            self._windows.figures(name, incumbent, rule.window_seconds),
            self._windows.comparison(name, version, incumbent, rule.window_seconds),
        )
        if found is None:
            return None
        figures = found.reason, found.measured, found.limit, found.requests
        return RuleVerdict(name, stage, version, incumbent, *figures)

    async def _carry_out(self, verdict: RuleVerdict) -> bool:
        try:
            done = await asyncio.to_thread(self._registry.carry_out, verdict)
        except AdapterError as error:
            structlog.get_logger().warning("rule not carried out", adapter=verdict.name, reason=str(error))
            return False
        # If another server was faster, or the adapter has changed: the requests were of another state.
        self._windows.forget(verdict.name, verdict.version)
        if done:
            self._counter.took_back(verdict.stage)
            structlog.get_logger().warning(
                "taken back by its rule",
                adapter=verdict.name,
                version=verdict.version,
                stage=verdict.stage,
                **verdict.detail(),
            )
            if verdict.stage != "shadow":
                self._moved(verdict.name)
        return done


def _on_trial(rollout: Rollout, now: datetime) -> Iterator[tuple[Stage, int, int]]:
    """Yield each version of an adapter that a rule judges: its stage, its number and its incumbent's."""
    live, before = rollout.live, rollout.before
    if live is None:
        return
    if before is not None and is_on_trial(rollout, now):
        yield "live", live, before
    for candidate in rollout.candidates:
        yield "split", candidate, live
    if rollout.shadow is not None:
        yield "shadow", rollout.shadow.version, live
