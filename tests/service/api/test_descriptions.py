"""The description, the model card and the events of an adapter, over HTTP."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from safetensors.numpy import load

from rootstock.adapters.spec import FoundationSpec
from rootstock.service.composition.demo_adapters import DEMO
from tests.live_server import OWNER, READER, RunningServer, upload
from tests.peft_adapters import PeftAdapter

SENTIMENT = DEMO / "review-sentiment.zip"
CARD = "README.md"


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    """Publish a whole bundle, a plain folder of PEFT under it, and the folder again without its card."""
    assert upload(client, "mood", SENTIMENT.read_bytes()).status_code == 201
    assert upload(client, "mood", peft_saved["first"].zip(), activate="false").status_code == 201
    assert upload(client, "vectors", without_card(peft_saved["embedder"].zip())).status_code == 201


def without_card(data: bytes) -> bytes:
    files = members(data)
    files.pop(CARD)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def error_of(answer: httpx.Response) -> tuple[int, str]:
    code: str = answer.json()["error"]["code"]
    return answer.status_code, code


def test_an_adapter_s_description_is_its_live_version_s_manifest(
    client: httpx.Client, spec: FoundationSpec
) -> None:
    files = members(SENTIMENT.read_bytes())
    manifest, tensors = json.loads(files["bundle.json"]), load(files["adapter_model.safetensors"])
    shown = client.get("/v1/adapters/mood").json()
    assert shown["live"] == 1
    assert shown["description"] == {
        "kind": "lora",
        "head": "linear",
        "labels": ["negative", "neutral", "positive"],
        "problem_type": "single_label_classification",
        "max_length": manifest["preprocessing"]["max_length"],
        "ranks": [json.loads(files["adapter_config.json"])["r"]],
        "targets": manifest["targets"],
        "parameters": sum(tensor.size for tensor in tensors.values()),
        "base": {**manifest["foundation"], "id": "foundation"},
        "licence": manifest["license"],
        "provenance": manifest["provenance"],
        "evaluation": manifest["evaluation"],
        "golden": True,
        "card": True,
    }
    assert shown["description"]["base"]["fingerprint"] == spec.fingerprint
    assert "baselines" in shown["description"]["evaluation"]
    assert client.get("/v1/adapters/mood/versions/1").json()["description"] == shown["description"]


def test_a_version_of_a_plain_folder_has_null_for_all_that_the_folder_does_not_state(
    client: httpx.Client, spec: FoundationSpec
) -> None:
    described = client.get("/v1/adapters/mood/versions/2").json()["description"]
    assert described["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert (described["ranks"], described["golden"]) == ([4], False)
    assert described["base"]["fingerprint"] == spec.fingerprint
    for field in ("licence", "provenance", "evaluation"):
        assert described[field] is None
    vectors = client.get("/v1/adapters/vectors").json()["description"]
    assert (vectors["labels"], vectors["problem_type"], vectors["card"]) == (None, None, False)


def test_the_newest_version_describes_an_adapter_without_a_live_one(
    serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter]
) -> None:
    with serve().client() as client:
        for kind in ("first", "second"):
            upload(client, "mood", peft_saved[kind].zip(), activate="false")
        assert client.get("/v1/adapters/mood").json()["description"]["ranks"] == [8]
        for number in (1, 2):
            assert client.delete(f"/v1/adapters/mood/versions/{number}").status_code == 204
        assert client.get("/v1/adapters/mood").json()["description"] is None
        assert error_of(client.get("/v1/adapters/mood/card")) == (404, "no_card")


def test_the_card_is_the_bundle_s_markdown(client: httpx.Client) -> None:
    card = members(SENTIMENT.read_bytes())[CARD]
    for path in ("/v1/adapters/mood/card", "/v1/adapters/mood/versions/1/card"):
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (200, card)
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    other = client.get("/v1/adapters/mood/versions/2/card", headers={"If-None-Match": answer.headers["etag"]})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("vectors/card", "no_card"),
        ("vectors/versions/1/card", "no_card"),
        ("nobody/card", "unknown_adapter"),
        ("nobody/events", "unknown_adapter"),
        ("foundation/card", "unknown_adapter"),
        ("mood/versions/9/card", "unknown_version"),
        ("mood/versions/9", "unknown_version"),
    ],
)
def test_what_is_not_there_is_404(client: httpx.Client, path: str, code: str) -> None:
    assert error_of(client.get(f"/v1/adapters/{path}")) == (404, code)


def test_events_are_listed_newest_first_a_page_at_a_time(
    serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter]
) -> None:
    with serve().client() as client:
        first = upload(client, "mood", peft_saved["first"].zip()).json()
        client.put("/v1/adapters/mood/aliases/prod", json={"version": 1})
        upload(client, "tone", peft_saved["second"].zip(), activate="false")
        client.delete("/v1/adapters/mood")

        def pages(path: str, limit: int) -> list[dict[str, Any]]:
            events: list[dict[str, Any]] = []
            query = {"limit": limit}
            while True:
                page = client.get(path, params=query).json()
                assert len(page["events"]) <= limit
                events += page["events"]
                if page["next"] is None:
                    return events
                query["before"] = page["next"]

        events = pages("/v1/adapters/mood/events", 2)
        assert [(e["what"], e["version"], e["alias"]) for e in events] == [
            ("adapter_deleted", None, None),
            ("alias_set", 1, "prod"),
            ("alias_set", 1, "live"),
            ("published", 1, None),
        ]
        assert events[-1]["detail"] == {"digest": first["digest"]}
        assert events == pages("/v1/adapters/mood/events", 4) == pages("/v1/adapters/mood/events", 1)
        everything = pages("/v1/events", 2)
        assert [e["name"] for e in everything] == ["mood", "tone", "mood", "mood", "mood"]
        assert everything[0] == events[0]
        for query in ("limit=0", "limit=1001", "before=0", "before=x", f"before={2**63}"):
            assert error_of(client.get(f"/v1/events?{query}")) == (422, "invalid_request")


def test_a_search_lists_the_names_that_contain_a_text(client: httpx.Client) -> None:
    def found(**query: Any) -> list[str]:
        return [adapter["name"] for adapter in client.get("/v1/adapters", params=query).json()["adapters"]]

    assert found(search="oo") == ["mood"]
    assert found(search="o") == ["mood", "vectors"]
    assert found(search="o", after="mood") == ["vectors"]
    assert found(search="%") == found(search="\0") == []


def test_a_damaged_bundle_leaves_its_adapter_visible_and_its_card_an_error(
    serve: Callable[..., RunningServer], new_home: Callable[[], Any], peft_saved: dict[str, PeftAdapter]
) -> None:
    home = new_home()
    with serve(home=home).client() as client:
        upload(client, "mood", peft_saved["first"].zip())
        (stored,) = home.glob("store/*/*.zip")
        stored.write_bytes(stored.read_bytes()[:1000])
        shown = client.get("/v1/adapters/mood").json()
        assert (shown["live"], shown["description"]) == (1, None)
        assert client.get("/v1/adapters/mood/versions/1").json()["description"] is None
        assert client.get("/v1/adapters/mood/card").json()["error"]["code"] == "corrupt_bundle"
        stored.unlink()
        assert client.get("/v1/adapters/mood").json()["description"] is None
        assert client.get("/v1/adapters/mood/card").json()["error"]["code"] == "missing_bundle"
        stored.mkdir()  # A file that cannot be read, also by root.
        assert client.get("/v1/adapters/mood").json()["description"] is None
        assert "cannot be read" in client.get("/v1/adapters/mood/card").json()["error"]["message"]


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("wrong", 403), (READER, 200), (OWNER, 200)])
def test_cards_and_events_need_the_key_that_reads_adapters(
    serve: Callable[..., RunningServer], key: str | None, status: int
) -> None:
    running = serve(api_key=READER, admin_key=OWNER)
    with running.client(OWNER) as client:
        assert upload(client, "mood", SENTIMENT.read_bytes()).status_code == 201
    with running.client(key) as client:
        for path in ("/v1/adapters/mood", "/v1/adapters/mood/card", "/v1/adapters/mood/events", "/v1/events"):
            assert client.get(path).status_code == status
