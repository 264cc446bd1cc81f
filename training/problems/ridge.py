"""A linear head that answers with a number: ridge regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array
from rootstock.training.problems.linear_head import LinearHead

# Inverse strengths of the regularisation, for features of length 1.
RIDGE_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def fit_ridge(features: Array, values: npt.NDArray[Any], strength: float | None = None) -> LinearHead:
    """Return the ridge regression of (rows, 1) values on (rows, width) features.

    Without a `strength` (1 / alpha) it is the one of the least squared error on rows that are left out one by
    one.
    """
    from sklearn.linear_model import Ridge, RidgeCV

    wide, numbers = features.astype(np.float64), np.asarray(values, np.float64)[:, 0]
    if strength is None and len(wide) > 2:
        chosen: Any = RidgeCV(alphas=[1 / one for one in RIDGE_STRENGTHS]).fit(wide, numbers)
        strength, model = 1 / float(chosen.alpha_), chosen
    else:
        strength = strength or 1.0
        model = Ridge(alpha=1 / strength).fit(wide, numbers)
    weight = np.asarray(model.coef_, np.float32).reshape(1, -1)
    return LinearHead(weight, np.asarray([model.intercept_], np.float32).reshape(1), strength)
