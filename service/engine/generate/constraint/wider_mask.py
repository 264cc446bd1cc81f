"""Apply a constraint of the foundation's vocabulary to an adapter that adds tokens."""

from __future__ import annotations

import numpy as np

from rootstock.service.engine.generate.constraint.token_constraint import Mask, TokenConstraint


class WiderMask:
    """A constraint that allows none of the tokens that an adapter adds. It is a TokenConstraint.

    A grammar is compiled for the foundation's tokens, and a text that it allows can be written with these alone.
    A constraint may also know all tokens.
    """

    def __init__(self, constraint: TokenConstraint, vocabulary: int) -> None:
        self._constraint = constraint
        self._vocabulary = vocabulary

    @property
    def ended(self) -> bool:
        """Tell whether nothing but the model's end may follow."""
        return self._constraint.ended

    def allowed(self) -> Mask:
        """Return the tokens that may come next: (vocabulary,)."""
        mask = self._constraint.allowed()
        return np.pad(mask, (0, self._vocabulary - len(mask)))

    def accept(self, token: int) -> None:
        """Take the sequence's next token."""
        self._constraint.accept(token)
