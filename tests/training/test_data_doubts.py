"""Doubts about the data of a run: near copies among test rows and labels that look wrong, told in its report."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from rootstock.training.data.encoding import TokenRow
from rootstock.training.data.example import Example
from rootstock.training.data_doubts import JudgedRows, data_doubts
from rootstock.training.problems.classes import ClassProblem
from rootstock.training.report.report import render_html, render_markdown
from tests.training.example_metrics import example_entity_metrics, example_metrics

LABELS = ("a", "b")
PROBLEM = ClassProblem(LABELS)


def _texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=50)) for _ in range(count)]


def _judged(texts: list[str], given: list[int], predicted: list[int]) -> JudgedRows:
    examples = [
        Example(text, (LABELS[label],), number + 2)
        for number, (text, label) in enumerate(zip(texts, given, strict=True))
    ]
    rows = [TokenRow((1,), (label,)) for label in given]
    return JudgedRows(examples, rows, [np.eye(2, dtype=np.float32)[label] * 6 for label in predicted])


def test_test_rows_that_training_rows_nearly_repeat_are_named_with_the_figures_of_the_others() -> None:
    training = [Example(text, ("a",), number + 2) for number, text in enumerate(_texts(30, 0))]
    texts = _texts(20, 1)
    texts[4], texts[9] = f"{training[7].text}!", training[8].text.upper() + " ok"
    truth = [i % 2 for i in range(20)]
    predicted = [0 if i in (1, 4) else truth[i] for i in range(20)]
    test = _judged(texts, truth, predicted)
    copies = data_doubts(training, _judged(_texts(20, 2), truth, truth), test, PROBLEM)["near_copies"]
    assert (copies["count"], copies["of"]) == (2, 20)
    assert [(one["line"], one["training_line"]) for one in copies["rows"]] == [(6, 9), (11, 10)]
    kept = [i for i in range(20) if i not in (4, 9)]
    theirs = f1_score([truth[i] for i in kept], [predicted[i] for i in kept], average="macro")
    assert copies["other"]["macro_f1"] == pytest.approx(theirs, abs=1e-4)


def test_labels_that_a_model_of_other_rows_contradicts_are_named_and_sound_data_gives_no_doubt() -> None:
    truth = [i % 2 for i in range(40)]
    sound = _judged(_texts(40, 3), truth, truth)
    training = [Example("nothing like it", ("a",), 2)]
    assert data_doubts(training, sound, sound, PROBLEM) == {}
    given = list(truth)
    given[5] = 1 - given[5]
    noise = data_doubts(training, _judged(_texts(40, 3), given, truth), sound, PROBLEM)["label_noise"]
    assert (noise["count"], noise["of"]) == (1, 40)
    assert (noise["rows"][0]["line"], noise["rows"][0]["label"], noise["rows"][0]["likely"]) == (7, "a", "b")


def test_a_doubtful_tag_is_named_with_its_word() -> None:
    tags = ("O", "B-A", "I-A")
    examples, rows, outputs = [], [], []
    for i in range(40):
        true = [1, 0, i % 2]
        given = [0, 0, i % 2] if i == 3 else true
        words = ("Ann", "saw", f"w{i}")
        examples.append(Example(" ".join(words), tuple(tags[t] for t in given), 4 * i + 1, words))
        rows.append(TokenRow((1, 2, 3), tuple(given), words=tuple(given), first=(0, 1, 2)))
        outputs.append(np.eye(3, dtype=np.float32)[true] * 6)
    judged = JudgedRows(examples, rows, outputs)
    noise = data_doubts([Example("else", (), 1)], judged, judged, ClassProblem(tags))["label_noise"]
    assert (noise["count"], noise["of"]) == (1, 120)
    assert (noise["rows"][0]["text"], noise["rows"][0]["line"], noise["rows"][0]["likely"]) == ("Ann", 13, "B-A")


DOUBTS: dict[str, Any] = {
    "near_copies": {
        "count": 3,
        "of": 450,
        "rows": [
            {
                "line": 5,
                "text": "a <b>song</b>",
                "training_line": 9,
                "training_text": "b song",
                "likeness": 0.87,
            }
        ],
        "other": {"rows": 447, "macro_f1": 0.912, "f1": 0.4},
    },
    "label_noise": {
        "count": 1,
        "of": 300,
        "rows": [{"line": 3, "text": "c song", "label": "d", "likely": "e", "score": 0.97}],
    },
}


@pytest.mark.parametrize("metrics", [example_metrics(), example_entity_metrics()], ids=["labels", "entities"])
def test_a_report_warns_of_doubts_among_its_reasons_and_lists_them(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    assert "Near copies" not in render_markdown(metrics, {})
    text = render_markdown({**metrics, "doubts": DOUBTS}, {})
    score = "91.2 %" if "labels" in metrics["test"]["adapter"] else "40.0 %"
    reason = "3 of 450 test rows are nearly the same text as a training row; on the other 447 the"
    assert text.index(reason) < text.index("## ")
    assert f"is {score}." in text
    assert "## Near copies of training rows" in text
    assert "## Doubtful" in text
    assert "The first 1 are shown" in text
    page = render_html({**metrics, "doubts": DOUBTS}, {})
    assert "a &lt;b&gt;song&lt;/b&gt;" in page


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_class_raise_no_doubt(label: int) -> None:
    judged = _judged(_texts(12, 3), [label] * 12, [1 - label] * 12)
    assert "label_noise" not in data_doubts(
        [], judged, _judged(_texts(4, 4), [0, 1, 0, 1], [0, 1, 0, 1]), PROBLEM
    )
