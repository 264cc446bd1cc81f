"""Traffic spreads over adapters in the four ways by name."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from rootstock.loadtest.fixtures.popularity import POPULARITIES, choose

NAMES = ["a", "b", "c", "d"]


def counts(popularity: str) -> Counter[str]:
    return Counter(islice(choose(NAMES, popularity), 4000))


def test_each_spreads_as_named() -> None:
    assert counts("identical") == {"a": 4000}
    assert counts("distinct") == dict.fromkeys(NAMES, 1000)
    assert all(900 < n < 1100 for n in counts("uniform").values())
    zipf = counts("zipf")
    # 1/rank over four ranks: 0.48, 0.24, 0.16, 0.12.
    assert [round(zipf[n] / 4000, 1) for n in NAMES] == [0.5, 0.2, 0.2, 0.1]


@pytest.mark.parametrize("popularity", POPULARITIES)
def test_no_adapters_are_refused(popularity: str) -> None:
    with pytest.raises(ValueError, match="no adapters"):
        choose([], popularity)


def test_an_unknown_popularity_is_refused() -> None:
    with pytest.raises(ValueError, match="one of identical, uniform, zipf, distinct"):
        choose(NAMES, "normal")
