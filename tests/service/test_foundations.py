"""Several foundations in one server: each request is answered by the foundation that its adapter is made for."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rootstock.adapters.client.client import Client
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.settings import Settings, SettingsError, read_settings
from rootstock.service.telemetry.top import frames
from rootstock.service.telemetry.top_screen import shown
from tests.live_server import RunningServer, run_server, upload
from tests.parity.foundations import make_tiny
from tests.parity.matrix import ARCHITECTURES
from tests.peft_adapters import save_adapter

TEXTS = ("Where is my parcel?", "ok", "The left ear cup broke within a week of careful use.", "a b c d e")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second foundation of another architecture, in a folder of the name `small`."""
    return make_tiny(ARCHITECTURES["roberta"], tmp_path_factory.mktemp("foundations") / "small").folder


@pytest.fixture(scope="module")
def uploads(
    foundation: FoundationFiles, other: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Two adapters of each foundation as plain PEFT folders that name their base."""
    root = tmp_path_factory.mktemp("saved")
    return {
        f"{name}-{seed}": save_adapter(base, root / f"{name}-{seed}", "SEQ_CLS", seed, 3, r=4).zip()
        for name, base in (("default", foundation.folder), ("small", other))
        for seed in range(2)
    }


@pytest.fixture(scope="module")
def servers(
    new_home: Callable[[], Path], other: Path, uploads: dict[str, bytes]
) -> Iterator[tuple[RunningServer, dict[str, RunningServer]]]:
    """A server of both foundations, and one of each alone, with the adapters that it can take."""
    with ExitStack() as stack:

        def start(**settings: Any) -> RunningServer:
            return stack.enter_context(
                run_server(Settings(home=new_home(), demo=False, log_level="error", **settings))
            )

        both = start(foundations=f"default,{other}")
        alone = {"default": start(), "small": start(foundation=str(other))}
        for name, data in uploads.items():
            for server in (both, alone[name.partition("-")[0]]):
                with server.client() as client:
                    answer = upload(client, name, data)
                    assert answer.status_code == 201, answer.text
        yield both, alone


def test_a_demo_adapter_whose_name_a_foundation_has_is_left_out(
    new_home: Callable[[], Path], other: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "entities"
    shutil.copytree(other, folder)
    settings = Settings(home=new_home(), foundations=f"default,{folder}", log_level="error")
    with run_server(settings) as server, server.client() as client:
        listed = {one["name"] for one in client.get("/v1/adapters").json()["adapters"]}
    assert listed == {"review-sentiment", "support-intents"}


@pytest.mark.parametrize("requests", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mixed_requests_are_answered_as_two_servers_of_one_foundation_answer_them(
    servers: tuple[RunningServer, dict[str, RunningServer]], uploads: dict[str, bytes], requests: int
) -> None:
    both, alone = servers
    expected = {}
    for name in uploads:
        with alone[name.partition("-")[0]].client() as client:
            for text in TEXTS:
                answer = client.post("/v1/predict", json={"model": name, "inputs": text}).json()
                expected[name, text] = answer["predictions"][0]
    generator = random.Random(0)
    calls = [(generator.choice(sorted(uploads)), generator.choice(TEXTS)) for _ in range(requests)]
    with both.client() as client, ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda call: client.post("/v1/predict", json={"model": call[0], "inputs": call[1]}), calls
            )
        )
    for call, answer in zip(calls, answers, strict=True):
        assert answer.status_code == 200, answer.text
        (prediction,) = answer.json()["predictions"]
        assert prediction["label"] == expected[call]["label"]
        assert prediction["score"] == pytest.approx(expected[call]["score"], abs=1e-4)


def test_a_fan_out_over_both_foundations_is_one_answer_in_order(
    servers: tuple[RunningServer, dict[str, RunningServer]], uploads: dict[str, bytes]
) -> None:
    both, _ = servers
    models = ["small-0", "default-0", "nobody", "small-1", "default-1", "small-0"]
    with both.client() as client:
        answer = client.post("/v1/predict", json={"models": models, "inputs": "ok"}).json()
    assert [result["model"] for result in answer["results"]] == models
    assert ["error" in result for result in answer["results"]] == [name == "nobody" for name in models]
    assert answer["results"][0]["predictions"] == answer["results"][5]["predictions"]


def test_each_foundation_embeds_under_its_name_and_foundation_is_the_first(
    servers: tuple[RunningServer, dict[str, RunningServer]],
) -> None:
    both, alone = servers

    def embed(server: RunningServer, model: str) -> Any:
        with server.client() as client:
            answer = client.post("/v1/embeddings", json={"model": model, "input": "ok"})
            assert answer.status_code == 200, answer.text
            return answer.json()["data"][0]["embedding"]

    first = pytest.approx(embed(alone["default"], "foundation"), abs=1e-4)
    assert embed(both, "foundation") == first
    assert embed(both, "default") == first
    assert embed(both, "small") == pytest.approx(embed(alone["small"], "foundation"), abs=1e-4)
    with both.client() as client:
        names = {model["id"]: model["parent"] for model in client.get("/v1/models").json()["data"]}
        limits = client.get("/v1/limits").json()["foundations"]
        metrics = client.get("/metrics").text
    assert names == {
        "default": None, "small": None, "default-0": "default", "default-1": "default", "small-0": "small",
        "small-1": "small",
    }  # fmt: skip
    assert [one["id"] for one in limits] == ["default", "small"]
    for name in ("default", "small"):
        assert f'rootstock_slots_used{{foundation="{name}"}}' in metrics


def test_top_shows_the_load_of_each_foundation(
    servers: tuple[RunningServer, dict[str, RunningServer]],
) -> None:
    both, alone = servers
    with both.client() as client:
        client.post("/v1/predict", json={"models": ["default-0", "small-0", "small-1"], "inputs": "ok"})
    with Client(both.url) as lister:
        view = next(frames(lister, 0.01, lambda seconds: False))
    page = StringIO()
    Console(width=120, file=page).print(shown(view, both.url))
    assert re.search(r"^ +small +small +onnx fp32 +0 +0 +\d+ +\d+ +\d+ MiB", page.getvalue(), re.MULTILINE)
    assert [load.name for load in view.foundations] == ["default", "small"]
    for figure in ("slots_used", "cache_adapters", "cache_bytes"):
        loads = [getattr(load, figure) for load in view.foundations]
        assert sum(loads) == getattr(view, figure)
        assert min(loads) > 0
    with Client(alone["small"].url) as lister:
        assert [load.name for load in next(frames(lister, 0.01, lambda seconds: False)).foundations] == [
            "foundation"
        ]


def test_a_foundation_s_name_is_refused_for_an_adapter(
    servers: tuple[RunningServer, dict[str, RunningServer]], uploads: dict[str, bytes]
) -> None:
    with servers[0].client() as client:
        refused = upload(client, "small", uploads["small-0"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_name")


def test_a_bundle_of_a_foundation_that_is_not_here_is_refused_by_name(
    servers: tuple[RunningServer, dict[str, RunningServer]], uploads: dict[str, bytes]
) -> None:
    with servers[1]["default"].client() as client:
        refused = upload(client, "stranger", uploads["small-0"])
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (422, "rejected_foundation")
    assert "small" in error["message"]
    assert "all-MiniLM-L6-v2" in error["message"]


def test_a_version_whose_foundation_is_gone_is_refused_and_the_others_are_answered(
    new_home: Callable[[], Path], other: Path, uploads: dict[str, bytes]
) -> None:
    home = new_home()
    settings = {"home": home, "demo": False, "log_level": "error"}
    with run_server(Settings(foundations=f"default,{other}", **settings)) as running, running.client() as client:
        for name in ("default-0", "small-0"):
            assert upload(client, name, uploads[name]).status_code == 201
    with run_server(Settings(**settings)) as running, running.client() as client:
        assert client.post("/v1/predict", json={"model": "default-0", "inputs": "ok"}).status_code == 200
        refused = client.post("/v1/predict", json={"model": "small-0", "inputs": "ok"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "foundation_not_hosted")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ROOTSTOCK_FOUNDATIONS": "default,default"}, "default"),
        ({"ROOTSTOCK_FOUNDATIONS": "default,b/model@x,a/model@y"}, "2 foundations of the name 'model'"),
        ({"ROOTSTOCK_FOUNDATIONS": "default,a/foundation@x"}, "'foundation', which no request can use"),
        ({"ROOTSTOCK_FOUNDATIONS": "default,a/b@x", "ROOTSTOCK_FOUNDATION": "a/b@x"}, "set one of the two"),
    ],
)
def test_foundations_that_cannot_be_told_apart_are_refused_at_start(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if environment == {"ROOTSTOCK_FOUNDATIONS": "default,default"}:
        assert read_settings().hosted == {"foundation": "default"}, "named twice, it is one"
        return
    with pytest.raises(SettingsError, match=message):
        read_settings()
