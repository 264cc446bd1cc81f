"""Builds the spec of a foundation that reads images or recordings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rootstock.adapters.foundation.description.head_shapes import head_shapes, two_sizes
from rootstock.adapters.foundation.description.layers import (
    convolutions,
    geometry,
    is_convolution,
    linears,
    longest_list,
    norms,
)
from rootstock.adapters.foundation.description.text_tower import text_tower, whole_class
from rootstock.adapters.foundation.description.trunk_pass import TrunkPass, pass_of
from rootstock.adapters.foundation.families import modality_of
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, fingerprint
from rootstock.adapters.foundation.processor_files import input_shape, longest_input, processor_config
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import (
    CLASSIFICATION,
    EMBEDDING,
    Convolution,
    EmbeddingSpec,
    FoundationSpec,
    Pooling,
    TaskClass,
)
from rootstock.adapters.tasks import Modality
from rootstock.adapters.trunk_class import new_trunk

if TYPE_CHECKING:
    from torch import nn

# Settings with which a head reads other states than the last ones of the trunk, or the trunk has further layers.
_REFUSED = ("use_weighted_layer_sum", "add_adapter")
# Architectures whose pooler is a part of the pre-trained model, or has no weights.
_POOLED = (
    "swin", "convnext", "convnextv2", "resnet", "efficientnet", "mobilenet_v2", "clip", "clip_vision_model",
)  # fmt: skip
# Architectures with a pooler that a checkpoint may lack: one of its tensors, and the pooling without it.
_LEARNED: Mapping[str, tuple[str, Pooling]] = {
    "beit": ("pooler.layernorm.weight", "cls"),
    "siglip_vision_model": ("head.probe", "mean"),
}


def media_foundation(files: FoundationFiles, config: Any, raw: Mapping[str, Any]) -> FoundationSpec:
    """Return the spec of a foundation with transformers' config `config`; `raw` is the content of config.json.

    Raise FoundationError for a setting that is not served.
    """
    import torch

    for setting in _REFUSED:
        if raw.get(setting):
            raise FoundationError(
                f"{files.folder}: config.json sets {setting}, which is not served; choose a model without it"
            )
    modality = modality_of(raw)
    processor = processor_config(files.folder, modality)
    shape = input_shape(files.folder, raw, processor, modality)
    with torch.device("meta"):
        trunk: Any = new_trunk(config).eval()
        classifiers = _classifiers(config, modality)
    states = pass_of(trunk, longest_input(shape, processor), files.name)
    classes = [_task_class(EMBEDDING[modality], "", trunk)]
    if classifiers:
        classes.append(_classification(modality, classifiers, trunk))
    trunk_digest = fingerprint(files.folder)
    tower = text_tower(files, config, raw, trunk_digest)
    if tower is not None:
        classes.append(whole_class(config))
    geometries = _geometries(trunk, states)
    prefix, layers = longest_list(trunk)
    return FoundationSpec(
        fingerprint=trunk_digest,
        name=files.name,
        revision=files.revision,
        model_type=config.model_type,
        hidden_size=states.width,
        layers=layers,
        max_tokens=states.tokens,
        parameters=sum(p.numel() for p in trunk.parameters()),
        embedding=EmbeddingSpec(_pooling(files, trunk), False, states.tokens),
        inputs=(trunk.main_input_name,),
        sites=_sites(trunk, states, geometries),
        classes={one.name: one for one in classes},
        norms=_norms(trunk, states),
        layer_prefix=prefix,
        modality=modality,
        input_shape=shape,
        convolutions=geometries,
        text_tower=tower,
        other_names=files.other_names,
    )


def _classifiers(config: Any, modality: Modality) -> tuple[nn.Module, nn.Module] | None:
    """Return two models of the class for classification with different label counts; None if there is none."""
    from transformers import AutoModelForAudioClassification, AutoModelForImageClassification

    auto: Any = AutoModelForImageClassification if modality == "image" else AutoModelForAudioClassification
    if type(config) not in auto._model_mapping:
        return None
    kind = auto._model_mapping[type(config)]
    # DeiT has a second class, whose further head repeats a teacher's answers.
    return two_sizes(kind[0] if isinstance(kind, tuple) else kind, config)


def _classification(modality: Modality, models: tuple[nn.Module, nn.Module], trunk: nn.Module) -> TaskClass:
    """Return the task class on a trunk from two models of it with different label counts."""
    small, large = models
    prefix = next(f"{name}." for name, part in small.named_children() if type(part) is type(trunk))
    return _task_class(CLASSIFICATION[modality], prefix, small, head_shapes(small, large, prefix))


def _task_class(
    task: str, prefix: str, model: nn.Module, head: Mapping[str, tuple[int | None, ...]] | None = None
) -> TaskClass:
    inside = convolutions(model)
    modules = linears(model) | inside
    return TaskClass(type(model).__name__, task, prefix, modules, head or {}, frozenset(inside))


def _geometries(trunk: nn.Module, states: TrunkPass) -> dict[str, Convolution]:
    """Return the geometry of each convolution that a row's adapter can update, by name."""
    found = {n: geometry(m) for n, m in trunk.named_modules() if is_convolution(m) and states.reads_rows(n)}
    return {name: one for name, one in found.items() if one is not None}


def _sites(
    trunk: nn.Module, states: TrunkPass, geometries: Mapping[str, Convolution]
) -> dict[str, tuple[int, int]]:
    """Return the features of the linear layers and convolutions that a row's adapter can update, by name.

    They are in the order of computing, because modules before and after the layers belong to different layers.
    """
    found = linears(trunk) | {n: pair for n, pair in convolutions(trunk).items() if n in geometries}
    return {name: found[name] for name in states.read if name in found and states.reads_rows(name)}


def _norms(trunk: nn.Module, states: TrunkPass) -> dict[str, int]:
    """Return the widths of the normalisation layers that a row's adapter can update.

    They are in the order of computing, as the sites are.
    """
    found = norms(trunk)
    return {name: found[name] for name in states.read if name in found and states.reads_tokens(name)}


def _pooling(files: FoundationFiles, trunk: Any) -> Pooling:
    """Return the pooling of the foundation's own embeddings."""
    model_type = trunk.config.model_type
    if modality_of({"model_type": model_type}) == "audio":
        return "mean"
    if model_type in _POOLED:
        return "pooler"
    if model_type in _LEARNED:
        tensor, other = _LEARNED[model_type]
        return "pooler" if tensor in FoundationWeights(files.folder, model_type).names else other
    return "cls"
