"""Labelled data: what cannot be learned from is refused with its file and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.training.data.dataset import read_dataset
from rootstock.training.data.formats.characters import decoded
from rootstock.training.data.formats.conll import read_conll
from rootstock.training.data.formats.tables import read_table
from rootstock.training.data.split import split
from rootstock.training.errors import DataError
from rootstock.training.recipe.recipe_file import load_recipe

ENOUGH = "".join(f"text {label} {i},{label}\n" for i in range(12) for label in "ab")


def check(recipe: Path) -> None:
    source = load_recipe(recipe)
    split(read_dataset(source), source.recipe.data.splits)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence,label\nx,a\n", r"line 1: needs a column 'text'; found: 'sentence', 'label'"),
        ("", r"line 1: no header; the first line names the columns"),
        ("text,label\n", r"holds no rows"),
        ("text,label\n , \n,\n", r"holds no rows"),
        (",,\nx,a,\n", r"line 1: no header"),
        ("text,text,label\nx,y,a\n", r"line 1: the column 'text' occurs 2 times; keep one"),
        (",".join("abcdefghijklmnopqrstuvwxyz") + "\n", r"needs a column 'text'; found: 'a', .*'t' and 6 more$"),
        ('text,label\n"x"y,a\n', r"line 2: not CSV"),
        ("text,label\nfine,a\n  ,b\n", r"line 3: the text \('text'\) is empty"),
        ('text,label\n"two\nlines",a\n,b\n', r"line 4: the text \('text'\) is empty"),
        ("text,label\nfine,\n", r"line 2: the label \('label'\) is empty"),
        ("text,label\nfine,a\none, two,b\n", r"line 3: 3 cells; the header has 2"),
        ('text,label\nfine,a\n"open,b\nc,d\n', r"line 3: not CSV: a quote that opens in this row is not closed"),
        ("text,label\nx,a\ny,a\n", r"every label is 'a'; a classifier needs at least two labels"),
        (f"text,label\n{ENOUGH}rare,c\n", r"label 'c' has 1 rows; .* it needs at least 4"),
        (f"text,label\n{ENOUGH}Text  A 3,b\n", r"line 26: same text as line 8 with another label: 'b' and 'a'"),
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
        ("Ann\tB-PER\nsaw\n", r"line 2: 'saw' is not a token and a tag with a tab between them"),
        ("Ann\tB-PER\tx\n", r"line 1: 'x' is not a BIO tag"),
        ("\tO\n", r"line 1: .* is not a token"),
        ("Ann\tPER\n", r"line 1: 'PER' is not a BIO tag"),
        ("Ann\tB-\n", r"line 1: 'B-' is not a BIO tag"),
        ("Ann\tB-PER\nsaw\tVBD\tO\n", r"line 2: 3 columns, and the lines before have 2"),
        ("Ann\tM-PER\n", r"line 1: 'M-PER' is not a BIO tag; use O, B-TYPE or I-TYPE"),
        ("saw\tO\n\nwent\tO\n", r"every label is 'O'"),
        ("\n\n", r"holds no rows"),
        ("-DOCSTART-\tO\n\n", r"holds no rows"),
        ("x" * 9999, r"line 1: 'xxx.{10,80}x' is not a token and a tag with a tab between them$"),
        (f"{GOOD}Rome\tB-LOC\n", r"label 'LOC' has 1 rows"),
        (f"{GOOD}ann\tO\nsaw\tO\n3\tO\n", r"line 49: same text as line 13 with another label"),
    ],
)
def test_bad_conll_is_refused_with_file_and_line(
    write_recipe: Callable[..., Path], tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "s.conll").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as refused:
        check(write_recipe(task_type="TOKEN_CLS", data={"path": "s.conll"}))
    assert str(refused.value).startswith(str(tmp_path / "s.conll"))


@pytest.mark.parametrize(("path", "reason"), [("a\0b.csv", "embedded null byte"), (".", "Is a directory")])
def test_a_path_that_is_no_file_is_refused_with_the_key(
    write_recipe: Callable[..., Path], path: str, reason: str
) -> None:
    with pytest.raises(DataError, match=f"cannot be read: {reason} .*recipe.yaml: data.path") as refused:
        check(write_recipe(data={"path": path}))
    assert "\n" not in str(refused.value)


def test_a_missing_file_names_the_recipe_key_that_asks_for_it(write_recipe: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"rows\.csv: cannot be read: .*recipe\.yaml: data\.path"):
        check(write_recipe())


def test_a_file_that_is_not_utf_8_names_the_line(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"text,label\nfine,a\ncaf\xe9,b\n")
    with pytest.raises(DataError, match="line 3: byte 0xe9 is not UTF-8"):
        check(write_recipe())


def test_labels_get_ids_by_the_alphabet_and_tags_begin_with_o(
    write_recipe: Callable[..., Path], rows: Path, sentences: Path
) -> None:
    assert read_dataset(load_recipe(write_recipe())).labels == ("negative", "positive")
    tokens = read_dataset(load_recipe(write_recipe(task_type="TOKEN_CLS", data={"path": sentences.name})))
    assert tokens.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def read(recipe: Path) -> tuple[tuple[str, tuple[str, ...], str | None, str | None], ...]:
    dataset = read_dataset(load_recipe(recipe))
    return tuple((e.text, e.labels, e.pair, e.group) for e in dataset.train.examples)


def test_csv_json_lines_and_parquet_of_the_same_rows_are_the_same_data(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [
        {"q": f"first {i}", "other": f"second {i}", "kind": "ab"[i % 2], "who": None if i == 3 else f"g{i % 3}"}
        for i in range(6)
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "r.parquet")
    lines = ["q,other,kind,who", *(",".join(v or "" for v in row.values()) for row in rows)]
    (tmp_path / "r.csv").write_text("\n".join(lines), encoding="utf-8")
    columns = {"text_column": "q", "pair_column": "other", "label_column": "kind", "group_column": "who"}
    readings = [read(write_recipe(data={"path": f"r.{kind}", **columns})) for kind in ("csv", "jsonl", "parquet")]
    assert readings[0] == readings[1] == readings[2]
    assert readings[0][4] == ("first 4", ("a",), "second 4", "g1")


def test_words_and_tags_in_json_lines_are_what_they_are_in_conll(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "s.conll").write_text("Ann\tB-PER\nsaw\tO\n\nBo\tB-PER\nAnn\tI-PER\n", encoding="utf-8")
    (tmp_path / "s.jsonl").write_text(
        '{"tokens": ["Ann", "saw"], "label": ["B-PER", "O"]}\n'
        '{"tokens": ["Bo", "Ann"], "label": ["B-PER", "I-PER"]}',
        encoding="utf-8",
    )
    readings = [
        read(write_recipe(task_type="TOKEN_CLS", data={"path": f"s.{kind}"})) for kind in ("conll", "jsonl")
    ]
    assert readings[0] == readings[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "x", "label": "a"}\n{"text": "y"', r"line 2: not JSON"),
        ('["x"]\n', r"line 1: holds list; each line is one JSON object"),
        ('{"text": "x"}\n', r"line 1: needs a column 'label'; found: 'text'"),
        ('{"text": 3, "label": "a"}\n', r"line 1: the text \('text'\) is 3, not text"),
        ('{"text": "x", "label": NaN}\n', r"line 1: the label \('label'\) is nan, not text"),
        ('{"text": "x", "text": "y", "label": "a"}\n', r"line 1: not JSON: an object has the same key twice"),
        ('{"text": "x \\ud800", "label": "a"}\n', r"line 1: \\ud800 is half of a character"),
        ('{"text": "x", "label": "\\uDfff"}\n', r"line 1: \\udfff is half of a character"),
        ("[" * 100_000, r"line 1: not JSON: nested too deep"),
        ('{"text": "x", "label": ' + "9" * 5000 + "}", r"line 1: not JSON: Exceeds the limit"),
        ('{"text": ["' + "x" * 9999 + '"], "label": "a"}', r"line 1: the text \('text'\) is .{,100}, not text$"),
        ('{"text": "x", "label": [1]}\n', r"line 1: the label \('label'\) is \[1\], a list; a row has one label"),
        ('{"text": "x", "label": null}\n', r"line 1: the label \('label'\) is empty"),
    ],
)
def test_bad_json_lines_are_refused_with_file_and_line(
    write_recipe: Callable[..., Path], tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "r.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as refused:
        read(write_recipe(data={"path": "r.jsonl"}))
    assert str(refused.value).startswith(str(tmp_path / "r.jsonl"))


def test_what_is_no_parquet_and_what_has_an_unread_ending_are_refused(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "r.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"r\.parquet: not Parquet"):
        read(write_recipe(data={"path": "r.parquet"}))
    (tmp_path / "r.xlsx").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"r\.xlsx: SEQ_CLS does not read \.xlsx files \(data\.path\); use \.csv or \.jsonl"
    ):
        read(write_recipe(data={"path": "r.xlsx"}))


def test_parquet_files_whose_values_are_missing_or_doubled_are_refused_by_row_or_column(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    import pyarrow
    from pyarrow import parquet

    def refused(table: Any) -> str:
        parquet.write_table(table, tmp_path / "r.parquet")
        with pytest.raises(DataError) as error:
            read(write_recipe(data={"path": "r.parquet"}))
        return str(error.value).removeprefix(f"{tmp_path / 'r.parquet'}")

    texts = pyarrow.array(["x", "y"])
    empty = refused(pyarrow.table({"text": texts, "label": ["a", None]}))
    assert empty.startswith(", line 2: the label ('label') is empty; ")
    assert refused(pyarrow.table({"text": ["x", None], "label": texts})) == ", line 2: the text ('text') is empty"
    nan = refused(pyarrow.table({"text": texts, "label": [1.0, float("nan")]}))
    assert nan.startswith(", line 2: the label ('label') is nan, not text; ")
    assert refused(pyarrow.table([texts, texts, texts], ["text", "text", "label"])) == (
        ": the column 'text' occurs 2 times; keep one"
    )
    assert refused(pyarrow.table({"text": texts})) == ": needs a column 'label'; found: 'text'"
    assert refused(pyarrow.table({"text": [], "label": []})) == ": holds no rows; add at least one"
    broken = pyarrow.StringArray.from_buffers(
        1, pyarrow.array([0, 1], pyarrow.int32()).buffers()[1], pyarrow.py_buffer(b"\xff")
    )
    assert refused(pyarrow.table({"text": broken, "label": ["a"]})).startswith(": cannot be read: 'utf-8' codec")


def test_a_parquet_column_that_is_not_asked_for_may_hold_what_python_cannot(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {
        "text": ["x", "y"],
        "label": ["a", "b"],
        "when": pyarrow.array([2**53, 1], pyarrow.timestamp("s")),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "r.parquet")
    assert [row[:2] for row in read(write_recipe(data={"path": "r.parquet"}))] == [("x", ("a",)), ("y", ("b",))]


def test_what_spreadsheets_and_editors_leave_in_a_file_changes_nothing(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    long = "long " * 40_000
    tables = {
        "plain.csv": f"text,label\nx,a\n{long},b\n",
        "quoted.csv": f'"text","label"\n"x","a"\n"{long}","b"\n',
        "bom.csv": f"\ufefftext,label\nx,a\n{long},b\n",
        "crlf.csv": f"text,label\r\nx,a\r\n\r\n{long},b\r\n",
        "cr.csv": f"text,label\rx,a\r{long},b\r",
        "empty-columns.csv": f",text,label,,\n0,x,a,,\n1,{long},b,,\n,,,,\n   \n",
        "note-twice.csv": f"note,text,note,label\n1,x,2,a\n,{long},,b",
        "UPPER.CSV": f"text,label\nx,a\n{long},b\n",
        "crlf.jsonl": f'\ufeff{{"text": "x", "label": "a"}}\r\n \r\n{{"text": "{long}", "label": "b"}}\r\n',
        "odd.jsonl": f'{{"text": "\\u0078", "label": "a", "odd": "\\ud800"}}\n{{"text": "{long}", "label": "b"}}',
    }  # fmt: skip
    for name, content in tables.items():
        (tmp_path / name).write_bytes(content.encode())
        rows = [row[:2] for row in read(write_recipe(data={"path": name}))]
        assert rows == [("x", ("a",)), (long.strip(), ("b",))], name
    sentences = {
        "plain.conll": "Ann\tB-PER\nsaw\tO\n\nBo\tB-PER\n",
        "crlf.conll": "\ufeffAnn\tB-PER\r\nsaw\tO\r\n\r\n\r\nBo\tB-PER\r\n",
        "documents.conll": "-DOCSTART-\tO\n\nAnn\tB-PER\nsaw\tO\n-DOCSTART- -X- -X- O\nBo\tB-PER\n \t\n",
    }
    for name, content in sentences.items():
        (tmp_path / name).write_bytes(content.encode())
        tagged = [row[:2] for row in read(write_recipe(task_type="TOKEN_CLS", data={"path": name}))]
        assert tagged == [("Ann saw", ("B-PER", "O")), ("Bo", ("B-PER",))], name


# A NUL is refused.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    data=st.data(),
)
def test_any_rows_are_read_back_from_each_format_as_they_were_written(
    rows: list[tuple[str, str]], quoting: int, data: st.DataObject
) -> None:
    import pyarrow
    from pyarrow import parquet

    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    table, lines = io.StringIO(newline=""), io.StringIO()
    # The writer of Python 3.11 quotes a carriage return only if its line ends have one. A reader takes a bare one
    # for the end of a row.
    bare = end == "\n" and any("\r" in cell for row in rows for cell in row)
    writer = csv.writer(table, quoting=csv.QUOTE_ALL if bare else quoting, lineterminator=end)
    writer.writerows([("text", "label"), *rows])
    for text, label in rows:
        json.dump({"text": text, "label": label}, lines, ensure_ascii=data.draw(st.booleans()))
        lines.write(end)
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    packed = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), packed)
    written = {
        "r.jsonl": lines.getvalue().encode(),
        "r.parquet": packed.getvalue(),
        "r.csv": table.getvalue().encode(),
    }
    for name, raw in written.items():
        result = [(row["text"], row["label"]) for _, row in read_table(Path(name), raw, ("text", "label"))]
        # A CSV row without content is a blank line.
        assert result == [row for row in rows if name != "r.csv" or "".join(row).strip()], name


PIECES = [
    *(
        "text",
        "label",
        ",",
        '"',
        "\n",
        "\r",
        "\t",
        "{",
        "}",
        "[",
        ":",
        "\\",
        "\\ud800",
        "\0",
        " ",
        "\ufeff",
        "NaN",
    ),
    *("O", "B-A", "I-A", "-DOCSTART-", "1e999", "null", '{"text": "x", "label": '),
]
NOISE = st.lists(st.sampled_from(PIECES) | CELLS, max_size=25).map("".join)


@settings(max_examples=300, deadline=None)
@given(head=st.sampled_from(["", "text,label\n", "text,,label\n"]), noise=NOISE, data=st.data())
def test_any_file_is_rows_or_one_line_that_names_it(head: str, noise: str, data: st.DataObject) -> None:
    raw = (head + noise).encode()
    cut = raw[: data.draw(st.integers(0, len(raw)))]
    for name in ("r.csv", "r.jsonl", "r.parquet", "r.conll"):
        try:
            if name == "r.conll":
                list(read_conll(Path(name), decoded(Path(name), cut)))
            else:
                list(read_table(Path(name), cut, ("text", "label")))
        except DataError as error:
            message = str(error)
            assert message.startswith(name)
            assert "\n" not in message
            assert len(message) < 500


def test_a_label_that_training_lacks_is_refused_with_the_file_and_line_that_has_it(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nx,a\ny,b\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("text,label\nz,a\nw,c\n", encoding="utf-8")
    recipe = write_recipe(data={"test_path": "test.csv", "splits": {"strategy": "given"}})
    with pytest.raises(
        DataError, match=r"test\.csv, line 3: label 'c' is not in .*rows\.csv; .*known labels: a, b"
    ):
        read(recipe)


def test_the_folder_of_labelled_data_stands_in_a_path_by_its_variable(
    write_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "r.csv").write_text("text,label\nx,a\ny,b\n", encoding="utf-8")
    monkeypatch.setenv("ROOTSTOCK_DATA", str(tmp_path / "data"))
    assert len(read(write_recipe(data={"path": "${ROOTSTOCK_DATA}/r.csv"}))) == 2
