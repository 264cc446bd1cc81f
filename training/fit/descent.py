"""The training loop: epochs of steps down a loss, resumed from a checkpoint, ending in the best epoch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from rootstock.training.errors import Diverged
from rootstock.training.fit.checkpoint import Checkpoints, StageState
from rootstock.training.fit.optimizer import layer_of, make_optimizer, rate_schedule, unfreeze
from rootstock.training.network.network import Network
from rootstock.training.recipe.recipe import Training

if TYPE_CHECKING:
    import torch

# The input of a loss: the rows of a classifier's step, or a part of a step of completions.
Part = TypeVar("Part")


class Report(Protocol):
    """A receiver of progress, called after every step.

    It takes the steps done, the steps planned, and a note on the stage. A stage that counts tokens also gives the
    tokens a second so far (`rate`).
    """

    def __call__(self, done: int, total: int, note: str, rate: float = ..., /) -> None: ...


def silent(done: int, total: int, note: str, rate: float = 0.0, /) -> None:
    """Ignore a report of progress."""


class EpochScore(NamedTuple):
    """The score of an epoch's weights on validation rows, the higher the better, and their loss there."""

    score: float
    loss: float | None = None


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows: its mean loss, and the score and loss on validation rows, if any."""

    number: int
    loss: float
    validation: float | None
    validation_loss: float | None = None


@dataclass(frozen=True)
class Fit:
    """The epochs of a stage in order, and the one whose weights the network now has.

    `seconds` is the time of all epochs, also of those before a resume.
    """

    epochs: tuple[Epoch, ...]
    best: Epoch
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class FitStage(Generic[Part]):
    """One stage of training.

    `batches` gives the parts of each step of an epoch. `loss` gives a part's share of the step's loss, from the
    part and the share of all steps that is done; the gradients of a step's parts add up. `score` judges an epoch;
    without it the last epoch counts as the best.
    `also` are parameters that train beside the network. A stage without a score and with an `ema_decay` above 0
    ends with the moving average of the weights. The average begins with the weights before the first step, and
    each step keeps the share `ema_decay` of it. `tokens` counts the tokens of a part, for reports.
    """

    name: str
    epochs: int
    steps: int
    batches: Callable[[torch.Generator], Iterable[Sequence[Part]]]
    loss: Callable[[Part, float], torch.Tensor]
    score: Callable[[], EpochScore] | None = None
    also: dict[str, torch.nn.Parameter] = field(default_factory=dict)
    ema_decay: float = 0.0
    tokens: Callable[[Part], int] | None = None


def descend(
    network: Network,
    stage: FitStage[Part],
    settings: Training,
    seed: int,
    report: Report = silent,
    checkpoints: Checkpoints | None = None,
) -> Fit:
    """Train the network's trainable parameters, and leave it with the weights of the best epoch.

    The best epoch has the highest score; on a tie it is the earlier one. Within `deterministic` the same inputs
    give the same weights, also after a kill and a resume. Raise Diverged if the loss is not a finite number.
    """
    run = _Descent(network, stage, settings, seed, checkpoints)
    while not run.is_done:
        run.epoch(report)
    return run.finish()


class _Descent(Generic[Part]):
    """The descent of one stage: optimiser, schedule, order of rows, and the epochs so far."""

    def __init__(
        self,
        network: Network,
        stage: FitStage[Part],
        settings: Training,
        seed: int,
        checkpoints: Checkpoints | None,
    ) -> None:
        import torch

        self.network, self.stage, self.settings = network, stage, settings
        self.checkpoints = checkpoints
        self.parameters = network.parameters() | stage.also
        self.layer = layer_of(network.spec)
        self.total = stage.steps * stage.epochs
        self.optimizer = make_optimizer(self.parameters, settings, self.layer, network.spec.layers)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, rate_schedule(settings.lr_scheduler_type, self.total, settings.warmup_ratio)
        )
        self.order = torch.Generator().manual_seed(seed)
        self.epochs: list[Epoch] = []
        self.best: Epoch | None = None
        self.seconds = 0.0
        self.best_weights = copy_of(self.parameters)
        # Empty where the stage has no decay.
        self.average = copy_of(self.parameters) if stage.ema_decay else {}
        torch.manual_seed(seed)
        state = None if checkpoints is None else checkpoints.load(stage.name)
        if state is not None:
            self._resume(state)

    @property
    def is_done(self) -> bool:
        """True after the last epoch, or when the patience of early stopping is used up."""
        if len(self.epochs) >= self.stage.epochs:
            return True
        patience = self.settings.early_stopping_patience
        if self.best is None or patience is None or self.stage.score is None:
            return False
        return self.epochs[-1].number - self.best.number >= patience

    def epoch(self, report: Report) -> None:
        """Pass over the rows once, judge the weights, and save a checkpoint."""
        number = len(self.epochs) + 1
        unfreeze(
            self.parameters, number - 1, self.settings.unfreeze_schedule, self.layer, self.network.spec.layers
        )
        self.network.train()
        losses, began, seen = [], time.monotonic(), 0
        for parts in self.stage.batches(self.order):
            losses.append(self._step(parts, number))
            best = (
                "" if self.best is None or self.best.validation is None else f", best {self.best.validation:.3f}"
            )
            state = (self.schedule.last_epoch, self.total, f"{self.stage.name}: epoch {number}{best}")
            if self.stage.tokens is None:
                report(*state)
            else:
                seen += sum(map(self.stage.tokens, parts))
                report(*state, seen / max(1e-9, time.monotonic() - began))
        score, loss = (None, None) if self.stage.score is None else self.stage.score()
        self.epochs.append(Epoch(number, math.fsum(losses) / max(1, len(losses)), score, loss))
        before = None if self.best is None else self.best.validation
        if score is None or before is None or score > before:
            self.best = self.epochs[-1]
            self.best_weights = copy_of(self.average or self.parameters)
        self.seconds += time.monotonic() - began
        if self.checkpoints is not None:
            self.checkpoints.save(self.stage.name, self._state())

    def finish(self) -> Fit:
        """Give the network the weights of the best epoch."""
        import torch

        if self.best is None:
            raise ValueError(f"the stage {self.stage.name} has no epochs")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.best_weights[name])
                parameter.requires_grad_(True)
        self.network.train(False)
        return Fit(tuple(self.epochs), self.best, self.seconds)

    def _step(self, parts: Sequence[Part], epoch: int) -> float:
        import torch

        value = 0.0
        for part in parts:
            with precision(self.settings.bf16, next(iter(self.parameters.values())).device):
                loss = self.stage.loss(part, self.schedule.last_epoch / max(1, self.total))
            value += loss.item()
            if not math.isfinite(value):
                raise Diverged(
                    f"the loss is {value} in epoch {epoch} of stage {self.stage.name}; lower "
                    f"training.learning_rate, which is {self.settings.learning_rate:g}"
                )
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.max_grad_norm)
        self.optimizer.step()
        if self.average:
            average = torch.optim.swa_utils.get_ema_multi_avg_fn(self.stage.ema_decay)  # type: ignore[no-untyped-call]
            average(list(self.average.values()), list(self.parameters.values()), 0)
        self.schedule.step()
        self.optimizer.zero_grad()
        return value

    def _state(self) -> StageState:
        import torch

        tensors = {f"now.{n}": t for n, t in copy_of(self.parameters).items()}
        tensors |= {f"best.{n}": t for n, t in self.best_weights.items()}
        tensors |= {f"average.{n}": t for n, t in self.average.items()}
        state = self.optimizer.state_dict()["state"]
        tensors |= {f"adam.{i}.{k}": torch.as_tensor(v) for i, values in state.items() for k, v in values.items()}
        tensors |= {"rng.order": self.order.get_state(), "rng.torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        best = None if self.best is None else self.best.number
        progress = {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": best,
            "steps": self.schedule.last_epoch,
            "seconds": self.seconds,
        }
        return StageState(tensors, progress)

    def _resume(self, state: StageState) -> None:
        import torch

        tensors, progress = state.tensors, state.progress
        self.epochs = [Epoch(**epoch) for epoch in progress["epochs"]]
        self.best = next((e for e in self.epochs if e.number == progress["best"]), None)
        # A checkpoint of an earlier release has none.
        self.seconds = progress.get("seconds", 0.0)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"now.{name}"])
                self.best_weights[name] = tensors[f"best.{name}"]
            for name, tensor in self.average.items():
                tensor.copy_(tensors[f"average.{name}"])
        moments: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, number, key = name.split(".")
                moments.setdefault(int(number), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.schedule.last_epoch = progress["steps"]
        for group, base in zip(self.optimizer.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = base * self.schedule.lr_lambdas[0](progress["steps"])
        self.order.set_state(tensors["rng.order"])
        torch.set_rng_state(tensors["rng.torch"])
        if "rng.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng.cuda"])


def copy_of(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a copy of weights by name."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Seed torch, and allow only kernels that give the same bits on every run on one machine."""
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


def precision(bf16: bool, device: torch.device) -> Any:
    """Return the context of a forward pass: mixed precision in bfloat16, or none."""
    import torch

    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
