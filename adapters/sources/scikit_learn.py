"""Reads linear models of scikit-learn, from a live object, a skops file or, if trusted, a pickle.

A pickle runs code when it is read, so nothing opens one unless the user says that it is trusted. skops reads the
types of scikit-learn and numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.errors import SourceError
from rootstock.adapters.installation import lack
from rootstock.adapters.sources.output_layer import OutputLayer, output_layer

SKOPS = ".skops"
PICKLES = (".joblib", ".pkl", ".pickle")
_SERVED = (
    "LogisticRegression, LogisticRegressionCV, SGDClassifier with loss='log_loss' for two classes, a linear "
    "regressor such as Ridge, OneVsRestClassifier or MultiOutputClassifier of these for several labels a text, "
    "and a Pipeline of Normalizer or StandardScaler and one of these"
)
_REGRESSORS = (
    "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "LinearSVR",
    "SGDRegressor", "HuberRegressor", "BayesianRidge", "ARDRegression",
)  # fmt: skip
_LOGISTIC = ("LogisticRegression", "LogisticRegressionCV")


def read_estimator(path: Path, trust_pickle: bool) -> Any:
    """Return the estimator in a file: skops, or a pickle that the user trusts.

    Raise SourceError for a pickle without `trust_pickle`, and for a file that cannot be read.
    """
    is_pickle = path.suffix in PICKLES
    if is_pickle and not trust_pickle:
        raise SourceError(
            f"{path} is a pickle, which can run any code when it is read; save the estimator with "
            f"skops.io.dump(estimator, '{path.with_suffix(SKOPS).name}') and give that file, or call "
            "rootstock.adapters.head(…) in the program that has the estimator; if the file is your own, add "
            "--trust-pickle"
        )
    if problem := lack("sklearn", f"reading {path.name}"):
        raise SourceError(problem)
    try:
        return _unpickled(path) if is_pickle else _from_skops(path)
    except SourceError:
        raise
    # Each library raises errors of many types for a damaged or strange file.
    except Exception as error:
        raise SourceError(f"{path} cannot be read: {error!r}") from error


def _unpickled(path: Path) -> Any:
    import joblib

    try:
        return joblib.load(path)
    except ModuleNotFoundError as error:
        raise SourceError(f"{path} needs the package {error.name!r}; install it, or give a skops file") from None


def _from_skops(path: Path) -> Any:
    from skops.io import get_untrusted_types, load

    if unknown := get_untrusted_types(file=path):
        raise SourceError(
            f"{path} holds {', '.join(unknown[:3])}, which skops does not trust by default; save a plain "
            "estimator of scikit-learn"
        )
    return load(path)


def layer_of(estimator: Any, labels: Sequence[Any] | None = None) -> OutputLayer:
    """Return the linear layer whose scores are an estimator's probabilities or predictions.

    `labels` names the classes in the order of `classes_`; without it the classes name themselves. Raise
    SourceError for an estimator that is not one linear layer with softmax, with a sigmoid for each output, or
    alone.
    """
    if _type(estimator) == "Pipeline":
        return _piped([step for _, step in estimator.steps], labels)
    if _type(estimator) in _REGRESSORS:
        rows = np.atleast_2d(_fitted(estimator, "coef_"))
        names = labels or (["score"] if len(rows) == 1 else [f"score_{i}" for i in range(len(rows))])
        return output_layer(rows, _fitted(estimator, "intercept_"), names, "regression")
    if _type(estimator) in ("OneVsRestClassifier", "MultiOutputClassifier"):
        return _several(estimator, labels)
    if _type(estimator) == "SetFitHead":
        return _torch_layer(estimator, labels)
    classes = _classes(estimator)
    return output_layer(_fitted(estimator, "coef_"), _fitted(estimator, "intercept_"), labels or classes)


def _classes(estimator: Any) -> list[Any]:
    """Return the classes of a classifier whose probabilities are a softmax over one linear layer."""
    kind = _type(estimator)
    logistic = kind in _LOGISTIC or (kind == "SGDClassifier" and estimator.loss == "log_loss")
    if not logistic:
        raise SourceError(f"{kind} is no head that is served; served: {_SERVED}")
    classes = list(_fitted(estimator, "classes_"))
    one_by_one = (
        kind == "SGDClassifier"
        or estimator.solver == "liblinear"
        or (getattr(estimator, "multi_class", None) == "ovr")
    )
    if len(classes) > 2 and one_by_one:
        raise SourceError(
            f"this {kind} fits a separate model for each of its {len(classes)} classes, and their probabilities "
            "are no softmax; fit LogisticRegression with the solver 'lbfgs'"
        )
    return classes


def _several(estimator: Any, labels: Sequence[Any] | None) -> OutputLayer:
    """Return the layer of a classifier that gives each text any number of labels: a sigmoid for each output."""
    kind, parts = _type(estimator), _fitted(estimator, "estimators_")
    if kind == "OneVsRestClassifier" and not estimator.multilabel_:
        raise SourceError(
            "this OneVsRestClassifier gives one of several classes, and its probabilities are no softmax; fit "
            "LogisticRegression alone"
        )
    for i, part in enumerate(parts):
        if _type(part) not in (*_LOGISTIC, "SGDClassifier") or len(_classes(part)) != 2:
            raise SourceError(
                f"output {i} of this {kind} is a {_type(part)} that does not tell two classes apart; fit it on "
                "rows with and without each label"
            )
    rows = np.concatenate([_fitted(part, "coef_") for part in parts])
    bias = np.concatenate([np.atleast_1d(_fitted(part, "intercept_")) for part in parts])
    own = estimator.classes_ if kind == "OneVsRestClassifier" else range(len(parts))
    return output_layer(rows, bias, labels or list(own), "multi_label_classification")


def _piped(steps: Sequence[Any], labels: Sequence[Any] | None) -> OutputLayer:
    """Return the layer of a pipeline: an L2 norm, then scales and means, which go into the weights."""
    served = [step for step in steps if step is not None and not isinstance(step, str)]
    if not served:
        raise SourceError(f"the pipeline has no step that computes anything; served: {_SERVED}")
    first, *rest = served
    if _type(first) == "Normalizer" and rest:
        if first.norm != "l2":
            raise SourceError(f"the pipeline's Normalizer has the norm {first.norm!r}; served: 'l2'")
        return replace(_piped(rest, labels), normalize=True)
    if _type(first) == "StandardScaler" and rest:
        layer = _piped(rest, labels)
        if layer.normalize:
            raise SourceError("the pipeline's Normalizer comes after its StandardScaler; served: the other order")
        # Without `with_mean` the scaler still has a mean, which it does not subtract.
        scale = _fitted(first, "scale_") if first.with_std else np.ones(1)
        mean = _fitted(first, "mean_") if first.with_mean else np.zeros(1)
        return layer.on_scaled(mean, scale)
    if rest:
        raise SourceError(f"the pipeline's step {_type(first)} is not served; served: {_SERVED}")
    return layer_of(first, labels)


def _torch_layer(head: Any, labels: Sequence[Any] | None) -> OutputLayer:
    """Return the layer of SetFit's own head, which divides its outputs by a temperature."""
    scale = head.temperature + head.eps
    weight = head.linear.weight.detach().cpu().double().numpy() / scale
    bias = 0.0 if head.linear.bias is None else head.linear.bias.detach().cpu().double().numpy() / scale
    problem = "multi_label_classification" if head.multitarget else None
    return output_layer(weight, bias, labels or list(range(len(weight))), problem)


def is_estimator(path: Path) -> bool:
    """Return whether a file's name is one of a saved estimator."""
    return path.suffix in (SKOPS, *PICKLES)


def _fitted(estimator: Any, attribute: str) -> Any:
    if getattr(estimator, attribute, None) is None:
        raise SourceError(f"this {_type(estimator)} is not fitted: it has no {attribute}; fit it first")
    return getattr(estimator, attribute)


def _type(value: Any) -> str:
    return type(value).__name__
