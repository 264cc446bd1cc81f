"""The unit in which a network learns numbers: the deviation of the training rows from their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rootstock.adapters.spec import Array


@dataclass(frozen=True)
class Units:
    """A number is `mean` + `deviation` · its standardised number. The default changes nothing."""

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Units:
        """Return the units of numbers; equal numbers have the deviation 1."""
        numbers = np.asarray(values, np.float64)
        # The deviation of equal numbers, such as 0.1 three times, may be a rounding error and not 0.
        return cls(float(numbers.mean()), float(numbers.std()) if np.ptp(numbers) > 0 else 1.0)

    def restored(self, outputs: Sequence[Array]) -> list[Array]:
        """Return standardised outputs as numbers."""
        if self == NONE:
            return list(outputs)
        return [np.asarray(self.mean + self.deviation * output.astype(np.float64)) for output in outputs]


NONE = Units()
