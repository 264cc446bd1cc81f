"""Define what the sampler needs of a constraint: the tokens that may come next."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


class TokenConstraint(Protocol):
    """The state of one sequence under a constraint. Only one thread at a time uses it.

    The methods raise EngineError if the constraint cannot be followed further.
    """

    @property
    def ended(self) -> bool:
        """Tell whether nothing but the model's end may follow."""
        ...

    def allowed(self) -> Mask:
        """Return the tokens that may come next: (vocabulary,). The model's ends are in it where it may end."""
        ...

    def accept(self, token: int) -> None:
        """Take the sequence's next token, one of the allowed ones."""
        ...
