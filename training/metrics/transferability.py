"""Transferability of a foundation's features to labelled data, without training: LogME and the H-score."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.floating[Any]]

# The grid of the search: logarithms of the weights' precision ÷ the noise's, around the features' scale.
_WIDEST, _STEPS = 20.0, 81
# Targets that are met exactly would have an infinite evidence.
_LEAST_NOISE = 1e-12


def log_me(features: Features, targets: npt.ArrayLike) -> float:
    """Return the mean log evidence per row of linear models from (rows, width) features to class indicators.

    Higher suits better; comparable between features of the same rows. The precisions of weights and noise are
    those of the largest evidence.
    Source: You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", 2021.
    """
    wide, classes = _checked(features, targets)
    left, singular, _ = np.linalg.svd(wide, full_matrices=False)
    squares = singular**2
    scale = float(squares.max()) or 1.0
    evidences = [_evidence(left, squares, (classes == c).astype(np.float64), scale) for c in np.unique(classes)]
    return float(np.mean(evidences)) / len(wide)


def h_score(features: Features, targets: npt.ArrayLike) -> float:
    """Return the variance between classes of (rows, width) features, in their covariance; higher is better.

    The covariance is shrunk by Ledoit and Wolf's estimate, so that fewer rows than features give a figure too.
    Source: Bao et al., "An Information-Theoretic Approach to Transferability", 2019; the shrinkage from Ibrahim,
    Ponomareva and Mazumder, "Newer is not always better", 2021.
    """
    from sklearn.covariance import LedoitWolf

    wide, classes = _checked(features, targets)
    fitted = LedoitWolf().fit(wide)
    means = np.zeros_like(wide)
    for c in np.unique(classes):
        means[classes == c] = wide[classes == c].mean(0)
    between = np.cov(means, rowvar=False).reshape(wide.shape[1], wide.shape[1])
    # Features without any spread within the classes leave nothing to shrink towards, and no inverse.
    inverse = np.linalg.pinv(fitted.covariance_, hermitian=True)
    return float((1 - fitted.shrinkage_) * np.trace(inverse @ between))


def _evidence(left: npt.NDArray[Any], squares: npt.NDArray[Any], target: npt.NDArray[Any], scale: float) -> float:
    """Return the largest log evidence of `target` over the precisions of weights and noise.

    `left` and `squares` are the features' left singular vectors and squared singular values, `scale` the largest.
    Given the ratio of the precisions, the best noise has a closed form: one number is left to search.
    """
    from scipy.optimize import minimize_scalar

    rows = len(target)
    along = (left.T @ target) ** 2
    # The part of the target that no weights can reach.
    beyond = max(0.0, float(target @ target - along.sum()))

    def negative(log_ratio: float) -> float:
        shrinkage = 1 / (1 + squares / np.exp(log_ratio))
        noise = (float((along * shrinkage).sum()) + beyond) / rows
        fit = rows * (np.log(2 * np.pi * max(noise, _LEAST_NOISE)) + 1)
        return float(fit - np.log(shrinkage).sum()) / 2

    # The evidence may have several maxima; the highest lies beside the best of the grid.
    grid = np.linspace(-_WIDEST, _WIDEST, _STEPS) + np.log(scale)
    best = grid[np.argmin([negative(ratio) for ratio in grid])]
    step = grid[1] - grid[0]
    return -float(minimize_scalar(negative, bounds=(best - step, best + step), method="bounded").fun)


def _checked(features: Features, targets: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    wide, classes = np.asarray(features, np.float64), np.asarray(targets)
    if len(wide) != len(classes):
        raise ValueError(f"{len(wide)} rows of features for {len(classes)} targets")
    if len(np.unique(classes)) < 2:
        raise ValueError("one class only: features can be neither good nor bad for it")
    return wide, classes
