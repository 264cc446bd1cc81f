"""Greedy text from a network: the likeliest token each time, by transformers' `generate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rootstock.adapters.spec import Array
from rootstock.training.network.language_passes import LanguagePasses, passes_of
from rootstock.training.network.network import Network

if TYPE_CHECKING:
    import torch

# The most tokens of a batch in the cache, those to come included.
_TOKENS = 8192
_ROWS = 64


@dataclass(frozen=True)
class Continuation:
    """The greedy tokens after a prompt, their log-probabilities, and each one's lead over the next in nats."""

    tokens: tuple[int, ...]
    logprobs: Array
    leads: Array


def greedy(
    network: Network,
    prompts: Sequence[Sequence[int]],
    most: int,
    progress: Callable[[int, float], None] = lambda done, rate: None,
) -> list[list[int]]:
    """Return the greedy answer to each prompt, in order: at most `most` tokens, without the one that ended it.

    Prompts of similar length form a batch with one cache. `progress` is called after each batch with the answers
    done and the tokens a second.
    """
    passes = passes_of(network)
    answers: list[list[int]] = [[] for _ in prompts]
    began, done, tokens = time.monotonic(), 0, 0
    for chosen in _batches([len(prompt) for prompt in prompts], most):
        for i, answer in zip(chosen, _answers(passes, [prompts[i] for i in chosen], most), strict=True):
            answers[i] = answer
            tokens += len(answer) + 1
        done += len(chosen)
        progress(done, tokens / max(1e-9, time.monotonic() - began))
    return answers


def continuation(network: Network, prompt: Sequence[int], count: int) -> Continuation:
    """Return at most `count` greedy tokens after one prompt, computed alone.

    Those of a decoder go on past a token that ends an answer. Those of an encoder–decoder model end with it.
    """
    import torch

    passes = passes_of(network)
    with _generating(passes, count, past_end=True) as model:
        out: Any = model.generate(
            **passes.inputs([prompt]), output_logits=True, output_scores=True, return_dict_in_generate=True
        )
    tokens = out.sequences[0, passes.start([prompt]) :]
    # The logits are the model's; in the scores the checkpoint's rules have excluded tokens.
    logprobs, allowed = (torch.cat(steps).float().log_softmax(-1) for steps in (out.logits, out.scores))
    best = allowed.topk(2, dim=-1).values
    chosen = logprobs.gather(1, tokens[:, None])[:, 0]
    return Continuation(tuple(tokens.tolist()), chosen.cpu().numpy(), (best[:, 0] - best[:, 1]).cpu().numpy())


def _answers(passes: LanguagePasses, prompts: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    with _generating(passes, most) as model:
        out: torch.Tensor = model.generate(**passes.inputs(prompts))
        ends = model.generation_config.eos_token_id
    for row in out[:, passes.start(prompts) :].tolist():
        end = next((at for at, token in enumerate(row) if token in ends), len(row))
        yield row[:end]


@contextmanager
def _generating(passes: LanguagePasses, most: int, past_end: bool = False) -> Iterator[Any]:
    """Yield the model, set to greedy tokens alone, as a server samples at temperature 0."""
    import torch
    from transformers import GenerationConfig

    model: Any = passes.network.task_model
    before = model.generation_config
    # Other settings of the checkpoint, such as a repetition penalty, are not those of a request.
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=most, **passes.settings(most, past_end)
    )
    passes.network.train(False)
    try:
        with torch.inference_mode():
            yield model
    finally:
        model.generation_config = before


@contextmanager
def adapter_off(network: Network, off: bool = True) -> Iterator[None]:
    """Let the network compute as the foundation does, without its adapter, if `off`."""
    model: Any = network.model
    with model.disable_adapter() if off else nullcontext():
        yield


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield positions of similar lengths, the longest first, under the limits of a batch."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        rows = max(1, min(_ROWS, _TOKENS // (lengths[order[0]] + most)))
        yield order[:rows]
        order = order[rows:]
