"""A foundation of two towers compares images with labels as transformers' pipeline does, under any adapters."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from huggingface_hub import InferenceClient

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle, write_bundle
from rootstock.adapters.bundle.golden import Golden
from rootstock.adapters.client.client import Client
from rootstock.adapters.client.predictions import ZeroShotImageResult
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.media import ImageFile
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.media import png
from tests.peft_adapters import PeftAdapter
from tests.two_towers import (
    make_two_towers,
    pipeline,
    pixels,
    save_tower_adapter,
    scores,
    tower_configs,
)

TASK = "zero-shot-image-classification"
PNGS = [png(8, 8), png(40, 30, (3, 250, 9)), png(33, 64, (9, 9, 200))]
LABELS = ["a small red car", "dog", "the house in the rain", "unheard of"]
NAMES = list(tower_configs("clip"))
TOWERS = ("clip", "siglip")


@dataclass(frozen=True)
class TowerServer:
    """A server of a tiny CLIP and a tiny SigLIP, each with one adapter for each of NAMES."""

    running: RunningServer
    foundations: Mapping[str, Path]
    adapters: Mapping[str, PeftAdapter]

    def expected(self, tower: str, name: str | None, data: bytes, **parameters: Any) -> dict[str, float]:
        """Return transformers' scores of an image under an adapter, or of the foundation for None."""
        adapter = None if name is None else self.adapters[f"{tower}-{name}"]
        made = pipeline(self.foundations[tower], adapter)
        return scores(made(pixels(data), **{"candidate_labels": LABELS, **parameters}))


@pytest.fixture(scope="module", params=["torch", "onnx"])
def towers(
    request: pytest.FixtureRequest, new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TowerServer]:
    folder = tmp_path_factory.mktemp("towers")
    made = {tower: make_two_towers(tower, folder / tower) for tower in TOWERS}
    adapters = {
        f"{tower}-{name}": save_tower_adapter(made[tower], folder / f"{tower}-{name}", seed, config)
        for tower in TOWERS
        for seed, (name, config) in enumerate(tower_configs(tower).items())
    }
    chosen = {"demo": False, "log_level": "error", "threads": 1, "runner": request.param}
    listed = ",".join(str(path) for path in made.values())
    with run_server(Settings(home=new_home(), foundations=listed, **chosen)) as running:
        with running.client() as client:
            for name, adapter in adapters.items():
                tower = name.partition("-")[0]
                answer = upload(client, name, adapter.zip(), foundation=tower, task=TASK)
                assert answer.status_code == 201, answer.text
        yield TowerServer(running, made, adapters)


@pytest.fixture(scope="module")
def client(towers: TowerServer) -> Iterator[httpx.Client]:
    with towers.running.client() as client:
        yield client


def image(data: bytes) -> dict[str, Any]:
    return {"image": {"b64": base64.b64encode(data).decode()}}


def predict(client: httpx.Client, **body: Any) -> Any:
    answer = client.post("/v1/predict", json={"parameters": {"candidate_labels": LABELS}, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("tower", TOWERS)
def test_adapters_of_either_tower_share_batches_and_have_the_pipeline_s_scores(
    towers: TowerServer, client: httpx.Client, tower: str
) -> None:
    models = [tower, *(f"{tower}-{name}" for name in NAMES)]
    found = predict(client, models=models, task=TASK, inputs=[image(data) for data in PNGS[:2]])["results"]
    for one, name in zip(found, [None, *NAMES], strict=True):
        assert one["task"] == TASK
        for data, ranking in zip(PNGS, one["predictions"], strict=False):
            assert scores(ranking) == pytest.approx(towers.expected(tower, name, data), abs=1e-4)
            assert [label["score"] for label in ranking] == sorted(scores(ranking).values(), reverse=True)
    assert len({json.dumps(one["predictions"]) for one in found}) == len(models)


@pytest.mark.parametrize("tower", TOWERS)
def test_a_template_and_labels_in_one_string_reach_the_texts(
    towers: TowerServer, client: httpx.Client, tower: str
) -> None:
    template = "{} , a picture of this thing"
    parameters = {"candidate_labels": "red cat, tree", "hypothesis_template": template}
    found = predict(client, model=f"{tower}-both", inputs=image(PNGS[2]), parameters=parameters)
    labels = {"candidate_labels": ["red cat", "tree"], "hypothesis_template": template}
    assert scores(found["predictions"][0]) == pytest.approx(
        towers.expected(tower, "both", PNGS[2], **labels), abs=1e-4
    )


@pytest.mark.calls("huggingface_hub", "zero_shot_image_classification")
def test_the_clients_of_the_hub_and_ours_classify_without_training(
    towers: TowerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    expected, url = towers.expected("clip", "both", PNGS[1]), towers.running.url
    hub = InferenceClient(model=f"{url}/models/clip-both")
    answer = hub.zero_shot_image_classification(PNGS[1], candidate_labels=LABELS)
    assert {one.label: one.score for one in answer} == pytest.approx(expected, abs=1e-4)
    own = InferenceClient(model=f"{url}/models/clip/pipeline/{TASK}")
    answer = own.zero_shot_image_classification(PNGS[1], candidate_labels=LABELS, hypothesis_template="a {}")
    bare = towers.expected("clip", None, PNGS[1], hypothesis_template="a {}")
    assert {one.label: one.score for one in answer} == pytest.approx(bare, abs=1e-4)
    with Client(url) as ours:
        result = ours.predict("clip-both", ImageFile(PNGS[1]), ZeroShotImageResult, candidate_labels=LABELS)
    assert dict(result.scores) == pytest.approx(expected, abs=1e-4)
    assert result.label == max(expected, key=expected.__getitem__)


@pytest.mark.parametrize(
    ("change", "status", "param", "words"),
    [
        ({"parameters": {}}, 422, "parameters.candidate_labels", "at least one label"),
        ({"parameters": {"candidate_labels": ["x"] * 257}}, 413, "parameters.candidate_labels", "at most 256"),
        (
            {"parameters": {"candidate_labels": ["dog " * 30]}}, 422, "parameters.candidate_labels",
            "the limit is 24",
        ),
        (
            {"parameters": {"candidate_labels": ["x"], "hypothesis_template": "a"}}, 422,
            "parameters.hypothesis_template", "exactly once",
        ),
        ({"parameters": {"candidate_labels": ["x"], "top_k": 1}}, 422, "parameters.top_k", "no parameter"),
        ({"inputs": "a text"}, 422, "inputs[0]", "takes an image"),
        ({"task": "image-feature-extraction"}, 422, "task", "supports zero-shot-image-classification"),
    ],
)  # fmt: skip
def test_an_error_of_either_tower_is_the_call_s_and_names_the_field(
    client: httpx.Client, change: dict[str, Any], status: int, param: str, words: str
) -> None:
    body = {
        "model": "clip-both", "inputs": image(PNGS[0]), "parameters": {"candidate_labels": LABELS}, **change
    }  # fmt: skip
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


def test_siglip_truncates_a_long_label_as_the_pipeline_does(towers: TowerServer, client: httpx.Client) -> None:
    labels = ["very old dog " * 40, "cat"]
    found = predict(client, model="siglip-texts", inputs=image(PNGS[0]), parameters={"candidate_labels": labels})
    expected = towers.expected("siglip", "texts", PNGS[0], candidate_labels=labels)
    assert scores(found["predictions"][0]) == pytest.approx(expected, abs=1e-4)


def test_a_foundation_of_two_towers_embeds_images_unless_the_request_names_the_task(
    towers: TowerServer, client: httpx.Client
) -> None:
    (vector,) = predict(client, model="clip", inputs=image(PNGS[0]), parameters={})["predictions"]
    assert len(vector) == 16
    models = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
    assert models["clip"]["tasks"] == ["image-feature-extraction", TASK]
    assert models["clip-texts"]["task"] == TASK


def test_a_version_is_compared_under_one_digest(client: httpx.Client) -> None:
    adapter = client.get("/v1/adapters/clip-both").json()
    found = predict(client, model="clip-both", inputs=image(PNGS[0]))
    assert found["digest"] in json.dumps(adapter)
    own = predict(client, model="clip", task=TASK, inputs=image(PNGS[0]))
    assert own["version"] is None
    assert own["digest"] != found["digest"]


@pytest.mark.parametrize("tower", TOWERS)
def test_a_golden_set_holds_the_vectors_of_images(towers: TowerServer, client: httpx.Client, tower: str) -> None:
    made = pipeline(towers.foundations[tower], towers.adapters[f"{tower}-both"])
    values = made.image_processor(images=[pixels(data) for data in PNGS], return_tensors="pt")
    with torch.no_grad():
        vectors = made.model.get_image_features(**values).pooler_output.numpy()
    spec = describe(locate(str(towers.foundations[tower])))
    plain = open_bundle(towers.adapters[f"{tower}-both"].zip(), Limits(), spec, PlainFields(task=TASK))
    stated = {**plain.manifest.foundation, "fingerprint": spec.fingerprint}
    for shift, status in ((0.0, 201), (0.01, 422)):
        golden = Golden(tuple(map(ImageFile, PNGS)), tuple(vectors + np.float32(shift)))
        files = {**plain.files, "golden.json": golden.to_bytes()}
        bundle = write_bundle(replace(plain.manifest, foundation=stated), files)
        answer = upload(client, f"{tower}-golden", bundle.to_zip())
        assert answer.status_code == status, answer.text
        assert ("rejected_golden" in answer.text) == (status == 422)
    found = predict(client, model=f"{tower}-golden", inputs=image(PNGS[0]))
    assert scores(found["predictions"][0]) == pytest.approx(towers.expected(tower, "both", PNGS[0]), abs=1e-4)


def test_images_of_a_call_share_the_texts_of_its_labels(client: httpx.Client) -> None:
    one, two, few = (
        predict(client, model="clip-both", inputs=[image(data) for data in PNGS[:count]], parameters=parameters)
        for count, parameters in (
            (1, {"candidate_labels": LABELS}),
            (2, {"candidate_labels": LABELS}),
            (1, {"candidate_labels": LABELS[:1]}),
        )
    )
    tokens = [answer["usage"]["prompt_tokens"] for answer in (one, two, few)]
    # 16 patches and the class token.
    assert tokens[1] - tokens[0] == 17
    assert tokens[2] < tokens[0]
