"""Tasks on images and recordings answer as transformers' pipelines do, and refuse other inputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.pipelines.audio_classification import AudioClassificationPipeline
from transformers.pipelines.image_classification import ImageClassificationPipeline

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Adapter, AdapterWeights, Calibration, HeadSpec, Preprocessing
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.task import check_call

PIPELINES = {
    "image-classification": ImageClassificationPipeline,
    "audio-classification": AudioClassificationPipeline,
}
FILES: dict[str, Any] = {
    "image-classification": ImageFile(b""),
    "image-feature-extraction": ImageFile(b""),
    "audio-classification": AudioFile(b""),
    "audio-feature-extraction": AudioFile(b""),
}
PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


def make(task: str, labels: int, problem: str | None, temperature: float | None = None) -> Adapter:
    return Adapter(
        digest="sha256:0",
        task=task,
        problem_type=problem,
        labels=tuple(f"label {i}" for i in range(labels)),
        head=HeadSpec("linear"),
        preprocessing=Preprocessing(1),
        weights=AdapterWeights({}, {}),
        calibration=None if temperature is None else Calibration(temperature),
    )


def pipeline_s(task: str, adapter: Adapter, raw: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    labels = len(adapter.labels)
    config = SimpleNamespace(
        problem_type=adapter.problem_type,
        num_labels=labels,
        id2label=dict(enumerate(adapter.labels)),
    )
    outputs = SimpleNamespace(logits=torch.from_numpy(raw)[None])
    held: Any = SimpleNamespace(model=SimpleNamespace(config=config))
    # The image pipeline has no value for all labels.
    wanted = {**parameters, "top_k": labels} if parameters.get("top_k", 5) is None else parameters
    chosen = PIPELINES[task]._sanitize_parameters(held, **wanted)[2]
    given: Any = {"logits": outputs.logits} if task == "image-classification" else outputs
    answer: list[dict[str, Any]] = PIPELINES[task].postprocess(held, given, **chosen)
    return answer


@pytest.mark.parametrize("task", sorted(PIPELINES))
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("labels", [1, 2, 8])
@pytest.mark.parametrize(
    "parameters", [{}, {"top_k": 1}, {"top_k": None}, {"function_to_apply": "none"}, {"top_k": 100}]
)
def test_scores_are_those_of_the_pipeline(
    task: str, problem: str, labels: int, parameters: dict[str, Any]
) -> None:
    adapter = make(task, labels, problem)
    raw = np.random.default_rng(labels).normal(size=labels).astype(np.float32) * 3
    ours = TASKS[task].predict([raw], [], adapter, parameters, None)
    theirs = pipeline_s(task, adapter, raw, parameters)
    assert [item["label"] for item in ours] == [item["label"] for item in theirs]
    np.testing.assert_allclose([i["score"] for i in ours], [i["score"] for i in theirs], atol=1e-6)


@pytest.mark.parametrize("task", sorted(PIPELINES))
def test_calibrated_scores_are_those_of_the_logits_over_the_temperature(task: str) -> None:
    raw = np.array([2.0, 0.0, -1.0], np.float32)
    plain, calibrated = make(task, 3, PROBLEMS[0]), make(task, 3, PROBLEMS[0], temperature=2.0)
    ours = TASKS[task].predict([raw], [], calibrated, {"calibrated": True}, None)
    halved = TASKS[task].predict([raw / 2], [], plain, {}, None)
    assert [item["label"] for item in ours] == [item["label"] for item in halved]
    np.testing.assert_allclose([item["score"] for item in ours], [item["score"] for item in halved], rtol=1e-6)
    with pytest.raises(InvalidParameter, match="no calibration"):
        TASKS[task].check_adapter(plain, {"calibrated": True})


@pytest.mark.parametrize("task", sorted(FILES))
def test_another_form_or_an_unknown_parameter_is_refused_by_its_place(task: str) -> None:
    mine = FILES[task]
    check_call(TASKS[task], [mine], {})
    for other in ("x", ("x", "y"), *(file for file in FILES.values() if type(file) is not type(mine))):
        with pytest.raises(InvalidInput, match=f"{task} takes an? ") as raised:
            check_call(TASKS[task], [mine, other], {})
        assert raised.value.param == "inputs[1]"
    for name in ("nonsense", "truncation"):
        with pytest.raises(InvalidParameter, match=f"no parameter '{name}'"):
            check_call(TASKS[task], [mine], {name: True})


@pytest.mark.parametrize("parameters", [{"top_k": 0}, {"function_to_apply": "max"}, {"calibrated": "yes"}])
@pytest.mark.parametrize("task", sorted(PIPELINES))
def test_a_value_that_a_parameter_does_not_take_is_refused(task: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="expected"):
        check_call(TASKS[task], [FILES[task]], parameters)


@pytest.mark.parametrize("task", ["image-feature-extraction", "audio-feature-extraction"])
def test_an_embedding_is_the_head_s_vector(task: str) -> None:
    raw = np.array([0.25, -1.5], np.float32)
    assert TASKS[task].predict([raw], [], make(task, 0, None), {}, None) == [0.25, -1.5]
