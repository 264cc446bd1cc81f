"""Quirks of files that people bring: each has one result, in every format that can have it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities

from rootstock.training.data.dataset import read_dataset
from rootstock.training.data.example import Example
from rootstock.training.data.formats.conll import read_conll
from rootstock.training.data.formats.tag_scheme import as_bio, scheme_of
from rootstock.training.errors import DataError
from rootstock.training.proposal.proposal import propose
from rootstock.training.recipe.recipe_file import load_recipe

Read = Callable[[str, bytes], tuple[Example, ...]]


@pytest.fixture
def read(write_recipe: Callable[..., Path], tmp_path: Path) -> Read:
    """Returns the examples of a file by its name and content; a CoNLL file, or one named so, has tags."""

    def examples(name: str, content: bytes) -> tuple[Example, ...]:
        (tmp_path / name).write_bytes(content)
        task = "TOKEN_CLS" if "conll" in name else "SEQ_CLS"
        return read_dataset(load_recipe(write_recipe(task_type=task, data={"path": name}))).train.examples

    return examples


def parquet(columns: dict[str, Any]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())


PLAIN = {
    "r.csv": "text,label\ncafé,a\nnoir,b\n",
    "r.jsonl": '{"text": "café", "label": "a"}\n{"text": "noir", "label": "b"}\n',
    "r.conll": "café\tB-A\nnoir\tO\n\nnoir\tO\n",
    "conll.jsonl": '{"tokens": ["café", "noir"], "label": ["B-A", "O"]}\n{"tokens": ["noir"], "label": ["O"]}\n',
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_and_any_line_end_change_nothing(read: Read, name: str, end: str, mark: str) -> None:
    examples = read(name, (mark + PLAIN[name].replace("\n", end)).encode())
    texts = ["café noir", "noir"] if "conll" in name else ["café", "noir"]
    assert [example.text for example in examples] == texts


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", r"is UTF-16, not UTF-8; save the file as UTF-8, such as with: iconv -f UTF-16 -t UTF-8"),
        ("utf-32", r"is UTF-32, not UTF-8; .*iconv -f UTF-32"),
        ("utf-16-le", r"looks like UTF-16LE without a byte order mark, .*iconv -f UTF-16LE"),
        ("utf-16-be", r"looks like UTF-16BE without a byte order mark, .*iconv -f UTF-16BE"),
        (
            "latin-1",
            r"line \d: byte 0xe9 is not UTF-8; in latin-1 the place reads .*café.*if that is right, .*ISO-8859-1",
        ),
    ],
)
def test_another_encoding_is_named_with_the_command_that_converts_the_file(
    read: Read, name: str, encoding: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as refused:
        read(name, PLAIN[name].encode(encoding))
    assert "\n" not in str(refused.value)


def test_the_quotes_and_letters_of_windows_1252_are_named_as_such_and_their_line_is_counted(read: Read) -> None:
    content = "text,label\r\nfine,a\r\n“Škoda” 5 €,b\r\n".encode("cp1252")
    with pytest.raises(
        DataError, match=r"line 3: byte 0x93 .*in Windows-1252 .*“Škoda” 5 €.*iconv -f Windows-1252"
    ):
        read("r.csv", content)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_does_not_move_the_byte_that_is_named(read: Read, mark: bytes) -> None:
    with pytest.raises(DataError, match=r"line 2: byte 0xe9 is not UTF-8; .* reads 'text,label été,a'"):
        read("r.csv", mark + b"text,label\n\xe9t\xe9,a\n")


@pytest.mark.parametrize("comment", ["# text = He flew a B-52", "# vitamin O", "# text = O O O\n# sent_id = B-2"])
def test_a_comment_may_end_like_a_tag_and_the_token_of_its_sign_is_still_read(read: Read, comment: str) -> None:
    sentences = read("r.conll", f"{comment}\n# O\nHe O\n\n{comment}\nAnn B-PER\n".encode())
    assert [(example.words, example.kinds) for example in sentences] == [
        (("#", "He"), set()),
        (("Ann",), {"PER"}),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", b"text,label\nx,a\ny\0,b\n"),
        ("r.jsonl", b'{"text": "x", "label": "a"}\n{"text": "y\\u0000", "label": "b"}'),
        ("r.jsonl", b'{"text": "x", "label": "a"}\n{"text": "y", "label": "b\\u0000"}'),
        ("r.parquet", None),
        ("r.conll", b"x\tB-A\ny\0\tO\n"),
        ("conll.jsonl", b'{"tokens": ["x"], "label": ["B-A"]}\n{"tokens": ["y\\u0000"], "label": ["O"]}'),
    ],
)
def test_a_nul_is_refused_with_its_line_in_every_format(read: Read, name: str, content: bytes | None) -> None:
    raw = parquet({"text": ["x", "y\0"], "label": ["a", "b"]}) if content is None else content
    with pytest.raises(DataError, match=r"line [23]: .*NUL character|line 2: .*NUL"):
        read(name, raw)


def test_quotes_separators_and_line_ends_in_a_quoted_cell_belong_to_the_text(read: Read) -> None:
    content = 'text,label\n"say ""no"", twice",a\n"two\r\nlines",a\n5" pipe,b\n"",\nnot \'quoted\',b\n'
    texts = [example.text for example in read("r.csv", content.encode())]
    assert texts == ['say "no", twice', "two\r\nlines", '5" pipe', "not 'quoted'"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            '"open,b\nfine,a\nmore,b\n',
            r"line 3: not CSV: a quote that opens in this row is not closed until .* 5;",
        ),
        ('"a "word" here",b\nfine,a\n', r"line 3: not CSV: a cell goes on after its closing quote \(line 3\)"),
        ('"open,b\nfine,a\n"next",b\n', r"line 3: not CSV: a cell goes on after its closing quote \(line 5\)"),
    ],
)
def test_quotes_that_do_not_pair_are_refused_at_the_line_where_their_row_begins(
    read: Read, rows: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read("r.csv", f"text,label\nfine,a\n{rows}".encode())


WORDS_FOR_NOTHING = ["NA", "N/A", "None", "null", "nan", "NaN", "NULL", "none", "-", "#N/A"]


def test_a_word_for_a_missing_value_is_a_label_and_a_text_like_any_other(read: Read) -> None:
    lines = "".join(f"{word},{word}\n" for word in WORDS_FOR_NOTHING)
    files = {
        "r.csv": f"text,label\n{lines}".encode(),
        "r.jsonl": "\n".join(json.dumps({"text": word, "label": word}) for word in WORDS_FOR_NOTHING).encode(),
        "r.parquet": parquet({"text": WORDS_FOR_NOTHING, "label": WORDS_FOR_NOTHING}),
    }
    for name, content in files.items():
        examples = read(name, content)
        assert [(example.text, example.labels) for example in examples] == [(w, (w,)) for w in WORDS_FOR_NOTHING]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", b'text,label\nx,a\ny,""\n'),
        ("r.csv", b"text,label\nx,a\ny,  \n"),
        ("r.jsonl", b'{"text": "x", "label": "a"}\n{"text": "y", "label": null}'),
        ("r.jsonl", b'{"text": "x", "label": "a"}\n{"text": "y", "label": ""}'),
        ("r.parquet", {"text": ["x", "y"], "label": ["a", None]}),
        ("r.parquet", {"text": ["x", "y"], "label": [1.0, None]}),
        ("r.parquet", {"text": ["x", "y"], "label": [1.0, float("nan")]}),
    ],
)
def test_a_row_without_a_label_is_refused_with_its_line(read: Read, name: str, content: Any) -> None:
    with pytest.raises(
        DataError, match=r"line [23]: the label \('label'\) is (empty|nan, not text); write a label"
    ):
        read(name, parquet(content) if isinstance(content, dict) else content)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, 2, -3], ["1", "2", "-3"]),
        ([1.0, 2.0, 2.5], ["1.0", "2.0", "2.5"]),
        ([True, False, True], ["true", "false", "true"]),
    ],
)
def test_a_number_or_a_boolean_has_one_text_in_every_format(
    read: Read, values: list[Any], texts: list[str]
) -> None:
    rows = [f"row {i}" for i in range(3)]
    pairs = list(zip(rows, values, strict=True))
    files = {
        "r.csv": "\n".join(["text,label", *(f"{text},{json.dumps(value)}" for text, value in pairs)]).encode(),
        "r.jsonl": "\n".join(json.dumps({"text": text, "label": value}) for text, value in pairs).encode(),
        "r.parquet": parquet({"text": rows, "label": values}),
    }
    for name, content in files.items():
        assert [example.labels[0] for example in read(name, content)] == texts, name


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", 1, "1", 1.0], r"line 4: label '1.0' is another form of '1' \(.*line 2\); write both in one form"),
        (["a", True, "True"], r"line 3: label 'True' is another form of 'true' \(.*line 2\)"),
        (["a", [1]], r"line 2: the label \('label'\) is \[1\], a list; a row has one label here"),
        (["a", {"b": 1}], r"line 2: the label \('label'\) is \{'b': 1\}, not text"),
    ],
)
def test_values_of_several_types_are_one_label_or_refused(read: Read, labels: list[Any], message: str) -> None:
    lines = [json.dumps({"text": f"row {i}", "label": label}) for i, label in enumerate(labels)]
    with pytest.raises(DataError, match=message):
        read("r.jsonl", "\n".join(lines).encode())
    mixed = read(
        "r.jsonl", b'{"text": "x", "label": 1}\n{"text": "y", "label": "1"}\n{"text": "z", "label": "b"}'
    )
    assert [example.labels[0] for example in mixed] == ["1", "1", "b"]


def test_two_forms_of_a_label_in_two_files_are_refused(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nx,1\ny,2\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("text,label\nz,1.0\n", encoding="utf-8")
    recipe = write_recipe(data={"test_path": "test.csv", "splits": {"strategy": "given"}})
    with pytest.raises(DataError, match=r"test\.csv, line 2: label '1\.0' is another form of '1'"):
        read_dataset(load_recipe(recipe))


@pytest.mark.parametrize(
    "header", ["text,label", " text , label ", '"text","label"', "text;label", "text\tlabel", "text|label"]
)
def test_a_column_is_found_despite_spaces_and_after_another_separator(read: Read, header: str) -> None:
    mark = next(mark for mark in ";\t|," if mark in header)
    content = f"{header}\n1{mark}a\n2,5{mark}b\n" if mark != "," else f'{header}\n1,a\n"2,5",b\n'
    assert [(e.text, e.labels[0]) for e in read("r.csv", content.encode())] == [("1", "a"), ("2,5", "b")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label,text\nx,a,y\n", r"line 1: the column 'text' occurs 2 times; keep one"),
        ("text,label, text\nx,a,y\nz,b,w\n", None),
        ("a;text;label,b\n1;x;a\n", r"needs a column 'text'; found: 'a;text;label', 'b'"),
        ("text,label;note\nx;y,a,z\n", r"line 1: needs a column 'label'; found: 'text', 'label;note'"),
        ("text,label,a;b\nx,a;b\n", r"line 2: 2 cells; the header has 3; separate all cells by one character"),
        ("text;label\nx;a;b\n", r"line 2: 3 cells; the header has 2; quote a cell with ';' in it"),
        ("text,label\nx,a\ny\n", r"line 3: 1 cells; the header has 2"),
        ("", r"line 1: no header"),
        ("\ufeff", r"line 1: no header"),
        ("text,label\n", r"holds no rows"),
    ],
)
def test_headers_and_rows_that_do_not_fit_are_refused_by_name_and_line(
    read: Read, content: str, message: str | None
) -> None:
    if message is None:
        # The name without spaces is the column.
        assert [example.text for example in read("r.csv", content.encode())] == ["x", "z"]
        return
    with pytest.raises(DataError, match=message):
        read("r.csv", content.encode())


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet", "r.conll"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n", b" \r\n"])
def test_an_empty_file_is_refused_in_every_format(read: Read, name: str, content: bytes) -> None:
    with pytest.raises(DataError, match=r"no rows|no header|not Parquet"):
        read(name, content)


FOUR_COLUMNS = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC\x20\x20

# id 7\tdomain=en
Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER

-DOCSTART- -X- O O
\x20
# NN B-NP O
NEW\u00a0YORK NNP B-NP B-LOC"""


@pytest.mark.parametrize("mark", [" ", "\t", " \t"])
def test_the_first_column_is_the_token_and_the_last_its_tag_without_document_lines_and_comments(
    read: Read, mark: str
) -> None:
    lines = [line if "id 7" in line else line.replace(" ", mark) for line in FOUR_COLUMNS.split("\n")]
    examples = read("r.conll", "\n".join(lines).encode())
    assert [(example.words, example.labels, example.line) for example in examples] == [
        (("EU", "rejects", "German"), ("B-ORG", "O", "B-MISC"), 3),
        (("Peter", "Blackburn"), ("B-PER", "I-PER"), 8),
        (("#", "NEW\u00a0YORK"), ("O", "B-LOC"), 13),
    ]


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    return [tuple(span) for span in get_entities(list(tags))]


TAGS = st.lists(
    st.sampled_from(["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("A", "B-C"))]), min_size=1
)


@given(TAGS)
def test_any_sequence_becomes_bio_with_the_entities_that_seqeval_finds(tags: list[str]) -> None:
    converted = as_bio(tags)
    # IOB2's own rules find no more and no fewer in the result.
    strict = [entity.to_tuple()[1:] for entity in Entities([list(converted)], IOB2).entities[0]]
    assert [(kind, begin, end - 1) for kind, begin, end in strict] == spans(tags)
    assert {tag[0] for tag in converted} <= {"B", "I", "O"}
    assert as_bio(converted) == converted


LEGAL = {
    IOB1: ["I-A I-A B-A O I-B", "O I-A I-B B-B I-B"],
    IOBES: ["B-A I-A E-A S-A O S-B", "S-B B-B E-B B-A E-A"],
    BILOU: ["B-A I-A L-A U-A O U-B", "U-B B-B L-B B-A L-A"],
}


@pytest.mark.parametrize("scheme", LEGAL)
def test_iob1_iobes_and_bilou_become_bio_with_the_entities_of_their_scheme(read: Read, scheme: Any) -> None:
    sentences = [sentence.split() for sentence in LEGAL[scheme]]
    theirs = [[entity.to_tuple()[1:] for entity in row] for row in Entities(sentences, scheme).entities]
    text = "\n\n".join("\n".join(f"w{i}\t{tag}" for i, tag in enumerate(tags)) for tags in sentences)
    lists = "\n".join(json.dumps({"tokens": [f"w{i}" for i in range(len(t))], "label": t}) for t in sentences)
    for name, content in (("r.conll", text), ("conll.jsonl", lists)):
        ours = [
            [(kind, begin, end + 1) for kind, begin, end in spans(e.labels)] for e in read(name, content.encode())
        ]
        assert ours == theirs, name
    assert scheme_of(sentences) == scheme.__name__


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("B-A I-A O B-A", "BIO"),
        ("B-A O I-A", "BIO with faults"),
        ("I-A B-B", "BIO with faults"),
        ("I-A B-A", "IOB1"),
        ("B-A E-A U-A", "a mixture of IOBES and BILOU"),
    ],
)
def test_the_scheme_of_a_file_is_named(sentence: str, name: str) -> None:
    assert scheme_of([sentence.split()]) == name


def test_a_file_in_iobes_needs_no_recipe(tmp_path: Path) -> None:
    lists = [{"words": ["Ann", "saw", f"w{i}"], "ner": ["S-PER", "O", "O"]} for i in range(20)]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lists)), encoding="utf-8")
    recipe = propose(tmp_path / "r.jsonl").source.recipe
    assert (recipe.task_type, recipe.data.label_column) == ("TOKEN_CLS", "ner")


def test_the_lines_of_a_conll_file_are_those_of_an_editor(tmp_path: Path) -> None:
    # U+2028 and a form feed end no line.
    text = "a\u2028b\tB-A\nc\x0cd\tO\n\ne\tX\n"
    with pytest.raises(DataError, match="line 4: 'X' is not a BIO tag"):
        list(read_conll(tmp_path / "r.conll", text))
