"""Choose the next batch: of the rows whose turns are near, those that cost least together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from rootstock.service.engine.encode.batch import Row

# A batch holds equal inputs once. These factors, times its limits, bound its rows and the tokens of its rows
# counted one by one. Twenty adapters on one text of 256 tokens therefore fit in one batch.
SHARED_ROWS = 4
SHARED_TOKENS = 16


@dataclass(frozen=True)
class BatchLimits:
    """The limits of a batch: `rows` distinct inputs and `tokens` of these with padding. A longer row runs alone.

    `padding` is the largest share of a batch that may be padding. `overhead` is the fixed cost of a batch, in
    tokens. A larger overhead makes larger batches with more padding worth their cost.
    """

    rows: int = 32
    tokens: int = 512
    padding: float = 0.25
    overhead: int = 32


def pack(rows: Sequence[Row], limits: BatchLimits) -> list[Row]:
    """Return the first row and the rows that make the cheapest batch with it, in the order given.

    All rows of a batch are of the first row's group (sample.py). A candidate batch is a run of the group's
    distinct inputs, sorted by length, within the limits. The cheapest one has the least (overhead + tokens with
    padding) / tokens. It gets every row of its inputs that the limits times `SHARED_ROWS` and `SHARED_TOKENS`
    allow, and at most `limits.rows` rows of one adapter, so that an adapter that gets the same input again and
    again delays no other. Of rows of one length, the earliest are taken.
    """
    rows = [row for row in rows if row.group == rows[0].group]
    if len(rows) == 1:
        return rows
    first: dict[bytes, int] = {}
    for place, row in enumerate(rows):
        first.setdefault(row.key, place)
    lengths = [row.cost for row in rows]
    # On either side of the first row, earlier rows of one length stand nearer to it, and are cut off last.
    order = sorted(first.values(), key=lambda p: (lengths[p], p if lengths[p] >= lengths[0] else -p))
    begin, end = _cheapest([lengths[p] for p in order], order.index(0), limits)
    chosen = {rows[p].key for p in order[begin:end]}
    most = _most(lengths[order[end - 1]], SHARED_ROWS * limits.rows, SHARED_TOKENS * limits.tokens)
    return _up_to(limits.rows, [row for row in rows if row.key in chosen])[:most]


def _up_to(most: int, rows: list[Row]) -> list[Row]:
    """Return the first `most` rows of each adapter, in the order given."""
    if len(rows) <= most:
        return rows
    counts: Counter[str] = Counter()
    kept = []
    for row in rows:
        counts[row.digest] += 1
        if counts[row.digest] <= most:
            kept.append(row)
    return kept


def _cheapest(lengths: Sequence[int], head: int, limits: BatchLimits) -> tuple[int, int]:
    """Return the begin and end of the cheapest run that contains index `head`, for these ascending lengths."""
    sums = list(accumulate(lengths, initial=0))
    least, best = float("inf"), (head, head + 1)
    for end in range(head + 1, len(lengths) + 1):
        longest = lengths[end - 1]
        most = _most(longest, limits.rows, limits.tokens)
        if end - head > most:
            break
        if end < len(lengths) and lengths[end] == longest and end - head < most:
            continue  # one more input of the same length always lowers the cost
        last = float("inf")
        for begin in range(head, max(0, end - most) - 1, -1):
            padded, tokens = (end - begin) * longest, sums[end] - sums[begin]
            cost = (limits.overhead + padded) / tokens
            if padded - tokens > limits.padding * padded or cost >= last:
                break  # a still shorter input always raises the cost
            last = cost
            if cost < least:
                least, best = cost, (begin, end)
    return best


def _most(longest: int, rows: int, tokens: int) -> int:
    """Return how many inputs these limits allow if the longest has `longest` tokens."""
    return max(1, min(rows, tokens // longest))
