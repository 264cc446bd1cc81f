"""What is chosen for labelling: unsure, spread out, always the same, and worth more than chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from rootstock.training.study.acquisition import choose, margins


def test_a_margin_is_the_gap_of_the_two_likeliest_and_a_sentence_s_its_least_sure_token_s() -> None:
    text = np.array([0.5, 0.3, 0.2])
    sentence = np.array([[0.9, 0.05, 0.05], [0.4, 0.35, 0.25]])
    assert margins([text, sentence]) == pytest.approx([0.2, 0.05])
    assert margins([np.zeros((0, 3))]) == [1.0]


def test_the_least_sure_row_comes_first_and_every_next_one_is_the_farthest_candidate() -> None:
    draw = np.random.default_rng(0)
    gaps, embeddings = draw.random(500), draw.normal(size=(500, 4))
    chosen = choose(gaps, embeddings, 6)
    candidates = np.argsort(gaps)[:60]
    assert chosen[0] == candidates[0]
    for count in range(1, 6):
        nearest = cdist(embeddings[candidates], embeddings[chosen[:count]]).min(1)
        assert chosen[count] == candidates[nearest.argmax()]


def test_rows_near_labelled_ones_are_left_for_later() -> None:
    embeddings = np.array([[0.0, 0], [0.1, 0], [5, 5], [9, 0]])
    gaps = np.array([0.0, 0.1, 0.2, 0.3])
    assert choose(gaps, embeddings, 2) == [0, 3]
    assert choose(gaps, embeddings, 2, labelled=np.array([[0.0, 0.0], [9.0, 0.1]])) == [2, 1]


def test_copies_are_not_labelled_twice_and_fewer_rows_than_wanted_are_all_chosen() -> None:
    assert choose(np.array([0.3, 0.1, 0.2]), np.array([[1.0], [1.0], [2.0]]), 3) == [1, 2]
    assert choose(np.array([0.3, 0.1]), np.array([[1.0], [3.0]]), 9) == [1, 0]
    assert choose(np.zeros(0), np.zeros((0, 2)), 3) == []


def test_the_same_inputs_give_the_same_rows_and_equal_margins_the_file_s_order() -> None:
    embeddings = np.random.default_rng(1).normal(size=(40, 3))
    gaps = np.full(40, 0.5)
    assert choose(gaps, embeddings, 5) == choose(gaps.copy(), embeddings.copy(), 5)
    assert choose(gaps, embeddings, 1) == [0]


def test_margins_and_embeddings_must_be_of_the_same_rows() -> None:
    with pytest.raises(ValueError, match="2 margins for 3 embeddings"):
        choose(np.zeros(2), np.zeros((3, 1)), 1)


def test_labelling_what_is_chosen_teaches_scikit_learn_more_than_labelling_at_random() -> None:
    features, truth = make_classification(
        3000, 12, n_informative=6, n_classes=3, n_clusters_per_class=1, class_sep=1.2, random_state=4
    )
    pool, test = np.arange(1500), np.arange(1500, 3000)

    def accuracy(rows: list[int]) -> float:
        return float(LogisticRegression().fit(features[rows], truth[rows]).score(features[test], truth[test]))

    gains = []
    for seed in range(3):
        draw = np.random.default_rng(seed)
        first = draw.choice(pool, 30, replace=False).tolist()
        model = LogisticRegression().fit(features[first], truth[first])
        rest = np.setdiff1d(pool, first)
        gaps = margins(list(model.predict_proba(features[rest])))
        chosen = rest[choose(gaps, features[rest], 60, features[first])].tolist()
        at_random = draw.choice(rest, 60, replace=False).tolist()
        gains.append(accuracy(first + chosen) - accuracy(first + at_random))
    assert np.mean(gains) > 0
