"""The console's page and files come from this server alone, with a strict policy, and need no key."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import rootstock.service.console
from tests.live_server import OWNER, READER, RunningServer, upload
from tests.peft_adapters import PeftAdapter

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
STATIC = Path(rootstock.service.console.__file__).parent / "static"
FILES = sorted(str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.is_file())
KINDS = {".js": "javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def test_a_browser_gets_the_same_page_at_both_addresses(client: httpx.Client) -> None:
    root, console = client.get("/", headers=BROWSER), client.get("/console")
    assert root.text == console.text
    assert (root.headers["content-type"], root.headers["vary"]) == ("text/html; charset=utf-8", "Accept")
    for headers in (BROWSER, {"Accept": "*/*"}):
        assert client.head("/console", headers=headers).headers["content-length"] == str(len(console.content))
    assert client.head("/", headers=BROWSER).headers["etag"] == root.headers["etag"]
    moved = client.get("/console/")
    assert (moved.status_code, moved.headers["location"]) == (307, "../console")


@pytest.mark.parametrize("file", FILES)
def test_each_file_is_served_with_its_kind_and_kept_until_it_changes(client: httpx.Client, file: str) -> None:
    answer = client.get(f"/console/assets/{file}")
    assert answer.content == (STATIC / file).read_bytes()
    assert KINDS[Path(file).suffix] in answer.headers["content-type"]
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.get(f"/console/assets/{file}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(f"/console/assets/{file}").status_code == 200


@pytest.mark.parametrize("file", ["nope.js", "", "..%2f__init__.py", "../card.py", "%2e%2e/card.py", "views"])
def test_no_other_file_is_served(client: httpx.Client, file: str) -> None:
    answer = client.get(f"/console/assets/{file}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_policy_allows_no_inline_script_and_no_other_host(client: httpx.Client) -> None:
    answer = client.get("/console")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert not re.search(r"unsafe|https?:|\*", answer.headers["content-security-policy"])
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", answer.text)


def test_a_script_imports_only_files_that_are_there_by_relative_addresses() -> None:
    for file in FILES:
        if not file.endswith(".js"):
            continue
        text = (STATIC / file).read_text()
        for name in re.findall(r'from "([^"]+)"', text):
            assert name.startswith((".", "..")), f"{file} imports {name}"
            assert (STATIC / file).parent.joinpath(name).resolve().is_file(), f"{file} imports {name}"
        assert not re.search(r"\beval\(|new Function\(|document\.write|insertAdjacentHTML|outerHTML", text), file
        assert ("innerHTML" in text) == (file == "views/card.js"), file


def test_the_page_needs_no_key_and_the_data_do(
    serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter]
) -> None:
    running = serve(api_key=READER, admin_key=OWNER)
    with running.client() as client, running.client(OWNER) as owner:
        assert upload(owner, "mood", peft_saved["first"].zip()).status_code == 201
        for path in ("/", "/console", "/console/assets/main.js", "/console/assets/style/frame.css"):
            assert client.get(path, headers=BROWSER).status_code == 200, path
            assert client.head(path, headers=BROWSER).status_code == 200, path
        for path in ("/console/cards/mood/1", "/console/other", "/v1/adapters"):
            assert client.get(path, headers=BROWSER).status_code == 401, path
        assert client.get("/", headers={"Accept": "application/json"}).status_code == 401
        assert client.post("/", headers=BROWSER, json={"inputs": "x"}).status_code == 401
        assert owner.get("/console/cards/mood/1").status_code == 200


def test_another_host_s_name_gets_no_page_from_a_server_without_keys(client: httpx.Client) -> None:
    answer = client.get("/console", headers={"Host": "elsewhere.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_host")


def test_a_card_is_html_that_may_do_nothing_when_a_browser_opens_it_alone(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    assert upload(client, "carded", peft_saved["first"].zip()).status_code in (200, 201)
    answer = client.get("/console/cards/carded/1")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert "<h3>" in answer.text
    again = client.get("/console/cards/carded/1", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]
    for path, code in (("nobody/1", "unknown_adapter"), ("carded/9", "unknown_version")):
        refused = client.get(f"/console/cards/{path}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, code)
