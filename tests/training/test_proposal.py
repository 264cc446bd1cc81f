"""A recipe from labelled rows alone has the task and the columns that the rows show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sklearn.model_selection import train_test_split
from typer.testing import CliRunner, Result

from rootstock.training.cli.app import app
from rootstock.training.errors import DataError
from rootstock.training.proposal.proposal import propose
from rootstock.training.recipe.recipe_file import load_recipe

# peft 0.21 reads an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SHORT = ("training.num_train_epochs=1", "training.contrastive_epochs=0", "peft.r=2", "training.max_length=32")


def ran(*words: Any) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    return result


def table(columns: dict[str, Callable[[int], Any]], rows: int = 40) -> list[dict[str, Any]]:
    return [{name: value(i) for name, value in columns.items()} for i in range(rows)]


def text(i: int) -> str:
    return f"a text of some words, number {i}"


CASES = {
    "common names": ({"id": str, "text": text, "label": lambda i: "ab"[i % 2]}, "SEQ_CLS", ("text", "label")),
    "names in capitals": ({"Label": lambda i: "ab"[i % 2], "Review": text}, "SEQ_CLS", ("Review", "Label")),
    "unknown names": (
        {"key": str, "betreff": lambda i: f"{i}", "inhalt": text, "ordner": lambda i: "abc"[i % 3]},
        "SEQ_CLS",
        ("inhalt", "ordner"),
    ),
    "a question with one of few answers": (
        {"question": text, "answer": lambda i: ("yes", "no")[i % 2]},
        "SEQ_CLS",
        ("question", "answer"),
    ),
    "a question with a text as its answer": (
        {"question": text, "answer": lambda i: f"reply {i}"},
        "CAUSAL_LM",
        ("{question}", "{answer}"),
    ),
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        path.write_text(
            "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines), encoding="utf-8"
        )
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize("case", CASES)
def test_task_and_columns_are_found_by_names_and_values(tmp_path: Path, case: str, ending: str) -> None:
    columns, task_type, named = CASES[case]
    recipe = propose(write(tmp_path / f"My Rows{ending}", table(columns))).source.recipe
    assert (recipe.task_type, recipe.name, recipe.license) == (task_type, "my-rows", None)
    found = (recipe.data.text_column, recipe.data.label_column)
    assert (found if task_type == "SEQ_CLS" else (recipe.prompts.template, recipe.prompts.completion)) == named


def test_chats_and_tagged_words_are_found_by_their_values(tmp_path: Path, sentences: Path) -> None:
    chats = table({"chat": lambda i: [{"role": r, "content": f"{r} {i}"} for r in ("user", "assistant")]})
    assert propose(write(tmp_path / "a.jsonl", chats)).source.recipe.data.messages_column == "chat"
    words = table({"ner": lambda i: ["O", "B-PER"], "words": lambda i: ["Hi", f"Ann{i}"]})
    recipe = propose(write(tmp_path / "b.jsonl", words)).source.recipe
    assert (recipe.task_type, recipe.data.token_column, recipe.data.label_column) == ("TOKEN_CLS", "words", "ner")
    recipe = propose(sentences).source.recipe
    assert (recipe.task_type, recipe.description) == ("TOKEN_CLS", "Finds entities in a text: LOC, PER.")


def test_a_list_beside_labels_or_prompts_is_no_list_of_labels(tmp_path: Path) -> None:
    keywords = {"text": text, "label": lambda i: "ab"[i % 2], "keywords": lambda i: ["k", f"w{i % 3}"]}
    path = write(tmp_path / "a.jsonl", table(keywords))
    for changes in ([], ["data.label_column=label"]):
        recipe = propose(path, changes).source.recipe
        assert (recipe.data.label_column, recipe.problem_type) == ("label", None)
    asked = {"question": text, "answer": lambda i: f"reply {i}", "choices": lambda i: ["yes", f"no {i % 3}"]}
    assert propose(write(tmp_path / "b.jsonl", table(asked))).source.recipe.task_type == "CAUSAL_LM"
    alone = {"text": text, "aspects": lambda i: ["price", "taste"][: 1 + i % 2]}
    recipe = propose(write(tmp_path / "c.jsonl", table(alone))).source.recipe
    assert (recipe.data.label_column, recipe.problem_type) == ("aspects", "multi_label_classification")


def test_what_the_caller_states_comes_before_what_the_rows_show(tmp_path: Path) -> None:
    columns = {"text": text, "note": text, "label": lambda i: "ab"[i % 2], "kind": lambda i: "xyz"[i % 3]}
    path = write(tmp_path / "rows.csv", table(columns))
    recipe = propose(
        path, ["data.label_column=kind", "data.text_column=note", "name=other", "peft.r=4"]
    ).source.recipe
    assert (recipe.data.text_column, recipe.data.label_column) == ("note", "kind")
    assert (recipe.name, recipe.peft.r) == ("other", 4)
    asked = propose(path, ['prompts.template="{text}"', 'prompts.completion="{label}"'])
    assert asked.source.recipe.prompts.completion == "{label}"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"message": text, "team": lambda i: "heating"}, "every label is 'heating'"),
        ({"message": text, "team": lambda i: "ab"[i % 2] if i else ""}, r"line 2: the label \('team'\) is empty"),
        ({"id": str, "text": text}, "no columns of texts and labels"),
        ({"english": text, "plain": lambda i: f"short {i}"}, "prompts.template={ask}"),
    ],
    ids=["one label", "an empty label", "no labels", "two texts"],
)
def test_rows_without_good_labels_are_refused_and_never_become_prompts(
    tmp_path: Path, columns: dict[str, Callable[[int], Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        propose(write(tmp_path / "rows.csv", table(columns)))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("text", r"line 2: the text \('text'\) is empty"),
        ("label", r"line 2: the label \('label'\) is empty"),
        ("words", "line 2: 'words' is None"),
        ("tags", "line 2: 'tags' is None"),
        ("messages", "line 2: .*messages"),
    ],
)
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_missing_value_names_its_line_and_no_other_column_takes_its_place(
    tmp_path: Path, column: str, message: str, ending: str
) -> None:
    import pyarrow
    from pyarrow import parquet

    chat = [{"role": role, "content": role} for role in ("user", "assistant")]
    columns: dict[str, Callable[[int], Any]] = {
        "text": {"text": text, "label": lambda i: "ab"[i % 2]},
        "words": {"words": lambda i: ["Hi", f"Ann{i}"], "tags": lambda i: ["O", "B-PER"]},
        "messages": {"messages": lambda i: chat},
    }[{"label": "text", "tags": "words"}.get(column, column)]
    rows = table(
        {**columns, "note": lambda i: f"a note longer than the text, {i}", "kind": lambda i: "xyz"[i % 3]}
    )
    rows[1][column] = None
    path = tmp_path / f"rows{ending}"
    if ending == ".jsonl":
        write(path, rows)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match=message):
        propose(path)


def test_two_columns_of_texts_are_a_prompt_and_an_answer_if_the_caller_asks_for_them(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", table({"english": text, "plain": lambda i: f"short {i}"}))
    recipe = propose(path, ["task_type=CAUSAL_LM"]).source.recipe
    assert (recipe.prompts.template, recipe.prompts.completion) == ("{english}", "{plain}")


@pytest.mark.parametrize("mark", ["\n", "\u2028", "\x85", "\x07"], ids=ascii)
def test_a_column_s_name_cannot_break_the_recipe_or_the_terminal(tmp_path: Path, mark: str) -> None:
    label = f"kind{mark}license: mine{mark}#"
    path = write(tmp_path / "rows.csv", table({"text": text, label: lambda i: "ab"[i % 2]}))
    result = ran("init", path, "-o", tmp_path / "recipe.yaml")
    assert mark == "\n" or mark not in result.stdout + result.stderr
    source = load_recipe(tmp_path / "recipe.yaml")
    assert (source.recipe.data.label_column, source.recipe.license) == (label, None)


def test_a_column_that_no_choice_needs_may_lack_values_or_occur_twice(tmp_path: Path) -> None:
    rows = table({"text": text, "label": lambda i: "ab"[i % 2], "note": str})
    path = write(tmp_path / "rows.jsonl", [rows[0], *({**row, "note": 1} for row in rows[1:-1])])
    path.write_text(path.read_text() + json.dumps({"text": "last", "label": "a"}) + "\n")
    assert propose(path).source.recipe.data.label_column == "label"
    twice = tmp_path / "twice.csv"
    twice.write_text(
        "text,label,x,x\n" + "".join(f"{text(i)!r},{'ab'[i % 2]},1,2\n".replace(", ", " ") for i in range(40))
    )
    assert propose(twice).source.recipe.data.text_column == "text"
    twice.write_text("text,label,label\n" + "a,b,c\n" * 9)
    with pytest.raises(DataError, match="the column 'label' occurs 2 times"):
        propose(twice)


def test_the_split_has_the_share_of_each_label_that_sklearn_gives_it(tmp_path: Path) -> None:
    rows = table({"text": text, "label": lambda i: "aaab"[i % 4]}, 80)
    proposal = propose(write(tmp_path / "rows.csv", rows))
    labels = [row["label"] for row in rows]
    _, test = train_test_split(labels, test_size=16, stratify=labels, random_state=0)
    assert f"{len(test)} to report on; stratified by label" in proposal.choices["splits"]


def test_rows_that_allow_no_plain_split_get_another_one_and_it_is_said(tmp_path: Path) -> None:
    few = table({"text": text, "label": lambda i: "aaaaaaab"[i % 8]})
    proposal = propose(write(tmp_path / "few.csv", few))
    assert proposal.source.recipe.data.splits.choose_by == "cross_validation"
    assert "too few rows" in proposal.choices["choose_by"]
    twice = [*table({"text": text, "label": lambda i: "ab"[i % 2]}), {"text": text(0), "label": "b"}]
    proposal = propose(write(tmp_path / "twice.csv", twice))
    assert proposal.source.recipe.data.conflicts == "first"
    with pytest.raises(DataError, match="same text as line 2 with another label"):
        propose(tmp_path / "twice.csv", ["data.conflicts=refuse"])


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("", [], "line 1: no header; the first line names the columns"),
        ("a,b,c\n" + "".join(f"x{i},y{i},z{i}\n" for i in range(9)), [], r"found among 'a', 'b', 'c'; name them"),
        ("text,label\n", [], "holds no rows"),
        (
            "text,label\na,x\n",
            ["data.label_column=kind"],
            "has no column 'kind' .data.label_column.; found: 'text'",
        ),
        (
            "where is it,delivery\n" + "".join(f"where {i},{('delivery', 'billing')[i % 2]}\n" for i in range(9)),
            [],
            "line 1: no header, because 'delivery'",
        ),
        ("text,label\n" + "".join(f"t{i},{'ab'[i > 7]}\n" for i in range(9)), [], "label 'b' has 1 rows"),
    ],
)
def test_a_file_that_does_not_show_its_task_is_refused_with_the_remedy(
    tmp_path: Path, content: str, changes: list[str], message: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as refused:
        propose(path, changes)
    assert str(refused.value).startswith(str(path))
    result = CliRunner().invoke(app, ["run", str(path), *changes])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_run_of_the_rows_is_a_run_of_the_recipe_that_init_writes(
    rows: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = (f"base_model={tiny_bert}", *SHORT)
    told = ran("run", "rows.csv", *changes)
    assert "task      SEQ_CLS, because label has 2 different values in 40 rows" in told.stderr
    assert "columns   texts from text, labels from label" in told.stderr
    assert f"report   {Path('runs/rows/report.html')}" in told.stdout
    (tmp_path / "deeper").mkdir()
    recipe = tmp_path / "deeper" / "mine.yaml"
    ran("init", "rows.csv", *changes, "-o", recipe)
    written = recipe.read_text(encoding="utf-8")
    assert "task_type: SEQ_CLS   # because label has 2 different values" in written
    assert yaml.safe_load(written)["data"]["path"] == "../rows.csv"
    again = json.loads(ran("run", recipe, "--output-dir", "again", "--json").stdout)
    assert again["digest"] == json.loads((tmp_path / "runs/rows/metrics.json").read_text())["digest"]


def test_init_writes_beside_the_rows_and_replaces_nothing(rows: Path) -> None:
    ran("init", rows)
    assert load_recipe(rows.with_suffix(".yaml")).recipe.data.path == "rows.csv"
    refused = CliRunner().invoke(app, ["init", str(rows)])
    assert (refused.exit_code, "the file exists" in refused.stderr) == (2, True)
    misused = CliRunner().invoke(app, ["init", str(rows.with_name("new.yaml")), "peft.r=4"])
    assert (misused.exit_code, "are for labelled rows" in misused.stderr) == (2, True)
