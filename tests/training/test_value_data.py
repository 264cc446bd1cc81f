"""Rows with any number of labels, and rows with a number: how they are read, refused and divided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rootstock.training.data.answers.strata import dealt, even_sizes
from rootstock.training.data.dataset import Dataset, read_dataset
from rootstock.training.data.example import Example
from rootstock.training.data.split import folds, split
from rootstock.training.errors import DataError, RecipeError
from rootstock.training.proposal.proposal import propose
from rootstock.training.recipe.recipe_file import load_recipe

MULTI, REGRESSION = "multi_label_classification", "regression"
Read = Callable[..., Dataset]


@pytest.fixture
def read(write_recipe: Callable[..., Path], tmp_path: Path) -> Read:
    """Returns the data set of a file's content."""

    def dataset(name: str, content: str, problem: str, **data: Any) -> Dataset:
        (tmp_path / name).write_text(content, encoding="utf-8")
        recipe = write_recipe(problem_type=problem, data={"path": name, **data})
        return read_dataset(load_recipe(recipe))

    return dataset


def _answers(dataset: Dataset) -> list[Any]:
    return [example.labels if example.value is None else example.value for example in dataset.train.examples]


def test_labels_are_read_alike_from_a_separator_from_lists_and_from_columns_of_0_and_1(read: Read) -> None:
    expected = [("a", "b"), (), ("b",), ("a",)]
    csv = "text,label\none,b|a\ntwo,\nthree, b |\nfour,a|a\n"
    assert _answers(read("rows.csv", csv, MULTI, label_separator="|")) == expected
    lists = [["b", "a"], [], ["b"], ["a"]]
    lines = [json.dumps({"text": f"row {i}", "label": one}) for i, one in enumerate(lists)]
    assert _answers(read("rows.jsonl", "\n".join(lines), MULTI)) == expected
    flags = "text,a,b\none,1,1\ntwo,0,0\nthree,0.0,TRUE\nfour,1.0,false\n"
    dataset = read("flags.csv", flags, MULTI, label_columns=["a", "b"])
    assert (dataset.labels, _answers(dataset)) == (("a", "b"), expected)


def test_a_number_is_read_as_text_or_as_json(read: Read) -> None:
    dataset = read("rows.csv", "text,stars\none,3.5\ntwo,-1e2\n", REGRESSION, label_column="stars")
    assert (dataset.labels, _answers(dataset)) == (("stars",), [3.5, -100.0])
    lines = '{"text": "one", "label": 3}\n{"text": "two", "label": 0.5}\n'
    assert _answers(read("rows.jsonl", lines, REGRESSION)) == [3.0, 0.5]


@pytest.mark.parametrize(
    ("name", "content", "problem", "data", "message"),
    [
        ("r.csv", "text,label\na,x|y\n", MULTI, {}, r"r.csv, line 2: .*'x\|y', a text; .*data.label_separator"),
        ("r.jsonl", '{"text": "a", "label": null}', MULTI, {}, r"r.jsonl, line 1: .* None; write a list .*\[\]"),
        ("r.jsonl", '{"text": "a", "label": ["x", {}]}', MULTI, {}, r"r.jsonl, line 1: the label .* not text"),
        (
            "r.csv", "text,x,y\na,1,2\n", MULTI, {"label_columns": ["x", "y"]},
            r"r.csv, line 2: 'y' is '2'; a column of data.label_columns holds 1",
        ),
        (
            "r.csv", "text,x,y\na,1,0\nb,1,0\n", MULTI, {"label_columns": ["x", "y"]},
            r"no row has 1 in the column 'y'",
        ),
        ("r.csv", "text,label\na,x\nb,x\n", MULTI, {"label_separator": "|"}, "every label is 'x'"),
        ("r.csv", "text,label\na,\nb,\n", MULTI, {"label_separator": "|"}, "no row has a label"),
        ("r.csv", 'text,label\na,"3,5"\n', REGRESSION, {}, r"r.csv, line 2: .*'3,5'; .* decimal point"),
        ("r.csv", "text,label\na,1\nb,nan\n", REGRESSION, {}, r"r.csv, line 3: the number \('label'\) is 'nan'"),
        ("r.jsonl", '{"text": "a", "label": true}', REGRESSION, {}, "line 1: the number .* True"),
        ("r.jsonl", '{"text": "a", "label": 1' + "0" * 400 + "}", REGRESSION, {}, "line 1: the number"),
        ("r.csv", "text,label\na,2\nb,2.0\n", REGRESSION, {}, "every number is 2; .* different numbers"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_refused_with_its_line_and_the_remedy(
    read: Read, name: str, content: str, problem: str, data: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(name, content, problem, **data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem_type": "ordinal"}, "problem_type: 'ordinal'"),
        ({"data": {"label_separator": "|"}}, "data.label_separator is for multi_label_classification"),
        (
            {"problem_type": REGRESSION, "training": {"class_weights": "balanced"}},
            "training.class_weights is for",
        ),
        ({"problem_type": MULTI, "augmentation": {"mixup_alpha": 0.2}}, "augmentation.mixup_alpha is for single"),
        (
            {"problem_type": MULTI, "data": {"label_columns": ["a", "b"], "label_column": "c"}},
            "names? the labels",
        ),
        ({"problem_type": MULTI, "task_type": "TOKEN_CLS"}, "problem_type is for SEQ_CLS"),
    ],
)
def test_a_key_of_another_problem_is_refused_by_name(
    write_recipe: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write_recipe(**changes))


def _label_sets(rows: int) -> list[Example]:
    draw = np.random.default_rng(0)
    shares = {"common": 0.5, "some": 0.2, "rare": 0.06}
    return [
        Example(f"row {i}", tuple(sorted(k for k, p in shares.items() if draw.random() < p)), i, several=True)
        for i in range(rows)
    ]


def test_each_part_gets_its_share_of_every_label_and_the_same_seed_the_same_rows() -> None:
    examples = _label_sets(200)
    parts = dealt(examples, (140, 60), seed=1)
    assert [len(part) for part in parts] == [140, 60]
    assert sorted(parts[0] + parts[1]) == list(range(200))
    assert parts == dealt(examples, (140, 60), seed=1) != dealt(examples, (140, 60), seed=2)
    whole = Counter(kind for e in examples for kind in e.kinds or {"none"})
    second = Counter(kind for i in parts[1] for kind in examples[i].kinds or {"none"})
    for kind, count in whole.items():
        assert abs(second[kind] - 0.3 * count) <= 1, kind
    sizes = [len(fold) for _, fold in folds(examples, 0, 4)]
    assert sizes == even_sizes(200, 4)
    rare = [sum("rare" in examples[i].labels for i in fold) for _, fold in folds(examples, 0, 4)]
    assert max(rare) - min(rare) <= 1


@pytest.mark.parametrize(("labels", "rows"), [(12, 9), (20, 12)])
def test_labels_of_equal_size_are_shared_out_alike_though_no_part_takes_a_fifth_of_each(
    labels: int, rows: int
) -> None:
    examples = [Example(f"row {i}", (f"l{i % labels}",), i, several=True) for i in range(labels * rows)]
    for seed in range(5):
        test = dealt(examples, (len(examples) - len(examples) // 5, len(examples) // 5), seed)[1]
        counts = Counter(examples[i].labels[0] for i in test)
        assert set(counts.values()) <= {rows // 5, rows // 5 + 1}
        assert len(counts) == labels


@pytest.mark.parametrize("problem", [MULTI, REGRESSION])
def test_few_rows_and_parts_keep_the_range_of_answers(
    write_recipe: Callable[..., Path], tmp_path: Path, problem: str
) -> None:
    examples = _label_sets(160)
    answers = ["|".join(e.labels) if problem == MULTI else str(i % 40) for i, e in enumerate(examples)]
    lines = ["text,label", *(f"{e.text},{answer}" for e, answer in zip(examples, answers, strict=True))]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    data = {"label_separator": "|"} if problem == MULTI else {}
    source = load_recipe(write_recipe(problem_type=problem, data=data))
    dataset, settings = read_dataset(source), source.recipe.data.splits
    parts = split(dataset, settings)
    assert parts == split(dataset, settings)
    assert parts.sizes == {"train": 80, "validation": 40, "test": 40}
    few = split(dataset, settings.model_copy(update={"k_shot": 3})).train
    if problem == MULTI:
        counts = Counter(label for example in few for label in example.labels or ("",))
        assert min(counts[label] for label in ("common", "some", "rare", "")) == 3
        assert len(few) <= 12
    else:
        for part in (parts.train, parts.validation, parts.test):
            values = np.array([example.value for example in part])
            assert abs(values.mean() - 19.5) < 1.5
        assert len(few) == 15
        with pytest.raises(DataError, match="k_shot 40 draws from each of 5 groups"):
            split(dataset, settings.model_copy(update={"k_shot": 40}))


def test_rows_need_no_recipe_if_their_answers_are_lists_or_numbers_that_hardly_repeat(tmp_path: Path) -> None:
    sets = [["a"], [], ["a", "b"], ["b"]]
    lines = [json.dumps({"text": f"row {i}", "tags": sets[i % 4]}) for i in range(80)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = propose(tmp_path / "rows.jsonl").source.recipe
    assert (found.problem_type, found.data.label_column) == (MULTI, "tags")
    (tmp_path / "rows.csv").write_text(
        "\n".join(["text,stars,flag,other", *(f"row {i},{i / 7:.3f},{i % 2},{i % 3 % 2}" for i in range(80))]),
        encoding="utf-8",
    )
    found = propose(tmp_path / "rows.csv", ["data.label_column=stars"]).source.recipe
    assert (found.problem_type, found.data.label_column) == (REGRESSION, "stars")
    assert found.description == "Estimates a number from a text: stars."
    asked = ["problem_type=multi_label_classification", "data.label_columns=[flag, other]"]
    found = propose(tmp_path / "rows.csv", asked).source.recipe
    assert (found.problem_type, found.data.label_columns) == (MULTI, ["flag", "other"])
    assert found.description == "Gives a text any of the labels: flag, other."


def test_whole_numbers_in_a_column_of_labels_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"

    def write(name: str, suffix: str) -> None:
        lines = [f"text,{name}", *(f"row {i},{i % 20}{suffix}" for i in range(30))]
        path.write_text("\n".join(lines), encoding="utf-8")

    for suffix in ("", ".0"):
        write("Intent", suffix)
        with pytest.raises(DataError, match=r"label '0(\.0)?' has 2 rows"):
            propose(path)
        assert propose(path, ["problem_type=regression"]).source.recipe.data.label_column == "Intent"
    for name, suffix in (("label", ".5"), ("score", "")):
        write(name, suffix)
        assert propose(path).source.recipe.problem_type == REGRESSION
