"""The split into rows to train on, to choose by, and to report on: disjoint, stratified, without duplicates."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from training.data import Dataset, Example
from training.errors import DataError
from training.recipe import Splits


@dataclass(frozen=True)
class Split:
    """The three parts of a data set, each in the file's order, and how many duplicates were left out."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    duplicates: int

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def split(dataset: Dataset, settings: Splits) -> Split:
    """The parts of `dataset`: the same settings give the same parts, and no text is in two of them.

    DataError where a text has two labels, or a label has too few rows to be in every part.
    """
    unique = _unique(dataset)
    _check_counts(dataset, unique, settings)
    test_count = math.ceil(settings.test_size * len(unique))
    val_count = math.ceil(settings.val_size * len(unique))
    rest, test = _deal(dataset, unique, test_count, settings)
    train, validation = _deal(dataset, rest, val_count, settings)
    for part in (train, validation, test):
        present = set().union(*(example.kinds for example in part))
        if missing := sorted(set(dataset.kinds) - present):
            count = sum(missing[0] in example.kinds for example in unique)
            raise _too_few(dataset, missing[0], count, settings)
    return Split(tuple(train), tuple(validation), tuple(test), len(dataset.examples) - len(unique))


def _unique(dataset: Dataset) -> list[Example]:
    """The first of each text, where texts that differ in case, spacing or Unicode form are the same."""
    first: dict[str, Example] = {}
    for example in dataset.examples:
        key = " ".join(unicodedata.normalize("NFKC", example.text).casefold().split())
        seen = first.setdefault(key, example)
        if seen.labels != example.labels:
            raise DataError(
                f"{dataset.path}, line {example.line}: the text of line {seen.line} with another label: "
                f"{_shown(example)} and {_shown(seen)}"
            )
    return list(first.values())


def _shown(example: Example) -> str:
    return repr(" ".join(example.labels))


def _check_counts(dataset: Dataset, examples: Sequence[Example], settings: Splits) -> None:
    for kind in dataset.kinds:
        count = sum(kind in example.kinds for example in examples)
        if count < _needed(settings):
            raise _too_few(dataset, kind, count, settings)


def _needed(settings: Splits) -> int:
    return max(3, math.ceil(1 / min(settings.test_size, settings.val_size)))


def _too_few(dataset: Dataset, kind: str, count: int, settings: Splits) -> DataError:
    shares = f"test_size {settings.test_size:g} and val_size {settings.val_size:g}"
    # Rounding can starve a label that just reaches the least number, so the advice leaves room.
    needed = max(_needed(settings), count + 1)
    return DataError(
        f"{dataset.path}: label {kind!r} has {count} rows; to be in every part with {shares} it needs "
        f"at least {needed}"
    )


def _deal(
    dataset: Dataset, examples: Sequence[Example], count: int, settings: Splits
) -> tuple[list[Example], list[Example]]:
    """`examples` less `count` of them, and those, both in order and with the same mixture of strata."""
    from sklearn.model_selection import train_test_split

    try:
        kept, taken = train_test_split(
            range(len(examples)),
            test_size=count,
            random_state=settings.seed,
            shuffle=True,
            stratify=_strata(examples, count),
        )
    except ValueError as error:
        raise DataError(f"{dataset.path}: cannot be split: {error}") from None
    return [examples[i] for i in sorted(kept)], [examples[i] for i in sorted(taken)]


def _strata(examples: Sequence[Example], count: int) -> list[str]:
    """Each example's stratum; sets of entity types too rare to share out make one stratum together."""
    strata = [example.stratum for example in examples]
    if not examples[0].words:
        return strata
    least = max(2, math.ceil(len(examples) / min(count, len(examples) - count)))
    counts = Counter(strata)
    pooled = [stratum if counts[stratum] >= least else "rare" for stratum in strata]
    if pooled.count("rare") >= least:
        return pooled
    commonest = counts.most_common(1)[0][0]
    return [commonest if stratum == "rare" else stratum for stratum in pooled]
