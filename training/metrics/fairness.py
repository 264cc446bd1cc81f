"""Gaps between groups: figures of each group, and whether training or the foundation caused the gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rootstock.training.errors import extra
from rootstock.training.metrics.intervals import wilson_interval

Verdict = Literal["made", "inherited", "reduced", "chance", "unclear"]

_RESAMPLES = 1000
_SIGNIFICANT = 0.05


def fairness(
    truth: npt.ArrayLike,
    adapter: npt.ArrayLike,
    foundation: npt.ArrayLike,
    groups: Sequence[str],
    column: str,
    seed: int = 0,
    *,
    independent: bool = True,
) -> dict[str, Any]:
    """Return each group's figures, and the gap of accuracy between best and worst, of adapter and foundation.

    `interval` is that of a group's accuracy, left out where rows are not `independent`, such as the words of a
    sentence.
    `truth`, `adapter` and `foundation` are classes, one a row: the true one, the adapter's, and that of a head
    alone on the frozen foundation. The verdict is "made" or "reduced" where resampled rows of the groups say that
    the adapter's gap is the larger or the smaller one, "chance" where groups drawn at random differ as much,
    "inherited" where the foundation's gap is beyond chance as well, and otherwise "unclear".
    Raise ValueError for fewer than two groups, and MissingExtra if fairlearn is not installed.
    Source: the gap is fairlearn's MetricFrame.difference between groups.
    """
    names, ids = np.unique(np.asarray(groups, object).astype(str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"column {column}: {len(names)} group; fairness needs two")
    true, ours, theirs = (np.asarray(values) for values in (truth, adapter, foundation))
    frame, gap = _frame(true, ours, groups)
    _, foundation_gap = _frame(true, theirs, groups)
    verdict = _judge(true == ours, true == theirs, ids, seed)
    return {
        "column": column,
        "groups": {
            str(name): {
                "rows": int(row["rows"]),
                "accuracy": round(float(row["accuracy"]), 4),
                **(
                    {"interval": wilson_interval(float(row["accuracy"]), int(row["rows"]))} if independent else {}
                ),
                "macro_f1": round(float(row["macro_f1"]), 4),
            }
            for name, row in frame.by_group.iterrows()
        },
        "gap": round(gap, 4),
        "foundation_gap": round(foundation_gap, 4),
        "verdict": verdict,
    }


def _frame(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], groups: Sequence[str]) -> tuple[Any, float]:
    with extra("figures by group"):
        from fairlearn.metrics import MetricFrame, count
    from sklearn.metrics import accuracy_score, f1_score

    def macro_f1(true: Any, answers: Any) -> float:
        return float(f1_score(true, answers, average="macro", zero_division=0))

    frame = MetricFrame(
        metrics={"rows": count, "accuracy": accuracy_score, "macro_f1": macro_f1},
        y_true=truth,
        y_pred=predicted,
        sensitive_features=[str(group) for group in groups],
    )
    return frame, float(frame.difference(method="between_groups")["accuracy"])


def _judge(
    ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_], ids: npt.NDArray[Any], seed: int
) -> Verdict:
    """Return the verdict, from the rows that the adapter and the foundation have right and their groups."""
    draw = np.random.default_rng(seed)
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    low, high = np.quantile(_resampled_change(ours, theirs, ids, draw), [_SIGNIFICANT / 2, 1 - _SIGNIFICANT / 2])
    if high < 0:
        return "reduced"
    if _by_chance(ours, ids, draw):
        return "chance"
    if low > 0:
        return "made"
    return "unclear" if _by_chance(theirs, ids, draw) else "inherited"


def _by_chance(right: npt.NDArray[Any], ids: npt.NDArray[Any], draw: np.random.Generator) -> bool:
    """Return True if more than one in twenty shuffles of the groups differ as much (a permutation test)."""
    shuffled = _gap(np.stack([draw.permutation(right) for _ in range(_RESAMPLES)]), ids)
    as_large = int((shuffled >= _gap(right[None], ids)[0] - 1e-12).sum())
    return (1 + as_large) / (1 + _RESAMPLES) > _SIGNIFICANT


def _resampled_change(
    ours: npt.NDArray[Any], theirs: npt.NDArray[Any], ids: npt.NDArray[Any], draw: np.random.Generator
) -> npt.NDArray[Any]:
    """Return the adapter's gap less the foundation's, of resamples with as many rows of each group."""
    rows = np.empty((_RESAMPLES, len(ids)), np.int64)
    for group in range(ids.max() + 1):
        members = np.flatnonzero(ids == group)
        rows[:, members] = draw.choice(members, (_RESAMPLES, len(members)))
    return np.asarray(_gap(ours[rows], ids) - _gap(theirs[rows], ids))


def _gap(right: npt.NDArray[Any], ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the best group's accuracy less the worst's, of (resamples, rows)."""
    members = np.eye(ids.max() + 1)[ids]
    accuracy = right @ members / members.sum(0)
    return np.asarray(accuracy.max(1) - accuracy.min(1))
