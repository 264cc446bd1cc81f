"""Whatever tenants publish, share and delete, no answer, name or count of one reaches another that it is not for.

A model in plain Python says what each tenant can use. More adapters than slots are asked for at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootstock.adapters.registry import TenantRegistry, VersionDetail
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter
from tests.tenants import believe_headers, client_of

TENANTS = ("default", "acme", "beta", "gamma")
NAMES = ("mood", "topic", "tone")
CONTENTS = (0, 1)
# Bytes that any tenant may publish, so that several have the same.
COMMON = "common"
CLIENTS = 8


def marker(tenant: str, name: str, content: object) -> str:
    """Return the text that the labels of a tenant's content begin with."""
    return f"{COMMON}-" if content == COMMON else f"{name}.{content}.of.{tenant}-"


@dataclass
class Held:
    """An adapter of the model: its versions' contents by number, the live one, and whether it is shared."""

    versions: dict[int, object] = field(default_factory=dict)
    live: int = 0
    shared: bool = False


class Tenants:
    """A server, the contents that can be published, and the model of what each tenant has."""

    def __init__(self, server: RunningServer, clients: Mapping[str, httpx.Client]) -> None:
        self.server = server
        self.clients = clients
        self.contents: dict[tuple[str, str, object], VersionDetail] = {}
        self.held: dict[tuple[str, str], Held] = {}

    def view(self, tenant: str) -> TenantRegistry:
        return TenantRegistry(self.server.app.state.server.every_tenant, tenant)

    def reset(self) -> None:
        for tenant, name in list(self.held):
            self.delete(tenant, name)

    def publish(self, tenant: str, name: str, content: object) -> None:
        detail = self.contents[("", "", COMMON) if content == COMMON else (tenant, name, content)]
        published = self.view(tenant).publish(
            name, detail.digest, task=detail.task, verification={}, size=detail.size, foundation=detail.foundation
        )
        held = self.held.setdefault((tenant, name), Held())
        assert published.created == (content not in held.versions.values())
        held.versions[published.version] = content
        held.live = published.version

    def share(self, tenant: str, name: str, shared: bool) -> None:
        answer = self.clients[tenant].put(f"/v1/adapters/{name}/sharing", json={"shared": shared})
        held = self.held.get((tenant, name))
        if held is not None:
            assert answer.json() == {"name": name, "shared": shared}
            held.shared = shared
        elif self.meant(tenant, None, name) is None:
            assert answer.status_code == 404
        else:
            assert answer.json()["error"]["code"] == "not_owner"

    def delete(self, tenant: str, name: str) -> None:
        answer = self.clients[tenant].delete(f"/v1/adapters/{name}")
        mine = self.held.pop((tenant, name), None)
        assert (answer.status_code == 204) == (mine is not None)

    def meant(self, tenant: str, owner: str | None, name: str) -> tuple[str, Held] | None:
        """Return whose adapter a name means to a tenant, and the adapter."""
        for candidate in [owner] if owner is not None else [tenant, "default"]:
            held = self.held.get((candidate, name))
            if held is not None and (held.shared or candidate == tenant):
                return candidate, held
        return None

    def visible(self, tenant: str) -> dict[str, Held]:
        return {
            name if owner == tenant else f"{owner}/{name}": held
            for (owner, name), held in self.held.items()
            if held.shared or owner == tenant
        }

    def check(self, draw: random.Random) -> None:
        """Send one request of one tenant, and compare the answer with the model."""
        tenant = draw.choice(TENANTS)
        kind = draw.choice((self.predicts, self.predicts, self.predicts, self.fans_out, self.lists, self.records))
        answer = kind(tenant, draw)
        for owner, name in ((owner, name) for owner in TENANTS for name in NAMES):
            held = self.held.get((owner, name))
            if owner != tenant and (held is None or not held.shared):
                for content in CONTENTS:
                    assert marker(owner, name, content) not in answer.text, (tenant, answer.text)

    def reference(self, tenant: str, draw: random.Random) -> tuple[str, str | None]:
        """Return a reference, and the start of the labels that answer it; None if it means nothing."""
        owner, name = draw.choice((None, None, *TENANTS)), draw.choice(NAMES)
        path = name if owner is None else f"{owner}/{name}"
        found = self.meant(tenant, owner, name)
        form = draw.choice(("name", "number", "digest"))
        number, content = 1, draw.choice((*CONTENTS, COMMON))
        if form == "number" and found is not None:
            number = draw.choice(list(found[1].versions))
        if form == "digest":
            whose = draw.choice(TENANTS)
            detail = self.contents[("", "", COMMON) if content == COMMON else (whose, name, content)]
            there = found is not None and (
                content in found[1].versions.values() and (content == COMMON or found[0] == whose)
            )
            return f"{path}@{detail.digest[:40]}", marker(whose, name, content) if there else None
        if found is None:
            return (path if form == "name" else f"{path}@{number}"), None
        held = found[1]
        chosen = held.live if form == "name" else number
        return (path if form == "name" else f"{path}@{number}"), marker(found[0], name, held.versions[chosen])

    def predicts(self, tenant: str, draw: random.Random) -> httpx.Response:
        reference, start = self.reference(tenant, draw)
        body = {"model": reference, "inputs": f"a text {draw.random()}"}
        answer = self.clients[tenant].post("/v1/predict", json=body)
        if start is None:
            assert answer.status_code == 404, (tenant, reference, answer.text)
        else:
            assert answer.json()["predictions"][0]["label"].startswith(start), (tenant, reference, answer.text)
        return answer

    def fans_out(self, tenant: str, draw: random.Random) -> httpx.Response:
        asked = [self.reference(tenant, draw) for _ in range(4)]
        body = {"models": [reference for reference, _ in asked], "inputs": "a text"}
        answer = self.clients[tenant].post("/v1/predict", json=body)
        for (reference, start), result in zip(asked, answer.json()["results"], strict=True):
            if start is None:
                assert "error" in result, (tenant, reference, result)
            else:
                assert result["predictions"][0]["label"].startswith(start), (tenant, reference, result)
        return answer

    def lists(self, tenant: str, draw: random.Random) -> httpx.Response:
        visible = self.visible(tenant)
        if draw.random() < 0.5:
            answer = self.clients[tenant].get("/v1/models")
            assert [one["id"] for one in answer.json()["data"]] == ["foundation", *sorted(visible)]
            return answer
        search = draw.choice(("", "mo", "to"))
        answer = self.clients[tenant].get(f"/v1/adapters?search={search}")
        listed: list[dict[str, Any]] = answer.json()["adapters"]
        assert [one["name"] for one in listed] == sorted(name for name in visible if search in name)
        for one in listed:
            held = visible[one["name"]]
            assert (one["live"], one["versions"]) == (held.live, sorted(held.versions))
        return answer

    def records(self, tenant: str, draw: random.Random) -> httpx.Response:
        if draw.random() < 0.5:
            answer = self.clients[tenant].get("/v1/events?limit=1000")
            page = answer.json()
            ids = [one["id"] for one in page["events"]]
            newest = ids[0] if ids else 0
            assert ids == list(range(newest, newest - len(ids), -1)), "no gap tells of another tenant's event"
            assert all(one["name"] in NAMES and one["who"].startswith(tenant) for one in page["events"])
            return answer
        name = draw.choice(NAMES)
        answer = self.clients[tenant].get(f"/v1/adapters/{name}")
        found = self.meant(tenant, None, name)
        assert (answer.status_code == 404) == (found is None)
        if found is not None:
            assert [one["version"] for one in answer.json()["versions"]] == sorted(found[1].versions)
        return answer


@pytest.fixture(scope="module")
def tenants(new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]) -> Iterator[Tenants]:
    home = Settings(home=new_home(), demo=False, log_level="error", slots=3)
    with run_server(home, prepare=believe_headers) as server, ExitStack() as stack:
        clients = {tenant: stack.enter_context(client_of(server, tenant)) for tenant in (*TENANTS, "keeper")}
        made = Tenants(server, clients)
        contents: list[tuple[str, str, object]] = [("", "", COMMON)]
        contents += [(tenant, name, content) for tenant in TENANTS for name in NAMES for content in CONTENTS]
        for number, (tenant, name, content) in enumerate(contents):
            labels = ",".join(f'"{marker(tenant, name, content)}{i}"' for i in range(3))
            saved = peft_saved["first" if number % 2 else "second"].zip()
            assert upload(clients["keeper"], f"kept-{number}", saved, labels=f"[{labels}]").status_code == 201
            made.contents[tenant, name, content] = made.view("keeper").version(f"kept-{number}", 1)
        yield made


CHANGES = st.one_of(
    st.tuples(
        st.just("publish"), st.sampled_from(TENANTS), st.sampled_from(NAMES), st.sampled_from((*CONTENTS, COMMON))
    ),
    st.tuples(st.just("share"), st.sampled_from(TENANTS), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(TENANTS), st.sampled_from(NAMES), st.none()),
)


def run(tenants: Tenants, rounds: list[list[tuple[str, str, str, Any]]], seed: int, requests: int) -> None:
    """Make the changes of each round, then send the requests at once."""
    tenants.reset()
    for number, changes in enumerate(rounds):
        for what, tenant, name, value in changes:
            if what == "delete":
                tenants.delete(tenant, name)
            else:
                getattr(tenants, what)(tenant, name, value)
        draws = [random.Random(f"{seed} {number} {i}") for i in range(requests)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            for done in [pool.submit(tenants.check, draw) for draw in draws]:
                done.result()


ROUNDS = st.lists(st.lists(CHANGES, min_size=6, max_size=20), min_size=2, max_size=2)


@given(ROUNDS, st.integers(0, 2**32))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_tenant_gets_an_answer_a_name_or_a_count_of_another(
    tenants: Tenants, rounds: list[list[tuple[str, str, str, Any]]], seed: int
) -> None:
    run(tenants, rounds, seed, requests=40)


@pytest.mark.slow
@given(ROUNDS, st.integers(0, 2**32))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_tenant_gets_anything_of_another_in_ten_thousand_requests(
    tenants: Tenants, rounds: list[list[tuple[str, str, str, Any]]], seed: int
) -> None:
    run(tenants, rounds, seed, requests=100)
