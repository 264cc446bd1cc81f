"""Choose on how many cores torch computes, by the thread that calls it."""

from __future__ import annotations

import torch


class TorchCores:
    """The cores on which a runner's passes compute.

    libgomp keeps threads for each thread that computes on several cores. Once these are more than the cores, it
    puts them to sleep after each parallel section, and a pass of many small products takes 1.6 times as long. So
    the thread that loads a model computes on one core, and the thread that runs the passes on all.
    """

    def __init__(self, count: int | None) -> None:
        """Take the number of cores; None leaves torch's numbers as they are.

        With a number, the calling thread computes on one core from now on.
        """
        self._count = count
        if count is not None:
            torch.set_num_threads(1)

    def use(self) -> None:
        """Let the calling thread compute on all of these cores."""
        if self._count is not None and torch.get_num_threads() != self._count:
            torch.set_num_threads(self._count)
