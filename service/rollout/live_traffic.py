"""The requests for `live` of the adapters with a shadow or a rollback rule: noted, and shadowed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from rootstock.adapters.registry.rollout_records import RollbackRule, Rollout
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.observer import GenerationStats, Observer
from rootstock.service.foundations import PredictCall
from rootstock.service.rollout.blame import FAULT_CODES, blame_of
from rootstock.service.rollout.rollout_table import RolloutTable
from rootstock.service.rollout.shadow_traffic import ShadowPair, ShadowTraffic, seconds_of
from rootstock.service.rollout.version_windows import VersionWindows

# The share of a moved live's requests that the version before computes too.
COMPARED_SHARE = 0.25


class LiveTraffic:
    """The requests that named `live`: it notes them for the rules, and offers their shares to shadows.

    `draw` gives numbers from 0 up to 1, and `now` the time in UTC.
    """

    def __init__(
        self,
        table: RolloutTable,
        windows: VersionWindows,
        shadows: ShadowTraffic,
        draw: Callable[[], float] = random.random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._table = table
        self._windows = windows
        self._shadows = shadows
        self.draw = draw
        self._now = now

    def follows(self, name: str) -> bool:
        """Tell whether the requests of an adapter are to be seen, by the name that the registry keeps."""
        return self._table.get(name) is not None

    def saw(self, target: ResolvedReference, call: PredictCall, outcome: Answer | Exception) -> None:
        """Note the outcome of a request that named `live`, and have its share computed on another version."""
        rollout, version = self._table.get(target.name), target.version
        if rollout is None or version is None:
            return
        if isinstance(outcome, Answer):
            if rollout.rule is not None:
                self._windows.answered(target.name, version, seconds_of(outcome))
            for pair in self._pairs(rollout, version):
                self._shadows.offer(pair, call, outcome)
        elif rollout.rule is not None and blame_of(outcome, call.options.timeout_s is not None) == "version":
            self._windows.failed(target.name, version)

    async def settle(self) -> None:
        """Wait until no shadow is under way."""
        await self._shadows.settle()

    def _pairs(self, rollout: Rollout, version: int) -> Iterator[ShadowPair]:
        name, live = rollout.name, rollout.live
        if live is not None and version in rollout.candidates and _compares(rollout.rule):
            yield ShadowPair(name, version, live, live)
        if version != live:
            return
        if (shadow := rollout.shadow) is not None and 100 * self.draw() < shadow.percent:
            yield ShadowPair(name, shadow.version, version, shadow.version)
        before = rollout.before
        on_trial = before is not None and _compares(rollout.rule) and is_on_trial(rollout, self._now())
        if before is not None and on_trial and self.draw() < COMPARED_SHARE:
            yield ShadowPair(name, version, before, before)


class GenerationTraffic(Observer):
    """An observer that notes the generated answers of adapters with a rollback rule. None is computed again.

    The seconds of an answer are those of one token. A request that named the version itself counts too.
    """

    def __init__(self, table: RolloutTable, windows: VersionWindows) -> None:
        self._table = table
        self._windows = windows

    def generated(self, stats: GenerationStats) -> None:
        """Note a call for text that has ended."""
        rollout = self._table.get(stats.name)
        if rollout is None or rollout.rule is None or stats.version is None:
            return
        if stats.error in FAULT_CODES:
            self._windows.failed(stats.name, stats.version)
        elif stats.error is None and stats.first is not None and stats.tokens:
            self._windows.answered(stats.name, stats.version, stats.total / stats.tokens)


def is_on_trial(rollout: Rollout, now: datetime) -> bool:
    """Tell whether `live` moved within the window of the rule, so that the rule judges it."""
    if rollout.rule is None or rollout.moved_at is None or rollout.before is None:
        return False
    return now - rollout.moved_at <= timedelta(seconds=rollout.rule.window_seconds)


def _compares(rule: RollbackRule | None) -> bool:
    return rule is not None and (rule.max_disagreement is not None or rule.max_p95_ratio is not None)
