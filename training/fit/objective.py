"""What a step of training lowers: cross entropy, with mixed rows, weights, and a pull towards another domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rootstock.training.data.encoding import IGNORED
from rootstock.training.fit.adaptation import DomainClassifier, coral
from rootstock.training.fit.augmentation import hide_tokens, mixing
from rootstock.training.fit.contrastive import supervised_contrast
from rootstock.training.network.inputs import InputBatch, Inputs
from rootstock.training.network.network import Network
from rootstock.training.recipe.recipe import Recipe

if TYPE_CHECKING:
    import torch


class Objective:
    """The loss of a step. `target` are unlabelled rows of another domain, where the recipe names some."""

    def __init__(
        self, recipe: Recipe, labels: int, network: Network, train: Inputs, target: Inputs | None
    ) -> None:
        import torch

        self._recipe = recipe
        self._network = network
        self._target = target
        self._weights: torch.Tensor | None = None
        if recipe.training.class_weights == "balanced":
            counts = torch.bincount(torch.tensor(train.targets), minlength=labels).float()
            present = (counts > 0).sum()
            self._weights = (counts.sum() / (present * counts.clamp(min=1))).to(train.device)
        self._domains: DomainClassifier | None = None
        if recipe.domain_adaptation is not None and recipe.domain_adaptation.method == "dann":
            self._domains = DomainClassifier(network.spec.hidden_size, train.device)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What trains beside the network, and is thrown away after."""
        if self._domains is None:
            return {}
        return {f"domains.{name}": p for name, p in self._domains.network.named_parameters()}

    def __call__(self, batch: InputBatch, done: float) -> torch.Tensor:
        """The loss of a batch when a share of all steps is done."""
        if self._recipe.augmentation.token_dropout:
            batch = hide_tokens(batch, self._recipe.augmentation.token_dropout)
        if self._network.head is None:
            return self._cross_entropy(self._network.logits(batch).flatten(0, 1), batch.targets.flatten())
        embedded = self._network.embed(batch)
        loss = self._text_loss(embedded, batch.targets)
        settings = self._recipe.training
        if settings.contrastive_weight:
            contrast = supervised_contrast(embedded, batch.targets, settings.contrastive_temperature)
            loss = loss + settings.contrastive_weight * contrast
        if self._target is not None:
            loss = loss + self._adaptation(embedded, len(batch.targets), done)
        return loss

    def _text_loss(self, embedded: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        from torch import nn
        from torch.nn.functional import normalize

        head = cast("nn.Linear", self._network.head)
        alpha = self._recipe.augmentation.mixup_alpha
        if not alpha:
            return self._cross_entropy(head(embedded), targets)
        share, others = mixing(len(targets), alpha)
        others = others.to(targets.device)
        logits = head(normalize(share * embedded + (1 - share) * embedded[others], dim=-1))
        return share * self._cross_entropy(logits, targets) + (1 - share) * self._cross_entropy(
            logits, targets[others]
        )

    def _cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        smoothing = self._recipe.training.label_smoothing_factor
        return cross_entropy(
            logits, targets, weight=self._weights, ignore_index=IGNORED, label_smoothing=smoothing
        )

    def _adaptation(self, embedded: torch.Tensor, rows: int, done: float) -> torch.Tensor:
        import torch

        settings, target = self._recipe.domain_adaptation, cast(Inputs, self._target)
        chosen = torch.randint(len(target), (rows,)).tolist()
        others = self._network.embed(target.batch(chosen))
        if self._domains is not None:
            loss = self._domains.loss(embedded, others, done)
        else:
            loss = coral(embedded, others)
        return loss * (1.0 if settings is None else settings.weight)
