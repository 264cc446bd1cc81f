"""Real sentences in the lengths that traffic has: short questions, reviews, and a few long texts."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from rootstock.loadtest.measure.machine import ROOT

SHORT, MEDIUM, LONG = 0.7, 0.25, 0.05
_OWN = ROOT / "training" / "data"
# Texts of some 20 words that make a long one together.
_JOINED = 6


def real_texts(count: int, seed: int = 0) -> list[str]:
    """Distinct texts, 70 % short, 25 % of a sentence or more, 5 % long; the same call gives the same ones.

    From the labelled data that ROOTSTOCK_DATA names (CLINC150's questions), or where it is absent from the demo
    adapters' own training data.
    """
    reviews = _column(_OWN / "review-sentiment.csv")
    questions = [text for path in _questions() for text in _column(path)] or _column(_OWN / "support-intents.csv")
    picked = random.Random(seed)  # noqa: S311 - traffic, not secrets
    longs = max(1, round(LONG * count))
    mediums = max(1, round(MEDIUM * count))
    chosen = [" ".join(picked.sample(reviews, _JOINED)) for _ in range(longs)]
    chosen += _some(reviews, mediums, picked)
    chosen += _some(questions, max(0, count - len(chosen)), picked)
    picked.shuffle(chosen)
    return list(dict.fromkeys(chosen))[:count]


def _some(texts: Sequence[str], count: int, picked: random.Random) -> list[str]:
    if count > len(texts):
        raise ValueError(f"{count} texts were asked for and the data holds {len(texts)}; ask for fewer")
    return picked.sample(texts, count)


def _questions() -> Iterator[Path]:
    data = Path(os.environ.get("ROOTSTOCK_DATA") or ROOT.parent / "shared" / "data")
    yield from sorted((data / "clinc150").glob("*/test.csv"))


def _column(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return sorted({row["text"] for row in csv.DictReader(file) if row["text"].strip()})
