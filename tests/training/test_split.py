"""The split: disjoint, stratified and free of duplicates, for any mixture of labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.training.data.dataset import Dataset
from rootstock.training.data.example import Example, Rows
from rootstock.training.data.split import folds, split
from rootstock.training.errors import DataError
from rootstock.training.recipe.data_section import Splits

SETTINGS = Splits(test_size=0.2, val_size=0.2, seed=3)


def dataset(counts: list[int], repeats: int) -> Dataset:
    texts = [(f"Text {label} number {i}", str(label)) for label, count in enumerate(counts) for i in range(count)]
    copies = [(f"  text  {text[5:].upper()}", label) for text, label in texts[:repeats]]
    examples = tuple(Example(text, (label,), line) for line, (text, label) in enumerate(texts + copies, start=2))
    return Dataset(tuple(str(i) for i in range(len(counts))), Rows(Path("rows.csv"), "", examples))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(10, 60), min_size=2, max_size=6), st.integers(0, 20))
def test_parts_are_disjoint_complete_and_hold_each_label_in_proportion(counts: list[int], repeats: int) -> None:
    data = dataset(counts, repeats)
    parts = split(data, SETTINGS)
    every = [*parts.train, *parts.validation, *parts.test]
    keys = {" ".join(example.text.casefold().split()) for example in every}
    assert len(keys) == len(every) == sum(counts)
    assert parts.duplicates == len(data.train.examples) - sum(counts)
    for part, share in ((parts.test, 0.2), (parts.validation, 0.2), (parts.train, 0.6)):
        by_label = Counter(example.labels[0] for example in part)
        for label, count in enumerate(counts):
            assert abs(by_label[str(label)] - share * count) <= 2


def test_the_same_seed_gives_the_same_parts_and_another_seed_does_not() -> None:
    data = dataset([30, 40], 0)
    assert split(data, SETTINGS) == split(data, SETTINGS)
    assert split(data, SETTINGS) != split(data, SETTINGS.model_copy(update={"seed": 4}))


def test_sentences_are_balanced_by_their_sets_of_entity_types_even_where_some_are_rare() -> None:
    kinds = [("PER",)] * 20 + [("LOC",)] * 20 + [()] * 20 + [("PER", "LOC", "ORG")] * 8 + [("ORG",)]
    examples = tuple(
        Example(f"{i} x", tuple(f"B-{kind}" for kind in types) or ("O",), i, (str(i), "x"))
        for i, types in enumerate(kinds)
    )
    labels = ("O", *(f"{bio}-{kind}" for kind in ("LOC", "ORG", "PER") for bio in "BI"))
    parts = split(Dataset(labels, Rows(Path("s.conll"), "", examples)), SETTINGS)
    assert parts.sizes == {"train": 41, "validation": 14, "test": 14}
    assert Counter(example.stratum for example in parts.test)["LOC"] == 4


def rows(*texts: tuple[str, str]) -> Rows:
    return Rows(Path("r.csv"), "", tuple(Example(text, (label,), i) for i, (text, label) in enumerate(texts, 2)))


GIVEN = Splits(strategy="given")
MANY = tuple((f"{label} {i}", label) for i in range(10) for label in "ab")


def test_of_given_parts_test_stays_as_it_is_and_what_is_in_it_is_trained_on_nowhere() -> None:
    train = rows(*MANY, ("Seen twice", "a"), ("chosen by", "b"))
    test = rows(("seen  TWICE", "a"), ("seen twice", "a"), ("new", "b"))
    validation = rows(("chosen BY", "b"), ("Seen Twice", "a"), ("other", "a"))
    parts = split(Dataset(("a", "b"), train, validation, test), GIVEN)
    assert [e.text for e in parts.test] == ["seen  TWICE", "seen twice", "new"]
    assert [e.text for e in parts.validation] == ["chosen BY", "other"]
    assert [e.text for e in parts.train] == [text for text, _ in MANY]
    assert parts.duplicates == 3
    leaky = GIVEN.model_copy(update={"dedupe_across_splits": False})
    assert len(split(Dataset(("a", "b"), train, validation, test), leaky).train) == 22


def test_of_a_text_with_two_labels_the_first_is_kept_where_the_recipe_says_so() -> None:
    data = Dataset(("a", "b"), rows(*MANY, ("Both", "a"), ("both", "b")), None, rows(("x", "a")))
    with pytest.raises(
        DataError, match=r"line 23: same text as line 22 with another label: 'b' and 'a'; correct one"
    ):
        split(data, GIVEN)
    parts = split(data, GIVEN, "first")
    kept = [e for e in [*parts.train, *parts.validation] if e.text.casefold() == "both"]
    assert [e.labels for e in kept] == [("a",)]


def test_few_shots_are_as_many_of_each_label_and_leave_validation_unread() -> None:
    data = Dataset(("a", "b"), rows(*MANY), rows(("v", "a")), rows(("x", "a")))
    few = GIVEN.model_copy(update={"k_shot": 4})
    parts = split(data, few)
    assert Counter(e.labels[0] for e in parts.train) == {"a": 4, "b": 4}
    assert parts.validation == ()
    other = split(data, few.model_copy(update={"seed": 1}))
    assert other.train != parts.train
    with pytest.raises(DataError, match=r"label 'a' has 10 rows to draw from; data\.splits\.k_shot is 11"):
        split(data, GIVEN.model_copy(update={"k_shot": 11}))


def test_where_methods_are_chosen_by_cross_validation_the_validation_rows_are_trained_on_too() -> None:
    data = Dataset(("a", "b"), rows(*MANY, ("v", "b")), rows(("V", "a"), ("x", "b")), rows(("x", "a")))
    parts = split(data, GIVEN.model_copy(update={"choose_by": "cross_validation"}))
    assert [e.text for e in parts.train] == [*(text for text, _ in MANY), "V"]
    assert (parts.validation, [e.text for e in parts.test]) == ((), ["x"])
    leaky = {"choose_by": "cross_validation", "dedupe_across_splits": False}
    assert [e.text for e in split(data, GIVEN.model_copy(update=leaky)).train].count("V") == 1
    rare = Dataset(("a", "b", "c"), rows(*MANY, *((f"c {i}", "c") for i in range(3))), None, rows(("x", "a")))
    with pytest.raises(
        DataError, match=r"label 'c' has 3 rows to train and choose by; .* needs 4: add rows, or set"
    ):
        split(rare, GIVEN.model_copy(update={"choose_by": "cross_validation"}))
    dealt = split(dataset([30, 40], 0), SETTINGS.model_copy(update={"choose_by": "cross_validation"}))
    assert dealt.sizes == {"train": 56, "validation": 0, "test": 14}
    assert dealt.test == split(dataset([30, 40], 0), SETTINGS).test


def test_folds_predict_each_row_once_and_keep_the_mixture_of_labels() -> None:
    examples = rows(*MANY).examples
    taken: list[int] = []
    for kept, predicted in folds(examples, 0):
        assert not set(kept) & set(predicted)
        assert Counter(examples[i].labels[0] for i in predicted)["a"] in (2, 3)
        taken += predicted
    assert sorted(taken) == list(range(20))
