"""The misclassified rows of a report: the wrong ones alone, the surest first, by scipy and sklearn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score

from rootstock.training.data.encoding import TokenRow
from rootstock.training.data.example import Example
from rootstock.training.metrics.calibration import log_loss
from rootstock.training.metrics.wrong_answers import MOST, wrong_answers

LABELS = ("a", "b", "c")


def test_wrong_texts_are_listed_by_score_and_counted_whole() -> None:
    draw = np.random.default_rng(0)
    raw, truth = draw.normal(0, 2, (300, 3)).astype(np.float32), draw.integers(0, 3, 300)
    examples = [Example(f"text {i} " + "x" * (i % 300), (LABELS[t],), i + 2) for i, t in enumerate(truth)]
    told = wrong_answers(list(raw), examples, [TokenRow((1,), (int(t),)) for t in truth], LABELS)
    wrong = np.flatnonzero(raw.argmax(1) != truth)
    assert told["count"] == len(wrong) == round(300 * (1 - accuracy_score(truth, raw.argmax(1)))) > MOST
    assert told["of"] == 300
    scores = softmax(raw, 1).max(1)
    surest = sorted(wrong, key=lambda i: -scores[i])[:MOST]
    assert [row["line"] for row in told["rows"]] == [i + 2 for i in surest]
    for row, i in zip(told["rows"], surest, strict=True):
        assert (row["true"], row["predicted"]) == (LABELS[truth[i]], LABELS[raw[i].argmax()])
        assert row["score"] == pytest.approx(scores[i], abs=1e-4)
        assert row["text"].startswith(f"text {i} ")
        assert len(row["text"]) <= 201


def test_a_pair_is_shown_with_both_texts() -> None:
    example, raw = Example("first", ("a",), 2, pair="second"), np.array([0.0, 1.0, 0.0], np.float32)
    told = wrong_answers([raw], [example], [TokenRow((1,), (0,))], LABELS)
    assert told["rows"][0]["text"] == "first | second"


def test_a_wrong_word_is_shown_in_its_sentence_and_a_word_cut_off_is_left_out() -> None:
    words = ("Ann", "met", "Bo", "here")
    raw = np.log(np.array([[1, 1, 1], [8, 1, 1], [1, 8, 1], [1, 1, 8]], np.float32) / 10)
    example = Example(" ".join(words), ("a", "b", "c", "a"), 5, words)
    row = TokenRow((0, 1, 2, 3), (-100, 0, 1, 2), words=(0, 1, 2, 0), first=(1, 2, 3, None))
    assert wrong_answers([raw], [example], [row], LABELS) == {"count": 0, "of": 3, "rows": []}
    wrong = wrong_answers(
        [raw], [example], [TokenRow(row.ids, row.targets, words=(0, 1, 0, 0), first=row.first)], LABELS
    )
    assert wrong["rows"] == [
        {
            "line": 5,
            "text": "Ann met [Bo] here",
            "true": "a",
            "predicted": "c",
            "score": pytest.approx(0.8, abs=1e-4),
        }
    ]


def test_the_loss_of_an_epoch_is_torch_s_cross_entropy() -> None:
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(1)
    raw, truth = draw.normal(0, 3, (50, 4)).astype(np.float32), draw.integers(0, 4, 50)
    wanted = torch.nn.functional.cross_entropy(torch.tensor(raw), torch.tensor(truth)).item()
    assert log_loss(raw, truth) == pytest.approx(wanted, rel=1e-6)
