"""Apply a constraint of the foundation's vocabulary to an adapter that adds tokens."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rootstock.service.engine.generate.constraint.token_constraint import Mask, TokenConstraint


class WiderMask:
    """A constraint that allows none of the tokens that an adapter adds, except its end. It is a TokenConstraint.

    A grammar is compiled for the foundation's tokens, and a text that it allows can be written with these alone.
    An adapter with an end was trained to end its answers there, so it may follow wherever an end of the
    foundation may, and nowhere else.
    """

    def __init__(
        self, constraint: TokenConstraint, known: Iterable[int], own: Iterable[int], vocabulary: int
    ) -> None:
        """Take the foundation's ends as `known`, and the adapter's as `own`. None of the latter is in the former.

        Ids beyond the mask that they belong to, which no logit has, are ignored.
        """
        self._constraint = constraint
        self._vocabulary = vocabulary
        self._known = tuple(known)
        self._own = frozenset(token for token in own if token < vocabulary)
        self._places = np.array(sorted(self._own), dtype=np.intp)

    @property
    def ended(self) -> bool:
        """Tell whether nothing but the model's end may follow."""
        return self._constraint.ended

    def allowed(self) -> Mask:
        """Return the tokens that may come next: (vocabulary,)."""
        inner = self._constraint.allowed()
        mask = np.pad(inner, (0, self._vocabulary - len(inner)))
        # An end in the padding of the foundation's vocabulary, or in its words, is also no part of a text.
        mask[self._places] = self._end(inner) is not None
        return mask

    def accept(self, token: int) -> None:
        """Take the sequence's next token. The constraint takes an end of the adapter as one of the foundation."""
        if token in self._own and (end := self._end(self._constraint.allowed())) is not None:
            token = end
        self._constraint.accept(token)

    def _end(self, mask: Mask) -> int | None:
        return next((token for token in self._known if token < len(mask) and mask[token]), None)
