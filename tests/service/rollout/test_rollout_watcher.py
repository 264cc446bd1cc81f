"""Live traffic and the watcher of rules on a real registry, with answers, times and draws that a test chooses."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import closing
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rootstock.adapters.errors import CorruptBundle, RegistryUnavailable
from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.rollout_records import RollbackRule, ShadowResult, Stage
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.errors import Expired, InvalidInput, Overloaded, RunnerFault, TooLong
from rootstock.service.engine.core.observer import GenerationStats
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.foundations import PredictCall
from rootstock.service.rollout.live_traffic import GenerationTraffic, LiveTraffic
from rootstock.service.rollout.rollout_table import RolloutTable
from rootstock.service.rollout.rollout_watcher import RolloutWatcher
from rootstock.service.rollout.shadow_traffic import ShadowTraffic
from rootstock.service.rollout.version_windows import VersionWindows
from tests.adapters.registries import address, publish

CALL = PredictCall(["x"], {}, None, RequestOptions("default"))
RULE = RollbackRule(60, 10, max_error_rate=0.05, max_disagreement=0.1, max_p95_ratio=2.0)
T = TypeVar("T")
# What a shadow must not have of the request that it repeats.
OF_REQUEST: ContextVar[str] = ContextVar("of_request", default="nothing")


class Site:
    """The parts that follow live traffic. `outcomes` decides what a version answers as a shadow."""

    def __init__(self, registry: SqlRegistry, runner: asyncio.Runner, most: int = 100) -> None:
        self.registry = registry
        self.runner = runner
        self.now = 1000.0
        self.began = datetime.now(UTC)
        self.draw = 0.0
        self.outcomes: dict[int, Answer | Exception] = {}
        self.computed: list[tuple[str, int, str]] = []
        self.counts: Counter[str] = Counter()
        self.moved: list[str] = []
        self.held = asyncio.Event()
        self.held.set()
        self.windows = VersionWindows(lambda: self.now)
        self.table = RolloutTable(registry)
        self.shadows = ShadowTraffic(self._compute, self.windows, self, most)
        self.traffic = LiveTraffic(self.table, self.windows, self.shadows, lambda: self.draw, self._utc)
        self.generated = GenerationTraffic(self.table, self.windows)
        self.watcher = RolloutWatcher(registry, self.table, self.windows, self, self.moved.append, self._utc)

    async def _compute(self, name: str, version: int, call: PredictCall) -> Answer:
        self.computed.append((name, version, OF_REQUEST.get()))
        await self.held.wait()
        outcome = self.outcomes.get(version, answer("right"))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _utc(self) -> datetime:
        return self.began + timedelta(seconds=self.now - 1000)

    def shadowed(self, result: ShadowResult) -> None:
        self.counts[result] += 1

    def took_back(self, stage: Stage) -> None:
        self.counts[stage] += 1

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine in the loop of the server."""
        return self.runner.run(call)

    def see(self, version: int, *arguments: Any, **more: Any) -> None:
        """Let requests for `live` end on a version, and their shadows too."""
        self.run(self.seen(version, *arguments, **more))

    async def seen(
        self,
        version: int,
        outcome: Answer | Exception | None = None,
        times: int = 10,
        call: PredictCall = CALL,
        name: str = "spam",
    ) -> None:
        OF_REQUEST.set("a charge")
        await self.watcher.refresh()
        for _ in range(times):
            target = ResolvedReference(name, version, "sha256:0")
            if self.traffic.follows(name):
                self.traffic.saw(target, call, answer("right") if outcome is None else outcome)
        await self.traffic.settle()

    def verdicts(self) -> list[tuple[str, str, int]]:
        """Judge, and return reason, stage and version of each verdict."""
        return [(one.reason, one.stage, one.version) for one in self.run(self.watcher.judge())]


def answer(label: str, seconds: float = 0.1) -> Answer:
    resolved = ResolvedReference("spam", 1, "sha256:0")
    predictions = [{"label": label, "score": 0.9}]
    return Answer(resolved, "text-classification", predictions, 1, 9000, 0, 9000, seconds * 1000, 20_000)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Yield the parts of a server whose `spam` has three versions and a rule; the second became live just now."""
    with asyncio.Runner() as runner, closing(SqlRegistry(address(tmp_path))) as registry:
        for content in "abc":
            publish(registry, "spam", content, activate=False)
        for version in (1, 2):
            registry.set_alias("spam", LIVE, version)
        registry.set_rule("spam", RULE)
        yield Site(registry, runner)


def test_a_moved_live_that_differs_from_the_version_before_is_rolled_back(site: Site) -> None:
    site.outcomes[1] = answer("other")
    site.see(2)
    assert {version for _, version, _ in site.computed} == {1}
    assert site.verdicts() == [("max_disagreement", "live", 2)]
    assert site.registry.show("spam").live == 1
    assert (site.moved, site.counts["live"]) == (["spam"], 1)
    # The version before is not on trial: it was moved back to.
    site.see(1)
    assert site.verdicts() == []
    assert site.registry.show("spam").live == 1


def test_a_moved_live_is_judged_for_the_window_and_no_longer(site: Site) -> None:
    site.outcomes[1] = answer("other")
    site.now += RULE.window_seconds + 1
    site.see(2)
    assert site.computed == []
    site.see(2, RunnerFault("broken"))
    assert site.verdicts() == []
    assert site.registry.show("spam").live == 2


def test_a_live_that_fails_is_rolled_back(site: Site) -> None:
    site.see(2, RunnerFault("broken"), 1)
    site.see(2, times=9)
    assert site.verdicts() == [("max_error_rate", "live", 2)]


def test_a_live_that_takes_longer_is_rolled_back(site: Site) -> None:
    site.outcomes[1] = answer("right", 0.1)
    site.see(2, answer("right", 0.21))
    assert site.verdicts() == [("max_p95_ratio", "live", 2)]


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (InvalidInput("no text"), CALL),
        (TooLong("too long"), CALL),
        (Overloaded("queue full", 1), CALL),
        (RegistryUnavailable("away"), CALL),
        (Expired("late"), PredictCall(["x"], {}, None, RequestOptions(timeout_s=0.001))),
    ],
)
def test_an_error_of_the_request_or_of_the_server_is_no_fault_of_the_version(
    site: Site, error: Exception, call: PredictCall
) -> None:
    site.see(2, error, 20, call)
    assert site.windows.figures("spam", 2, 60).requests == 0
    assert site.verdicts() == []


@pytest.mark.parametrize(
    "error", [RunnerFault("broken"), CorruptBundle("bytes"), Expired("late"), ZeroDivisionError()]
)
def test_an_error_of_the_version_is_its_fault(site: Site, error: Exception) -> None:
    site.see(2, error, 3)
    assert site.windows.figures("spam", 2, 60).faults == 3


def test_a_shadow_that_differs_ends_and_live_stays(site: Site) -> None:
    site.now += RULE.window_seconds + 1
    site.registry.set_shadow("spam", 3, 20)
    site.outcomes[3] = answer("other")
    site.see(2)
    assert site.verdicts() == [("max_disagreement", "shadow", 3)]
    shown = site.registry.show("spam")
    assert (shown.shadow, shown.live, site.moved) == (None, 2, [])


def test_a_candidate_that_differs_ends_its_split_and_live_stays(site: Site) -> None:
    site.now += RULE.window_seconds + 1
    site.registry.set_split("spam", LIVE, {1: 10, 3: 10})
    site.outcomes[2] = answer("other")
    site.see(3, times=9)
    # Live computes all requests of a candidate too, and none of its own on another version.
    site.see(2)
    assert [version for _, version, _ in site.computed] == [2] * 9
    assert site.verdicts() == []
    site.see(3, times=1)
    assert site.verdicts() == [("max_disagreement", "split", 3)]
    shown = site.registry.show("spam")
    # The pins hear of it, and let the candidates go.
    assert (shown.splits, shown.live, site.moved) == ({}, 2, ["spam"])
    event = site.registry.events("spam", 1)[0]
    assert (event.what, event.alias, event.who, event.detail["candidate"]) == ("split_ended", LIVE, "rule", 3)
    assert event.detail["before"] == {"1": 10, "3": 10}


def test_a_candidate_that_fails_ends_its_split(site: Site) -> None:
    site.now += RULE.window_seconds + 1
    site.registry.set_split("spam", LIVE, {3: 10})
    site.see(3, RunnerFault("broken"))
    site.see(2)
    assert site.verdicts() == [("max_error_rate", "split", 3)]
    assert site.registry.show("spam").live == 2


def test_a_shadow_computes_its_share_of_the_requests(site: Site) -> None:
    site.registry.remove_rule("spam")
    site.registry.set_shadow("spam", 3, 20)
    for site.draw in (0.0, 0.1, 0.199, 0.2, 0.5, 0.999):
        site.see(2, times=1)
    assert [version for _, version, _ in site.computed] == [3] * 3
    site.see(1)
    assert len(site.computed) == 3


def test_a_shadow_that_cannot_answer_what_live_answered_differs(site: Site) -> None:
    site.now += RULE.window_seconds + 1
    site.registry.set_shadow("spam", 3, 100)
    site.outcomes[3] = TooLong("too long")
    site.see(2)
    assert site.counts["differed"] == 10
    assert site.verdicts() == [("max_disagreement", "shadow", 3)]


def test_a_shadow_that_fails_breaks_the_limit_on_errors(site: Site) -> None:
    site.now += RULE.window_seconds + 1
    site.registry.set_shadow("spam", 3, 100)
    site.outcomes[3] = RunnerFault("broken")
    site.see(2)
    assert site.counts["failed"] == 10
    assert site.verdicts() == [("max_error_rate", "shadow", 3)]


@pytest.mark.parametrize("busy", [Overloaded("queue busy", 1), Expired("late"), RegistryUnavailable("away")])
def test_a_busy_server_drops_shadows_and_blames_nobody(site: Site, busy: Exception) -> None:
    site.registry.set_shadow("spam", 3, 100)
    site.outcomes = {1: busy, 3: busy}
    site.see(2)
    assert site.counts == {"dropped": 20}
    assert site.verdicts() == []


def test_no_more_shadows_than_the_limit_are_under_way(site: Site) -> None:
    few = Site(site.registry, site.runner, most=3)
    few.registry.remove_rule("spam")
    few.registry.set_shadow("spam", 3, 100)
    few.see(2)
    # Those that came while three were under way were dropped, and none of them waits.
    assert (few.counts["dropped"], few.counts["agreed"], len(few.computed)) == (7, 3, 3)
    few.see(2, times=1)
    assert few.counts["agreed"] == 4


def test_a_shadow_has_nothing_of_the_request_s_context(site: Site) -> None:
    site.registry.set_shadow("spam", 3, 100)
    site.see(2)
    assert {of for _, _, of in site.computed} == {"nothing"}


def test_no_rule_judges_an_adapter_of_another_tenant(site: Site) -> None:
    publish(site.registry, "acme/spam", "x")
    publish(site.registry, "acme/spam", "y")
    site.see(2, RunnerFault("broken"), name="acme/spam")
    assert site.verdicts() == []
    assert site.registry.show("acme/spam").live == 2


def test_a_registry_that_is_away_stops_no_judgement(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.see(2, RunnerFault("broken"))

    def away(*_: object) -> None:
        raise RegistryUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(site.registry, "rollouts", away)
        broken.setattr(site.registry, "carry_out", away)
        assert site.verdicts() == []
    assert site.verdicts() == [("max_error_rate", "live", 2)]


def test_generated_texts_count_their_faults_and_the_seconds_of_a_token(site: Site) -> None:
    site.run(site.watcher.refresh())

    def stats(
        error: str | None = None, seconds: float = 2.0, tokens: int = 4, version: int = 2
    ) -> GenerationStats:
        return GenerationStats("spam", 5, 0, tokens, 1, 0.1, seconds, error, version)

    for _ in range(9):
        site.generated.generated(stats())
    site.generated.generated(stats("invalid_input"))
    site.generated.generated(stats("deadline_exceeded"))
    assert site.windows.figures("spam", 2, 60).seconds == [0.5] * 9
    site.generated.generated(stats("runner_fault"))
    assert site.verdicts() == [("max_error_rate", "live", 2)]


def test_shadows_under_way_are_cancelled_at_the_end(site: Site) -> None:
    site.registry.set_shadow("spam", 3, 100)

    async def begin_and_close() -> None:
        await site.watcher.refresh()
        site.held.clear()
        site.traffic.saw(ResolvedReference("spam", 2, "sha256:0"), CALL, answer("right"))
        await site.shadows.close()
        await site.traffic.settle()

    site.run(begin_and_close())
    assert site.counts == {}
