"""Passes an input without numbers through a trunk, on torch's meta device, to see the shapes of its states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rootstock.adapters.foundation.files import FoundationError

if TYPE_CHECKING:
    from torch import nn

# No other axis of a trunk has a length of which this prime is a factor, except by chance.
_ROWS = 13


@dataclass(frozen=True)
class TrunkPass:
    """The shapes in one pass: of the last hidden state without its rows, and of what each module reads.

    The hidden state is (tokens, width), or (width, height, width of the grid) of a trunk of convolutions. `read`
    is in the order in which the pass calls the modules.
    """

    hidden: tuple[int, ...]
    read: Mapping[str, tuple[int, ...]]

    @property
    def tokens(self) -> int:
        """Return the number of tokens or places of the last hidden state."""
        return self.hidden[0] if len(self.hidden) == 2 else self.hidden[1] * self.hidden[2]

    @property
    def width(self) -> int:
        """Return the width of the last hidden state."""
        return self.hidden[-1] if len(self.hidden) == 2 else self.hidden[0]

    def reads_rows(self, module: str) -> bool:
        """Return whether the pass calls a module, with states that each belong to one row.

        A module is not called if another one computes with its weights, as torch's multi-head attention does.
        The states of a window of an image belong to the image's row.
        """
        return module in self.read and self.read[module][0] % _ROWS == 0

    def reads_tokens(self, module: str) -> bool:
        """Return whether the pass calls a module with states of the shape (rows, tokens, width)."""
        shape = self.read.get(module, ())
        return len(shape) == 3 and shape[0] == _ROWS


def pass_of(trunk: nn.Module, shape: tuple[int, ...], name: str) -> TrunkPass:
    """Return the pass of a batch of inputs of a shape; `name` is the foundation's.

    Raise FoundationError if the trunk does not take that shape.
    """
    import torch

    read: dict[str, tuple[int, ...]] = {}
    # Each hook keeps the first state that its module reads.
    handles = [
        module.register_forward_pre_hook(lambda _, states, module=part: _keep(read, module, states))
        for part, module in trunk.named_modules()
    ]
    model: Any = trunk
    try:
        # The input is on the meta device, and so is all that depends on it. The default device stays as it is,
        # because BEiT caches its table of relative positions for all models of the process.
        with torch.no_grad():
            output = model(**{model.main_input_name: torch.empty(_ROWS, *shape, device="meta")})
    except (ValueError, RuntimeError) as error:
        raise FoundationError(
            f"{name}: the model does not take inputs of the shape {shape}, which the config of its processor "
            f"states: {error}; correct the processor's size or choose the model that belongs to it"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    return TrunkPass(tuple(output.last_hidden_state.shape[1:]), read)


def _keep(read: dict[str, tuple[int, ...]], module: str, states: tuple[Any, ...]) -> None:
    if states and hasattr(states[0], "shape"):
        read.setdefault(module, tuple(states[0].shape))
