"""Federated training: clients train on their rows in rounds, and their adapters are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.errors import DataError, RecipeError
from rootstock.training.fit.candidate import Candidate, descend_from
from rootstock.training.fit.descent import copy_of
from rootstock.training.fit.plan import TrainingPlan, TrainingRows
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.network.construction import new_network
from rootstock.training.network.network import Network

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Round:
    """A round of federated training.

    `validation` is the score of the averaged adapter, `lost` the largest share of a site's averaged change that
    its rank could not hold.
    """

    number: int
    validation: float
    lost: float


def average_products(
    pairs: Sequence[tuple[Array, Array]], shares: Sequence[float], rank: int
) -> tuple[Array, Array, float]:
    """Return A (rank, in) and B (out, rank) whose product is nearest to the weighted mean of the products B·A.

    `pairs` are (r, in) and (out, r). Clients learn products, and the product of mean factors is not the mean
    product (Sun et al., FFA-LoRA, 2024). Stacked factors, of rank Σ r, give the mean exactly, and its leading
    singular directions stay. The third value is the Frobenius norm of the rest ÷ that of the mean.
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
    """Return the positions of each client's rows.

    Rows are dealt evenly or, with `skew`, each label by a Dirichlet distribution: the smaller `skew` is, the
    fewer labels a client has (Hsu et al., 2019). Raise DataError if a client gets no row.
    """
    chance = np.random.default_rng(seed)
    hands: list[list[int]] = [[] for _ in range(clients)]
    for label in sorted(set(targets)):
        rows = [i for i, target in enumerate(targets) if target == label]
        chance.shuffle(rows)
        shares = chance.dirichlet([skew] * clients) if skew is not None else np.full(clients, 1 / clients)
        cuts = np.round(np.cumsum(shares)[:-1] * len(rows)).astype(int)
        start = int(chance.integers(clients)) if skew is None else 0
        for k, part in enumerate(np.split(np.array(rows), cuts)):
            hands[(k + start) % clients].extend(int(i) for i in part)
    if empty := [k for k, rows in enumerate(hands) if not rows]:
        raise DataError(f"client {empty[0] + 1} of {clients} gets no row; use fewer clients or a larger skew")
    return [sorted(rows) for rows in hands]


def federate(
    rows: TrainingRows, plan: TrainingPlan, clients: int, rounds: int, skew: float | None
) -> tuple[Candidate, list[Round]]:
    """Train LoRA by simulated clients: FedAvg (McMahan et al., 2017) over products, and over heads.

    In each round a client trains from the averaged adapter, for the recipe's epochs ÷ rounds, at least one.
    """
    method = plan.network.peft.method
    if method not in ("auto", "lora"):
        raise RecipeError(f"peft.method: {method}; only products of LoRA are averaged; set lora")
    parts = deal_to_clients([e.stratum for e in rows.examples], clients, skew, plan.seed)
    local = _local_plan(plan, rounds)
    network = new_network(plan.network, "lora", plan.seed, plan.encoder.device)
    shares = [len(part) / len(rows.train) for part in parts]
    validation = plan.encoder.inputs(rows.validation)
    history: list[Round] = []
    for number in range(1, rounds + 1):
        start = copy_of(network.parameters())
        learned = []
        for k, part in enumerate(parts):
            _load(network, start)
            seed = plan.seed + number * clients + k
            client = replace(local, seed=seed, stage=f"round {number} client {k + 1}")
            descend_from(network, replace(rows.part(part), validation=()), client)
            learned.append(copy_of(network.parameters()))
        lost = _load_average(network, learned, shares)
        score = 0.0
        if rows.validation:
            outputs = Candidate("lora", network).predict(validation)
            score = macro_f1(outputs, rows.validation, plan.encoder.labels)
        history.append(Round(number, score, lost))
    return Candidate("lora", network), history


def _local_plan(plan: TrainingPlan, rounds: int) -> TrainingPlan:
    """Return the plan of a client in one round: by cross entropy, and without checkpoints."""
    training = plan.settings.training
    epochs = max(1, training.num_train_epochs // rounds)
    short = training.model_copy(update={"num_train_epochs": epochs, "contrastive_epochs": 0})
    return replace(plan, settings=replace(plan.settings, training=short), checkpoints=None)


def _load(network: Network, weights: dict[str, torch.Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in network.parameters().items():
            parameter.copy_(weights[name])


def _load_average(network: Network, learned: Sequence[dict[str, torch.Tensor]], shares: Sequence[float]) -> float:
    """Set the network to the average; return the largest share that was lost at a site."""
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
