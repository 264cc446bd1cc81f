"""The specification of a network: a foundation, a task, its labels and PEFT's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec, TaskClass
from rootstock.adapters.tasks import TaskSpec
from rootstock.training.recipe.recipe import Peft

_PEFT = Peft()


class InitialAdapter(NamedTuple):
    """The folder of an adapter to start from; `origin` names the recipe's key for messages."""

    folder: Path
    origin: str


@dataclass(frozen=True)
class NetworkSpec:
    """The specification of a network, without its weights.

    `sites` are the trunk's linear layers that an adapter changes. `dropout` None leaves the foundation's rates.
    `save_dtype` is the number type of the tensors in its files. `exact_head` saves those of a linear head as
    float32 all the same: the head of a regression carries the scale of its numbers, which float16 cannot.
    """

    files: FoundationFiles
    foundation: FoundationSpec
    task: TaskSpec
    labels: int
    sites: Sequence[str] = ()
    peft: Peft = _PEFT
    dropout: float | None = None
    initial: InitialAdapter | None = None
    save_dtype: str = "float32"
    exact_head: bool = False

    @property
    def task_class(self) -> TaskClass:
        """The foundation's class for the task."""
        return self.foundation.class_for(self.task.name)

    @property
    def linear_head(self) -> bool:
        """True if a linear head on pooled states is trained, False if the head of the task class is."""
        return self.task.heads[0] == "linear"

    @property
    def modules(self) -> list[str]:
        """The sites by their full names in the task class."""
        return [self.task_class.prefix + site for site in self.sites]
