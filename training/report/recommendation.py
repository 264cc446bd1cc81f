"""The recommendation to publish an adapter or not, from the metrics of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Metrics = Mapping[str, Any]
Tone = Literal["good", "doubt", "bad"]

HEAD_ONLY = "head_only"
# A gain with a p-value up to this counts as more than chance.
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Recommendation:
    """The decision in a sentence (`headline`), and its `reasons`."""

    tone: Tone
    headline: str
    reasons: tuple[str, ...]


def main_score(figures: Metrics) -> str:
    """Return the name of the figure that compares adapters.

    It is macro-F1 of labels, micro-F1 of several labels a row, F1 of entities, and R² of numbers.
    """
    return next(name for name in NAMES if name in (*figures, "f1"))


def percent(value: float) -> str:
    """Return a share as the reports write it."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """Return a difference of shares as the reports write it."""
    return f"{100 * value:+.1f}".replace("-", "−") + " points"


def p_value(test: Metrics) -> str:
    """Return the p-value of a test as the reports write it."""
    return "< 0.0001" if test["p_value"] < 1e-4 else f"{test['p_value']:.2g}"


def judge(metrics: Metrics) -> Recommendation:
    """Return the verdict on a run: good, in doubt, or bad if the adapter scores below its head-only baseline."""
    adapter = metrics["test"]["adapter"]
    head = metrics["test"].get("baselines", {}).get(HEAD_ONLY)
    score = main_score(adapter)
    reasons = [_score(metrics, score)]
    if metrics.get("method") == HEAD_ONLY:
        headline = "A head alone on the frozen foundation: no adapter was shown to be better."
        return Recommendation("good", headline, (*reasons, *_choice(metrics)))
    if head is None:
        headline = "Not compared with a head alone on the frozen foundation: the adapter's gain is unknown."
        return Recommendation("doubt", headline, (*reasons, *_choice(metrics)))
    gain = adapter[score] - head[score]
    reasons.append(f"A head alone reaches {percent(head[score])}; the adapter's difference is {points(gain)}.")
    against = _against_head(metrics)
    if against:
        reasons.append(_test(*against))
    tone, headline = _tone(gain, against[1]["p_value"] if against else None)
    return Recommendation(tone, headline, (*reasons, *_choice(metrics)))


def _tone(gain: float, p_value: float | None) -> tuple[Tone, str]:
    if gain < 0:
        return "bad", "Do not publish: the adapter scores below a head alone on the frozen foundation."
    if gain == 0:
        return "doubt", "No better than a head alone on the frozen foundation, which costs less to serve."
    if p_value is None:
        return "doubt", "Scores above a head alone on the frozen foundation, but not tested against chance."
    if p_value > SIGNIFICANT:
        return (
            "doubt",
            "Scores above a head alone on the frozen foundation, but chance may explain the difference.",
        )
    return "good", "Better than a head alone on the frozen foundation, by more than chance."


def _score(metrics: Metrics, score: str) -> str:
    test = metrics["test"]
    figure = f"{NAMES[score]} {percent(test['adapter'][score])}"
    if interval := test.get("intervals", {}).get(score):
        figure += f" (95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"On {test['adapter']['rows']} test rows the adapter reaches {figure}."


def _against_head(metrics: Metrics) -> tuple[str, Metrics] | None:
    """Return the paired test against the head alone: on test rows, or else the one that chose the method."""
    if paired := metrics["test"].get("comparison", {}).get(HEAD_ONLY):
        return "test", paired
    for candidate in metrics.get("choice", {}).get("candidates", ()):
        chosen = candidate["method"] == metrics["choice"]["chosen"]
        if chosen and candidate.get("against") == HEAD_ONLY and candidate.get("p_value") is not None:
            return "validation", candidate
    return None


def _test(rows: str, test: Metrics) -> str:
    value = p_value(test)
    value = value if value.startswith("<") else f"= {value}"
    return (
        f"Against the head alone on {rows} rows it wins {test['wins']} and loses {test['losses']}: "
        f"p {value} ({test['test']})."
    )


def _choice(metrics: Metrics) -> tuple[str, ...]:
    choice = metrics.get("choice")
    if not choice:
        return ()
    reason = f": {choice['reason'].rstrip('.')}" if choice.get("reason") else ""
    return (f"{choice['chosen']} was chosen from {len(choice['candidates'])} methods{reason}.",)


# The first one that figures have is the main one.
NAMES = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "r2": "R²", "f1": "entity F1"}
