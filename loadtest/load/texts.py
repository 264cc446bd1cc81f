"""Real sentences in the lengths that traffic has: short questions, reviews, and a few long texts."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from rootstock.loadtest.measure.machine import ROOT

SHORT, MEDIUM, LONG = 0.7, 0.25, 0.05
_DATA = ROOT / "training" / "data"
# Texts of some 20 words that make a long one together.
_REVIEWS_EACH = 6


def real_texts(count: int, seed: int = 0) -> list[str]:
    """Return distinct texts: 70 % short, 25 % of a sentence or more, 5 % long. Equal calls give equal texts.

    Questions come from the labelled data in ROOTSTOCK_DATA (CLINC150), else from the demo adapters' data.
    """
    reviews = _column(_DATA / "review-sentiment.csv")
    questions = [text for path in _questions() for text in _column(path)] or _column(
        _DATA / "support-intents.csv"
    )
    generator = random.Random(seed)  # noqa: S311 - traffic, not secrets
    longs = max(1, round(LONG * count))
    mediums = max(1, round(MEDIUM * count))
    chosen = [" ".join(generator.sample(reviews, _REVIEWS_EACH)) for _ in range(longs)]
    chosen += _some(reviews, mediums, generator)
    chosen += _some(questions, max(0, count - len(chosen)), generator)
    generator.shuffle(chosen)
    return list(dict.fromkeys(chosen))[:count]


def _some(texts: Sequence[str], count: int, generator: random.Random) -> list[str]:
    if count > len(texts):
        raise ValueError(f"the data holds {len(texts)} texts, not {count}; choose fewer")
    return generator.sample(texts, count)


def _questions() -> Iterator[Path]:
    data = Path(os.environ.get("ROOTSTOCK_DATA") or ROOT.parent / "shared" / "data")
    yield from sorted((data / "clinc150").glob("*/test.csv"))


def _column(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return sorted({row["text"] for row in csv.DictReader(file) if row["text"].strip()})
