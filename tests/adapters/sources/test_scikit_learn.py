"""Linear models of scikit-learn: the served layer gives the probabilities of the library, or is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from scipy.special import expit, softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.kinds import open_source
from rootstock.adapters.sources.output_layer import OutputLayer, output_layer
from rootstock.adapters.sources.scikit_learn import layer_of, read_estimator

DRAW = np.random.default_rng(0)
FEATURES = DRAW.normal(1, 2, (60, 8))
THREE = [["down", "up", "left"][i] for i in DRAW.integers(0, 3, 60)]
TWO = DRAW.integers(0, 2, 60)
CV = LogisticRegressionCV(Cs=2, use_legacy_attributes=False, l1_ratios=(0,), scoring="accuracy")
SEVERAL = np.stack([TWO, 1 - TWO, DRAW.integers(0, 2, 60)], axis=1)


def scores(layer: OutputLayer) -> np.ndarray:
    """The scores that a server makes of the layer's outputs, as transformers' pipeline does."""
    features = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True) if layer.normalize else FEATURES
    outputs = features @ layer.weight.T.astype(float) + layer.bias
    given = {"regression": lambda x: x, "multi_label_classification": expit}
    return np.asarray(given.get(layer.problem_type, lambda x: softmax(x, axis=1))(outputs))


@pytest.mark.parametrize(
    ("estimator", "targets", "labels"),
    [
        (LogisticRegression(), THREE, ("down", "left", "up")),
        (LogisticRegression(), TWO, ("0", "1")),
        (LogisticRegression(fit_intercept=False), TWO, ("0", "1")),
        (LogisticRegression(solver="liblinear"), TWO, ("0", "1")),
        (CV, THREE, ("down", "left", "up")),
        (SGDClassifier(loss="log_loss", random_state=0), TWO, ("0", "1")),
        (OneVsRestClassifier(LogisticRegression()), SEVERAL, ("0", "1", "2")),
        (make_pipeline(StandardScaler(), LogisticRegression()), THREE, ("down", "left", "up")),
        (make_pipeline(StandardScaler(with_mean=False), LogisticRegression()), TWO, ("0", "1")),
        (make_pipeline(StandardScaler(with_std=False), LogisticRegression()), TWO, ("0", "1")),
        (make_pipeline(Normalizer(), "passthrough", LogisticRegression()), THREE, ("down", "left", "up")),
        (make_pipeline(Normalizer(), StandardScaler(), LogisticRegression()), THREE, ("down", "left", "up")),
    ],
)
def test_a_classifier_s_layer_gives_its_probabilities(
    estimator: Any, targets: Any, labels: tuple[str, ...]
) -> None:
    layer = layer_of(estimator.fit(FEATURES, targets))
    assert layer.labels == labels
    assert np.abs(scores(layer) - estimator.predict_proba(FEATURES)).max() < 1e-5


def test_a_classifier_of_several_outputs_gives_each_of_its_probabilities() -> None:
    estimator = MultiOutputClassifier(LogisticRegression()).fit(FEATURES, SEVERAL)
    expected = np.stack([output[:, 1] for output in estimator.predict_proba(FEATURES)], axis=1)
    layer = layer_of(estimator, ["a", "b", "c"])
    assert (layer.labels, layer.problem_type) == (("a", "b", "c"), "multi_label_classification")
    assert np.abs(scores(layer) - expected).max() < 1e-5


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regressor_s_layer_gives_its_predictions(outputs: int) -> None:
    targets = FEATURES[:, 0] if outputs == 1 else FEATURES[:, :outputs]
    estimator = Ridge().fit(FEATURES, targets)
    layer = layer_of(estimator)
    assert layer.problem_type == "regression"
    assert np.abs(scores(layer) - estimator.predict(FEATURES).reshape(60, -1)).max() < 1e-5


@pytest.mark.parametrize(
    ("estimator", "targets", "said"),
    [
        (RandomForestClassifier(2), TWO, "RandomForestClassifier is no head that is served; served: Logistic"),
        (LinearSVC(), TWO, "LinearSVC is no head"),
        (SGDClassifier(loss="log_loss"), THREE, "separate model for each of its 3 classes"),
        (
            OneVsRestClassifier(LogisticRegression()),
            THREE,
            "one of several classes, and its probabilities are no",
        ),
        (OneVsRestClassifier(LinearSVC()), SEVERAL, "output 0 of this OneVsRestClassifier is a LinearSVC"),
        (
            make_pipeline(MaxAbsScaler(), LogisticRegression()),
            TWO,
            "the pipeline's step MaxAbsScaler is not served",
        ),
        (make_pipeline(SelectKBest(k=2), LogisticRegression()), TWO, "step SelectKBest"),
        (make_pipeline(Normalizer("l1"), LogisticRegression()), TWO, "the norm 'l1'; served: 'l2'"),
        (make_pipeline(StandardScaler(), Normalizer(), LogisticRegression()), TWO, "Normalizer comes after its"),
    ],
)
def test_a_model_that_is_not_one_linear_layer_is_refused_by_name(estimator: Any, targets: Any, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        layer_of(estimator.fit(FEATURES, targets))


def test_an_estimator_that_is_not_fitted_is_refused() -> None:
    with pytest.raises(SourceError, match="not fitted: it has no classes_; fit it first"):
        layer_of(LogisticRegression())


@pytest.mark.parametrize(
    ("coef", "intercept", "labels", "said"),
    [
        ([[1.0, 2], [3, 4]], [0.0, 1], ["a"], "coef has 2 rows for 1 labels"),
        ([[1.0, 2]], [0.0, 1], ["a"], r"intercept has shape \[2\]; expected \[1\]"),
        ([[1.0, np.nan]], [0.0], ["a"], "NaN or infinity"),
        ([[1.0, 1e39]], [0.0], ["a"], "NaN or infinity in fp32"),
        (np.zeros((2, 2, 2)), [0.0], ["a"], "coef is no matrix"),
        ("x", [0.0], ["a"], "coef is no matrix"),
        ([[1.0, 2]], [0.0], [], "no labels were given"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(coef: Any, intercept: Any, labels: list[str], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        output_layer(coef, intercept, labels)


def test_an_unknown_problem_type_is_refused() -> None:
    with pytest.raises(SourceError, match="the problem type 'ranking' is unknown; use one of: single"):
        output_layer([[1.0, 2]], [0.0], ["a"], "ranking")


def test_a_skops_file_is_read_as_the_estimator_that_was_saved(tmp_path: Path) -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(FEATURES, THREE)
    skops.io.dump(fitted, tmp_path / "model.skops")
    layer = layer_of(read_estimator(tmp_path / "model.skops", trust_pickle=False))
    assert np.abs(scores(layer) - fitted.predict_proba(FEATURES)).max() < 1e-5


class Bomb:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl", "model.pickle"])
def test_a_pickle_is_not_opened_without_trust_and_the_refusal_names_the_remedies(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(SourceError) as caught:
        read_estimator(tmp_path / name, trust_pickle=False)
    assert not (tmp_path / "ran").exists()
    for remedy in ("skops.io.dump(estimator, 'model.skops')", "rootstock.adapters.head(", "--trust-pickle"):
        assert remedy in str(caught.value)
    read_estimator(tmp_path / name, trust_pickle=True)
    assert (tmp_path / "ran").exists()


def test_a_trusted_pickle_is_read_as_the_estimator_that_was_saved(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(FEATURES, TWO)
    joblib.dump(fitted, tmp_path / "model.joblib")
    layer = layer_of(read_estimator(tmp_path / "model.joblib", trust_pickle=True))
    assert np.abs(scores(layer) - fitted.predict_proba(FEATURES)).max() < 1e-5


def test_a_trusted_pickle_of_a_package_that_is_missing_names_the_package(tmp_path: Path) -> None:
    (tmp_path / "model_head.pkl").write_bytes(b"csetfit.modeling\nSetFitHead\n.")
    with pytest.raises(
        SourceError, match=r"model_head.pkl needs the package 'setfit'; install it, or give a skops"
    ):
        read_estimator(tmp_path / "model_head.pkl", trust_pickle=True)


def test_a_skops_file_with_a_type_of_another_package_is_refused(tmp_path: Path) -> None:
    skops.io.dump(Bomb(tmp_path / "ran"), tmp_path / "model.skops")
    with pytest.raises(SourceError, match="which skops does not trust by default"):
        read_estimator(tmp_path / "model.skops", trust_pickle=False)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(b"no zip")
    with pytest.raises(SourceError, match=r"model\.skops cannot be read: "):
        read_estimator(tmp_path / "model.skops", trust_pickle=False)


def scaled(**fitted: Any) -> Any:
    """A pipeline of a scaler and a head, with other values of the scaler."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(FEATURES, TWO)
    vars(pipeline[0]).update(fitted)
    return pipeline


def without(attribute: str, **values: Any) -> Any:
    """A fitted head without an attribute, or with another value of it."""
    head = LogisticRegression().fit(FEATURES, TWO)
    delattr(head, attribute)
    vars(head).update(values)
    return head


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (make_pipeline("passthrough"), "the pipeline has no step that computes anything"),
        (without("coef_"), "not fitted: it has no coef_"),
        (without("intercept_"), "not fitted: it has no intercept_"),
        (without("classes_", classes_=None), "not fitted: it has no classes_"),
        (scaled(mean_=None), "not fitted: it has no mean_"),
        (scaled(mean_=np.ones(3)), r"the scaler has the shape \[3\], and the head reads 8 features"),
        (scaled(scale_=np.ones((2, 8))), r"the scaler has the shape \[2, 8\]"),
        (scaled(scale_=np.zeros(8)), "NaN or infinity in fp32"),
        (scaled(mean_=np.full(8, 1e300)), "NaN or infinity in fp32"),
        (without("classes_", classes_=7), "cannot be converted: TypeError"),
    ],
)
def test_a_file_with_strange_parts_is_refused_by_the_part(tmp_path: Path, estimator: Any, said: str) -> None:
    skops.io.dump(estimator, tmp_path / "model.skops")
    with pytest.raises(SourceError, match=said):
        open_source(tmp_path / "model.skops", True, False)
