"""Greedy text from a network: the likeliest token each time, by transformers' `generate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rootstock.adapters.spec import Array
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
    stop_ids: Sequence[int],
    progress: Callable[[int, float], None] = lambda done, rate: None,
) -> list[list[int]]:
    """Return the greedy answer to each prompt, in order: at most `most` tokens, without the one that ended it.

    Prompts of similar length form a batch with one cache. `progress` is called after each batch with the answers
    done and the tokens a second.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    began, done, tokens = time.monotonic(), 0, 0
    for chosen in _batches([len(prompt) for prompt in prompts], most):
        for i, answer in zip(
            chosen, _answers(network, [prompts[i] for i in chosen], most, stop_ids), strict=True
        ):
            answers[i] = answer
            tokens += len(answer) + 1
        done += len(chosen)
        progress(done, tokens / max(1e-9, time.monotonic() - began))
    return answers


def continuation(network: Network, prompt: Sequence[int], count: int) -> Continuation:
    """Return `count` greedy tokens after one prompt, computed alone. They go on past one that ends an answer."""
    import torch

    device = next(network.model.parameters()).device
    ids = torch.tensor([list(prompt)], device=device)
    with _generating(network, count, []) as model:
        out: Any = model.generate(
            ids, attention_mask=torch.ones_like(ids), output_logits=True, return_dict_in_generate=True
        )
    tokens = out.sequences[0, len(prompt) :].tolist()
    scores = torch.stack([step[0] for step in out.logits]).float().log_softmax(-1)
    best = scores.topk(2, dim=-1).values
    chosen = scores[torch.arange(len(tokens)), torch.tensor(tokens, device=device)]
    return Continuation(tuple(tokens), chosen.cpu().numpy(), (best[:, 0] - best[:, 1]).cpu().numpy())


def _answers(
    network: Network, prompts: Sequence[Sequence[int]], most: int, stop_ids: Sequence[int]
) -> Iterator[list[int]]:
    import torch

    device = next(network.model.parameters()).device
    longest = max(map(len, prompts))
    pad = stop_ids[0]
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    mask = (torch.arange(longest, device=device) >= longest - lengths[:, None]).long()
    with _generating(network, most, stop_ids) as model:
        out: torch.Tensor = model.generate(ids, attention_mask=mask)
    for row in out[:, longest:].tolist():
        end = next((at for at, token in enumerate(row) if token in stop_ids), len(row))
        yield row[:end]


@contextmanager
def _generating(network: Network, most: int, stop_ids: Sequence[int]) -> Iterator[Any]:
    """Yield the model, set to greedy tokens alone, as a server samples at temperature 0."""
    import torch
    from transformers import GenerationConfig

    model: Any = network.task_model
    before = model.generation_config
    # The checkpoint's own settings, such as a repetition penalty, are not those of a request.
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=stop_ids[0] if stop_ids else 0,
    )
    network.train(False)
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
