"""The gate on a data set that its prior leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rootstock.training.metrics.expected_gain import ObservedGain
from rootstock.training.metrics.gain_priors import GAIN_PRIORS
from rootstock.training.study.methods.left_out import LeftOutDecision, fit_prior, left_out
from rootstock.training.study.methods.method_study import markdown


def record(name: str, gains: list[float], seen: float, rows: int = 100, draw: int = 0) -> dict[str, Any]:
    observed = ObservedGain(np.full(4, seen), np.full((4, 4), 0.03**2) + 1e-6 * np.eye(4), 0.2, rows)
    strengths = (0.25, 0.5, 0.75, 1.0)
    return {
        "set": name,
        "rows": 8,
        "draw": draw,
        "test": 500,
        "kind": "few_texts",
        "head_only": {"score": 0.8},
        "auto": {"score": 0.8, "kept": "head_only"},
        "observed": observed.to_json(),
        "by_strength": {str(strength): 0.8 + gain for strength, gain in zip(strengths, gains, strict=True)},
    }


def test_the_prior_is_in_shares_of_the_head_s_errors_and_weighs_each_data_set_once() -> None:
    others = [record("a-one", [0.02] * 4, 0), record("a-two", [0.02] * 4, 0), record("b", [0.06] * 4, 0)]
    prior = fit_prior(others, GAIN_PRIORS["few_texts"])
    assert prior.mean == pytest.approx([0.2] * 4)
    assert prior.deviation == pytest.approx([0.1] * 4)


def decision(others: list[dict[str, Any]], own: dict[str, Any]) -> LeftOutDecision:
    last = left_out([*others, own], 0.5)[-1]
    assert last is not None
    return last


def test_a_set_s_own_gains_do_not_decide_for_it() -> None:
    # On few rows the prior decides. The set gains 0.06, and the others lose as much.
    losing = [record(name, [-0.06] * 4, 0, draw=draw) for name in ("a", "b") for draw in (0, 1)]
    kept_head = decision(losing, record("c", [0.06] * 4, 0.005))
    assert (kept_head.strength, kept_head.gain, kept_head.sets) == (None, 0.0, 2)
    winning = [record(name, [0.06] * 4, 0, draw=draw) for name in ("a", "b") for draw in (0, 1)]
    kept = decision(winning, record("c", [-0.04, -0.04, -0.04, -0.06], 0.005))
    assert kept.strength is not None
    assert kept.gain < 0


def test_the_domains_of_one_set_are_left_out_together() -> None:
    records = [record("a-one", [0.02] * 4, 0.01), record("a-two", [0.02] * 4, 0.01)]
    assert left_out(records, 0.5) == [None, None]
    own = record("b", [0.05] * 4, 0.05)
    assert decision(records, own).sets == 1
    assert [one and one.sets for one in left_out([*records, own], 0.5)] == [1, 1, 1]


def test_the_table_gives_auto_the_score_that_it_gets_with_the_prior_of_the_other_sets() -> None:
    alone = markdown([record("b", [0.05] * 4, 0.05)]).splitlines()[-1]
    assert "| 80.0 |" in alone
    among = markdown([record("b", [0.05] * 4, 0.05), record("a", [0.02] * 4, 0.01)])
    head, _, line, _ = (list(map(str.strip, line.strip("|").split("|"))) for line in among.splitlines())
    row = dict(zip(head, line, strict=True))
    assert (row["head_only"], row["auto"], row["kept"], row["left out"]) == ("80.0", "85.0", "1", "1")
