"""Figures of texts: those of sacrebleu, rouge-score and scikit-learn on the same answers."""

from __future__ import annotations

import random

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import binomtest

from rootstock.training.metrics.text_figures import compare_texts, figures, intervals, json_figures, text_counts

_WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "blue",
    "spice",
    "is",
    "coffee",
    "shop",
    "in",
    "city",
    "centre",
]


def texts(seed: int, rows: int = 60) -> tuple[list[str], list[list[str]]]:
    """Answers, and one to four references of each, of which some equal the answer."""
    draw = random.Random(seed)

    def sentence() -> str:
        return " ".join(draw.choices(_WORDS, k=draw.randint(3, 12)))

    answers = [sentence() for _ in range(rows)]
    references = [[sentence() for _ in range(draw.randint(1, 4))] for _ in range(rows)]
    for i in range(0, rows, 3):
        references[i][-1] = answers[i]
    answers[1] = ""
    return answers, references


def test_bleu_is_sacrebleu_s_with_all_references() -> None:
    answers, references = texts(0)
    most = max(map(len, references))
    streams = [[refs[i] if i < len(refs) else None for refs in references] for i in range(most)]
    ours = figures(text_counts(answers, references))["bleu"]
    assert ours == pytest.approx(sacrebleu.corpus_bleu(answers, streams).score, abs=1e-4)  # type: ignore[arg-type]


def test_rouge_is_rouge_score_s_of_the_best_reference() -> None:
    answers, references = texts(1)
    ours = figures(text_counts(answers, references))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for name in ("rouge1", "rouge2", "rougeL"):
        best = [
            max(scorer.score(reference, answer)[name].fmeasure for reference in refs)
            for answer, refs in zip(answers, references, strict=True)
        ]
        assert ours[name] == pytest.approx(sum(best) / len(best), abs=1e-4)


def test_a_match_is_exact_and_counts_with_any_reference() -> None:
    ours = figures(text_counts(["a b", "A b", "c"], [["x", "a b"], ["a b"], ["c "]]))
    assert ours["exact_match"] == pytest.approx(1 / 3, abs=1e-4)
    assert ours["rows"] == 3
    assert "perplexity" not in ours


def test_json_figures_are_there_only_if_the_references_allow_them() -> None:
    assert json_figures([["{}"], ["1"]]) == ("valid_json",)
    assert json_figures([["{}"], ["nothing"]]) == ()
    assert json_figures([["NaN"]]) == ()
    assert set(figures(text_counts(["x"], [["y"]]))) == {
        "rows", "exact_match", "rouge1", "rouge2", "rougeL", "bleu",
    }  # fmt: skip


def test_a_field_is_right_by_its_value_and_one_too_many_counts_as_wrong() -> None:
    wanted = ['{"a": 1, "b": "x"}']
    answers = [
        '{"b": "x", "a": 1}',
        '{"a": true, "b": "x"}',
        '{"a": 1, "b": "x", "c": 0}',
        "[1]",
        "{",
        "[" * 9999,
    ]
    counts = text_counts(answers, [wanted] * len(answers))
    assert counts["field_accuracy"].tolist() == [[2, 2], [1, 2], [2, 3], [0, 2], [0, 2], [0, 2]]
    ours = figures(counts)
    assert ours["valid_json"] == pytest.approx(4 / 6, abs=1e-4)
    assert ours["field_accuracy"] == pytest.approx(5 / 13, abs=1e-4)


def test_intervals_hold_the_figures_of_all_rows() -> None:
    answers, references = texts(2)
    counts = text_counts(answers, references, [(2.0, 3)] * len(answers))
    values = figures(counts)
    for name, (low, high) in intervals(counts).items():
        assert low - 1e-4 <= values[name] <= high + 1e-4, name


@pytest.mark.parametrize("metric", ["perplexity", "exact_match", "rougeL", "bleu"])
def test_a_better_model_is_told_from_a_worse_one_by_every_figure(metric: str) -> None:
    answers, references = texts(3)
    worse = text_counts(answers, references, [(3.0, 3)] * len(answers))
    better = text_counts([refs[0] for refs in references], references, [(2.0, 3)] * len(answers))
    test, (low, high) = compare_texts(worse, better, metric)
    assert test.difference > 0
    assert test.p_value < 0.01
    assert low - 1e-4 <= test.difference <= high + 1e-4
    assert low > 0
    same, (least, most) = compare_texts(worse, worse, metric)
    assert (same.difference, same.p_value) == (0, 1)
    # Sixty prompts without a difference do not show that there is none, unless a score has no greatest value.
    unseen = {"perplexity": 0.0, "bleu": 6.02}.get(metric, 0.0602)
    assert (least, most) == pytest.approx((-unseen, unseen), abs=0.01 * unseen)


def test_the_share_of_right_prompts_has_a_width_without_a_mistake_and_is_scipys() -> None:
    answers = ['{"a": 1}'] * 20
    bounds = intervals(text_counts(answers, [[answer] for answer in answers], [(2.0, 4)] * 20))
    theirs = pytest.approx(list(binomtest(20, 20).proportion_ci(0.95, method="wilson")), abs=1e-4)
    for name in ("exact_match", "valid_json", "rouge1", "field_accuracy"):
        assert bounds[name] == theirs, name
    assert bounds["bleu"] == pytest.approx([83.89, 100.0], abs=0.01)
    assert "perplexity" not in bounds
