"""The progress of the trainings of all folds as that of one."""

from __future__ import annotations

from rootstock.training.fit.descent import Report


class FoldProgress:
    """Counts the steps of `count` trainings on, so that a receiver can tell the time until the last one ends.

    All folds count as many steps as the first, because their rows differ by a few.
    """

    def __init__(self, report: Report, count: int) -> None:
        self._report = report
        self._count = count
        self._steps = 0

    def of(self, number: int) -> Report:
        """Return the report for the training of a fold, from 0."""

        def told(done: int, total: int, note: str, *rate: float) -> None:
            self._steps = self._steps or total
            before = number * self._steps + done * self._steps // total
            self._report(before, self._count * self._steps, note, *rate)

        return told
