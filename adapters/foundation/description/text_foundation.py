"""Builds the spec of a foundation that reads text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rootstock.adapters.foundation.description.causal_lm import causal_lm, check_positions
from rootstock.adapters.foundation.description.completeness import check_complete
from rootstock.adapters.foundation.description.head_shapes import head_shapes, two_sizes, with_labels
from rootstock.adapters.foundation.description.layers import layer_prefix, linears, norms, words
from rootstock.adapters.foundation.description.masked_lm import masked_lm
from rootstock.adapters.foundation.description.seq2seq_lm import seq2seq_lm
from rootstock.adapters.foundation.families import continues_text, rewrites_text
from rootstock.adapters.foundation.location import (
    FoundationFiles,
    embedding_spec,
    fingerprint,
    lowercases_text,
    max_tokens,
)
from rootstock.adapters.spec import GENERATION, TEXT2TEXT_GENERATION, TEXT_GENERATION, FoundationSpec, TaskClass

if TYPE_CHECKING:
    from torch import nn

# The context of a T5 whose config states no length.
_RELATIVE_POSITIONS = 512


def text_foundation(files: FoundationFiles, config: Any, raw: Mapping[str, Any]) -> FoundationSpec:
    """Return the spec of a foundation with transformers' config `config`; `raw` is the content of config.json."""
    import torch
    from transformers import AutoModel

    check_positions(files, config)
    continues, rewrites = continues_text(raw), rewrites_text(raw)
    with torch.device("meta"):
        trunk = AutoModel.from_config(config)
        own = _language_model(config) if continues else {}
        built = _rewriter(config) if rewrites else own | _task_models(config, trunk, continues)
    if not (continues or rewrites):
        check_complete(files, config.model_type, trunk)
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
        sites=linears(trunk),
        classes=classes,
        norms=norms(trunk),
        # An encoder–decoder model reads its embedding in both parts, and in its output layer.
        words=None if rewrites else words(trunk),
        layer_prefix=layer_prefix(trunk, config.num_hidden_layers),
        masked_lm=None if continues or rewrites else masked_lm(files, config),
        causal_lm=causal_lm(files, config, trunk_digest, own[TEXT_GENERATION][0]) if continues else None,
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
            models = two_sizes(auto.from_config, config)
            # A decoder's classifier (`score`) reads the last token, which it finds by the input's ids. Only the
            # runner of decoders does so. The heads of other runners receive only hidden states.
            if generates or task == "token-classification" or not hasattr(models[0], "score"):
                built[task] = models
    if not generates and type(config) in AutoModelForQuestionAnswering._model_mapping:
        model = with_labels(AutoModelForQuestionAnswering.from_config, config, 2)
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


def _task_class(task: str, small: nn.Module, large: nn.Module, trunk: nn.Module) -> TaskClass:
    """Return the task class on a trunk; `small` and `large` are models of it with two different label counts.

    A dimension of the head that differs between them is the number of labels.
    """
    if task == "feature-extraction":
        return TaskClass(type(small).__name__, task, "", linears(small))
    prefix = f"{small.base_model_prefix}."
    if task in GENERATION:
        # A T5 holds the parts of the trunk itself. The output layer is no site, because its weights belong to the
        # foundation's head.
        prefix = prefix if hasattr(small, str(small.base_model_prefix)) else ""
        inside = {f"{prefix}{name}": size for name, size in linears(trunk).items()}
        return TaskClass(type(small).__name__, task, prefix, inside)
    return TaskClass(type(small).__name__, task, prefix, linears(small), head_shapes(small, large, prefix, trunk))


def _inputs(trunk: nn.Module) -> tuple[str, ...]:
    import inspect

    accepted = inspect.signature(trunk.forward).parameters
    config: Any = trunk.config
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in accepted and getattr(config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return tuple(names)
