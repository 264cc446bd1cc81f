"""The parts of training against formulas worked out another way: losses, rates, averages, heads."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import nn

from rootstock.training.data.encoding import TokenRow
from rootstock.training.data.example import Example
from rootstock.training.errors import DataError
from rootstock.training.fit.adaptation import DomainClassifier, coral
from rootstock.training.fit.augmentation import hide_tokens, reword
from rootstock.training.fit.candidate import like_lengths
from rootstock.training.fit.contrastive import balanced_batches, supervised_contrast
from rootstock.training.fit.optimizer import make_optimizer, rate_schedule, unfreeze
from rootstock.training.metrics.calibration import softmax
from rootstock.training.network.inputs import TokenInputs
from rootstock.training.problems.linear_head import choose_strength, fit_head
from rootstock.training.recipe.recipe import Training
from rootstock.training.study.federation import average_products, deal_to_clients


def test_the_contrastive_loss_is_that_of_the_paper_row_by_row() -> None:
    torch.manual_seed(0)
    rows = nn.functional.normalize(torch.randn(7, 5), dim=-1)
    labels, temperature = [0, 0, 1, 1, 1, 2, 0], 0.2
    by_row = []
    for i, label in enumerate(labels):
        others = [a for a in range(7) if a != i]
        positives = [p for p in others if labels[p] == label]
        if not positives:
            continue
        below = sum(math.exp(float(rows[i] @ rows[a]) / temperature) for a in others)
        logs = [math.log(math.exp(float(rows[i] @ rows[p]) / temperature) / below) for p in positives]
        by_row.append(-sum(logs) / len(positives))
    loss = supervised_contrast(rows, torch.tensor(labels), temperature)
    assert float(loss) == pytest.approx(sum(by_row) / len(by_row), rel=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=4, max_size=90), st.integers(4, 64), st.integers(0, 9))
def test_balanced_batches_hold_each_row_at_most_once_and_no_row_is_alone(
    targets: list[int], size: int, seed: int
) -> None:
    batches = list(balanced_batches(targets, size, torch.Generator().manual_seed(seed)))
    every = [i for batch in batches for i in batch]
    assert len(every) == len(set(every))
    assert all(len(batch) > 1 for batch in batches)
    if len(targets) <= size:
        assert sorted(every) == list(range(len(targets)))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 32), st.integers(0, 9))
def test_batches_of_like_lengths_hold_each_row_once(lengths: list[int], size: int, seed: int) -> None:
    batches = like_lengths(lengths, size, torch.Generator().manual_seed(seed))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) <= size
    assert len(batches) == -(-len(lengths) // size) or len(lengths) > 16 * size


def test_coral_is_the_distance_of_numpys_covariances() -> None:
    chance = np.random.default_rng(0)
    a, b = (chance.normal(size=(n, 6)).astype(np.float32) for n in (9, 12))
    wanted = ((np.cov(a, rowvar=False) - np.cov(b, rowvar=False)) ** 2).sum() * 6 / 4
    assert float(coral(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(wanted, rel=1e-4)
    assert float(coral(torch.from_numpy(a), torch.from_numpy(a))) == 0.0


def test_the_domain_classifier_turns_the_gradient_of_the_embeddings_round() -> None:
    torch.manual_seed(0)
    source, target = torch.randn(4, 3), torch.randn(5, 3)
    domains = DomainClassifier(3, torch.device("cpu"))
    gradients = []
    for turned in (False, True):
        rows = source.clone().requires_grad_(True)
        if turned:
            loss = domains.loss(rows, target, done=1.0)
        else:
            logits = domains.network(torch.cat([rows, target]))
            loss = nn.functional.cross_entropy(logits, torch.tensor([0] * 4 + [1] * 5))
        loss.backward()
        assert rows.grad is not None
        gradients.append(rows.grad)
    strength = 2 / (1 + math.exp(-10)) - 1
    torch.testing.assert_close(gradients[1], -strength * gradients[0])


def test_a_fitted_head_gives_scikit_learns_probabilities_also_for_two_labels_and_for_one_that_has_no_row() -> (
    None
):
    chance = np.random.default_rng(0)
    for labels in (2, 4):
        features = chance.normal(size=(60, 5)).astype(np.float32)
        targets = chance.integers(0, labels, 60)
        head = fit_head(features, targets, labels + 1, 3.0)
        wanted = LogisticRegression(C=3.0, max_iter=2000).fit(features, targets).predict_proba(features)
        probabilities = softmax(head.logits(features))
        np.testing.assert_allclose(probabilities[:, :labels], wanted, atol=1e-4)
        assert probabilities[:, labels].max() < 1e-8


def test_the_strength_is_chosen_by_cross_validation_as_grid_search_does() -> None:
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    chance = np.random.default_rng(1)
    targets = chance.integers(0, 3, 90)
    features = (np.eye(3)[targets] @ chance.normal(size=(3, 8)) + chance.normal(size=(90, 8)) * 2).astype(
        np.float32
    )
    grid = GridSearchCV(
        LogisticRegression(max_iter=2000),
        {"C": [1.0, 3.0, 10.0, 30.0, 100.0, 300.0]},
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
    ).fit(features, targets)
    best = grid.cv_results_["mean_test_score"].max()
    chosen = choose_strength(features, targets, 0)
    at = [c["C"] for c in grid.cv_results_["params"]].index(chosen)
    assert grid.cv_results_["mean_test_score"][at] == pytest.approx(best, abs=0.012)


def test_the_average_of_clients_is_that_of_their_products_not_of_their_factors() -> None:
    chance = np.random.default_rng(0)
    pairs = [
        (chance.normal(size=(3, 7)).astype(np.float32), chance.normal(size=(5, 3)).astype(np.float32))
        for _ in range(2)
    ]
    wanted = 0.25 * pairs[0][1] @ pairs[0][0] + 0.75 * pairs[1][1] @ pairs[1][0]
    a, b, lost = average_products(pairs, (0.25, 0.75), 6)
    np.testing.assert_allclose(b @ a, wanted, atol=1e-5)
    assert lost == pytest.approx(0.0, abs=1e-6)
    factors = (0.25 * pairs[0][1] + 0.75 * pairs[1][1]) @ (0.25 * pairs[0][0] + 0.75 * pairs[1][0])
    assert np.abs(factors - wanted).max() > 0.5
    u, values, vt = np.linalg.svd(wanted)
    a, b, lost = average_products(pairs, (0.25, 0.75), 3)
    np.testing.assert_allclose(b @ a, (u[:, :3] * values[:3]) @ vt[:3], atol=1e-4)
    assert lost == pytest.approx(np.sqrt((values[3:] ** 2).sum() / (values**2).sum()), abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.one_of(st.none(), st.floats(0.3, 5)), st.integers(0, 20))
def test_clients_share_the_rows_out_among_them(clients: int, skew: float | None, seed: int) -> None:
    targets = [str(i % 4) for i in range(80)]
    try:
        dealt = deal_to_clients(targets, clients, skew, seed)
    except DataError:
        return
    assert sorted(i for rows in dealt for i in rows) == list(range(80))


def test_rates_fall_by_layer_and_lora_b_and_the_head_have_their_own() -> None:
    names = {
        "model.layer.0.query.lora_A.default.weight": 0, "model.layer.2.query.lora_A.default.weight": 2,
        "model.layer.2.query.lora_B.default.weight": 2, "head.weight": None,
    }  # fmt: skip
    parameters = {name: nn.Parameter(torch.zeros(2, 2)) for name in names}
    chosen = Training(
        learning_rate=0.1, head_learning_rate=0.3, layerwise_lr_decay=0.5, loraplus_lr_ratio=4, weight_decay=0
    )
    optimizer = make_optimizer(parameters, chosen, names.__getitem__, layers=3)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in parameters.values()] == pytest.approx([0.025, 0.1, 0.4, 0.3])


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_schedules_are_transformers_own_after_the_first_step(kind: str) -> None:
    from transformers import get_scheduler

    names = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(names[kind], optimizer, 0, 20)
    ours = rate_schedule(kind, 20, 0.0)
    for step in range(20):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        theirs.step()
    rising = rate_schedule(kind, 20, 0.2)
    assert [rising(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_layers_join_from_the_top_and_the_head_at_once() -> None:
    layers = {"a": 0, "b": 1, "c": 2, "head": None}
    parameters = {name: nn.Parameter(torch.zeros(1)) for name in layers}
    joined = []
    for epoch in range(5):
        unfreeze(parameters, epoch, 2, layers.__getitem__, 3)
        joined.append("".join(name[0] for name, p in parameters.items() if p.requires_grad))
    assert joined == ["ch", "ch", "bch", "bch", "abch"]


def test_words_are_left_out_and_swapped_but_never_all() -> None:
    example = Example("one two three four", ("a",), 1)
    chance = random.Random(0)
    texts = {reword(example, 0.5, 0.5, chance).text for _ in range(60)}
    assert all(set(text.split()) <= set(example.text.split()) and text for text in texts)
    assert len(texts) > 10
    assert reword(example, 0.0, 0.0, chance).text == example.text


def test_hidden_tokens_are_never_the_first_or_last_and_padding_stays_hidden() -> None:
    torch.manual_seed(0)
    rows = [TokenRow(tuple(range(n)), (0,), (0,) * n) for n in (4, 9)]
    batch = hide_tokens(TokenInputs(rows, 0, torch.device("cpu")).batch([0, 1]), 0.9)
    assert batch.mask[0].tolist()[4:] == [0] * 5
    assert batch.mask[0, 0] == batch.mask[0, 3] == batch.mask[1, 0] == batch.mask[1, 8] == 1
    assert batch.mask[1].sum() < 9
