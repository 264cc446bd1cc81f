"""Labelled data: what cannot be learned from is refused with its file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from training.data import read_dataset
from training.errors import DataError
from training.recipe import load_recipe
from training.split import split

ENOUGH = "".join(f"text {label} {i},{label}\n" for i in range(12) for label in "ab")


def check(recipe: Path) -> None:
    source = load_recipe(recipe)
    split(read_dataset(source), source.recipe.data.splits)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence,label\nx,a\n", r"line 1: needs one column 'text'; found: 'sentence', 'label'"),
        ("", r"line 1: needs one column 'text'; found: nothing"),
        ("text,label\n", r"holds no rows"),
        ("text,label\nfine,a\n  ,b\n", r"line 3: the text \('text'\) is empty"),
        ('text,label\n"two\nlines",a\n,b\n', r"line 4: the text \('text'\) is empty"),
        ("text,label\nfine,\n", r"line 2: the label \('label'\) is empty"),
        ("text,label\nfine,a\none, two,b\n", r"line 3: 3 cells; the header has 2"),
        ('text,label\nfine,a\n"open,b\n', r"line 3: not CSV"),
        ("text,label\nx,a\ny,a\n", r"every row is 'a'; a classifier needs at least two labels"),
        (f"text,label\n{ENOUGH}rare,c\n", r"label 'c' has 1 rows; .* it needs at least 4"),
        (f"text,label\n{ENOUGH}Text  A 3,b\n", r"line 26: the text of line 8 with another label: 'b' and 'a'"),
    ],
)
def test_bad_csv_is_refused_with_file_and_line(
    write_recipe: Callable[..., Path], tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "rows.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as refused:
        check(write_recipe())
    assert str(refused.value).startswith(str(tmp_path / "rows.csv"))


GOOD = "".join(f"Ann\tB-PER\nsaw\tO\n{i}\tO\n\n" for i in range(12))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Ann\tB-PER\nsaw O\n", r"line 2: 'saw O' is not a token, one tab and a tag"),
        ("Ann\tB-PER\tx\n", r"line 1: .* is not a token, one tab and a tag"),
        ("\tO\n", r"line 1: .* is not a token"),
        ("Ann\tPER\n", r"line 1: 'PER' is not a BIO tag"),
        ("Ann\tB-\n", r"line 1: 'B-' is not a BIO tag"),
        ("Ann\tI-PER\n", r"line 1: I-PER follows no B-PER"),
        ("Ann\tB-PER\n\nBo\tI-PER\n", r"line 3: I-PER follows no B-PER"),
        ("Ann\tB-PER\nRome\tI-LOC\n", r"line 2: I-LOC follows no B-LOC"),
        ("saw\tO\n\nwent\tO\n", r"every row is 'O'"),
        ("\n\n", r"holds no rows"),
        (f"{GOOD}Rome\tB-LOC\n", r"label 'LOC' has 1 rows"),
        (f"{GOOD}ann\tO\nsaw\tO\n3\tO\n", r"line 49: the text of line 13 with another label"),
    ],
)
def test_bad_conll_is_refused_with_file_and_line(
    write_recipe: Callable[..., Path], tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "s.conll").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as refused:
        check(write_recipe(task_type="TOKEN_CLS", data={"path": "s.conll"}))
    assert str(refused.value).startswith(str(tmp_path / "s.conll"))


def test_a_missing_file_names_the_recipe_key_that_asks_for_it(write_recipe: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"rows\.csv: cannot be read: .*recipe\.yaml: data\.path"):
        check(write_recipe())


def test_a_file_that_is_not_utf_8_names_the_line(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"text,label\nfine,a\ncaf\xe9,b\n")
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        check(write_recipe())


def test_labels_get_ids_by_the_alphabet_and_tags_begin_with_o(
    write_recipe: Callable[..., Path], rows: Path, sentences: Path
) -> None:
    assert read_dataset(load_recipe(write_recipe())).labels == ("negative", "positive")
    tokens = read_dataset(load_recipe(write_recipe(task_type="TOKEN_CLS", data={"path": sentences.name})))
    assert tokens.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
