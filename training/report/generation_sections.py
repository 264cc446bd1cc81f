"""The verdict and the sections of a report on an adapter that generates text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rootstock.training.report.recommendation import SIGNIFICANT, Recommendation, Tone, p_value, percent
from rootstock.training.report.sections import ReportSection, cost_section, provenance_section

Metrics = Mapping[str, Any]

PROMPTED = "prompted"
TITLES = {
    "perplexity": "perplexity",
    "exact_match": "exact match",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "valid_json": "valid JSON",
    "field_accuracy": "right fields",
}
_LONGEST = 400
_MOST_REFERENCES = 2


def shown(metric: str, value: float) -> str:
    """Return a figure as the reports write it."""
    if metric == "perplexity":
        return f"{value:.2f}"
    return f"{value:.1f}" if metric == "bleu" else percent(value)


def shown_gain(metric: str, value: float) -> str:
    """Return a gain, which is above 0 for the better; of the perplexity it is the drop."""
    if metric == "perplexity":
        return f"{-value:+.2f}".replace("-", "−")
    scaled = value if metric == "bleu" else 100 * value
    return f"{scaled:+.1f}".replace("-", "−")


def prompted_title(shots: int) -> str:
    """Return what the adapter is compared with."""
    return f"the foundation with {shots} example{'' if shots == 1 else 's'} in its prompt"


def gain_sentence(part: str, compared: Metrics, shots: int) -> str:
    """Return a sentence on both figures of a part, the gain with its interval, and the test."""
    metric = compared["metric"]
    # A drop of the perplexity is a gain, so its bounds change places.
    bounds = reversed(compared["interval"]) if metric == "perplexity" else compared["interval"]
    low, high = (shown_gain(metric, value) for value in bounds)
    ours, theirs = (shown(metric, compared[name]) for name in ("adapter", PROMPTED))
    gain = shown_gain(metric, compared["difference"])
    return (
        f"On {part} prompts the adapter has {TITLES[metric]} {ours}, {prompted_title(shots)} {theirs}: {gain} "
        f"(95 % interval {low} to {high}; p {_p(compared)}, {compared['test']})."
    )


def _p(test: Metrics) -> str:
    value = p_value(test)
    return value if value.startswith("<") else f"= {value}"


def judge_generation(metrics: Metrics) -> Recommendation:
    """Return the verdict: good, in doubt, or bad if the adapter is no better than the prompted foundation."""
    test = metrics["test"]["comparison"][PROMPTED]
    sentences = [
        gain_sentence(part, metrics[part]["comparison"][PROMPTED], metrics["shots"])
        for part in ("test", "validation")
    ]
    tone, headline = _tone(test)
    return Recommendation(tone, headline, (*sentences, f"Reason for the choice: {metrics['choice']['reason']}."))


def _tone(test: Metrics) -> tuple[Tone, str]:
    if test["difference"] <= 0:
        return "bad", "Do not publish: the adapter is no better than the foundation with examples in its prompt."
    if test["p_value"] > SIGNIFICANT:
        return (
            "doubt",
            "Better than the foundation with examples in its prompt, but chance may explain the difference.",
        )
    return "good", "Better than the foundation with examples in its prompt, by more than chance."


def generation_sections(metrics: Metrics) -> list[ReportSection]:
    """Return the sections that the metrics have figures for, the most decisive first."""
    return [section for build in _SECTIONS for section in build(metrics)]


def _scores(metrics: Metrics) -> Iterator[ReportSection]:
    for part in ("test", "validation"):
        figures = metrics[part]
        ours, theirs = figures["adapter"], figures["baselines"][PROMPTED]
        rows = []
        for name in (name for name in TITLES if name in ours):
            interval = figures.get("intervals", {}).get(name)
            bounds = "" if interval is None else f" ({shown(name, interval[0])} to {shown(name, interval[1])})"
            rows.append((TITLES[name], shown(name, ours[name]) + bounds, shown(name, theirs[name])))
        text = f"{ours['rows']} prompts, none of them trained on. An answer counts by its best reference."
        if "intervals" in figures:
            text += " The 95 % interval over prompts like these is in brackets."
        head = ("", "adapter", prompted_title(metrics["shots"]))
        yield ReportSection(f"Figures on {part} prompts", text, head, tuple(rows))


def _samples(metrics: Metrics) -> Iterator[ReportSection]:
    rows = tuple(
        (
            _short(sample["prompt"]),
            _short(" / ".join(sample["references"][:_MOST_REFERENCES])),
            _short(sample["adapter"]),
            _short(sample[PROMPTED]),
        )
        for sample in metrics["samples"]
    )
    text = "Greedy answers to test prompts, spread evenly over the file."
    yield ReportSection(
        "Samples", text, ("prompt", "references", "adapter", "foundation, prompted"), rows, numbers=False
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _epochs(metrics: Metrics) -> Iterator[ReportSection]:
    history = metrics["epochs"]
    best = min(history, key=lambda epoch: epoch["validation_perplexity"])
    text = (
        f"Best of {len(history)} epochs: {best['number']}, perplexity {best['validation_perplexity']:.2f} on "
        "validation rows."
    )
    if metrics.get("too_long"):
        text += f" {metrics['too_long']} rows longer than training.max_length were left out."
    yield ReportSection("Training", text, plot="epochs")


_SECTIONS = (_scores, _samples, _epochs, cost_section, provenance_section)
