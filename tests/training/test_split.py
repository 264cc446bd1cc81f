"""The split: disjoint, stratified and free of duplicates, for any mixture of labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import Dataset, Example
from training.recipe import Splits
from training.split import split

SETTINGS = Splits(test_size=0.2, val_size=0.2, seed=3)


def dataset(counts: list[int], repeats: int) -> Dataset:
    texts = [(f"Text {label} number {i}", str(label)) for label, count in enumerate(counts) for i in range(count)]
    copies = [(f"  text  {text[5:].upper()}", label) for text, label in texts[:repeats]]
    examples = tuple(Example(text, (label,), line) for line, (text, label) in enumerate(texts + copies, start=2))
    return Dataset(Path("rows.csv"), "", tuple(str(i) for i in range(len(counts))), examples)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(10, 60), min_size=2, max_size=6), st.integers(0, 20))
def test_parts_are_disjoint_complete_and_hold_each_label_in_proportion(counts: list[int], repeats: int) -> None:
    data = dataset(counts, repeats)
    parts = split(data, SETTINGS)
    every = [*parts.train, *parts.validation, *parts.test]
    keys = {" ".join(example.text.casefold().split()) for example in every}
    assert len(keys) == len(every) == sum(counts)
    assert parts.duplicates == len(data.examples) - sum(counts)
    for part, share in ((parts.test, 0.2), (parts.validation, 0.2), (parts.train, 0.6)):
        found = Counter(example.labels[0] for example in part)
        for label, count in enumerate(counts):
            assert abs(found[str(label)] - share * count) <= 2


def test_the_same_seed_gives_the_same_parts_and_another_seed_does_not() -> None:
    data = dataset([30, 40], 0)
    assert split(data, SETTINGS) == split(data, SETTINGS)
    assert split(data, SETTINGS) != split(data, SETTINGS.model_copy(update={"seed": 4}))


def test_sentences_are_balanced_by_their_sets_of_entity_types_even_where_some_are_rare() -> None:
    kinds = [("PER",)] * 20 + [("LOC",)] * 20 + [()] * 20 + [("PER", "LOC", "ORG")] * 8 + [("ORG",)]
    examples = tuple(
        Example(f"{i} x", tuple(f"B-{kind}" for kind in found) or ("O",), i, (str(i), "x"))
        for i, found in enumerate(kinds)
    )
    labels = ("O", *(f"{bio}-{kind}" for kind in ("LOC", "ORG", "PER") for bio in "BI"))
    parts = split(Dataset(Path("s.conll"), "", labels, examples), SETTINGS)
    assert parts.sizes == {"train": 41, "validation": 14, "test": 14}
    assert Counter(example.stratum for example in parts.test)["LOC"] == 4
