"""Reads the folder of a SetFit model: a body of sentence-transformers and a head on its vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.scikit_learn import layer_of, read_estimator
from rootstock.adapters.sources.sentence_transformer import read_sentence_transformer
from rootstock.adapters.sources.source import Source, json_object

SETTINGS = "config_setfit.json"
# The second is a file that SetFit writes. The first takes its place where a user does not want to read a pickle.
HEADS = ("model_head.skops", "model_head.pkl")


def is_setfit(folder: Path) -> bool:
    """Return whether a folder is a SetFit model."""
    return any((folder / name).is_file() for name in (SETTINGS, *HEADS))


def read_setfit(folder: Path, lowercases: bool, trust_pickle: bool) -> Source:
    """Return the model in a folder; its head is that of `model_head.skops`, else of the pickle, if trusted.

    `lowercases` is as for `read_sentence_transformer`. Raise SourceError as that and `read_estimator` do.
    """
    head = next((name for name in HEADS if (folder / name).is_file()), None)
    if head is None:
        raise SourceError(f"{folder} holds no {HEADS[1]}; give the folder that SetFit saved")
    body = read_sentence_transformer(folder, lowercases)
    settings = json_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    estimator = read_estimator(folder / head, trust_pickle)
    layer = layer_of(estimator, _labels(estimator, settings.get("labels")))
    if settings.get("normalize_embeddings"):
        layer = replace(layer, normalize=True)
    return replace(
        body,
        kind="SetFit model",
        layer=layer,
        labels=layer.labels,
        problem_type=layer.problem_type,
        ignored=tuple(name for name in body.ignored if name not in (SETTINGS, head)),
    )


def _labels(estimator: Any, names: Any) -> list[str] | None:
    """Return the names of the head's outputs; None if SetFit has no names for them.

    SetFit names the class with the number i by the i-th of its labels.
    """
    if not isinstance(names, list):
        return None
    classes = getattr(estimator, "classes_", None)
    # MultiOutputClassifier has a list of the classes of each output, and SetFit's own head has none.
    if classes is None or isinstance(classes, list):
        return [str(name) for name in names]
    if not np.issubdtype(classes.dtype, np.integer):
        return None
    if max(classes) >= len(names):
        raise SourceError(f"{SETTINGS} names {len(names)} labels, and the head gives the class {max(classes)}")
    return [str(names[i]) for i in classes]
