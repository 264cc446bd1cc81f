"""The passes of a network that generates text: the losses of answers, and what `generate` takes and returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rootstock.adapters.language_model import LanguageModel, Seq2SeqLM
from rootstock.training.data.prompt_encoding import CompletionRow
from rootstock.training.network.network import Network

if TYPE_CHECKING:
    import torch

# A token where nothing reads one.
_PAD = 0
# Fewer tokens that all prompts begin with are computed with each row.
_LEAST_SHARED = 16


@dataclass(frozen=True)
class SharedPrefix:
    """The tokens that the prompts of some rows all begin with.

    `cache` is transformers' own, of one row of them.
    """

    tokens: int
    cache: Any


class LanguagePasses(ABC):
    """The batches and forward passes of one kind of language model.

    Everything else of a training knows only rows and the losses of their answer tokens.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.device = next(network.model.parameters()).device

    @abstractmethod
    def width(self, rows: Sequence[CompletionRow]) -> int:
        """Return the tokens of each row in a batch of these rows, padding included."""

    @abstractmethod
    def losses(
        self, rows: Sequence[CompletionRow], smoothing: float = 0.0, prefix: SharedPrefix | None = None
    ) -> torch.Tensor:
        """Return the cross entropy of each answer token, (answer tokens,), in the order of the rows.

        `prefix` is that of these rows among others, under the network's present weights.
        """

    def prefix(self, rows: Sequence[CompletionRow]) -> SharedPrefix | None:
        """Return the prefix of the rows' prompts, computed once; None where there is nothing to gain."""
        return None

    @abstractmethod
    def inputs(self, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Return the arguments of transformers' `generate` for prompts."""

    @abstractmethod
    def start(self, prompts: Sequence[Sequence[int]]) -> int:
        """Return the number of tokens before each answer in the output of `generate`."""

    @abstractmethod
    def settings(self, most: int, past_end: bool) -> dict[str, Any]:
        """Return the settings of `generate` for answers of at most `most` tokens.

        With `past_end` an answer may go on past the token that ends it.
        """

    def padded(self, ids: Sequence[Sequence[int]], longest: int) -> torch.Tensor:
        """Return token ids padded at their ends, (rows, longest)."""
        import torch

        return torch.tensor([[*row, *[_PAD] * (longest - len(row))] for row in ids], device=self.device)


class CausalPasses(LanguagePasses):
    """The passes of a decoder, which continues a prompt. No mask: no token sees the padding at a row's end."""

    def width(self, rows: Sequence[CompletionRow]) -> int:
        """Return the tokens of the longest row."""
        return max(map(len, rows))

    def losses(
        self, rows: Sequence[CompletionRow], smoothing: float = 0.0, prefix: SharedPrefix | None = None
    ) -> torch.Tensor:
        """Return the cross entropy of each answer token, (answer tokens,).

        Only their logits are computed: with a large vocabulary these cost more than the layers.
        """
        import torch

        shared = 0 if prefix is None else prefix.tokens
        longest = self.width(rows) - shared
        ids = self.padded([(*row.prompt[shared:], *row.answer) for row in rows], longest)
        # The state before a token predicts it.
        begins = [number * longest + len(row.prompt) - shared - 1 for number, row in enumerate(rows)]
        places = torch.tensor(_spans(begins, rows), device=self.device)
        cache = None
        if prefix is not None:
            # A pass adds its tokens to the cache.
            cache = deepcopy(prefix.cache)
            cache.batch_repeat_interleave(len(rows))
        states = self.network.trunk(
            input_ids=ids, past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state
        logits = self.network.logits_of(states.flatten(0, 1).index_select(0, places)[None])[0]
        return _cross_entropy(logits, rows, smoothing)

    def prefix(self, rows: Sequence[CompletionRow]) -> SharedPrefix | None:
        """Return the prefix of the rows' prompts, such as their system prompt and examples."""
        import torch

        prompts = [tuple(row.prompt) for row in rows]
        # All that lies between the first and the last in order begins as both do.
        pairs = zip(min(prompts), max(prompts), strict=False)
        equal = next((i for i, (one, other) in enumerate(pairs) if one != other), len(min(prompts)))
        count = min(equal, min(map(len, prompts)) - 1)
        if len(rows) == 1 or count < _LEAST_SHARED:
            return None
        ids = torch.tensor([prompts[0][:count]], device=self.device)
        return SharedPrefix(count, self.network.trunk(input_ids=ids, use_cache=True).past_key_values)

    def inputs(self, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Return the prompts padded at their beginnings, and the mask."""
        import torch

        longest = self.start(prompts)
        ids = torch.tensor([[_PAD] * (longest - len(p)) + list(p) for p in prompts], device=self.device)
        lengths = torch.tensor([len(p) for p in prompts], device=self.device)
        mask = torch.arange(longest, device=self.device) >= longest - lengths[:, None]
        return {"input_ids": ids, "attention_mask": mask.long()}

    def start(self, prompts: Sequence[Sequence[int]]) -> int:
        """Return the number of tokens of the longest prompt, because the output begins with the prompts."""
        return max(map(len, prompts))

    def settings(self, most: int, past_end: bool) -> dict[str, Any]:
        """Return the settings of `generate`; an answer ends only at its limit with `past_end`."""
        ends = _language(self.network).stop_ids
        return {"eos_token_id": None if past_end else list(ends), "pad_token_id": ends[0]}


class Seq2SeqPasses(LanguagePasses):
    """The passes of an encoder–decoder model: the source is padded under a mask, the target at its end."""

    def width(self, rows: Sequence[CompletionRow]) -> int:
        """Return the tokens of the longest source and of the longest target together."""
        return max(len(row.prompt) for row in rows) + _longest_answer(rows)

    def losses(
        self, rows: Sequence[CompletionRow], smoothing: float = 0.0, prefix: SharedPrefix | None = None
    ) -> torch.Tensor:
        """Return the cross entropy of each target token, (target tokens,).

        The decoder reads the start token, then the target without its last token.
        """
        import torch

        longest = _longest_answer(rows)
        targets = self.padded([(self._head.start_id, *row.answer[:-1]) for row in rows], longest)
        sources = self.inputs([row.prompt for row in rows])
        model: Any = self.network.task_model
        # Some families scale the states or add to the logits, so the model computes them itself.
        logits = model(**sources, decoder_input_ids=targets, use_cache=False).logits
        begins = [number * longest for number in range(len(rows))]
        places = torch.tensor(_spans(begins, rows), device=self.device)
        return _cross_entropy(logits.flatten(0, 1).index_select(0, places), rows, smoothing)

    def inputs(self, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Return the sources padded at their ends, and the mask."""
        import torch

        longest = max(map(len, prompts))
        lengths = torch.tensor([len(p) for p in prompts], device=self.device)
        mask = torch.arange(longest, device=self.device) < lengths[:, None]
        return {"input_ids": self.padded(prompts, longest), "attention_mask": mask.long()}

    def start(self, prompts: Sequence[Sequence[int]]) -> int:
        """Return 1: the token before an answer."""
        return 1

    def settings(self, most: int, past_end: bool) -> dict[str, Any]:
        """Return the settings of `generate` with the checkpoint's rules for tokens.

        An answer always ends at its end, because a rule says how many tokens it has at least.
        """
        language = self._head
        rules = language.rules
        return {
            "eos_token_id": list(language.stop_ids),
            "pad_token_id": language.stop_ids[0],
            "decoder_start_token_id": language.start_id,
            "forced_bos_token_id": rules.first,
            "forced_eos_token_id": rules.last,
            "bad_words_ids": [[token] for token in rules.suppressed] or None,
            "no_repeat_ngram_size": rules.no_repeat_ngram,
            # More than an answer can have would mean the same, and transformers warns of it.
            "min_length": min(rules.least, most + 1),
        }

    @property
    def _head(self) -> Seq2SeqLM:
        language = _language(self.network)
        if not isinstance(language, Seq2SeqLM):
            raise ValueError(f"{self.network.spec.name} has no encoder")
        return language


def passes_of(network: Network) -> LanguagePasses:
    """Return the passes of a network's kind. Raise ValueError for a foundation that generates no text."""
    seq2seq = isinstance(_language(network), Seq2SeqLM)
    return Seq2SeqPasses(network) if seq2seq else CausalPasses(network)


def _language(network: Network) -> LanguageModel:
    if (language := network.spec.language_model) is None:
        raise ValueError(f"{network.spec.name} generates no text")
    return language


def _longest_answer(rows: Sequence[CompletionRow]) -> int:
    return max(len(row.answer) for row in rows)


def _spans(begins: Sequence[int], rows: Sequence[CompletionRow]) -> list[int]:
    """Return the places of the answers' tokens in the flattened rows, given the place of the first of each."""
    return [at for begin, row in zip(begins, rows, strict=True) for at in range(begin, begin + len(row.answer))]


def _cross_entropy(logits: torch.Tensor, rows: Sequence[CompletionRow], smoothing: float) -> torch.Tensor:
    import torch
    from torch.nn.functional import cross_entropy

    targets = torch.tensor([token for row in rows for token in row.answer], device=logits.device)
    return cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)
