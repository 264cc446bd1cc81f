"""Builds a foundation's spec from its transformers classes, without weights (on torch's meta device)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rootstock.adapters.foundation.causal_lm import causal_lm
from rootstock.adapters.foundation.families import continues_text, rewrites_text
from rootstock.adapters.foundation.location import (
    FoundationError,
    FoundationFiles,
    embedding_spec,
    fingerprint,
    lowercases_text,
    max_tokens,
    read_json,
)
from rootstock.adapters.foundation.masked_lm import masked_lm
from rootstock.adapters.foundation.seq2seq_lm import seq2seq_lm
from rootstock.adapters.installation import lack
from rootstock.adapters.spec import GENERATION, TEXT2TEXT_GENERATION, TEXT_GENERATION, FoundationSpec, TaskClass

if TYPE_CHECKING:
    from torch import nn

# Two label counts that no hidden width equals. A dimension that changes with them is the number of labels.
_LABELS = (3, 5)
# The context of a T5 whose config states no length.
_RELATIVE_POSITIONS = 512


def describe(files: FoundationFiles) -> FoundationSpec:
    """Return the spec of a foundation: its sites, and for each task the class, linear modules and head tensors.

    This imports torch and transformers; raise FoundationError if they are not installed. The result is plain
    data, which is cached with the ONNX export.
    """
    if problem := lack("layers", f"reading the layers of {files.name}"):
        raise FoundationError(problem)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(files.folder)
    raw = read_json(files.folder / "config.json")
    continues, rewrites = continues_text(raw), rewrites_text(raw)
    with torch.device("meta"):
        trunk = AutoModel.from_config(config)
        own = _language_model(config) if continues else {}
        built = _rewriter(config) if rewrites else own | _task_models(config, trunk, continues)
    classes = {type(a).__name__: _task_class(task, a, b, trunk) for task, (a, b) in built.items()}
    padding = getattr(config, "pad_token_id", None)
    limit = max_tokens(files.folder, config.model_type, _positions(config), padding)
    lowers, trunk_digest = lowercases_text(files.folder), fingerprint(files.folder)
    return FoundationSpec(
        fingerprint=trunk_digest,
        name=files.name,
        revision=files.revision,
        model_type=config.model_type,
        hidden_size=config.hidden_size,
        layers=config.num_hidden_layers,
        max_tokens=limit,
        parameters=sum(p.numel() for p in trunk.parameters()),
        embedding=embedding_spec(files.folder, limit, lowers),
        inputs=_inputs(trunk),
        sites=_linears(trunk),
        classes=classes,
        norms=_norms(trunk),
        layer_prefix=_layer_prefix(trunk, config.num_hidden_layers),
        masked_lm=None if continues or rewrites else masked_lm(files, config),
        causal_lm=causal_lm(files, next(iter(classes)), config, trunk_digest) if continues else None,
        seq2seq_lm=seq2seq_lm(files, next(iter(classes)), config, trunk_digest) if rewrites else None,
        other_names=files.other_names,
        lowercases=lowers,
    )


def _task_models(config: Any, trunk: nn.Module, generates: bool) -> dict[str, tuple[Any, ...]]:
    """Return for each task of one pass two models of its class, with two different label counts."""
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    built: dict[str, tuple[Any, ...]] = {"feature-extraction": (trunk, trunk)}
    for task, auto in (
        ("text-classification", AutoModelForSequenceClassification),
        ("token-classification", AutoModelForTokenClassification),
    ):
        if type(config) in auto._model_mapping:
            models = tuple(_with_labels(auto, config, n) for n in _LABELS)
            # A decoder's classifier (`score`) reads the last token, which it finds by the input's ids. Only the
            # runner of decoders does so. The heads of other runners receive only hidden states.
            if generates or not hasattr(models[0], "score"):
                built[task] = models
    if not generates and type(config) in AutoModelForQuestionAnswering._model_mapping:
        model = _with_labels(AutoModelForQuestionAnswering, config, 2)
        built["question-answering"] = (model, model)
    return built


def _language_model(config: Any) -> dict[str, tuple[Any, ...]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config)
    return {TEXT_GENERATION: (model, model)}


def _rewriter(config: Any) -> dict[str, tuple[Any, ...]]:
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_config(config)
    return {TEXT2TEXT_GENERATION: (model, model)}


def _positions(config: Any) -> int:
    """Return the number of positions of a text. T5's are relative; its configs state the length of training."""
    stated = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(stated or _RELATIVE_POSITIONS)


def _with_labels(auto: Any, config: Any, labels: int) -> nn.Module:
    import copy

    sized = copy.deepcopy(config)
    sized.num_labels = labels
    model: nn.Module = auto.from_config(sized)
    return model


def _task_class(task: str, small: nn.Module, large: nn.Module, trunk: nn.Module) -> TaskClass:
    """Return the task class on a trunk; `small` and `large` are models of it with two different label counts.

    A dimension of the head that differs between them is the number of labels.
    """
    if task == "feature-extraction":
        return TaskClass(type(small).__name__, task, "", _linears(small))
    prefix = f"{small.base_model_prefix}."
    if task in GENERATION:
        # A T5 holds the parts of the trunk itself. The output layer is no site, because its weights belong to the
        # foundation's head.
        prefix = prefix if hasattr(small, str(small.base_model_prefix)) else ""
        inside = {f"{prefix}{name}": size for name, size in _linears(trunk).items()}
        return TaskClass(type(small).__name__, task, prefix, inside)
    sizes = dict(large.named_parameters())
    head = {
        name: tuple(a if a == b else None for a, b in zip(p.shape, sizes[name].shape, strict=True))
        for name, p in small.named_parameters()
        if not name.startswith(prefix)
    }
    return TaskClass(type(small).__name__, task, prefix, _linears(small), head)


def _linears(model: nn.Module) -> dict[str, tuple[int, int]]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    linears = {n: (m.in_features, m.out_features) for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return linears | {n: (m.nx, m.nf) for n, m in model.named_modules() if isinstance(m, Conv1D)}


def _norms(trunk: nn.Module) -> dict[str, int]:
    """Return the widths of the normalisation layers with a bias, by name.

    DeBERTa's layer on relative positions is left out: it does not apply to the rows of a batch, so it cannot
    differ between them.
    """
    from torch import nn

    return {
        name: module.normalized_shape[0]
        for name, module in trunk.named_modules()
        if isinstance(module, nn.LayerNorm) and module.bias is not None and name != "encoder.LayerNorm"
    }


def _layer_prefix(trunk: nn.Module, layers: int) -> str:
    from torch import nn

    for name, module in trunk.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers and "groups" not in name:
            return f"{name}."
    return ""


def _inputs(trunk: nn.Module) -> tuple[str, ...]:
    import inspect

    accepted = inspect.signature(trunk.forward).parameters
    config: Any = trunk.config
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in accepted and getattr(config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return tuple(names)
