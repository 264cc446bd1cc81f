"""The loss of a training step: that of the problem; for classes also mixup, weights and domain adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rootstock.training.data.encoding import IGNORED
from rootstock.training.fit.adaptation import DomainClassifier, coral
from rootstock.training.fit.augmentation import hide_tokens, mixing
from rootstock.training.fit.contrastive import supervised_contrast
from rootstock.training.fit.plan import FitSettings
from rootstock.training.network.inputs import InputBatch, Inputs, TokenBatch
from rootstock.training.network.network import Network
from rootstock.training.problems.problem import Problem, ValueProblem

if TYPE_CHECKING:
    import torch


class Objective:
    """The loss of a step. `target` are unlabelled rows of another domain, if the recipe names any.

    `units` are those in which the head has to answer while it trains.
    """

    def __init__(
        self, settings: FitSettings, problem: Problem, network: Network, train: Inputs, target: Inputs | None
    ) -> None:
        import torch

        self._settings = settings
        self._network = network
        self._target = target
        self._problem = problem
        self.units = problem.units(train.rows)
        self._weights: torch.Tensor | None = None
        if settings.training.class_weights == "balanced":
            counts = torch.bincount(torch.tensor(train.targets), minlength=len(problem.labels)).float()
            present = (counts > 0).sum()
            self._weights = (counts.sum() / (present * counts.clamp(min=1))).to(train.device)
        self._domains: DomainClassifier | None = None
        adaptation = settings.domain_adaptation
        if adaptation is not None and adaptation.method == "dann":
            self._domains = DomainClassifier(network.spec.hidden_size, train.device)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that train beside the network and are dropped afterwards."""
        if self._domains is None:
            return {}
        return {f"domains.{name}": p for name, p in self._domains.network.named_parameters()}

    def __call__(self, batch: InputBatch, done: float) -> torch.Tensor:
        """Return the loss of a batch; `done` is the share of all steps that are done."""
        if self._settings.augmentation.token_dropout:
            batch = hide_tokens(cast(TokenBatch, batch), self._settings.augmentation.token_dropout)
        if self._network.head is None:
            return self._cross_entropy(self._network.logits(batch).flatten(0, 1), batch.targets.flatten())
        embeddings = self._network.embed(batch)
        loss = self._label_loss(embeddings, batch)
        settings = self._settings.training
        if settings.contrastive_weight:
            contrast = supervised_contrast(embeddings, batch.targets, settings.contrastive_temperature)
            loss = loss + settings.contrastive_weight * contrast
        if self._target is not None:
            loss = loss + self._adaptation(embeddings, len(batch.targets), done)
        return loss

    def _label_loss(self, embeddings: torch.Tensor, batch: InputBatch) -> torch.Tensor:
        from torch import nn
        from torch.nn.functional import normalize

        head = cast("nn.Linear", self._network.head)
        alpha, targets = self._settings.augmentation.mixup_alpha, batch.targets
        if isinstance(self._problem, ValueProblem):
            return self._problem.value_loss(head(embeddings), targets, self.units)
        if batch.mixed is not None:
            return self._mixed_loss(head(embeddings), targets, *batch.mixed)
        if not alpha:
            return self._cross_entropy(head(embeddings), targets)
        share, others = mixing(len(targets), alpha)
        others = others.to(targets.device)
        logits = head(normalize(share * embeddings + (1 - share) * embeddings[others], dim=-1))
        return share * self._cross_entropy(logits, targets) + (1 - share) * self._cross_entropy(
            logits, targets[others]
        )

    def _mixed_loss(
        self, logits: torch.Tensor, targets: torch.Tensor, others: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of rows that have a second class, with its share of each row."""
        import torch

        losses = [
            (1 - share) * self._cross_entropy(row[None], one[None])
            + share * self._cross_entropy(row[None], two[None])
            for row, one, two, share in zip(logits, targets, others, shares, strict=True)
        ]
        return torch.stack(losses).mean()

    def _cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        smoothing = self._settings.training.label_smoothing_factor
        return cross_entropy(
            logits, targets, weight=self._weights, ignore_index=IGNORED, label_smoothing=smoothing
        )

    def _adaptation(self, embeddings: torch.Tensor, rows: int, done: float) -> torch.Tensor:
        import torch

        adaptation, target = self._settings.domain_adaptation, cast(Inputs, self._target)
        positions = torch.randint(len(target), (rows,)).tolist()
        others = self._network.embed(target.batch(positions))
        if self._domains is not None:
            loss = self._domains.loss(embeddings, others, done)
        else:
            loss = coral(embeddings, others)
        return loss * (1.0 if adaptation is None else adaptation.weight)
