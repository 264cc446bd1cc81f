"""The client speaks the server's routes, and says in one line what kept it from an answer."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import (
    AccessDenied,
    InvalidRequest,
    Misused,
    NotFound,
    Refused,
    RejectedBundle,
    ServerBusy,
    ServerFault,
    StateConflict,
    TimedOut,
    Unreachable,
    Unreadable,
)
from rootstock.adapters.client.predictions import ClassificationResult
from rootstock.adapters.errors import InvalidName, UnknownVersion
from tests.adapters.stand_in import DIGESTS, ZIP, StandIn, bound, raw_server, refusal, serving
from tests.bounds import HANG


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with serving(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def server(running: StandIn) -> StandIn:
    running.reset()
    return running


@pytest.fixture
def client(server: StandIn) -> Iterator[Client]:
    with Client(server.url, retries=0) as opened:
        yield opened


def test_the_key_goes_along_as_a_bearer_token(server: StandIn, client: Client) -> None:
    with Client(server.url, "secret") as keyed:
        keyed.limits()
    client.limits()
    assert [seen.key for seen in server.seen] == ["Bearer secret", None]


def test_an_address_may_have_a_path_as_behind_a_proxy(server: StandIn) -> None:
    with Client(server.url + "/models/") as client, pytest.raises(Refused):
        client.limits()
    assert server.asked == ["GET /models/v1/limits"]


def test_inference_sends_what_the_routes_take(server: StandIn, client: Client) -> None:
    assert client.predict("a@2", "hello", top_k=None).digest == DIGESTS[2]
    assert len(client.predict("a", ["x", {"text": "y", "text_pair": "z"}])) == 2
    assert client.predict("a", "hello", ClassificationResult).label == "x"
    assert len(client.fan_out(("a", "b"), "hello")) == 2
    assert client.embed("foundation", ("x", "y"), dimensions=2).tolist() == [[0, 1], [0, 1]]
    assert [seen.json for seen in server.seen] == [
        {"model": "a@2", "inputs": "hello", "parameters": {"top_k": None}},
        {"model": "a", "inputs": ["x", {"text": "y", "text_pair": "z"}]},
        {"model": "a", "inputs": "hello", "task": "text-classification"},
        {"models": ["a", "b"], "inputs": "hello"},
        {"model": "foundation", "input": ["x", "y"], "encoding_format": "base64", "dimensions": 2},
    ]


def test_limits_and_models_are_the_servers_documents(client: Client) -> None:
    assert client.limits()["what"] == "limits"
    assert client.models()["what"] == "models"


def test_publishing_bytes_sends_the_zip_and_only_the_fields_that_were_given(
    server: StandIn, client: Client
) -> None:
    assert client.push(ZIP, "intents").version == 4
    client.push(
        ZIP,
        "intents",
        task="text-classification",
        labels=("né", "b"),
        problem_type="regression",
        max_length=64,
        activate=False,
    )
    plain, full = server.seen
    assert plain.bundle == full.bundle == ZIP
    assert plain.form == {"name": "intents", "activate": "true", "bundle": "intents.zip"}
    assert json.loads(full.form.pop("labels")) == ["né", "b"]
    assert full.form == {
        "name": "intents",
        "task": "text-classification",
        "problem_type": "regression",
        "max_length": "64",
        "activate": "false",
        "bundle": "intents.zip",
    }


def test_progress_runs_from_nothing_to_all_bytes_in_small_steps(
    server: StandIn, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "big.zip"
    path.write_bytes(ZIP * 20_000)
    for data in (path, path.read_bytes()):
        steps: list[tuple[int, int]] = []
        client.push(data, "big", progress=lambda sent, total, steps=steps: steps.append((sent, total)))
        total = path.stat().st_size
        sent = [done for done, _ in steps]
        assert {all_ for _, all_ in steps} == {total}
        assert sent[0] == 0
        assert sent[-1] == total
        assert sent.count(total) == 1
        assert max(b - a for a, b in itertools.pairwise(sent)) <= 64 * 1024
    assert server.seen[0].bundle == server.seen[1].bundle == path.read_bytes()


def test_labels_in_one_text_are_misuse_and_nothing_is_sent(server: StandIn, client: Client) -> None:
    with pytest.raises(Misused, match="labels is the text 'no,yes'; give a list"):
        client.push(ZIP, "intents", labels="no,yes")
    assert server.seen == []


def test_progress_stops_where_the_network_stops() -> None:
    steps = [0]
    over = threading.Event()
    data = bytes(64 * 2**20)
    with raw_server(lambda _: over.wait(HANG)) as url:
        with Client(url, timeout=0.3) as client, pytest.raises(TimedOut, match=r"within 0\.3 s"):
            client.push(data, "big", progress=lambda sent, _: steps.append(sent))
        over.set()
    assert 0 < steps[-1] < len(data)


def test_listing_walks_all_pages(server: StandIn, client: Client) -> None:
    server.names = [f"adapter-{i}" for i in range(5)]
    assert [entry.name for entry in client.list(limit=2)] == server.names
    assert [seen.query for seen in server.seen] == [
        {"limit": "2"},
        {"limit": "2", "after": "adapter-1"},
        {"limit": "2", "after": "adapter-3"},
    ]


def test_a_list_may_be_searched_and_an_adapter_described(server: StandIn, client: Client) -> None:
    list(client.list("mood", limit=5))
    assert server.seen[-1].query == {"limit": "5", "search": "mood"}
    assert client.show("a").description is None
    shown = {
        "name": "a",
        "task": None,
        "live": None,
        "aliases": {},
        "versions": [],
        "description": {"kind": "lora"},
    }
    server.instead = [JSONResponse(shown)]
    assert client.show("a").description == {"kind": "lora"}


@pytest.mark.parametrize("text", ["\ud800", object(), float("nan")])
def test_what_json_cannot_hold_is_misuse_and_nothing_is_sent(server: StandIn, client: Client, text: Any) -> None:
    with pytest.raises(Misused, match="cannot be written as JSON"):
        client.predict("a", [text])
    assert server.seen == []


def test_a_list_that_leads_back_to_itself_ends_with_an_error(server: StandIn, client: Client) -> None:
    server.instead = [JSONResponse({"adapters": [], "next": "a"}) for _ in range(3)]
    with pytest.raises(Unreadable, match="no page of adapters"):
        list(client.list())
    assert len(server.seen) == 2


def test_adapters_are_shown_fetched_moved_and_removed(server: StandIn, client: Client, tmp_path: Path) -> None:
    assert client.show("a.b_c").live == 2
    assert client.pull("a@3", tmp_path).path.read_bytes() == ZIP
    assert client.promote("a", 3, "prod").digest == DIGESTS[3]
    assert client.rollback("a").version == 1
    client.delete("a")
    client.delete("a", 2, force=True)
    assert server.asked == [
        "GET /v1/adapters/a.b_c",
        "GET /v1/adapters/a/versions/3/bundle",
        "PUT /v1/adapters/a/aliases/prod",
        "POST /v1/adapters/a/rollback",
        "DELETE /v1/adapters/a",
        "DELETE /v1/adapters/a/versions/2",
    ]
    assert server.seen[2].json == {"version": 3}
    assert [seen.query for seen in server.seen[-2:]] == [{}, {"force": "true"}]


def test_deleted_versions_are_listed_brought_back_and_purged(server: StandIn, client: Client) -> None:
    (gone,) = client.deleted("a")
    assert (gone.version, gone.aliases, gone.purged_at[:10]) == (1, ("prod",), "2025-01-10")
    back = client.undelete("a")
    assert (back.versions, back.aliases) == ((1, 2), {"live": 2, "prod": 1})
    assert client.undelete("a", 3).versions == (3,)
    client.delete("a", 3, purge=True)
    assert server.asked == [
        "GET /v1/adapters/a/deleted",
        "POST /v1/adapters/a/undelete",
        "POST /v1/adapters/a/versions/3/undelete",
        "DELETE /v1/adapters/a/versions/3",
    ]
    assert server.seen[-1].query == {"purge": "true"}


@pytest.mark.parametrize(
    ("reference", "number"), [("a", 2), ("a@3", 3), ("a@prod", 1), (f"a@{DIGESTS[3][:20]}", 3)]
)
def test_a_reference_resolves_to_a_version(client: Client, reference: str, number: int) -> None:
    assert client.resolve(reference) == ("a", number)


@pytest.mark.parametrize("reference", ["a@staging", "a@sha256:" + "0" * 12])
def test_a_reference_that_means_nothing_is_an_error(client: Client, reference: str) -> None:
    with pytest.raises(UnknownVersion, match=f"{reference} means 0 versions"):
        client.resolve(reference)


@pytest.mark.parametrize("name", ["", "..", "A", "a/b", "foundation"])
def test_what_is_no_name_is_never_sent(server: StandIn, client: Client, name: str) -> None:
    for call in (client.show, client.rollback, client.delete):
        with pytest.raises(InvalidName):
            call(name)
    with pytest.raises(InvalidName):
        client.push(ZIP, name)
    with pytest.raises(InvalidName):
        client.promote("a", 1, f"{name}/..")
    assert server.seen == []


def test_a_refusal_carries_the_servers_words(server: StandIn, client: Client) -> None:
    server.instead = [refusal(409, "version_in_use", "live points at a@2;\n\x1b[31muse force")]
    with pytest.raises(Refused) as caught:
        client.delete("a", 2)
    assert (caught.value.status, caught.value.code, caught.value.param) == (409, "version_in_use", "name")
    assert str(caught.value) == caught.value.message == "live points at a@2; [31muse force"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (HTMLResponse("<html>\n<h1>Bad Gateway</h1>", 502), "502 Bad Gateway with text/html that is not"),
        (Response(status_code=503), "503 Service Unavailable with an empty body"),
        (JSONResponse({"detail": "Not Found"}, 404), "404 Not Found with application/json that is not"),
        (JSONResponse({"error": {"message": 3}}, 500), "500 Internal Server Error with application/json"),
        (Response(status_code=302, headers={"Location": "https://login"}), "302 Found to https://login with"),
    ],
)
def test_an_error_that_is_not_the_servers_is_one_clear_line(
    server: StandIn, client: Client, answer: Response, told: str
) -> None:
    server.instead = [answer]
    with pytest.raises(Refused, match=told) as caught:
        client.limits()
    assert caught.value.status == answer.status_code
    assert caught.value.code is None
    assert str(caught.value).startswith(f"{server.url}/v1/limits answered")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", [HTMLResponse("<html>Welcome"), Response(), JSONResponse(["a"])])
def test_a_success_that_is_not_the_servers_is_an_error(
    server: StandIn, client: Client, answer: Response, tmp_path: Path
) -> None:
    server.instead = [answer, answer]
    with pytest.raises(Unreadable, match="is this a Rootstock server"):
        client.limits()
    with pytest.raises(Unreadable, match="bytes that are no zip"):
        client.pull("a@1", tmp_path)


def test_a_dropped_connection_is_said_and_a_rollback_is_not_sent_again() -> None:
    with (
        raw_server(lambda connection: connection.recv(10)) as url,
        Client(url) as client,
        pytest.raises(Unreachable, match="broke off before it had answered"),
    ):
        client.rollback("a")


def test_an_answer_that_breaks_off_is_said() -> None:
    def half(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nPK")

    with (
        raw_server(half) as url,
        Client(url, retries=0) as client,
        pytest.raises(Unreachable, match="broke off"),
    ):
        client.pull("a@1")


def test_a_server_that_says_no_before_the_upload_is_over_is_heard() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        body = b'{"error": {"message": "too large", "type": "t", "param": null, "code": "too_large"}}'
        head = f"HTTP/1.1 413 Too Large\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(2**20):
            pass

    with raw_server(refuse) as url, Client(url) as client, pytest.raises(Refused) as caught:
        client.push(bytes(8 * 2**20), "big")
    assert (caught.value.status, caught.value.code, caught.value.param) == (413, "too_large", None)


def test_where_nothing_listens_the_address_is_named() -> None:
    with bound() as refusing:
        url = f"http://127.0.0.1:{refusing.getsockname()[1]}"
        with Client(url) as client, pytest.raises(Unreachable, match=rf"cannot reach {url} \(.*refused\)"):
            client.limits()


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:3000", "ftp://x", "http://", "http://u:p@x", "http://x?a=1"),
        *("http://a..b", "http://.a", f"http://{'a' * 64}.b"),
    ],
)
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(Misused, match="one like http://127"):
        Client(url)


@pytest.mark.parametrize("key", ["", " a", "a\n", "ключ"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(Misused, match="the key is not one line"):
        Client(api_key=key)


@pytest.mark.parametrize("variable", ["ROOTSTOCK_API_KEY", "ROOTSTOCK_ADMIN_KEY"])
@pytest.mark.parametrize("key", [" ", "secret\n", "secret\r", "a secret\tkey", "clé-secret", "secret\udcff"])
def test_a_key_of_the_environment_that_cannot_be_sent_is_refused_by_the_name_of_its_variable(
    variable: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, key)
    with pytest.raises(Misused, match=f"the key in {variable} is not one line") as caught:
        Client()
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_proxy_from_the_environment_is_not_asked_for_this_machine(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with Client(server.url) as client:
        assert client.limits()["what"] == "limits"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_json", InvalidRequest),
        (401, "missing_key", AccessDenied),
        (403, "wrong_key", AccessDenied),
        (404, "unknown_adapter", NotFound),
        (409, "no_previous_version", StateConflict),
        (413, "request_too_large", InvalidRequest),
        (422, "rejected_labels", RejectedBundle),
        (429, "overloaded", ServerBusy),
        (500, "runner_fault", ServerFault),
        (503, "draining", ServerBusy),
        (504, "deadline_exceeded", ServerFault),
    ],
)
def test_a_refusal_has_a_class_and_the_id_in_the_server_s_log(
    server: StandIn, status: int, code: str, kind: type[Refused]
) -> None:
    server.instead = [refusal(status, code, "no", {"X-Request-Id": "abc"})]
    with Client(server.url, retries=0) as client, pytest.raises(Refused) as caught:
        client.limits()
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, code, "abc")
    if isinstance(caught.value, RejectedBundle):
        assert caught.value.check == "labels"


def test_the_address_and_the_key_come_from_the_environment(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOTSTOCK_URL", server.url)
    monkeypatch.setenv("ROOTSTOCK_API_KEY", "infer")
    with Client() as client:
        client.limits()
    monkeypatch.setenv("ROOTSTOCK_ADMIN_KEY", "admin")
    with Client() as client:
        client.limits()
    with Client(server.url + "/", "given") as client:
        client.limits()
    assert [seen.key for seen in server.seen] == ["Bearer infer", "Bearer admin", "Bearer given"]


@pytest.mark.parametrize(
    "wrong", [{"retries": -1}, *({"timeout": one} for one in (0, float("nan"), float("inf"), 1e10, 3e6, None))]
)
def test_a_number_that_allows_no_try_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misused, match="; give "):
        Client(**wrong)


def test_the_longest_timeout_is_one_that_a_socket_takes(server: StandIn) -> None:
    with Client(server.url, timeout=2e6) as client:
        assert client.limits()["what"] == "limits"


VERSION = ("version", "digest", "task", "status", "size", "residency")
TOLD: dict[str, Any] = {"digest": "d", "version": 1, "task": "text-classification"}
GOOD = {"label": "x", "score": 1}
ADAPTER = {"name": "a", "task": None, "live": 1, "aliases": {}, "versions": []}
CALLS: dict[str, Callable[[Client], Any]] = {
    "predict": lambda client: client.predict("a", ["x", "y"]),
    "predict one": lambda client: client.predict("a", "x"),
    "predict many": lambda client: list(client.predict_many("a", ["x", "y"])),
    "fan out": lambda client: client.fan_out(["a", "b"], ["x"]),
    "embed": lambda client: client.embed("a", ["x", "y"]),
    "embed one": lambda client: client.embed("a", "x"),
    "rerank": lambda client: client.rerank("a", "x", ["y"]),
    "chat": lambda client: client.chat("a", "x"),
    "list": lambda client: list(client.list()),
    "resolve": lambda client: client.resolve("a@live"),
    "resolve a digest": lambda client: client.resolve("a@sha256:aaaaaaaaaaaa"),
}


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("predict", {**TOLD, "predictions": [GOOD]}),
        ("predict", {**TOLD, "predictions": [GOOD] * 3}),
        ("predict", {**TOLD, "predictions": [{"label": "x", "score": 10**400}] * 2}),
        ("predict one", {**TOLD, "predictions": []}),
        ("predict one", {**TOLD, "task": "token-classification", "predictions": [3]}),
        ("predict many", {}),
        ("predict many", {"max_inputs": 0}),
        ("predict many", {"max_inputs": "many"}),
        ("fan out", {"results": [3, 4]}),
        ("fan out", {"results": [{**TOLD, "predictions": [GOOD]}]}),
        ("fan out", {"results": [{**TOLD, "predictions": []}] * 2}),
        ("embed", {"data": [{"embedding": "AAAAAA=="}]}),
        ("embed one", {"data": []}),
        ("embed", {"data": [{"embedding": 3}] * 2}),
        ("rerank", {"digest": "d", "results": ["x"]}),
        ("chat", {**TOLD, "choices": [3]}),
        ("list", {"adapters": [3], "next": None}),
        ("resolve", {**ADAPTER, "aliases": ["live"]}),
        ("resolve a digest", {**ADAPTER, "versions": [dict.fromkeys(VERSION, 3)]}),
    ],
)
def test_an_answer_that_no_server_gives_is_unreadable(
    server: StandIn, client: Client, call: str, answer: dict[str, Any]
) -> None:
    server.instead = [JSONResponse(answer)]
    with pytest.raises(Unreadable):
        CALLS[call](client)


@pytest.mark.parametrize("url", ["http://[::1]", "http://a.b.", "http://bücher.example", "http://127.0.0.1"])
def test_every_form_of_a_host_is_an_address(url: str) -> None:
    Client(url).close()


def test_a_key_in_base64_is_sent_as_it_is(server: StandIn) -> None:
    key = base64.b64encode(bytes(range(48))).decode()
    with Client(server.url, key) as client:
        client.limits()
    assert server.seen[0].key == f"Bearer {key}"
