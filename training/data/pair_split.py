"""Splits pairs of prompt and answer by their prompts: all answers to one prompt are in one part."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rootstock.training.data.text_pairs import PairData, PromptGroup, PromptPair, grouped
from rootstock.training.errors import DataError
from rootstock.training.recipe.data_section import Splits


@dataclass(frozen=True)
class PairSplit:
    """The three parts, each in its file's order, and the number of duplicates left out."""

    train: tuple[PromptPair, ...]
    validation: tuple[PromptPair, ...]
    test: tuple[PromptPair, ...]
    duplicates: int

    @property
    def sizes(self) -> dict[str, int]:
        """The number of rows in each part, by its name."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def split_pairs(data: PairData, settings: Splits) -> PairSplit:
    """Return the parts of the data; the same settings give the same parts.

    With `dedupe_across_splits` no prompt of test or validation is trained on. Raise DataError if a part is empty.
    """
    rest, validation = _unique(data.train.pairs), _unique(data.validation.pairs if data.validation else ())
    read = len(data.train.pairs) + len(data.validation.pairs if data.validation else ())
    duplicates = read - len(rest) - len(validation)
    test: Sequence[PromptPair]
    if data.test is None:
        rest, test = _deal(rest, settings.test_size, settings.seed)
    else:
        test = data.test.pairs
    if settings.dedupe_across_splits:
        before = len(rest) + len(validation)
        validation = _without(validation, test)
        rest = _without(rest, [*test, *validation])
        duplicates += before - len(rest) - len(validation)
    if data.validation is None:
        # The share is one of all rows, of which the test rows may be gone.
        share = settings.val_size / (1 - settings.test_size) if data.test is None else settings.val_size
        rest, validation = _deal(rest, share, settings.seed)
    for name, part in (("train", rest), ("validation", validation), ("test", test)):
        if not part:
            path = data.train.pairs[0].path
            raise DataError(
                f"{path}: no rows are left for {name}; add rows with other prompts, or change data.splits"
            )
    rest = drawn(rest, settings.train_rows, settings.seed)
    return PairSplit(tuple(rest), tuple(validation), tuple(test), duplicates)


def drawn_groups(pairs: Sequence[PromptPair], count: int | None, seed: int) -> list[PromptGroup]:
    """Return at most `count` distinct prompts of pairs, with all their references, in order."""
    groups = grouped(pairs)
    return [groups[i] for i in _positions(len(groups), count, seed)]


def drawn(pairs: Sequence[PromptPair], count: int | None, seed: int) -> list[PromptPair]:
    """Return at most `count` pairs, drawn by the seed, in order."""
    return [pairs[i] for i in _positions(len(pairs), count, seed)]


def _positions(length: int, count: int | None, seed: int) -> list[int]:
    if count is None or count >= length:
        return list(range(length))
    return sorted(random.Random(seed).sample(range(length), count))  # noqa: S311 - can be repeated


def _unique(pairs: Iterable[PromptPair]) -> list[PromptPair]:
    """Return the first of the pairs with the same prompt and answer."""
    first: dict[tuple[str, str], PromptPair] = {}
    for pair in pairs:
        first.setdefault((pair.key, pair.answer), pair)
    return list(first.values())


def _without(pairs: Iterable[PromptPair], others: Iterable[PromptPair]) -> list[PromptPair]:
    keys = {pair.key for pair in others}
    return [pair for pair in pairs if pair.key not in keys]


def _deal(pairs: Sequence[PromptPair], share: float, seed: int) -> tuple[list[PromptPair], list[PromptPair]]:
    """Return the pairs without those of a share of the prompts, and those, both in order."""
    keys = list(dict.fromkeys(pair.key for pair in pairs))
    dealt = {keys[i] for i in _positions(len(keys), math.ceil(share * len(keys)), seed)}
    return [p for p in pairs if p.key not in dealt], [p for p in pairs if p.key in dealt]
