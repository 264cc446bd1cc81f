"""Makes the bundle of a source: a head alone, or a LoRA of the foundation, with golden outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from rootstock.adapters.bundle import Bundle, Golden, Limits, Manifest, PlainFields, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import CONFIG, GOLDEN, WEIGHTS
from rootstock.adapters.bundle.peft_config import read_config
from rootstock.adapters.bundle.plain.base_model import BASE
from rootstock.adapters.convert.inputs import TEXTS
from rootstock.adapters.errors import SourceError
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.installation import lack
from rootstock.adapters.sources.adapter_form import AdapterForm, adapter_form
from rootstock.adapters.sources.limits import MAX_DIFFERENCE
from rootstock.adapters.sources.source import Source, damage
from rootstock.adapters.spec import FoundationSpec
from rootstock.adapters.tasks import task_named

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rootstock.adapters.sources.low_rank_form import LowRankForm
    from rootstock.adapters.sources.outputs import OutputFunction, Text

_GOLDEN_INPUTS = 12
_PAIRED = ("text-ranking", "zero-shot-classification", "question-answering")
# The server that gets the bundle applies its own limits.
_LIMITS = Limits(max_bundle_bytes=2**31, max_unpacked_bytes=2**32)


@dataclass(frozen=True)
class SourceOptions:
    """The choices for a source: a whole model's rank (None for the smallest that fits), its limit, and the texts.

    `max_difference` limits the largest difference of an output, as a share of the largest output. The texts
    measure it, and some of them become golden inputs. `provenance` goes into the bundle.
    """

    rank: int | None = None
    max_difference: float = MAX_DIFFERENCE
    texts: Sequence[str] = TEXTS
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceBundle:
    """A source's bundle, and for a whole model the figures of its LoRA.

    `left_out` names the changed parameters that stay as in the foundation; the difference includes their effect.
    """

    bundle: Bundle
    kind: str
    ignored: tuple[str, ...]
    figures: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the kind, the figures and the ignored files."""
        return {"from": self.kind, **self.figures, "ignored": list(self.ignored)}


def bundle_of(
    source: Source,
    files: FoundationFiles,
    spec: FoundationSpec,
    plain: PlainFields | None = None,
    options: SourceOptions | None = None,
) -> SourceBundle:
    """Return the bundle of a source on a foundation. It has passed every check but the golden replay.

    `plain` overrides what the source's files state. Raise SourceError if the source does not fit the
    foundation or its outputs differ too much, and Rejected if no server takes the bundle. Raise FoundationError
    if torch is not installed.
    """
    if problem := lack("layers", "an import"):
        raise FoundationError(problem)
    with damage(source.folder or f"the {source.kind}"):
        return _bundle_of(source, files, spec, plain or PlainFields(), options or SourceOptions())


def _bundle_of(
    source: Source, files: FoundationFiles, spec: FoundationSpec, plain: PlainFields, options: SourceOptions
) -> SourceBundle:
    from rootstock.adapters.sources.outputs import OutputFunction, load_model, tokens_of

    form = adapter_form(source, spec, plain)
    if form.layer is not None and form.layer.weight.shape[1] != spec.hidden_size:
        raise SourceError(
            f"the head reads {form.layer.weight.shape[1]} features, and an embedding of {spec.name} has "
            f"{spec.hidden_size}; fit it on the embeddings that /v1/embeddings gives for this foundation"
        )
    fitting = tokens_of(files, spec, _inputs(form, options.texts), form.preprocessing)
    if not fitting:
        raise SourceError(f"every text is longer than {form.preprocessing.max_length} tokens; give shorter texts")
    base, _ = load_model(files.folder, form.task_class, form.pools, len(form.labels))
    outputs = OutputFunction(base, form.head, form.layer, [tokens for _, tokens in fitting])
    if source.folder is None:
        low_rank = None
        computed = [*outputs({name: parameter.detach() for name, parameter in base.named_parameters()})]
    else:
        low_rank = _low_rank(source.folder, files, spec, form, base, outputs, options)
        computed = list(low_rank.outputs)
    figures = {} if low_rank is None else _figures(low_rank)
    members = {
        **_adapter(form, spec, low_rank),
        GOLDEN: _golden([text for text, _ in fitting], computed).to_bytes(),
    }
    manifest = _manifest(form, spec, members[CONFIG], options.provenance)
    if figures:
        manifest = replace(manifest, evaluation={"conversion": {"from": source.kind, **figures}})
    bundle = open_bundle(write_bundle(manifest, {**members, **source.card}).to_zip(), _LIMITS, spec)
    rank = max(figures.get("rank", 0), _LIMITS.max_rank)
    bundle.adapter(spec, rank, FoundationWeights(files.folder, spec.model_type))
    return SourceBundle(bundle, source.kind, source.ignored, figures)


def _inputs(form: AdapterForm, texts: Sequence[str]) -> list[Text]:
    """Return the texts; for a task on pairs, each with the next one."""
    if form.task not in _PAIRED:
        return [*texts]
    return [*zip(texts, [*texts[1:], *texts[:1]], strict=True)]


def _low_rank(
    folder: Path,
    files: FoundationFiles,
    spec: FoundationSpec,
    form: AdapterForm,
    base: nn.Module,
    outputs: OutputFunction,
    options: SourceOptions,
) -> LowRankForm:
    """Return the LoRA that turns the foundation into the whole model in a folder."""
    from rootstock.adapters.sources.low_rank_form import low_rank_form
    from rootstock.adapters.sources.outputs import check_sizes, load_model, reads_alike

    check_sizes(folder, files)
    if not reads_alike(folder, files, options.texts):
        raise SourceError(
            f"the tokenizer in {folder} makes other tokens than that of {spec.name}; give the foundation that "
            "the model was trained from"
        )
    model, missing = load_model(folder, form.task_class, form.pools, len(form.labels))
    final = {name: parameter.detach() for name, parameter in model.named_parameters()}
    original = {name: parameter.detach() for name, parameter in base.named_parameters()}
    pooler = f"{form.task_class.prefix}pooler."
    for name, tensor in original.items():
        # A head that pools does not read the trunk's pooler.
        if form.pools and name.startswith(pooler):
            final[name] = tensor
        elif name not in final or name in missing or final[name].shape != tensor.shape:
            state = f"has shape {[*final[name].shape]}" if name in final and name not in missing else "is missing"
            raise SourceError(
                f"{name} {state} in {folder}; {spec.name} has shape {[*tensor.shape]}: this is another "
                "model; give the foundation that it was trained from"
            )
        if not final[name].isfinite().all():
            raise SourceError(f"{name} holds NaN or infinity in {folder}; give an earlier checkpoint")
    return low_rank_form(base, final, form.task_class, spec.norms, outputs, options.rank, options.max_difference)


def _figures(low_rank: LowRankForm) -> dict[str, Any]:
    return {
        "rank": low_rank.change.rank,
        "max_difference": low_rank.difference,
        "left_out": list(low_rank.change.left_out),
    }


def _golden(texts: Sequence[Text], outputs: Sequence[Tensor]) -> Golden:
    if not all(output.isfinite().all() for output in outputs):
        raise SourceError("an output of the model is NaN or infinity in fp32; its weights are too large")
    step = -(-len(texts) // _GOLDEN_INPUTS)
    return Golden(tuple(texts[::step]), tuple(output.numpy().astype(np.float32) for output in outputs[::step]))


def _adapter(form: AdapterForm, spec: FoundationSpec, low_rank: LowRankForm | None) -> dict[str, bytes]:
    """Return the config and the tensors: a head alone if the trunk stays as it is."""
    config: dict[str, Any] = {"peft_type": None}
    tensors = {}
    if low_rank is not None and (low_rank.change.pairs or low_rank.change.whole):
        config, named = low_rank.change.peft(form.task_class)
        tensors = {name: tensor.numpy() for name, tensor in named.items()}
    if form.layer is not None:
        tensors |= {"head.weight": form.layer.weight, "head.bias": form.layer.bias}
    config |= {"task_type": task_named(form.task).peft_type, BASE: spec.name}
    contiguous = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}
    return {CONFIG: json.dumps(config, indent=2, sort_keys=True).encode(), WEIGHTS: save(contiguous)}


def _manifest(form: AdapterForm, spec: FoundationSpec, config: bytes, provenance: Mapping[str, Any]) -> Manifest:
    names = read_config(json.loads(config)).targets(form.task_class)
    return Manifest(
        task=form.task,
        problem_type=form.problem_type,
        head=form.head,
        labels=form.labels,
        preprocessing=form.preprocessing,
        foundation={"fingerprint": spec.fingerprint, "name": spec.name, "revision": spec.revision},
        targets=tuple(sorted(name.removeprefix(form.task_class.prefix) for name in names)),
        files={},
        provenance=provenance,
    )
