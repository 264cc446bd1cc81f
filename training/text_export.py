"""The bundle of an adapter that generates text: PEFT's files, golden tokens, and a server's checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rootstock.adapters.bundle import Bundle, Golden, Manifest
from rootstock.adapters.bundle.archive import CONFIG
from rootstock.adapters.bundle.golden import MAX_CHARACTERS
from rootstock.adapters.bundle.peft_config import read_config
from rootstock.adapters.spec import Array, HeadSpec, Preprocessing, Prompting
from rootstock.training.data.prompt_encoding import PromptEncoder
from rootstock.training.errors import DataError
from rootstock.training.export import GOLDEN_INPUTS, checked_bundle, spread
from rootstock.training.network.network import Network
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.network.text_generator import continuation

_GOLDEN_TOKENS = 24
# Other programs add numbers in another order. A token with a smaller lead over the next could differ there.
_LEAST_LEAD = 0.01


def text_golden(reloaded: Network, encoder: PromptEncoder, texts: Sequence[str]) -> Golden:
    """Return held-out prompts, spread evenly, each with its greedy tokens and their log-probabilities.

    The shape is (tokens, 2). Each is computed alone. A decoder goes on past the end of the answer; an
    encoder–decoder model ends there. All end before a token that is not clearly the likeliest. A prompt whose
    first token is not is left out.
    """
    inputs: list[str] = []
    outputs: list[Array] = []
    for text in spread([text for text in dict.fromkeys(texts) if len(text) <= MAX_CHARACTERS], GOLDEN_INPUTS):
        ids = encoder.plain(text)
        count = min(_GOLDEN_TOKENS, encoder.room(len(ids), reloaded.spec.max_tokens))
        if count < 1:
            continue
        row = continuation(reloaded, ids, count)
        close = np.flatnonzero(row.leads < _LEAST_LEAD)
        clear = int(close[0]) if len(close) else len(row.tokens)
        if not clear:
            continue
        if clear < count:
            # A rule of the checkpoint may force another token where a shorter answer ends.
            row = continuation(reloaded, ids, clear)
        inputs.append(text)
        outputs.append(np.stack([np.array(row.tokens), row.logprobs], axis=1).astype(np.float32))
    if not inputs:
        raise DataError(
            "no held-out prompt has a clear first token, so a server could verify nothing; train longer"
        )
    return Golden(tuple(inputs), tuple(outputs))


def make_text_bundle(
    network: NetworkSpec,
    prompting: Prompting,
    license: str | None,
    files: Mapping[str, bytes],
    evaluation: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Bundle:
    """Return the bundle of the adapter's files, checked in full. Raise Rejected if no server takes it.

    Its limit in tokens is the foundation's: it bounds prompt and answer, not the rows of training. Only a chat
    has a system prompt.
    """
    spec, task_class = network.foundation, network.task_class
    targets = read_config(json.loads(files[CONFIG])).targets(task_class)
    manifest = Manifest(
        task=network.task.name,
        problem_type=None,
        head=HeadSpec(network.task.heads[0], task_class.name),
        labels=(),
        preprocessing=Preprocessing(spec.max_tokens),
        foundation={"fingerprint": spec.fingerprint, "name": spec.name, "revision": spec.revision},
        targets=tuple(sorted(name.removeprefix(task_class.prefix) for name in targets)),
        files={},
        evaluation=evaluation,
        provenance=provenance,
        license=license,
        prompting=prompting,
    )
    return checked_bundle(network, manifest, files)
