"""Force the tokens of an answer, so that their log-probabilities can be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.service.engine.core.errors import InvalidInput
from rootstock.service.engine.generate.constraint.token_constraint import Mask


class ForcedTokens:
    """The constraint of an answer whose tokens are given. It is a TokenConstraint."""

    ended = False

    def __init__(self, tokens: Sequence[int], vocabulary: int) -> None:
        """Raise InvalidInput for a token outside the vocabulary."""
        for token in tokens:
            if not 0 <= token < vocabulary:
                raise InvalidInput(f"token {token} is not in the vocabulary; ids go from 0 to {vocabulary - 1}")
        self._tokens = tokens
        self._vocabulary = vocabulary
        self._place = 0

    def allowed(self) -> Mask:
        """Return a mask (vocabulary,) of the next given token alone."""
        mask = np.zeros(self._vocabulary, dtype=np.bool_)
        mask[self._tokens[self._place]] = True
        return mask

    def accept(self, token: int) -> None:
        """Go on to the next given token."""
        self._place += 1
