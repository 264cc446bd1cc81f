"""Choose the next token of each sequence from the model's logits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.service.engine.core.errors import EngineError, RunnerFault
from rootstock.service.engine.generate.categorical import Ids, Weights, draw, largest, nucleus
from rootstock.service.engine.generate.constraint.token_constraint import Mask, TokenConstraint
from rootstock.service.engine.generate.sampling_options import SamplingOptions

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A chosen token, its log probability, and the most likely tokens with theirs, the most likely first.

    Log probabilities are those of the model: the log-softmax of its logits before any mask, penalty, bias or
    temperature. They are None and empty unless the options ask for them. `top` leaves out impossible tokens.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class TokenSampler:
    """The state of one sequence, from which its next token is chosen.

    The logits pass through these steps, in this order:

    1. the mask of tokens that the constraint allows;
    2. the repetition penalty, on tokens of the prompt and of the output (Keskar et al. 2019);
    3. the presence and frequency penalties, on tokens of the output (OpenAI's formula), and the logit bias;
    4. the ban on ends until `min_tokens` tokens are out, also with `ignore_eos`, unless the constraint allows
       nothing else;
    5. temperature, top-k, top-p (Holtzman et al. 2020) and min-p (Nguyen et al. 2024). vLLM puts min-p first.

    The steps and their order are those of transformers, which has no presence and frequency penalties. Tokens as
    likely as the last of the top k are kept too. Of equally likely tokens at the edge of top-p, those with the
    lowest ids are kept. Temperature 0 takes the best token after step 4, of equals the one with the lowest id.

    One uniform number for each token picks it from the cumulative probabilities of the tokens that are left, in
    the order of their ids. In an order by probability, a tiny change of the logits could swap two tokens.
    The numbers come from PCG64. With a seed, tokens depend on the logits, the options and the seed alone.
    `choose` changes no state: until `accept` it chooses the same token for the same logits.
    """

    def __init__(
        self,
        options: SamplingOptions,
        prompt_ids: Sequence[int],
        eos_ids: Iterable[int],
        vocabulary: int,
        constraint: TokenConstraint | None = None,
    ) -> None:
        """Take options that are checked for this vocabulary. Ids beyond it, which no logit has, are ignored."""
        self.options = options
        self.vocabulary = vocabulary
        self._constraint = constraint
        self._generated = 0
        self._counts: Counter[int] = Counter()
        eos = {token for token in eos_ids if token < vocabulary}
        self._final = options.stop_ids if options.ignore_eos else options.stop_ids | eos
        self._ends = np.array(sorted(options.stop_ids | eos), dtype=np.intp)
        self._seen: Mask | None = None
        if options.repetition_penalty != 1:
            prompt = np.asarray(prompt_ids, dtype=np.intp)
            self._seen = np.zeros(vocabulary, dtype=np.bool_)
            self._seen[prompt[prompt < vocabulary]] = True
        # The sum of a token's bias and penalties. It changes only where a token is accepted.
        self._offsets: Array | None = None
        if options.logit_bias or options.presence_penalty or options.frequency_penalty:
            self._offsets = np.zeros(vocabulary, dtype=np.float32)
            for token, bias in options.logit_bias.items():
                self._offsets[token] = bias
        self._generator: np.random.Generator | None = None
        self._uniform = 0.0
        if options.temperature > 0:
            # PCG64 takes no negative seed.
            seed = None if options.seed is None else options.seed % 2**64
            self._generator = np.random.Generator(np.random.PCG64(seed))
            self._uniform = self._generator.random()

    def choose(self, logits: Array) -> TokenChoice:
        """Return the next token for logits of shape (vocabulary,), among those that the constraint allows.

        Raise RunnerFault if a logit is NaN or infinity, or if no token is left, and the error of a constraint
        that cannot be followed. The logits do not change.
        """
        choice = choose_all([self], logits[None])[0]
        if isinstance(choice, EngineError):
            raise choice
        return choice

    def distribution(self, logits: Array) -> tuple[Ids, Weights]:
        """Return the ids of the tokens that `choose` draws from, in ascending order, and their probabilities.

        Raise RunnerFault as `choose` does.
        """
        _check_finite(float(logits.max()))
        ids, weights = self._candidates(self._scores(logits, self._allowed()))
        return ids, weights / weights.sum()

    def accept(self, token: int) -> None:
        """Take the token as the sequence's next one, whether it was chosen here or not.

        Raise the error of a constraint that cannot be followed.
        """
        self._generated += 1
        if self._constraint is not None:
            self._constraint.accept(token)
        if self._generator is not None:
            self._uniform = self._generator.random()
        if self._seen is not None:
            self._seen[token] = True
        if self._offsets is not None:
            self._counts[token] += 1
            options = self.options
            penalty = options.presence_penalty + options.frequency_penalty * self._counts[token]
            self._offsets[token] = options.logit_bias.get(token, 0.0) - penalty

    def finish_reason(self, token: int) -> FinishReason | None:
        """Return why the sequence ends with this token, the last that was accepted, or None if it goes on."""
        if self.is_end(token) or (self._constraint is not None and self._constraint.ended):
            return "stop"
        most = self.options.max_tokens
        return "length" if most is not None and self._generated >= most else None

    def is_end(self, token: int) -> bool:
        """Tell whether the token only ends the sequence and is no part of its text."""
        return token in self._final

    @property
    def _edits(self) -> bool:
        """Tell whether penalties, a bias or the ban on ends change the next token's logits."""
        return self._seen is not None or self._offsets is not None or self._bans

    @property
    def _bans(self) -> bool:
        return self._generated < self.options.min_tokens

    def _allowed(self) -> Mask | None:
        """Return the tokens that the constraint allows; None without a constraint."""
        return None if self._constraint is None else self._constraint.allowed()

    def _choose(self, logits: Array, best: int) -> int:
        """Return the next token. `best` is the model's most likely one."""
        mask = self._allowed()
        if self._generator is None and mask is None and not self._edits:
            return best
        ids, weights = self._candidates(self._scores(logits, mask))
        return int(ids[draw(weights, self._uniform)])

    def _scores(self, logits: Array, mask: Mask | None) -> Array:
        """Return the logits after the mask, the penalties, the bias and the ban on ends, in float32."""
        if mask is None and not self._edits:
            return logits
        scores = logits.copy() if mask is None else np.where(mask, logits, np.float32(-np.inf))
        if self._seen is not None:
            ids = np.flatnonzero(self._seen)
            seen, penalty = scores[ids], self.options.repetition_penalty
            with np.errstate(over="ignore"):
                scores[ids] = np.where(seen < 0, seen * penalty, seen / penalty)
        if self._offsets is not None:
            scores += self._offsets
        if self._bans and not (mask is not None and _only(self._ends, mask)):
            scores[self._ends] = -np.inf
        return scores

    def _candidates(self, scores: Array) -> tuple[Ids, Weights]:
        """Return the ids of the tokens that are left, in ascending order, and their weights: 1 for the best."""
        best = int(scores.argmax())
        most = float(scores[best])
        if most == -math.inf:
            raise RunnerFault(
                "no token is left to choose: the model excludes all that the constraint or min_tokens allows;"
                " loosen the constraint or lower min_tokens"
            )
        _check_finite(most)
        options = self.options
        if options.temperature == 0:
            return np.array([best]), np.ones(1)
        ids: Ids | None = None
        if 0 < options.top_k < len(scores):
            ids = largest(scores, options.top_k)
            scores = scores[ids]
        weights = scores.astype(np.float64)
        weights -= most
        # A tiny temperature makes a quotient overflow to minus infinity, whose weight is rightly 0.
        with np.errstate(over="ignore"):
            weights /= options.temperature
        np.exp(weights, out=weights)
        # The best token weighs 1, so min_p is the least weight.
        least = options.min_p or math.ulp(0.0)
        if options.top_p < 1:
            kept = nucleus(weights, options.top_p)
            kept = kept[weights[kept] >= least]
        else:
            kept = np.flatnonzero(weights >= least)
        return kept if ids is None else ids[kept], weights[kept]


def choose_all(samplers: Sequence[TokenSampler], logits: Array) -> list[TokenChoice | EngineError]:
    """Return the next token of each sequence, or the error of its row, without an effect on other rows.

    `logits` has the shape (sequences, tokens) and is in float32. Tokens beyond a sampler's vocabulary are those
    of other adapters; their logits are minus infinity, and no choice reads them. A row's result equals that of
    `choose` on that row. Raise ValueError if the shape does not fit the samplers.
    """
    widest = max((sampler.vocabulary for sampler in samplers), default=logits.shape[1])
    if logits.shape[0] != len(samplers) or logits.shape[1] < widest:
        expected = (len(samplers), widest)
        raise ValueError(f"the logits have the shape {logits.shape}; expected (sequences, tokens) {expected}")
    best = logits.argmax(axis=1)
    most = logits[np.arange(len(samplers)), best]
    asking = [i for i, of in enumerate(samplers) if of.options.logprobs is not None and np.isfinite(most[i])]
    rows = [logits[i, : samplers[i].vocabulary] for i in asking]
    totals = dict(zip(asking, _log_totals(rows, most[asking]), strict=True))
    choices: list[TokenChoice | EngineError] = []
    for i, sampler in enumerate(samplers):
        try:
            _check_finite(float(most[i]))
            own = logits[i, : sampler.vocabulary]
            token = sampler._choose(own, int(best[i]))
            choices.append(_report(token, own, totals.get(i), sampler.options.logprobs))
        except EngineError as error:
            choices.append(error)
    return choices


def _only(ids: Ids, mask: Mask) -> bool:
    """Tell whether a mask allows no other tokens than these."""
    return int(np.count_nonzero(mask)) == int(np.count_nonzero(mask[ids]))


def _report(token: int, logits: Array, total: float | None, alternatives: int | None) -> TokenChoice:
    """Return the choice with the log probabilities asked for. `total` is as of `_log_totals`."""
    if total is None:
        return TokenChoice(token)
    top: tuple[tuple[int, float], ...] = ()
    if alternatives:
        ids = largest(logits, alternatives)
        ids = ids[np.argsort(-logits[ids], kind="stable")][:alternatives]
        top = tuple((int(i), float(logits[i]) - total) for i in ids if logits[i] > -np.inf)
    return TokenChoice(token, float(logits[token]) - total, top)


def _log_totals(rows: Sequence[Array], most: Array) -> list[float]:
    """Return the log of the sum of exp(logits) of each of the rows, whose largest logits are `most`."""
    with np.errstate(over="ignore"):
        return [
            float(top) + math.log(np.exp(row - top).sum(dtype=np.float64))
            for row, top in zip(rows, most, strict=True)
        ]


def _check_finite(most: float) -> None:
    """Raise RunnerFault unless a row, whose largest logit is `most`, can be a model's output."""
    if not math.isfinite(most):
        found = "are all minus infinity" if most == -math.inf else "hold NaN or infinity"
        raise RunnerFault(
            f"the logits of this sequence {found}, so no token can be chosen; check the adapter's weights, or run"
            " the foundation in a wider precision"
        )
