"""Apply the rules that an encoder–decoder checkpoint has for the tokens of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rootstock.adapters.language_model import AnswerRules
from rootstock.service.engine.generate.constraint.token_constraint import Mask


class RuleConstraint:
    """The tokens that a checkpoint's rules allow next in one answer. It is a TokenConstraint.

    The result is that of transformers' logits processors of the same names: ForcedBOSToken, ForcedEOSToken,
    NoBadWords and SuppressTokens, NoRepeatNGram, MinLength. A forced token comes before the other rules.
    """

    # The rules never end an answer; a forced end is a token like others.
    ended = False

    def __init__(
        self, rules: AnswerRules, ends: Iterable[int], vocabulary: int, start: Sequence[int], most: int | None
    ) -> None:
        """Take the tokens that end an answer as `ends`, the decoder's before it, and the limit of its length."""
        self._rules = rules
        self._vocabulary = vocabulary
        self._ends = np.array(sorted(ends), dtype=np.intp)
        self._never = np.array(rules.suppressed, dtype=np.intp)
        self._tokens = list(start)
        self._begin = len(self._tokens)
        self._most = most

    def allowed(self) -> Mask:
        """Return which tokens (vocabulary,) may follow."""
        rules, length = self._rules, len(self._tokens) - self._begin
        if self._most is not None and length == self._most - 1 and rules.last is not None:
            return self._only(rules.last)
        if not length and rules.first is not None:
            return self._only(rules.first)
        mask = np.ones(self._vocabulary, dtype=np.bool_)
        mask[self._never] = False
        mask[self._repeating()] = False
        if len(self._tokens) < rules.least:
            mask[self._ends] = False
        return mask

    def accept(self, token: int) -> None:
        """Take the answer's next token."""
        self._tokens.append(token)

    def _only(self, token: int) -> Mask:
        mask = np.zeros(self._vocabulary, dtype=np.bool_)
        mask[token] = True
        return mask

    def _repeating(self) -> npt.NDArray[np.intp]:
        """Return the tokens that would complete a run which has occurred before."""
        size = self._rules.no_repeat_ngram
        if not size or len(self._tokens) < size:
            return np.zeros(0, dtype=np.intp)
        ids = np.asarray(self._tokens, dtype=np.intp)
        windows = np.lib.stride_tricks.sliding_window_view(ids, size)
        same = (windows[:, :-1] == ids[len(ids) - size + 1 :]).all(axis=1)
        repeating: npt.NDArray[np.intp] = windows[same, -1]
        return repeating
