"""The audit: each trouble planted once and found once, where it is."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import cross_val_predict

from rootstock.training.data.audit import NEAR, AuditRow, Finding, audit
from rootstock.training.data.near_copies import LIKE, NearCopyIndex, near_copies_of
from rootstock.training.errors import MissingExtra
from rootstock.training.recipe.recipe_file import load_recipe
from rootstock.training.study.audit_run import audit_recipe


def _text(number: int) -> str:
    """A text that has few letters in common with those of other numbers."""
    return f"text {hashlib.sha256(bytes([number % 256, number // 256])).hexdigest()}"


def _rows(count: int = 20) -> list[AuditRow]:
    return [AuditRow(_text(i), "ab"[i % 2], "data.csv", i + 2, "train") for i in range(count)]


def _kinds(findings: list[Finding]) -> list[tuple[str, int]]:
    return [(finding.kind, finding.line) for finding in findings]


def test_sound_data_has_no_finding() -> None:
    assert audit(_rows()) == []
    assert audit([]) == []


def test_texts_that_differ_in_case_spacing_and_unicode_form_are_duplicates() -> None:
    findings = audit([*_rows(), AuditRow(_text(3).upper().replace(" ", "\u00a0 "), "b", "data.csv", 40, "train")])
    assert _kinds(findings) == [("duplicate", 40)]
    assert findings[0].message == "same text as data.csv, line 5"
    assert findings[0].severity == "warning"


def test_one_text_in_two_splits_is_a_leak_and_with_two_labels_a_conflict() -> None:
    leak = AuditRow(_text(3), "b", "test.csv", 7, "test")
    conflict = AuditRow(_text(4), "b", "data.csv", 41, "train")
    findings = audit([*_rows(), leak, conflict])
    assert _kinds(findings) == [("leak", 7), ("conflict", 41)]
    assert {finding.severity for finding in findings} == {"error"}
    assert findings[0].message == "same text as data.csv, line 5, which is in train; this row is in test"
    assert findings[1].message == "same text as data.csv, line 6, with another label: 'b' and 'a'"


def test_near_duplicates_are_the_pairs_of_scikit_learns_cosine_and_exact_ones_are_not_told_twice() -> None:
    draw = np.random.default_rng(0)
    rows = _rows(1200)
    embeddings = draw.normal(size=(1200, 5))
    cosines = np.tril(cosine_similarity(embeddings), -1)
    expected = {rows[i].line for i in np.flatnonzero((cosines >= NEAR).any(1))}
    findings = audit(rows, embeddings)
    assert expected
    assert {finding.line for finding in findings} == expected
    assert {finding.kind for finding in findings} <= {"near_duplicate", "near_conflict"}
    twice = [*rows[:3], rows[2]._replace(line=9)]
    assert ("near_duplicate", 9) not in _kinds(audit(twice, embeddings[[0, 1, 2, 2]]))


def test_a_near_copy_in_another_split_is_a_possible_leak() -> None:
    rows = [*_rows(), AuditRow("text no. 3", "b", "test.csv", 7, "test")]
    embeddings = np.eye(21)
    embeddings[20] = embeddings[3]
    findings = audit(rows, embeddings)
    assert _kinds(findings) == [("near_leak", 7)]
    assert "nearly the same text (cosine 1.000) as data.csv, line 5" in findings[0].message


def test_of_several_near_copies_the_one_in_another_split_is_named() -> None:
    rows = [
        *_rows(3),
        AuditRow("other", "a", "test.csv", 7, "test"),
        AuditRow("more", "a", "data.csv", 9, "train"),
    ]
    # The last row is closest to the first, and close to the one of test.
    embeddings = np.eye(5)
    embeddings[3:] = [[1, 0.15, 0, 0, 0], [1, 0.05, 0, 0, 0]]
    findings = audit(rows, embeddings)
    assert ("near_leak", 9) in _kinds(findings)


def test_planted_wrong_labels_are_found_from_out_of_fold_probabilities() -> None:
    draw = np.random.default_rng(2)
    truth = np.tile(np.arange(3), 60)
    features = np.eye(3)[truth] * 4 + draw.normal(size=(180, 3))
    given = truth.copy()
    planted = [10, 77, 140]
    given[planted] = (truth[planted] + 1) % 3
    probabilities = cross_val_predict(LogisticRegression(), features, given, cv=5, method="predict_proba")
    rows = [AuditRow(_text(i), "abc"[given[i]], "data.csv", i, "train") for i in range(180)]
    findings = audit(rows, probabilities=probabilities, labels=["a", "b", "c"])
    assert {finding.kind for finding in findings} == {"label_noise"}
    assert set(planted) <= {finding.line for finding in findings}
    assert len(findings) <= 8
    assert "is probably wrong" in findings[0].message


def test_empty_and_long_texts_are_found_and_lengths_are_in_tokens() -> None:
    rows = [
        *_rows(),
        AuditRow(" \n", "a", "data.csv", 50, "train"),
        AuditRow("w " * 90, "a", "data.csv", 51, "train"),
    ]
    findings = audit(rows, lengths=[5] * 20 + [2, 92], max_length=64)
    assert _kinds(findings) == [("empty", 50), ("long", 51)]
    assert findings[1].message == "92 tokens; the part beyond training.max_length, 64, is cut off"


def test_rare_unseen_and_overwhelming_labels_are_found() -> None:
    rows = _rows(200) + [AuditRow(f"rare {i}", "c", "data.csv", 300 + i, "train") for i in range(3)]
    findings = audit([*rows, AuditRow("new", "d", "test.csv", 4, "test")])
    assert [finding.kind for finding in findings] == ["unseen_label", "rare_label", "rare_label", "imbalance"]
    assert findings[0] == Finding(
        "unseen_label", "error", "test.csv", 4, "label 'd' is in test and in no training row"
    )
    assert "100 rows and 'd' 1: 100 to 1" in findings[3].message


def test_a_single_label_cannot_be_learned() -> None:
    findings = audit([row._replace(label="a") for row in _rows()])
    assert _kinds(findings) == [("one_label", 0)]


def test_findings_are_json() -> None:
    findings = audit([row._replace(label="a") for row in _rows()])
    assert json.loads(json.dumps([finding.to_json() for finding in findings])) == [
        {
            "kind": "one_label",
            "severity": "error",
            "file": "data.csv",
            "line": 0,
            "message": "every row has the label 'a'",
        }
    ]


def test_without_cleanlab_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(MissingExtra, match=r"need cleanlab.*: pip install 'rootstock\[train\]'"):
        audit(_rows(), probabilities=np.full((20, 2), 0.5), labels=["a", "b"])


def _likenesses(texts: list[str]) -> np.ndarray:
    """Jaccard's index of the sequences of three letters of each pair, by scikit-learn."""
    vectors = CountVectorizer(analyzer="char", ngram_range=(3, 3)).fit_transform(texts).toarray() > 0
    return 1 - pairwise_distances(vectors, metric="jaccard")


def test_near_copies_are_the_pairs_of_scikit_learns_jaccard_distances() -> None:
    draw = random.Random(0)
    words = [_text(i)[5:12] for i in range(40)]
    texts = [" ".join(draw.choices(words, k=8)) for _ in range(60)]
    for text in texts[:30]:
        # A changed word, a typing error, or a word more.
        parts = text.split()
        parts[draw.randrange(8)] = draw.choice(words)
        texts += [" ".join(parts), text[:9] + "zz" + text[10:], f"{text} {words[0]}"]
    likenesses = _likenesses(texts)
    pairs = combinations(range(len(texts)), 2)
    expected = {(j, i) for i, j in pairs if likenesses[i, j] >= LIKE and texts[i] != texts[j]}
    index = NearCopyIndex()
    found = {(number, copy.position) for number, text in enumerate(texts) for copy in index.add(text)}
    assert len(expected) > 20
    assert found == expected
    one = near_copies_of([texts[0] + " indeed"], ["other", texts[0]])[0]
    assert (one.position, one.likeness) == (1, pytest.approx(_likenesses([texts[0] + " indeed", texts[0]])[0, 1]))
    assert near_copies_of([texts[0].upper()], texts[:1]) == {}


def test_a_near_copy_is_found_by_its_letters_without_embeddings_and_told_once_with_them() -> None:
    text = "where is the parcel that I ordered last week"
    rows = [
        *_rows(),
        AuditRow(text, "a", "data.csv", 40, "train"),
        AuditRow(f"{text}?", "a", "test.csv", 7, "test"),
    ]
    expected = "nearly the same text (likeness 0.98) as data.csv, line 40, which is in train; this row is in test"
    embeddings = np.eye(22)
    embeddings[21] = embeddings[20]
    for findings in (audit(rows), audit(rows, embeddings)):
        assert [(f.kind, f.line, f.message) for f in findings] == [("near_leak", 7, expected)]


def test_labels_that_differ_in_case_or_hyphens_alone_are_named() -> None:
    rows = [row._replace(label=("Card_Lost", "b", "card-lost")[i % 3]) for i, row in enumerate(_rows(30))]
    findings = audit(rows)
    assert [finding.kind for finding in findings] == ["like_label"]
    assert "'card-lost' is perhaps another spelling of 'Card_Lost'" in findings[0].message


def _sentences(count: int) -> list[AuditRow]:
    sentences = []
    for i in range(count):
        words = (_text(i)[5:15], "met", _text(i + 500)[5:15])
        tags = ("B-PER", "O", "B-LOC")
        sentences.append(
            AuditRow(" ".join(words), " ".join(tags), "s.conll", 4 * i + 1, "train", "", words, tags)
        )
    return sentences


def test_sentences_are_counted_by_entity_types_and_their_near_copies_need_not_have_the_same_tags() -> None:
    rows = _sentences(20)
    assert audit(rows) == []
    rare = rows[0]._replace(text="x y z", label="B-ORG O O", tags=("B-ORG", "O", "O"), line=90)
    words = (*rows[3].words, "!")
    near = rows[3]._replace(
        text=" ".join(words), words=words, tags=(*rows[3].tags, "O"), label="B-PER O B-LOC O", line=94
    )
    assert _kinds(audit([*rows, rare, near])) == [("rare_label", 0), ("imbalance", 0), ("near_duplicate", 94)]


def test_planted_wrong_tags_are_found_with_their_words() -> None:
    rows, labels = _sentences(60), ["O", "B-LOC", "B-PER"]
    draw = np.random.default_rng(0)
    truth = [np.array([labels.index(tag) for tag in row.tags]) for row in rows]
    probabilities = [(np.eye(3)[tags] * 8 + draw.random((3, 3))) / 10 for tags in truth]
    probabilities = [one / one.sum(1, keepdims=True) for one in probabilities]
    rows[7] = rows[7]._replace(tags=("O", "O", "B-LOC"), label="O O B-LOC")
    findings = audit(rows, probabilities=probabilities, labels=labels)
    assert _kinds(findings) == [("label_noise", rows[7].line)]
    assert f"the tag of {rows[7].words[0]!r}, 'O' is probably wrong" in findings[0].message
    assert "'B-PER' is likelier" in findings[0].message


def test_an_audit_of_tagged_sentences_names_the_scheme_and_doubts_tags(
    tokens_recipe: Path, sentences: Path
) -> None:
    assert "tag_scheme" not in {finding.kind for finding in audit_recipe(load_recipe(tokens_recipe), noise=True)}
    text = sentences.read_text(encoding="utf-8").replace("B-", "I-")
    sentences.write_text(text, encoding="utf-8")
    findings = audit_recipe(load_recipe(tokens_recipe), noise=False)
    assert [(f.severity, f.message) for f in findings if f.kind == "tag_scheme"] == [
        ("note", "the tags are IOB1; they are read as BIO with the same entities")
    ]


def test_without_datasketch_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingExtra, match=r"need datasketch.*: pip install 'rootstock\[train\]'"):
        audit(_rows())
