"""Windows alternate, and each figure stays with its side."""

from __future__ import annotations

from rootstock.loadtest.fixtures.windows import Windows, alternate, p50s, rates
from rootstock.loadtest.measure.wrk import Load


class Recorded:
    """A side that writes down when it was loaded."""

    def __init__(self, name: str, rate: float, order: list[str]) -> None:
        self.name = name
        self._rate, self._order = rate, order

    def load(self, connections: int, seconds: int) -> Load:
        self._order.append(self.name)
        return Load(int(self._rate * seconds), seconds, 1000 / self._rate, 2000 / self._rate)


def test_the_order_alternates_and_the_figures_keep_their_sides() -> None:
    order: list[str] = []
    ours, theirs = Recorded("ours", 100, order), Recorded("theirs", 20, order)
    measured = alternate(ours, theirs, Windows(2, 3, 32), lambda line: None)  # type: ignore[arg-type]
    assert order == ["ours", "theirs", *("ours", "theirs"), *("theirs", "ours"), *("ours", "theirs")]
    assert [pair.ratio for pair in rates(measured)] == [5, 5, 5]
    assert [tuple(pair) for pair in p50s(measured)] == [(10, 50)] * 3
