"""Judges generated texts: an adapter's, and those of the foundation with examples in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rootstock.training.data.prompt_encoding import CompletionRow, PromptEncoder
from rootstock.training.data.text_pairs import PromptGroup
from rootstock.training.errors import BelowBaseline
from rootstock.training.fit.completions import negative_log_likelihoods
from rootstock.training.fit.descent import Report, silent
from rootstock.training.metrics.paired_test import Comparison
from rootstock.training.metrics.text_figures import (
    PERPLEXITY,
    TextCounts,
    compare_texts,
    figures,
    intervals,
    text_counts,
)
from rootstock.training.network.network import Network
from rootstock.training.network.text_generator import adapter_off, greedy
from rootstock.training.recipe.generation_section import Generation

PROMPTED = "prompted"


@dataclass(frozen=True)
class PromptSet:
    """Prompts to judge by, and the row of each with its first reference.

    The perplexity is that of the first references: a row of each reference would repeat a long prompt.
    """

    groups: tuple[PromptGroup, ...]
    rows: tuple[CompletionRow, ...]

    @classmethod
    def of(cls, groups: Sequence[PromptGroup], encoder: PromptEncoder, where: str) -> PromptSet:
        """Return the prompts of groups; `where` begins the message about one that the encoder refuses."""
        return cls(tuple(groups), tuple(encoder.row(g.messages, g.references[0], where) for g in groups))

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The references of each prompt."""
        return [group.references for group in self.groups]

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """The tokens of each prompt."""
        return [row.prompt for row in self.rows]

    @property
    def longest(self) -> int:
        """The number of tokens of the longest prompt."""
        return max(map(len, self.prompts))


@dataclass(frozen=True)
class JudgedTexts:
    """The greedy answers to prompts, and the counts that their figures come from."""

    answers: tuple[str, ...]
    counts: TextCounts

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of all prompts."""
        return figures(self.counts)

    @property
    def intervals(self) -> dict[str, list[float]]:
        """The 95 % interval of each figure."""
        return intervals(self.counts)


@dataclass(frozen=True)
class TextJudge:
    """Judges networks by greedy answers and by the likelihood of references.

    `budget` limits the tokens of a batch; `bf16` is the precision of likelihoods.
    """

    encoder: PromptEncoder
    settings: Generation
    budget: int
    bf16: bool = False
    report: Report = silent

    def judge(self, network: Network, prompts: PromptSet, note: str, foundation: bool = False) -> JudgedTexts:
        """Return the answers of a network; `foundation` switches its adapter off. `note` is for progress."""
        whose = f"of the {'foundation' if foundation else 'adapter'}"

        def answered(done: int, rate: float) -> None:
            self.report(done, len(prompts.prompts), f"{note}answers {whose}", rate)

        def weighed(done: int) -> None:
            self.report(done, len(prompts.rows), f"{note}likelihoods {whose}")

        with adapter_off(network, foundation):
            tokens = greedy(network, prompts.prompts, self.settings.max_new_tokens, answered)
            likelihoods = negative_log_likelihoods(network, prompts.rows, self.budget, self.bf16, weighed)
        answers = tuple(self.encoder.decode(ids) for ids in tokens)
        return JudgedTexts(answers, text_counts(answers, prompts.references, likelihoods))


@dataclass(frozen=True)
class PromptComparison:
    """An adapter against the foundation with examples in its prompt, by one figure on the same prompts."""

    metric: str
    adapter: float
    prompted: float
    test: Comparison
    interval: list[float]

    @property
    def gain(self) -> float:
        """The adapter's gain; above 0 it is better, and for the perplexity it is the drop."""
        return self.test.difference

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as metrics.json states it."""
        return {
            "metric": self.metric,
            "adapter": round(self.adapter, 4),
            "prompted": round(self.prompted, 4),
            "interval": self.interval,
            **self.test.to_json(),
        }


def compare_with_prompt(adapter: JudgedTexts, prompted: JudgedTexts, metric: str) -> PromptComparison:
    """Compare both by a figure, with a paired bootstrap over prompts."""
    test, gain = compare_texts(prompted.counts, adapter.counts, metric)
    ours, theirs = (judged.figures[metric] for judged in (adapter, prompted))
    return PromptComparison(metric, ours, theirs, test, gain)


def check_gain(compared: PromptComparison, shots: int, alpha: float, force: bool) -> str:
    """Return the reason to keep the adapter.

    Raise BelowBaseline for one that is no better than the prompted foundation, unless `force` is set. It is
    better if its gain is above 0 and the p-value of the paired test below `alpha`.
    """
    better = "lower" if compared.metric == PERPLEXITY else "higher"
    figures = (
        f"{compared.metric} {compared.adapter:.4f} against {compared.prompted:.4f} on validation rows ({better} "
        f"is better; {compared.test.test}, p {compared.test.p_value:.3g})"
    )
    examples = f"the foundation with {shots} example{'' if shots == 1 else 's'} in its prompt"
    if compared.gain > 0 and compared.test.p_value < alpha:
        return f"the adapter is better than {examples}: {figures}"
    if not force:
        raise BelowBaseline(
            f"the adapter is no better than {examples}: {figures}; train longer, change the rate or the data, or "
            "use --force to keep it"
        )
    return f"kept by --force, though no better than {examples}: {figures}"
