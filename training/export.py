"""The bundle of a trained adapter: PEFT's files, golden outputs, and the checks that a server makes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rootstock.adapters.bundle import Bundle, Golden, Limits, Manifest, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import CONFIG
from rootstock.adapters.bundle.peft_config import read_config
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import CLASSIFICATION, Calibration, HeadSpec
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.data.example import Example
from rootstock.training.errors import DataError
from rootstock.training.network.network import Network, outputs, pooling_of
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.network.row_encoder import InputEncoder

T = TypeVar("T")

GOLDEN_INPUTS = 12
_MAX_RANK = 64


def spread(items: Sequence[T], count: int) -> Sequence[T]:
    """Return at most `count` of the items, spread evenly over them."""
    return items[:: max(1, len(items) // count)][:count]


def golden(
    reloaded: Network, examples: Sequence[Example], rows: Sequence[EncodedRow], encoder: InputEncoder
) -> Golden:
    """Return held-out inputs, spread evenly over the file, each with its raw output computed alone.

    A text that is longer than the limit is left out: a server refuses it unless it may truncate.
    """
    whole = [i for i, row in enumerate(rows) if not row.cut]
    if not whole:
        raise DataError("training.max_length: every held-out text is longer than the limit in tokens; raise it")
    positions = spread(whole, GOLDEN_INPUTS)
    chosen = [encoder.golden_input(examples[i], rows[i]) for i in positions]
    raw = [outputs(reloaded, encoder.inputs([row]))[0] for _, row in chosen]
    return Golden(tuple(value for value, _ in chosen), tuple(raw))


def make_bundle(
    network: NetworkSpec,
    encoder: InputEncoder,
    license: str | None,
    files: Mapping[str, bytes],
    evaluation: Mapping[str, Any],
    provenance: Mapping[str, Any],
    temperature: float | None,
) -> Bundle:
    """Return the bundle of the adapter's files, checked in full. Raise Rejected if no server takes it.

    The bundle of a classifier of whole inputs holds `temperature`, if there is one, as its calibration.
    """
    spec, task_class, linear = network.foundation, network.task_class, network.linear_head
    config = read_config(json.loads(files[CONFIG]))
    head = (
        HeadSpec("linear", pooling=pooling_of(spec), normalize=True)
        if linear
        else HeadSpec("hf", task_class.name)
    )
    calibrated = temperature is not None and network.task.name in CLASSIFICATION.values()
    calibration = Calibration(temperature) if calibrated and temperature is not None else None
    manifest = Manifest(
        task=network.task.name,
        problem_type=encoder.problem.problem_type if linear else None,
        head=head,
        labels=encoder.labels,
        preprocessing=encoder.preprocessing,
        foundation={"fingerprint": spec.fingerprint, "name": spec.name, "revision": spec.revision},
        targets=tuple(sorted(name.removeprefix(task_class.prefix) for name in config.targets(task_class))),
        files={},
        evaluation=evaluation,
        provenance=provenance,
        license=license,
        calibration=calibration,
    )
    return checked_bundle(network, manifest, files)


def checked_bundle(network: NetworkSpec, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Return the bundle of a manifest and files, checked in full. Raise Rejected if no server takes it."""
    spec = network.foundation
    bundle = open_bundle(write_bundle(manifest, files).to_zip(), Limits(), spec)
    bundle.adapter(spec, _MAX_RANK, FoundationWeights(network.files.folder, spec.model_type))
    return bundle
