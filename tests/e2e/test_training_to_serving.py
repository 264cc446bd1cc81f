"""What a run makes is served as it was measured: figures over HTTP are those of the bundle at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from typer.testing import CliRunner

from rootstock.training.cli.app import app
from tests.live_server import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
ROOT = Path(__file__).parents[2]
_RECIPE = """
task_type: SEQ_CLS
name: topics
license: cc-by-4.0
description: A test.
data: {path: rows.csv}
peft: {method: head_only}
"""


def call(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr or result.output
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data"),
    [("review-sentiment", "review-sentiment.csv"), ("entities", "entities.conll")],
    ids=["texts", "tokens"],
)
def test_a_served_adapters_figures_are_its_bundles_to_the_digit(
    serve: Callable[..., RunningServer], name: str, data: str
) -> None:
    server = serve(demo=True)
    rows = ROOT / "training" / "data" / data
    served = call("evaluate", name, rows, "--server", server.url)
    assert served == call("evaluate", ROOT / "service" / "demo" / f"{name}.zip", rows)
    assert served["rows"] > 100


def test_a_run_with_push_ends_in_an_adapter_that_answers(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    server = serve(demo=False)
    topics = {"tea": ("kettle", "leaf"), "rail": ("train", "track"), "law": ("court", "judge")}
    lines = [
        f"about the {word} number {i},{topic}"
        for topic, words in topics.items()
        for word in words
        for i in range(9)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(_RECIPE, encoding="utf-8")
    checked = call("validate", tmp_path / "recipe.yaml", "--server", server.url)
    assert checked["rows"]["train"] == 34
    made = call("run", tmp_path / "recipe.yaml", "--output-dir", tmp_path / "out", "--push", server.url)
    assert made["published"]["digest"] == made["digest"]
    assert made["published"]["verification"]["golden"] == "passed"
    with server.client() as client:
        body = {"model": "topics", "inputs": "the judge is in court"}
        answer = client.post("/v1/predict", json=body).json()
        parameters = {"top_k": None, "function_to_apply": "none"}
        logits = client.post("/v1/predict", json={**body, "parameters": parameters}).json()["predictions"][0]
        parameters = {"top_k": None, "calibrated": True}
        calibrated = client.post("/v1/predict", json={**body, "parameters": parameters}).json()["predictions"][0]
    scaled = np.array([one["score"] for one in logits]) / made["calibration"]["temperature"]
    np.testing.assert_allclose([one["score"] for one in calibrated], softmax(scaled), rtol=1e-5)
    assert answer["digest"] == made["digest"]
    assert answer["predictions"][0]["label"] == "law"
    wide = tmp_path / "wide.yaml"
    wide.write_text(_RECIPE.replace("head_only", "lora, r: 500"), encoding="utf-8")
    refused = CliRunner().invoke(app, ["validate", str(wide), "--server", server.url])
    assert refused.exit_code == 2
    assert "peft.r: 500; " in refused.stderr
    assert "is 64; lower it" in refused.stderr


@pytest.mark.slow
def test_served_figures_of_several_labels_and_of_numbers_are_their_bundles(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    server = serve(demo=False)
    rows = ROOT / "training" / "data" / "reviews" / "review-aspects.csv"
    columns = {
        "review-aspects": ["--label-column", "aspects", "--label-separator", "|"],
        "review-stars": ["--label-column", "stars"],
    }
    for name, named in columns.items():
        recipe = ROOT / "training" / "recipes" / f"{name}.yaml"
        changes = ["peft.method=head_only", "--output-dir", tmp_path / name, "--push", server.url]
        made = call("run", recipe, *changes)
        assert made["published"]["verification"]["golden"] == "passed"
        served = call("evaluate", name, rows, *named, "--server", server.url)
        own = call("evaluate", made["zip"], rows, *named)
        assert served.pop("labels", None) == own.pop("labels", None)
        assert served.pop("intervals") == own.pop("intervals")
        assert served == pytest.approx(own, abs=1e-4)
    with server.client() as client:
        body = {"model": "review-aspects", "inputs": "Late, cheap and well made.", "parameters": {"top_k": None}}
        scores = client.post("/v1/predict", json=body).json()["predictions"][0]
        assert {one["label"] for one in scores} == {"delivery", "price", "quality", "service"}
        assert sum(one["score"] for one in scores) > 1
        body = {"model": "review-stars", "inputs": "Broken after a day, and nobody answers."}
        (stars,) = client.post("/v1/predict", json=body).json()["predictions"]
        assert stars["label"] == "stars"
        assert 1 < stars["score"] < 3
