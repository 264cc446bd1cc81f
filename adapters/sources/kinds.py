"""The kinds of models that other libraries save, and how a path shows which of them it is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rootstock.adapters.bundle.archive import CONFIG, MANIFEST
from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.checkpoint import is_checkpoint, read_checkpoint
from rootstock.adapters.sources.scikit_learn import is_estimator, layer_of, read_estimator
from rootstock.adapters.sources.sentence_transformer import is_sentence_transformer, read_sentence_transformer
from rootstock.adapters.sources.setfit import is_setfit, read_setfit
from rootstock.adapters.sources.source import Source, damage

Kind = Literal["scikit-learn head", "SetFit model", "sentence-transformers model", "whole checkpoint"]


def kind_of(path: Path) -> Kind | None:
    """Return what a path holds by the names of its files; None for an adapter, and for anything unknown."""
    if path.is_file():
        return "scikit-learn head" if is_estimator(path) else None
    if any((path / name).exists() for name in (CONFIG, MANIFEST)):
        return None
    if is_setfit(path):
        return "SetFit model"
    if is_sentence_transformer(path):
        return "sentence-transformers model"
    return "whole checkpoint" if is_checkpoint(path) else None


def open_source(path: Path, lowercases: bool, trust_pickle: bool) -> Source:
    """Read what a path holds, without the weights of a whole model.

    `lowercases` states whether the foundation's tokenizer makes text lower-case. Raise SourceError if the model
    cannot become an adapter, and for a pickle without `trust_pickle`.
    """
    with damage(path):
        return _opened(path, lowercases, trust_pickle)


def _opened(path: Path, lowercases: bool, trust_pickle: bool) -> Source:
    match kind_of(path):
        case "scikit-learn head":
            layer = layer_of(read_estimator(path, trust_pickle))
            return Source("scikit-learn head", layer=layer, labels=layer.labels, problem_type=layer.problem_type)
        case "SetFit model":
            return read_setfit(path, lowercases, trust_pickle)
        case "sentence-transformers model":
            return read_sentence_transformer(path, lowercases)
        case "whole checkpoint":
            return read_checkpoint(path)
        case None:
            raise SourceError(
                f"{path} is no model that becomes an adapter; give a folder of SetFit, sentence-transformers or "
                "transformers, or an estimator of scikit-learn"
            )
