"""/docs and /redoc work in a browser without the internet, and / answers a program with JSON."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from html.parser import HTMLParser

import httpx
import pytest

from rootstock.adapters.spec import TASKS
from rootstock.service.api.adapters.listing import ListedAdapter
from rootstock.service.api.pages import EXAMPLES, FILES, _example
from rootstock.service.engine.encode.tasks import TASKS as PIPELINES
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
PAGES = ["/", "/console", "/docs", "/redoc"]


class Addresses(HTMLParser):
    """Every address that a page makes a browser load or offers to follow."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    assert upload(client, "mood", peft_saved["first"].zip()).status_code == 201


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_and_links_to_nothing_but_this_server(client: httpx.Client, path: str) -> None:
    answer = client.get(path, headers=BROWSER)
    assert answer.headers["content-type"].startswith("text/html")
    # An address that begins with # names a view of the same page.
    addresses = [address for address in Addresses(answer.text).all if not address.startswith("#")]
    assert addresses
    for address in addresses:
        # Relative, so that they hold behind a proxy's prefix too.
        assert re.fullmatch(r"[a-z0-9][a-z0-9./-]*", address), address
        assert client.get(f"/{address}").status_code == 200, address
    outside = [a for a in re.findall(r"https?://[^\s\"'/<]+", unescape(answer.text)) if a != str(client.base_url)]
    assert outside == []


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_browser_lets_the_reference_ask_this_server_alone(client: httpx.Client, path: str) -> None:
    parts = client.get(path).headers["content-security-policy"].split("; ")
    policy = {source: set(allowed) for source, *allowed in (part.split() for part in parts)}
    assert policy.pop("default-src") <= {"'self'", "'unsafe-inline'", "'unsafe-eval'", "blob:", "data:"}
    # The other parts only take something away.
    assert all(allowed <= {"'self'", "'none'"} for allowed in policy.values())
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == {"'none'"}


def test_the_reference_reads_our_schema_and_asks_no_validator(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "url: 'openapi.json'" in page
    assert '"validatorUrl": null' in page
    assert b"SwaggerUIBundle" in client.get("/docs/swagger-ui.js").content
    assert (
        client.get("/docs/swagger-ui.js").headers["content-type"].startswith(("text/javascript", "application/"))
    )
    assert client.get("/docs/swagger-ui.css").headers["content-type"].startswith("text/css")
    assert b"Redoc" in client.get("/docs/redoc.js").content
    for asset in ("nope.js", "..%2f..%2fcore.py", "redoc.standalone.js"):
        assert client.get(f"/docs/{asset}").status_code == 404


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_a_program_gets_json(client: httpx.Client, accept: str) -> None:
    answer = client.get("/", headers={"Accept": accept})
    assert (answer.headers["content-type"], answer.headers["vary"]) == ("application/json", "Accept")
    shown = answer.json()
    assert shown["foundations"] == [client.get("/v1/limits").json()["foundation"]["name"]]
    assert [a["name"] for a in shown["adapters"]] == ["mood"]
    for path in shown["links"].values():
        assert client.get(path).status_code == 200, path
    assert client.head("/").status_code == 200


def test_the_request_that_is_shown_is_answered_as_it_stands(client: httpx.Client) -> None:
    shown = client.get("/").json()["example"]
    program, url, header, content_type, option, body = shlex.split(shown)
    assert (program, header, option) == ("curl", "-H", "-d")
    name, _, kind = content_type.partition(": ")
    answer = client.post(url, content=body, headers={name: kind})
    assert answer.status_code == 200
    assert answer.json()["model"] == "mood"


def test_there_is_a_request_to_copy_for_every_task_of_an_adapter() -> None:
    assert {*EXAMPLES, *FILES} == set(TASKS)
    for task in (*TASKS, "a task of tomorrow", None):
        adapter = ListedAdapter(
            name="a", live=1, versions=[1], task=task, aliases={}, residency="slot", shared=False
        )
        words = shlex.split(_example("http://x/", [adapter], "feature-extraction"))
        if task in FILES:
            assert words[:6] == ["curl", "http://x/v1/predict", "-F", "model=a", "-F", FILES[task]]
            stated = dict([words[7].split("=", 1)]) if len(words) > 6 else {"parameters": "{}"}
            PIPELINES[task].check(json.loads(stated["parameters"]))
        else:
            assert json.loads(words[-1])["model"] == ("a" if task in TASKS else "foundation")
    assert "-F model=foundation -F image=@photo.jpg" in _example("http://x/", [], "image-feature-extraction")
