"""Deals rows into parts alike: rows with any number of labels by their labels, rows with a number by its rank."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from rootstock.training.data.example import Example

# The groups of numbers, from the lowest to the highest, that each part has its share of.
GROUPS = 5


def dealt(examples: Sequence[Example], sizes: Sequence[int], seed: int) -> list[list[int]]:
    """Return the positions of the examples in parts of these sizes, which add up to all examples.

    Each part gets its share of each label, the rarest label first, and of the rows without a label. The same seed
    gives the same parts. Source: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data",
    2011, algorithm 1; here a part is full once it has its size, and a label is shared by the room that is left.
    """
    if sum(sizes) != len(examples):
        raise ValueError(f"parts of {sum(sizes)} rows for {len(examples)} examples")
    draw = random.Random(seed)  # noqa: S311 - can be repeated
    left = list(range(len(examples)))
    draw.shuffle(left)
    kinds = {i: examples[i].kinds or {""} for i in left}
    remaining = Counter(kind for i in left for kind in kinds[i])
    room = list(sizes)
    wanted = {kind: [count * size / len(examples) for size in sizes] for kind, count in remaining.items()}
    parts: list[list[int]] = [[] for _ in sizes]
    while left:
        rarest = min((kind for kind in remaining if remaining[kind]), key=lambda kind: (remaining[kind], kind))
        # Full parts take no more rows, so what is left of a label is shared among the others.
        wanted[rarest] = [remaining[rarest] * places / sum(room) for places in room]
        for i in [i for i in left if rarest in kinds[i]]:
            part = max(
                (part for part in range(len(sizes)) if room[part]),
                key=lambda part: (wanted[rarest][part], room[part] / sizes[part], draw.random()),
            )
            parts[part].append(i)
            room[part] -= 1
            for kind in kinds[i]:
                wanted[kind][part] -= 1
                remaining[kind] -= 1
        left = [i for i in left if rarest not in kinds[i]]
    return [sorted(part) for part in parts]


def even_sizes(rows: int, parts: int) -> list[int]:
    """Return the sizes of parts of `rows` rows that differ by one at most."""
    return [(rows + part) // parts for part in range(parts)]


def value_strata(examples: Sequence[Example], most: int) -> list[str]:
    """Return for each example with a number one of at most `most` groups of equal size, by the number's rank."""
    order = sorted(range(len(examples)), key=lambda i: (examples[i].value or 0.0, i))
    groups = max(1, min(GROUPS, most))
    strata = [""] * len(examples)
    for rank, i in enumerate(order):
        strata[i] = str(rank * groups // len(examples))
    return strata
