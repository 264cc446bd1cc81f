"""The recent requests of versions: what a window holds, and the memory that all take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rootstock.service.rollout.judgement import ComparisonFigures, VersionFigures
from rootstock.service.rollout.recent_samples import RecentSamples
from rootstock.service.rollout.version_windows import VersionWindows


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(-5, 5)), max_size=80), st.integers(1, 20), st.floats(0, 100)
)
def test_samples_are_the_newest_of_a_list(steps: list[tuple[float, float]], most: int, back: float) -> None:
    samples, kept, now = RecentSamples(most), [], 0.0
    for step, value in steps:
        now += step
        samples.add(now, value)
        kept.append((now, value))
    wanted = [value for at, value in kept[-most:] if at >= now - back]
    assert sorted(samples.since(now - back)) == sorted(wanted)


def test_requests_leave_the_window_as_time_passes() -> None:
    clock = HandClock()
    windows = VersionWindows(clock)
    windows.answered("spam", 2, 0.1)
    clock.now += 50
    windows.failed("spam", 2)
    windows.compared("spam", 2, 1, True)
    assert windows.figures("spam", 2, 60) == VersionFigures([0.1], 1)
    clock.now += 20
    assert windows.figures("spam", 2, 60) == VersionFigures([], 1)
    assert windows.comparison("spam", 2, 1, 60) == ComparisonFigures(1, 1)
    clock.now += 60
    assert windows.comparison("spam", 2, 1, 60) == ComparisonFigures()


def test_versions_adapters_and_incumbents_are_kept_apart() -> None:
    windows = VersionWindows(HandClock())
    windows.answered("spam", 2, 0.1)
    windows.compared("spam", 2, 1, True)
    assert windows.figures("spam", 1, 60) == windows.figures("acme/spam", 2, 60) == VersionFigures()
    assert windows.comparison("spam", 2, 3, 60) == ComparisonFigures()
    windows.compared("spam", 2, 3, False)
    assert windows.comparison("spam", 2, 1, 60) == ComparisonFigures()
    assert windows.comparison("spam", 2, 3, 60) == ComparisonFigures(1, 0)


def test_a_forgotten_version_is_judged_anew() -> None:
    windows = VersionWindows(HandClock())
    windows.failed("spam", 2)
    windows.forget("spam", 2)
    windows.forget("spam", 3)
    assert windows.figures("spam", 2, 60) == VersionFigures()


def test_the_windows_that_were_used_least_recently_go_first() -> None:
    windows = VersionWindows(HandClock(), most=3)
    for version in (1, 2, 3):
        windows.failed("spam", version)
    windows.failed("spam", 1)
    windows.failed("spam", 4)
    assert len(windows) == 3
    assert [windows.figures("spam", version, 60).faults for version in (1, 2, 3, 4)] == [2, 0, 1, 1]
