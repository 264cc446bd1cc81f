"""A model answers to the names that the operator gives it, to its hub name, and in capital letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from rootstock.service.settings import Settings, SettingsError, read_settings
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter

NAMES = "text-embedding-3-small=foundation, Org/Mood:v1=mood@Prod, kserve-mood=mood, gone=nobody"
HUB = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]) -> Iterator[RunningServer]:
    settings = Settings(home=new_home(), demo=False, log_level="error", served_names=NAMES)
    with run_server(settings) as running, running.client() as client:
        for adapter in ("first", "second"):
            assert upload(client, "mood", peft_saved[adapter].zip()).status_code == 201
        assert client.put("/v1/adapters/mood/aliases/Prod", json={"version": 1}).status_code == 200
        yield running


@pytest.mark.parametrize(
    "name", ["text-embedding-3-small", "Text-Embedding-3-SMALL", HUB, HUB.lower(), "Foundation"]
)
def test_the_foundation_embeds_under_each_of_its_names(api: openai.OpenAI, name: str) -> None:
    answer = api.embeddings.create(model=name, input="x")
    assert answer.data == api.embeddings.create(model="foundation", input="x").data
    assert answer.model == api.models.retrieve(name).id == name


@pytest.mark.parametrize(
    ("name", "version"), [("Org/Mood:v1", 1), ("org/mood:V1", 1), ("MOOD", 2), ("Mood@1", 1), ("mood@Prod", 1)]
)
def test_an_adapter_answers_under_each_of_its_names(client: httpx.Client, name: str, version: int) -> None:
    answer = client.post("/v1/predict", json={"model": name, "inputs": "x"}).json()
    assert (answer["model"], answer["version"]) == (name, version)
    assert client.get(f"/v1/models/{name}").json()["root"] == "mood"


@pytest.mark.parametrize("name", ["MOOD", "kserve-mood"])
def test_the_open_inference_protocol_takes_the_same_names(client: httpx.Client, name: str) -> None:
    texts = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["x"]}
    answer = client.post(f"/v2/models/{name}/infer", json={"inputs": [texts]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_name"] == name


@pytest.mark.parametrize("name", ["gone", "mood@prod", "MOOD@PROD", "all-minilm-l6-v2", "text-embedding-3-smal"])
def test_a_name_of_no_model_stays_404(client: httpx.Client, name: str) -> None:
    assert client.post("/v1/predict", json={"model": name, "inputs": "x"}).status_code == 404
    assert client.get(f"/v1/models/{name}").status_code == 404


def test_the_list_holds_the_names_whose_model_is_there(api: openai.OpenAI) -> None:
    listed = [one.id for one in api.models.list()]
    assert listed == ["foundation", "text-embedding-3-small", "org/mood:v1", "kserve-mood", "mood"]


def test_no_adapter_takes_a_served_name(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    answer = upload(client, "text-embedding-3-small", peft_saved["first"].zip())
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_name")
    assert "ROOTSTOCK_SERVED_NAMES" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "names", ["a", "=foundation", "a=", "a=b c", "foundation=a", "a=b,A=c", "ä=a", "a b=c", "a=b@"]
)
def test_a_wrong_setting_of_names_is_refused_at_start(names: str) -> None:
    with pytest.raises(SettingsError, match=r"^ROOTSTOCK_SERVED_NAMES"):
        read_settings(served_names=names)


def test_a_served_name_can_be_pinned_unless_it_means_the_foundation() -> None:
    names = "org/mood:v1=mood@Prod,text-embedding-3-small=foundation"
    assert read_settings(served_names=names, pin="Org/Mood:v1,other@2").pinned == ("Org/Mood:v1", "other@2")
    with pytest.raises(SettingsError, match=r"^ROOTSTOCK_PIN: foundation is always in memory"):
        read_settings(served_names=names, pin="text-embedding-3-small")
    with pytest.raises(SettingsError, match=r"^ROOTSTOCK_PIN"):
        read_settings(pin="org/mood:v1")
