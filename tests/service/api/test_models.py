"""The routes under /v1/models, called by the openai client."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from tests.live_server import OWNER, READER, RunningServer, upload
from tests.peft_adapters import PeftAdapter

NAMES = ["a-first", "b-second", "c-first"]


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> tuple[int, int]:
    """Publish three adapters; return the Unix seconds before and after."""
    before = int(time.time())
    for name in NAMES:
        assert upload(client, name, peft_saved[name.partition("-")[2]].zip()).status_code == 201
    return before, int(time.time())


@pytest.mark.calls("openai", "models.list")
@pytest.mark.calls("openai", "models.retrieve")
def test_a_model_tells_when_its_version_was_uploaded(
    api: openai.OpenAI, client: httpx.Client, published: tuple[int, int]
) -> None:
    listed = {one.id: one for one in api.models.list()}
    shown = api.models.retrieve("a-first@1")
    assert published[0] <= listed["a-first"].created == shown.created <= published[1]
    recorded = client.get("/v1/adapters/a-first/versions/1").json()["created_at"]
    assert recorded.startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(shown.created)))
    assert listed["foundation"].created == 0


def test_a_model_by_its_reference_is_the_one_of_the_list(client: httpx.Client) -> None:
    for one in client.get("/v1/models").json()["data"]:
        assert client.get(f"/v1/models/{one['id']}").json() == one


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_hold_the_whole_list_in_order(client: httpx.Client, limit: int) -> None:
    whole = client.get("/v1/models").json()
    assert ([one["id"] for one in whole["data"]], whole["next"]) == (["foundation", *NAMES], None)
    pages: list[Any] = []
    after = None
    while not pages or after is not None:
        query = {"limit": limit} | ({} if after is None else {"after": after})
        page = client.get("/v1/models", params=query).json()
        assert 1 <= len(page["data"]) <= limit
        pages += page["data"]
        after = page["next"]
    assert pages == whole["data"]
    rest = client.get("/v1/models", params={"after": "a-first"}).json()
    assert [one["id"] for one in rest["data"]] == NAMES[1:]


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("limit=1001", "limit"), ("after=a%20b", "after")],
)
def test_a_page_that_cannot_be_one_is_422(client: httpx.Client, query: str, param: str) -> None:
    answer = client.get(f"/v1/models?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


@pytest.mark.parametrize(
    ("path", "status"),
    [("nobody", 404), ("a-first@2", 404), ("a-first@prod", 404), ("a b", 422), ("", 422), ("x/y", 404),
     ("x/y/z", 422), ("%00", 422), ("foundation@1", 422), ("%ff", 422), ("a-first@sha256:12", 422)],
)  # fmt: skip
def test_a_reference_of_no_model_is_not_shown_and_not_deleted(
    client: httpx.Client, path: str, status: int
) -> None:
    assert client.get(f"/v1/models/{path}").status_code == status
    assert client.delete(f"/v1/models/{path}").status_code == status


def test_an_adapter_is_deleted_by_its_name_and_a_version_by_its_number(
    serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter]
) -> None:
    running = serve()
    api = openai.OpenAI(base_url=f"{running.url}/v1", api_key="unused", max_retries=0)
    with running.client() as client:
        for adapter in ("first", "second"):
            assert upload(client, "mood", peft_saved[adapter].zip()).status_code == 201
        with pytest.raises(openai.ConflictError, match="live"):
            api.models.delete("mood@2")
        assert api.models.delete("mood@1").deleted
        assert [v["version"] for v in client.get("/v1/adapters/mood").json()["versions"]] == [2]
        assert api.models.delete("mood").id == "mood"
        assert [one.id for one in api.models.list()] == ["foundation"]
        with pytest.raises(openai.NotFoundError):
            api.models.delete("mood")
        with pytest.raises(openai.UnprocessableEntityError, match="cannot be deleted"):
            api.models.delete("foundation")


@pytest.mark.calls("openai", "models.delete")
def test_only_the_admin_key_deletes_a_model(serve: Callable[..., RunningServer]) -> None:
    running = serve(api_key=READER, admin_key=OWNER)
    for key, status in ((None, 401), (READER, 403), (OWNER, 404)):
        with running.client(key) as client:
            assert client.delete("/v1/models/nobody").status_code == status
    with running.client(READER) as client:
        assert client.get("/v1/models/foundation").status_code == 200
