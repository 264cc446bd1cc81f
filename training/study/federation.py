"""Training by clients that keep their rows: rounds of local training, and averages of what they learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.errors import DataError, RecipeError
from rootstock.training.fit.candidate import Candidate, TrainingRows, descend_from, new_network
from rootstock.training.fit.descent import copied
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.network.network import Network

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Round:
    """A round of federated training: the score of the averaged adapter on validation, and the largest share of a
    site's averaged change that its rank could not hold."""

    number: int
    validation: float
    lost: float


def average_products(
    pairs: Sequence[tuple[Array, Array]], shares: Sequence[float], rank: int
) -> tuple[Array, Array, float]:
    """A (rank, in) and B (out, rank) whose product is nearest to the weighted mean of the products B·A.

    `pairs` are (r, in) and (out, r). The mean of the factors is not the factor of the mean: products are what
    clients learned (Sun et al., FFA-LoRA, 2024). The mean is exact as stacked factors, of rank Σ r; its leading
    singular directions are kept. Also gives the Frobenius norm of what was cut ÷ that of the mean.
    """
    stacked_a = np.concatenate([a for a, _ in pairs])
    stacked_b = np.concatenate([b * share for (_, b), share in zip(pairs, shares, strict=True)], axis=1)
    # Of thin factors, the decomposition of the product needs only that of their small inner product.
    left, inner_left = np.linalg.qr(stacked_b.astype(np.float64))
    right, inner_right = np.linalg.qr(stacked_a.T.astype(np.float64))
    u, values, vt = np.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    root = np.sqrt(values[:rank])
    whole = float(np.sqrt((values**2).sum()))
    lost = float(np.sqrt((values[rank:] ** 2).sum())) / whole if whole else 0.0
    a = np.zeros((rank, right.shape[0]), np.float32)
    b = np.zeros((left.shape[0], rank), np.float32)
    a[: len(root)] = (root[:, None] * vt[:rank]) @ right.T
    b[:, : len(root)] = left @ (u[:, :rank] * root)
    return a, b, lost


def deal_to_clients(targets: Sequence[str], clients: int, skew: float | None, seed: int) -> list[list[int]]:
    """The positions of each client's rows: dealt evenly, or the labels by a Dirichlet distribution of `skew`.

    The smaller the skew, the fewer labels a client has (Hsu et al., 2019). DataError where a client gets no row.
    """
    chance = np.random.default_rng(seed)
    dealt: list[list[int]] = [[] for _ in range(clients)]
    for label in sorted(set(targets)):
        rows = [i for i, target in enumerate(targets) if target == label]
        chance.shuffle(rows)
        shares = chance.dirichlet([skew] * clients) if skew is not None else np.full(clients, 1 / clients)
        cuts = np.round(np.cumsum(shares)[:-1] * len(rows)).astype(int)
        start = int(chance.integers(clients)) if skew is None else 0
        for k, part in enumerate(np.split(np.array(rows), cuts)):
            dealt[(k + start) % clients].extend(int(i) for i in part)
    if empty := [k for k, rows in enumerate(dealt) if not rows]:
        raise DataError(f"client {empty[0] + 1} of {clients} gets no row; take fewer clients or less skew")
    return [sorted(rows) for rows in dealt]


def federate(
    training: TrainingRows, clients: int, rounds: int, skew: float | None
) -> tuple[Candidate, list[Round]]:
    """LoRA trained by simulated clients: FedAvg (McMahan et al., 2017) over products, heads averaged as they are.

    A client trains the recipe's epochs ÷ rounds, at least one, from the round's adapter.
    """
    recipe = training.job.source.recipe
    if recipe.peft.method not in ("auto", "lora"):
        raise RecipeError(f"peft.method is {recipe.peft.method}; products of LoRA alone are averaged here")
    parts = deal_to_clients([e.stratum for e in training.examples], clients, skew, training.seed)
    epochs = max(1, recipe.training.num_train_epochs // rounds)
    local = recipe.model_copy(
        update={
            "training": recipe.training.model_copy(update={"num_train_epochs": epochs, "contrastive_epochs": 0})
        }
    )
    job = replace(training.job, source=replace(training.job.source, recipe=local))
    network = new_network(job, "lora", training.seed)
    shares = [len(rows) / len(training.train) for rows in parts]
    told: list[Round] = []
    for number in range(1, rounds + 1):
        began = copied(network.parameters())
        learned = []
        for k, rows in enumerate(parts):
            _load(network, began)
            client = replace(
                training,
                job=job,
                examples=[training.examples[i] for i in rows],
                train=[training.train[i] for i in rows],
                validation=(),
                checkpoints=None,
                seed=training.seed + number * clients + k,
                stage=f"round {number} client {k + 1}",
            )
            descend_from(network, client)
            learned.append(copied(network.parameters()))
        lost = _load_average(network, learned, shares)
        score = 0.0
        if training.validation:
            found = Candidate("lora", network).predict(job, training.validation)
            score = macro_f1(found, training.validation, job.labels)
        told.append(Round(number, score, lost))
    return Candidate("lora", network), told


def _load(network: Network, weights: dict[str, torch.Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in network.parameters().items():
            parameter.copy_(weights[name])


def _load_average(network: Network, learned: Sequence[dict[str, torch.Tensor]], shares: Sequence[float]) -> float:
    """Set the network to the average; gives the largest share that was lost at a site."""
    import torch

    mean: dict[str, Any] = {}
    lost = 0.0
    for name in learned[0]:
        if ".lora_A." in name:
            other = name.replace(".lora_A.", ".lora_B.")
            pairs = [(one[name].cpu().numpy(), one[other].cpu().numpy()) for one in learned]
            a, b, cut = average_products(pairs, shares, pairs[0][0].shape[0])
            mean[name], mean[other] = torch.from_numpy(a), torch.from_numpy(b)
            lost = max(lost, cut)
        elif ".lora_B." not in name:
            mean[name] = sum(one[name] * share for one, share in zip(learned, shares, strict=True))
    _load(network, mean)
    return lost
