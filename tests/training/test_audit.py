"""The audit: each trouble planted once and found once, where it is."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import cross_val_predict

from rootstock.training.data.audit import NEAR, AuditRow, Finding, audit
from rootstock.training.errors import MissingExtra


def _rows(count: int = 20) -> list[AuditRow]:
    return [AuditRow(f"text number {i}", "ab"[i % 2], "data.csv", i + 2, "train") for i in range(count)]


def _kinds(findings: list[Finding]) -> list[tuple[str, int]]:
    return [(finding.kind, finding.line) for finding in findings]


def test_sound_data_has_no_finding() -> None:
    assert audit(_rows()) == []
    assert audit([]) == []


def test_texts_that_differ_in_case_spacing_and_unicode_form_are_duplicates() -> None:
    findings = audit([*_rows(), AuditRow(" TEXT  number\u00a03", "b", "data.csv", 40, "train")])
    assert _kinds(findings) == [("duplicate", 40)]
    assert findings[0].message == "same text as data.csv, line 5"
    assert findings[0].severity == "warning"


def test_one_text_in_two_splits_is_a_leak_and_with_two_labels_a_conflict() -> None:
    leak = AuditRow("text number 3", "b", "test.csv", 7, "test")
    conflict = AuditRow("text number 4", "b", "data.csv", 41, "train")
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
    rows = [AuditRow(f"text {i}", "abc"[given[i]], "data.csv", i, "train") for i in range(180)]
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
