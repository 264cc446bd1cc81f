"""The training loop: AdamW on the LoRA pairs and the head, the best epoch on validation is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.batch import device_of, outputs, pad_id, tensors
from training.encoding import Encoded
from training.evaluate import macro_f1
from training.recipe import Training

if TYPE_CHECKING:
    import torch
    from torch import nn

_MAX_GRADIENT_NORM = 1.0
_EVALUATION_BATCH = 64

# Called after every step with the steps done, the steps planned, and what to show beside them.
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows gave: mean loss, and the F1 on validation that decides."""

    number: int
    loss: float
    validation_f1: float


@dataclass(frozen=True)
class Fit:
    """The epochs of a run, in order, and the one whose weights the model now holds."""

    epochs: tuple[Epoch, ...]
    best: Epoch


def fit(
    model: nn.Module,
    train: Sequence[Encoded],
    validation: Sequence[Encoded],
    labels: Sequence[str],
    settings: Training,
    report: Report,
) -> Fit:
    """Train what is trainable in `model`, and leave it with the weights of the best epoch.

    Best is the highest macro-F1 on `validation` (entity F1 for tokens), the earlier epoch among equals. Call it
    within `deterministic` to get the same weights from the same inputs.
    """
    import torch

    per_epoch = -(-len(train) // settings.per_device_train_batch_size)
    total = per_epoch * settings.num_train_epochs
    optimizer = _optimizer(model, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_then_down(total, settings.warmup_ratio))
    order = torch.Generator().manual_seed(settings.seed)
    epochs: list[Epoch] = []
    best, kept = None, _trainable(model)
    for number in range(1, settings.num_train_epochs + 1):
        loss = 0.0
        for batch in _batches(train, settings.per_device_train_batch_size, order):
            loss += _step(model, batch, optimizer, schedule) * len(batch) / len(train)
            done = schedule.last_epoch
            note = f"epoch {number}" + (f", best validation F1 {best.validation_f1:.3f}" if best else "")
            report(done, total, note)
        score = macro_f1(outputs(model, validation, _EVALUATION_BATCH), validation, labels)
        epochs.append(Epoch(number, loss, score))
        if best is None or score > best.validation_f1:
            best, kept = epochs[-1], _trainable(model)
        patience = settings.early_stopping_patience
        if patience is not None and number - best.number >= patience:
            break
    if best is None:
        raise ValueError("num_train_epochs is 0; there is nothing to keep")
    model.load_state_dict(kept, strict=False)
    return Fit(tuple(epochs), best)


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Seed torch, and let it use only kernels that give the same bits on every run of one machine."""
    # cuBLAS reads this once, when CUDA starts; without it torch refuses its matrix products.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _batches(examples: Sequence[Encoded], size: int, order: torch.Generator) -> Iterator[list[Encoded]]:
    import torch

    shuffled = torch.randperm(len(examples), generator=order).tolist()
    for start in range(0, len(shuffled), size):
        yield [examples[i] for i in shuffled[start : start + size]]


def _step(
    model: nn.Module,
    batch: Sequence[Encoded],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    import torch

    model.train()
    loss: torch.Tensor = model(**tensors(batch, pad_id(model), device_of(model))).loss
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], _MAX_GRADIENT_NORM)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return loss.item()


def _optimizer(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """AdamW with the head's own learning rate, and no decay on biases and norms."""
    import torch

    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = settings.learning_rate if ".lora_" in name else settings.head_learning_rate
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate or settings.learning_rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
    )


def _warm_up_then_down(total: int, warmup_ratio: float) -> Callable[[int], float]:
    warm_up = round(total * warmup_ratio)

    def factor(step: int) -> float:
        # The first step counts as one, so that it trains too.
        return min((step + 1) / (warm_up + 1), (total - step) / max(1, total - warm_up))

    return factor


def _trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
