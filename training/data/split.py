"""Splits rows into those to train on, to choose by and to report on: disjoint, stratified, without duplicates."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rootstock.training.data.answers.strata import GROUPS, dealt, even_sizes, value_strata
from rootstock.training.data.dataset import Dataset
from rootstock.training.data.example import Example, Rows
from rootstock.training.errors import DataError
from rootstock.training.recipe.data_section import Splits

FOLDS = 4


@dataclass(frozen=True)
class Split:
    """The three parts of a data set, each in its file's order, and the number of duplicates left out.

    Without validation rows, choices are made by cross-validation over `train` (`folds`).
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    duplicates: int

    @property
    def sizes(self) -> dict[str, int]:
        """The number of rows in each part, by its name."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def split(dataset: Dataset, settings: Splits, conflicts: str = "refuse") -> Split:
    """Return the parts of `dataset`; the same settings give the same parts.

    A test file stays whole. With `dedupe_across_splits` no text of test or validation is trained on. Raise
    DataError for a text with two labels, unless `conflicts` is `first`, and for a label with too few rows.
    """
    unique = _unique(dataset.train, conflicts)
    test: tuple[Example, ...]
    if dataset.test is None:
        _check_counts(dataset, unique, settings)
        rest, dealt = _deal(dataset, unique, math.ceil(settings.test_size * len(unique)), settings)
        test = tuple(dealt)
    else:
        rest, test = unique, dataset.test.examples
    read = len(dataset.train.examples)
    validation: Sequence[Example] = ()
    if dataset.validation is not None:
        read += len(dataset.validation.examples)
        validation = _unique(dataset.validation, conflicts)
    if settings.dedupe_across_splits:
        validation = _without(validation, test)
        rest = _without(rest, [*test, *validation])
    left_out = read - len(rest) - len(validation) - (0 if dataset.test else len(test))
    if settings.k_shot is not None:
        rest, validation = _few(dataset, rest, settings.k_shot, settings.seed), ()
    elif settings.choose_by == "cross_validation":
        rest, validation = [*_without(rest, validation), *validation], ()
        _check_folds(dataset, rest)
    elif dataset.validation is None:
        val_count = math.ceil(settings.val_size * (len(unique) if dataset.test is None else len(rest)))
        rest, validation = _deal(dataset, rest, val_count, settings)
    if dataset.test is None:
        for part in filter(None, (rest, validation, test)):
            present = set().union(*(example.kinds for example in part))
            if missing := sorted(set(dataset.kinds) - present):
                count = sum(missing[0] in example.kinds for example in unique)
                raise _too_few(dataset, missing[0], count, settings)
    return Split(tuple(rest), tuple(validation), test, left_out)


def folds(examples: Sequence[Example], seed: int, count: int = FOLDS) -> Iterator[tuple[list[int], list[int]]]:
    """Yield `count` stratified folds of examples: the positions to train on, and those to predict."""
    from sklearn.model_selection import StratifiedKFold

    if examples[0].several:
        for fold in dealt(examples, even_sizes(len(examples), min(count, len(examples))), seed):
            yield sorted(set(range(len(examples))) - set(fold)), fold
        return
    strata = [example.stratum for example in examples]
    if examples[0].value is not None:
        strata = value_strata(examples, len(examples) // count)
    counts = Counter(strata)
    # A stratum needs `count` rows, so the rare sets of entity types share one.
    strata = [stratum if counts[stratum] >= count else "" for stratum in strata]
    splitter = StratifiedKFold(min(count, len(examples)), shuffle=True, random_state=seed)
    for train, test in splitter.split(strata, strata):
        yield train.tolist(), test.tolist()


def _unique(rows: Rows, conflicts: str) -> list[Example]:
    """Return the first example of each text."""
    first: dict[str, Example] = {}
    for example in rows.examples:
        seen = first.setdefault(example.key, example)
        if seen.answer != example.answer and conflicts == "refuse":
            same = f"{rows.path}, line {example.line}: same text as line {seen.line}"
            if example.file is not None:
                same = f"{example.file}: same content as {seen.file}"
            raise DataError(
                f"{same} with another label: {example.answer!r} and {seen.answer!r}; correct one, or set "
                "data.conflicts: first"
            )
    return list(first.values())


def _without(examples: Iterable[Example], others: Iterable[Example]) -> list[Example]:
    excluded = {example.key for example in others}
    return [example for example in examples if example.key not in excluded]


def _few(dataset: Dataset, examples: Sequence[Example], k: int, seed: int) -> list[Example]:
    """Return `k` examples of each label, or of each entity type, drawn by the seed, in the file's order.

    A sentence counts for each entity type in it, and a text for each of its labels; k inputs without any are
    drawn as well. Of numbers it is `k` of each of `GROUPS` groups, from the lowest to the highest.
    """
    if examples[0].value is not None:
        return _few_numbers(dataset, examples, k, seed)
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a draw that can be repeated
    groups = [*dataset.kinds, ""] if dataset.tokens or examples[0].several else list(dataset.kinds)
    have: Counter[str] = Counter()
    chosen = set()
    for kind in sorted(groups, key=lambda kind: sum(kind in e.kinds for e in examples)):
        for i in order:
            if have[kind] >= k:
                break
            kinds = examples[i].kinds or {""}
            if i not in chosen and kind in kinds:
                chosen.add(i)
                have.update(kinds)
        if have[kind] < k and kind:
            raise DataError(
                f"{dataset.train.path}: label {kind!r} has {have[kind]} rows to draw from; data.splits.k_shot "
                f"is {k}: lower it, or add rows"
            )
    return [examples[i] for i in sorted(chosen)]


def _few_numbers(dataset: Dataset, examples: Sequence[Example], k: int, seed: int) -> list[Example]:
    if len(examples) < k * GROUPS:
        raise DataError(
            f"{dataset.train.path}: {len(examples)} rows to draw from; data.splits.k_shot {k} draws from each of "
            f"{GROUPS} groups of numbers, so it needs {k * GROUPS}: lower it, or add rows"
        )
    by_group: dict[str, list[int]] = {}
    for i, group in enumerate(value_strata(examples, GROUPS)):
        by_group.setdefault(group, []).append(i)
    draw = random.Random(seed)  # noqa: S311 - can be repeated
    chosen = [i for group in by_group.values() for i in draw.sample(group, k)]
    return [examples[i] for i in sorted(chosen)]


def _check_counts(dataset: Dataset, examples: Sequence[Example], settings: Splits) -> None:
    for kind in dataset.kinds:
        count = sum(kind in example.kinds for example in examples)
        if count < _needed(settings):
            raise _too_few(dataset, kind, count, settings)


def _check_folds(dataset: Dataset, examples: Sequence[Example]) -> None:
    """Raise DataError for a label of texts that a fold would lack, and for too few rows with numbers."""
    if dataset.tokens:
        return
    if not dataset.kinds and len(examples) < 2 * FOLDS:
        raise DataError(
            f"{dataset.train.path}: {len(examples)} rows to train and choose by; data.splits.choose_by: "
            f"cross_validation needs {2 * FOLDS}: add rows, or set validation"
        )
    counts = Counter(kind for example in examples for kind in example.kinds)
    for label in dataset.kinds:
        if counts[label] < FOLDS:
            raise DataError(
                f"{dataset.train.path}: label {label!r} has {counts[label]} rows to train and choose by; "
                f"data.splits.choose_by: cross_validation needs {FOLDS}: add rows, or set validation"
            )


def _needed(settings: Splits) -> int:
    smallest = settings.test_size if settings.choose_by == "cross_validation" else settings.val_size
    return max(3, math.ceil(1 / min(settings.test_size, smallest)))


def _too_few(dataset: Dataset, kind: str, count: int, settings: Splits) -> DataError:
    shares = f"test_size {settings.test_size:g} and val_size {settings.val_size:g}"
    # Rounding can starve a label that just reaches the minimum, so the advice leaves room.
    needed = max(_needed(settings), count + 1)
    return DataError(
        f"{dataset.train.path}: label {kind!r} has {count} rows; to be in every part with {shares} it needs "
        f"at least {needed}"
    )


def _deal(
    dataset: Dataset, examples: Sequence[Example], count: int, settings: Splits
) -> tuple[list[Example], list[Example]]:
    """Return `examples` without `count` of them, and those `count`, both in order and with the same strata."""
    from sklearn.model_selection import train_test_split

    if not examples:
        raise DataError(f"{dataset.train.path}: every text is one of test or validation; add others to train on")
    if examples[0].several and 0 < count < len(examples):
        parts = dealt(examples, (len(examples) - count, count), settings.seed)
        return [examples[i] for i in parts[0]], [examples[i] for i in parts[1]]
    try:
        first, second = train_test_split(
            range(len(examples)),
            test_size=count,
            random_state=settings.seed,
            shuffle=True,
            stratify=_strata(examples, count),
        )
    except ValueError as error:
        raise DataError(f"{dataset.train.path}: cannot be split: {error}") from None
    return [examples[i] for i in sorted(first)], [examples[i] for i in sorted(second)]


def _strata(examples: Sequence[Example], count: int) -> list[str]:
    """Return each example's stratum. Sets of entity types that are too rare share one stratum."""
    if examples[0].value is not None:
        return value_strata(examples, min(count, len(examples) - count))
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
