"""The gain to expect: the posterior of normal gains, on the side of the evidence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from rootstock.training.data.encoding import TokenRow
from rootstock.training.fit.method import kind_of_gain
from rootstock.training.fit.plan import TrainingRows
from rootstock.training.metrics.counts import accuracy, label_counts
from rootstock.training.metrics.expected_gain import (
    ExpectedGain,
    GainPrior,
    ObservedGain,
    best_gain,
    expected_gains,
    observed_on_counts,
    observed_on_labels,
)
from rootstock.training.metrics.gain_priors import GAIN_PRIORS
from rootstock.training.network.row_encoder import RowEncoder
from rootstock.training.problems.classes import ClassProblem

STRENGTHS = (0.25, 0.5, 0.75, 1.0)


def test_the_mean_and_the_deviation_are_those_of_the_posterior_density() -> None:
    prior = GainPrior((0.5, 1.0), (0.1, 0.2), (0.2, 0.3), 0.8, 0.1)
    noise = np.array([[0.0009, 0.0004], [0.0004, 0.0016]])
    observed = ObservedGain(np.array([0.03, -0.02]), noise, 0.2, 100)
    grid = np.linspace(-0.6, 0.7, 400)
    first, second = np.meshgrid(grid, grid, indexing="ij")
    places = np.stack([first, second], -1)
    mean, spread = prior.at((0.5, 1.0))
    density = multivariate_normal(mean * 0.2, spread * 0.04 + 0.01**2).pdf(places)
    density *= multivariate_normal(observed.gains, noise + (0.1 * 0.2) ** 2).pdf(places)
    density /= density.sum()
    for gain, values in zip(expected_gains(prior, observed, (0.5, 1.0)), (first, second), strict=True):
        wanted = float((density * values).sum())
        assert gain.mean == pytest.approx(wanted, abs=1e-4)
        deviation = float(np.sqrt((density * (values - wanted) ** 2).sum()))
        assert gain.deviation == pytest.approx(deviation, abs=1e-4)
        assert gain.chance_of_loss == pytest.approx(norm(gain.mean, gain.deviation).cdf(0))
        low, high = gain.interval
        assert (low, high) == pytest.approx(norm(gain.mean, gain.deviation).interval(0.95), abs=1e-4)


def test_a_prior_that_the_rows_contradict_counts_for_less() -> None:
    head = np.ones(90, bool)
    broken = np.arange(90) < 45
    gains = expected_gains(GAIN_PRIORS["few_texts"], observed_on_labels(head, [broken] * 4), STRENGTHS)
    assert all(gain.mean < -0.2 and gain.chance_of_loss > 0.99 for gain in gains)


@pytest.mark.parametrize("kind", ["few_texts", "many_texts"])
def test_many_rows_outweigh_what_other_sets_have_shown(kind: str) -> None:
    draw = np.random.default_rng(0)
    head = draw.random(20_000) < 0.8
    worse = head & (draw.random(20_000) < 0.95)
    gains = expected_gains(GAIN_PRIORS[kind], observed_on_labels(head, [worse] * 4), STRENGTHS)
    assert all(gain.mean < 0 and gain.chance_of_loss > 0.95 for gain in gains)


def test_a_lucky_strength_among_equals_is_not_expected_to_gain_what_it_shows() -> None:
    draw = np.random.default_rng(1)
    shown, hoped = [], []
    for _ in range(200):
        head = draw.random(100) < 0.8
        # Each strength changes other rows by chance, and none is better.
        others = [np.where(draw.random(100) < 0.05, draw.random(100) < 0.8, head) for _ in STRENGTHS]
        prior = GainPrior(STRENGTHS, (0.0,) * 4, (0.1,) * 4, 0.9, 0.05)
        best = max(expected_gains(prior, observed_on_labels(head, others), STRENGTHS), key=lambda g: g.mean)
        hoped.append(best.mean)
        shown.append(max(np.mean(other) - np.mean(head) for other in others))
    assert np.mean(shown) > 0.01
    assert np.mean(hoped) < np.mean(shown) / 2


def test_rows_on_which_nothing_changes_leave_doubt() -> None:
    head = np.arange(12) < 9
    observed = observed_on_labels(head, [head, head])
    assert observed.gains.tolist() == [0, 0]
    assert np.diag(observed.covariance) == pytest.approx(2 / 12**2)


def test_the_bootstrap_of_counts_has_the_covariance_of_the_answers() -> None:
    draw = np.random.default_rng(2)
    truth = draw.integers(0, 3, 400)
    answers = [np.where(draw.random(400) < share, truth, 0) for share in (0.6, 0.7, 0.8)]
    counts = [label_counts(truth.tolist(), each.tolist(), 3) for each in answers]
    right = [each == truth for each in answers]
    exact = observed_on_labels(right[0], right[1:])
    drawn = observed_on_counts(counts[0], counts[1:], accuracy)
    np.testing.assert_allclose(drawn.gains, exact.gains)
    np.testing.assert_allclose(drawn.covariance, exact.covariance, rtol=0.2)


def test_a_strength_at_which_the_rows_show_a_loss_comes_after_those_at_which_they_show_none() -> None:
    loss, none = ExpectedGain(1.0, 0.05, 0.02, -0.01, 32), ExpectedGain(0.25, 0.02, 0.02, 0.0, 32)
    assert best_gain([none, loss]) is none
    assert none.worth_it(0.5)
    # The prior is sure of a gain, and the rows show a loss.
    assert best_gain([loss]) is loss
    assert not loss.worth_it(0.5)
    assert not ExpectedGain(0.25, 0.02, 0.04, 0.0, 32).worth_it(0.5)


@pytest.mark.parametrize(("count", "kind"), [(499, "few_entities"), (500, "entities")])
def test_few_sentences_are_those_to_train_on_and_not_those_that_judge(count: int, kind: str) -> None:
    sentence = TokenRow((1,), (0,), words=(0,))
    encoder = object.__new__(RowEncoder)
    object.__setattr__(encoder, "problem", ClassProblem(("O", "B-PER")))
    plan: Any = SimpleNamespace(encoder=encoder, by_contrast=lambda rows: False)
    assert kind_of_gain(TrainingRows([], [sentence] * count, [sentence] * 10), plan) == kind
