"""The share of a descent's change that is kept: weights on the line from its start to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rootstock.training.network.network import Network

if TYPE_CHECKING:
    import torch

STRENGTHS = (0.25, 0.5, 0.75, 1.0)


class Line:
    """The line from a network's weights at the `start` of a descent, by name, to those it has now.

    LoRA's A stays at its end, so that a strength of 0.5 leaves half of the change BA. B moves. The head moves
    too, unless `refit` fits it again after each move. Wortsman et al., "Robust fine-tuning of zero-shot models"
    (WiSE-FT), 2022, section 3.
    """

    def __init__(
        self, network: Network, start: Mapping[str, torch.Tensor], refit: Callable[[], None] | None = None
    ) -> None:
        self._network = network
        self._refit = refit
        self._at = 1.0
        self._ends = {
            name: (start[name], parameter.detach().clone())
            for name, parameter in network.parameters().items()
            if ".lora_A." not in name and not (refit and name.startswith("head."))
        }

    def move(self, strength: float) -> None:
        """Set the network's weights to those at `strength`: 0 is the start, 1 the end."""
        import torch

        if strength == self._at:
            return
        self._at = strength
        parameters = self._network.parameters()
        with torch.no_grad():
            for name, (start, end) in self._ends.items():
                parameters[name].copy_(end if strength == 1 else torch.lerp(start, end, strength))
        if self._refit is not None:
            self._refit()
