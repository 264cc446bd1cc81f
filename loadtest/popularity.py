"""Which adapter the next request asks for: four ways in which traffic spreads over adapters."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, cycle, repeat

POPULARITIES = ("identical", "uniform", "zipf", "distinct")


def choose(names: Sequence[str], popularity: str, seed: int = 0) -> Iterator[str]:
    """Names without end: always the first, all alike, by 1/rank (Zipf), or each in turn."""
    if not names:
        raise ValueError("no adapters to choose from; publish at least one")
    picked = random.Random(seed)  # noqa: S311 - traffic, not secrets
    ranked = list(accumulate(1 / rank for rank in range(1, len(names) + 1)))
    ways: dict[str, Callable[[], Iterator[str]]] = {
        "identical": lambda: repeat(names[0]),
        "uniform": lambda: iter(lambda: picked.choice(names), None),
        "zipf": lambda: iter(lambda: picked.choices(names, cum_weights=ranked)[0], None),
        "distinct": lambda: cycle(names),
    }
    if popularity not in ways:
        raise ValueError(f"popularity {popularity!r}; one of: {', '.join(POPULARITIES)}")
    return ways[popularity]()
