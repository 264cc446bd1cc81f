"""The choice of the next batch: of the rows whose turns are near, those that cost least together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from rootstock.service.engine.encode.batch import Row

# Equal inputs are held once. A batch's rows and their tokens, counted one by one, are at most so many times its
# limits: twenty adapters on one text of 256 tokens are one batch.
SHARED_ROWS = 4
SHARED_TOKENS = 16


@dataclass(frozen=True)
class BatchLimits:
    """The limits of a batch: distinct inputs, and tokens of them counted with padding. A longer row runs alone.

    `padding` is the share of a batch that may be padding. `overhead` is what a batch costs beside its tokens, in
    tokens: where it is large, larger batches with more padding pay.
    """

    rows: int = 32
    tokens: int = 512
    padding: float = 0.25
    overhead: int = 32


def pack(rows: Sequence[Row], limits: BatchLimits) -> list[Row]:
    """Return the first row and the others that make the cheapest batch with it, in the order given.

    Of the batches within the limits that are a run of the distinct inputs sorted by length, it is the one with
    the least (overhead + tokens with padding) / tokens, with every row of these inputs that the limits
    times `SHARED_ROWS` and `SHARED_TOKENS` allow, and of one adapter at most `limits.rows`: one that is asked the
    same again and again delays no other. Of rows of one length those that came first are taken.
    """
    first: dict[bytes, int] = {}
    for place, row in enumerate(rows):
        first.setdefault(row.key, place)
    # An input without tokens, for want of special ones, is padded to one.
    lengths = [max(1, row.cost) for row in rows]
    # On either side of the first row what came first stands nearest to it, and is cut off last.
    order = sorted(first.values(), key=lambda p: (lengths[p], p if lengths[p] >= lengths[0] else -p))
    begin, end = _cheapest([lengths[p] for p in order], order.index(0), limits)
    chosen = {rows[p].key for p in order[begin:end]}
    longest = lengths[order[end - 1]]
    shared = replace(limits, rows=SHARED_ROWS * limits.rows, tokens=SHARED_TOKENS * limits.tokens)
    return _up_to(limits.rows, (row for row in rows if row.key in chosen))[: _most(longest, shared)]


def _up_to(most: int, rows: Iterable[Row]) -> list[Row]:
    """Return the rows, of each adapter the first `most`."""
    had: Counter[str] = Counter()
    kept = []
    for row in rows:
        had[row.digest] += 1
        if had[row.digest] <= most:
            kept.append(row)
    return kept


def _cheapest(lengths: Sequence[int], head: int, limits: BatchLimits) -> tuple[int, int]:
    """Return where the cheapest run begins and ends, of the runs of these ascending lengths that hold `head`."""
    sums = list(accumulate(lengths, initial=0))
    least, best = float("inf"), (head, head + 1)
    for end in range(head + 1, len(lengths) + 1):
        longest = lengths[end - 1]
        most = _most(longest, limits)
        if end - head > most:
            break
        if end < len(lengths) and lengths[end] == longest and end - head < most:
            continue  # one more of the same length only gains
        last = float("inf")
        for begin in range(head, max(0, end - most) - 1, -1):
            padded, tokens = (end - begin) * longest, sums[end] - sums[begin]
            cost = (limits.overhead + padded) / tokens
            if padded - tokens > limits.padding * padded or cost >= last:
                break  # what is shorter still only loses
            last = cost
            if cost < least:
                least, best = cost, (begin, end)
    return best


def _most(longest: int, limits: BatchLimits) -> int:
    """Return how many inputs a batch takes whose longest has so many tokens."""
    return max(1, min(limits.rows, limits.tokens // longest))
