"""The bundle of a trained adapter: PEFT's files, golden outputs, and a check as a server makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.bundle import Bundle, Golden, Limits, Manifest, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import CONFIG
from rootstock.adapters.bundle.peft_config import read_config
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import HeadSpec, Preprocessing
from rootstock.training.data.encoding import TokenRow
from rootstock.training.data.example import Example
from rootstock.training.errors import DataError
from rootstock.training.fit.job import Job
from rootstock.training.network.inputs import Inputs
from rootstock.training.network.network import Network, outputs, pooling_of

_GOLDEN_INPUTS = 12
_MAX_RANK = 64


def golden(reloaded: Network, examples: Sequence[Example], encoded: Sequence[TokenRow], job: Job) -> Golden:
    """Held-out inputs, evenly spread over the file, each with its raw output computed alone, without padding.

    A text that is longer than the limit is left out: a server refuses it unless it may truncate.
    """
    whole = [i for i, row in enumerate(encoded) if not row.cut]
    if not whole:
        raise DataError(
            f"every held-out text is longer than training.max_length, {job.source.recipe.training.max_length} "
            "tokens: raise it"
        )
    step = max(1, len(whole) // _GOLDEN_INPUTS)
    chosen = whole[::step][:_GOLDEN_INPUTS]
    rows = [outputs(reloaded, Inputs([encoded[i]], job.pad_id, _cpu()))[0] for i in chosen]
    texts = [examples[i] for i in chosen]
    return Golden(tuple(e.text if e.pair is None else (e.text, e.pair) for e in texts), tuple(rows))


def make_bundle(
    job: Job, files: Mapping[str, bytes], evaluation: Mapping[str, Any], provenance: Mapping[str, Any]
) -> Bundle:
    """The bundle of the adapter's files, opened again and checked in full; Rejected if it could not be served."""
    recipe, spec, task_class = job.source.recipe, job.spec, job.task_class
    config = read_config(json.loads(files[CONFIG]))
    texts = recipe.task_type == "SEQ_CLS"
    head = (
        HeadSpec("linear", pooling=pooling_of(spec), normalize=True) if texts else HeadSpec("hf", task_class.name)
    )
    manifest = Manifest(
        task=job.task,
        problem_type="single_label_classification" if texts else None,
        head=head,
        labels=job.labels,
        preprocessing=Preprocessing(recipe.training.max_length),
        foundation={"fingerprint": spec.fingerprint, "name": spec.name, "revision": spec.revision},
        targets=tuple(sorted(name.removeprefix(task_class.prefix) for name in config.targets(task_class))),
        files={},
        evaluation=evaluation,
        provenance=provenance,
        license=recipe.license,
    )
    bundle = open_bundle(write_bundle(manifest, files).to_zip(), Limits(), spec)
    bundle.adapter(spec, _MAX_RANK, FoundationWeights(job.files.folder, spec.model_type))
    return bundle


def _cpu() -> Any:
    import torch

    return torch.device("cpu")
