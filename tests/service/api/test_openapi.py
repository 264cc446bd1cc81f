"""The OpenAPI document is valid and complete, its examples work when sent, and its errors are the real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.api.errors import _STATUS
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.settings import Settings
from tests.fake_hub import run_hub
from tests.live_server import OWNER, READER, RunningServer, run_server, upload
from tests.media import PNG
from tests.media_foundations import make_media_foundation
from tests.media_server import save_media_adapter, upload_media
from tests.peft_adapters import PeftAdapter, temporary_adapter
from tests.service.engine.generate.families import make_decoder
from tests.two_towers import make_two_towers

ENTAILMENT = '["contradiction", "neutral", "entailment"]'
# These change what later examples need, so they are sent last.
LAST = ("PUT", "/v1/adapters/{name}/rollback", "/v1/unload_lora_adapter")


class Operation(NamedTuple):
    """A route of the document: its method, its path and its part of the document."""

    method: str
    path: str
    spec: Mapping[str, Any]

    @property
    def content(self) -> Mapping[str, Any]:
        content: Mapping[str, Any] = self.spec.get("requestBody", {}).get("content", {})
        return content.get("application/json", {})

    def send(
        self, client: httpx.Client, body: Any = None, names: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """Send a body with the examples of the parameters, or with `names` in their place."""
        parameters = [p for p in self.spec.get("parameters", ()) if "example" in p]
        values = {p["name"]: p["example"] for p in parameters} | dict(names or {})
        query = {p["name"]: values[p["name"]] for p in parameters if p["in"] == "query"}
        content = body if isinstance(body, bytes | None) else json.dumps(body)
        return client.request(self.method, self.path.format(**values), params=query, content=content)


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def server(
    new_home: Callable[[], Path],
    foundation: FoundationFiles,
    peft_saved: dict[str, PeftAdapter],
    tmp_path_factory: pytest.TempPathFactory,
    stack: ExitStack,
) -> Iterator[RunningServer]:
    """Yield a server with the demo adapters, a tiny `chat`, and an adapter for each task that no demo has."""
    folder = tmp_path_factory.mktemp("examples")
    tiny = make_decoder("llama", folder / "chat")
    vision = make_media_foundation("vit", folder / "vision").folder
    clip = make_two_towers("clip", folder / "clip")
    shutil.copytree(peft_saved["first"].folder, folder / "adapters" / "mood")
    hub = stack.enter_context(run_hub(peft_saved["first"].folder))
    stack.enter_context(pytest.MonkeyPatch.context()).setenv("HF_ENDPOINT", hub.url)
    settings = Settings(
        home=new_home(),
        source_hosts="127.0.0.1",
        foundations=f"default,{tiny.folder},{vision},{clip}",
        adapter_folder=folder / "adapters",
        log_level="error",
        max_body_mb=1,
        # A key that an example makes would close a server without keys for the next example.
        admin_key=OWNER,
    )
    with run_server(settings) as running, running.client(OWNER) as client:
        reader = temporary_adapter(foundation.folder, "QUESTION_ANS", 1, labels=2)
        for answer in (
            upload(client, "reader", reader),
            upload(client, "reranker", peft_saved["scalar"].zip(), task="text-ranking"),
            upload(
                client,
                "entailment",
                peft_saved["first"].zip(),
                task="zero-shot-classification",
                labels=ENTAILMENT,
            ),
            upload(
                client,
                "router",
                peft_saved["first"].zip(),
                labels='["review-sentiment", "support-intents", "entities"]',
            ),
            upload(client, "review-sentiment", peft_saved["second"].zip()),
            upload_media(client, "signs", save_media_adapter("image", vision, folder / "signs"), "vision"),
            client.put("/v1/adapters/review-sentiment/aliases/live", json={"version": 1}),
            client.put("/v1/adapters/review-sentiment/rollback-rule", json={"max_error_rate": 1}),
        ):
            assert answer.status_code in (200, 201), answer.text
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client(OWNER) as client:
        yield client


@pytest.fixture(scope="module")
def ids(client: httpx.Client) -> dict[str, str]:
    """Return the id of a key, which no example can know."""
    return {"id": client.post("/v1/keys", json={"role": "predict"}).json()["id"]}


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> list[Operation]:
    listed = [
        Operation(method.upper(), path, spec)
        for path, methods in document["paths"].items()
        for method, spec in methods.items()
    ]
    return sorted(listed, key=lambda one: one.method in LAST or one.path in LAST)


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_route_has_a_tag_a_summary_and_its_errors(
    document: dict[str, Any], operations: list[Operation]
) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert all(tags.values())
    assert {tag for one in operations for tag in one.spec["tags"]} == set(tags)
    for one in operations:
        assert len(one.spec["tags"]) == 1, one.path
        assert 10 < len(one.spec["summary"]) < 114, one.path
        assert " " in one.spec["summary"], one.path
        assert "`" not in one.spec["summary"], one.path
        responses = one.spec["responses"]
        assert {"500", "default"} <= set(responses), one.path
        if "requestBody" in one.spec:
            assert {"400", "401", "403", "413", "415", "422"} <= set(responses), one.path
        for status, response in responses.items():
            assert response["description"], (one.path, status)
            if status == "default" or int(status) >= 400:
                assert response["content"]["application/json"]["schema"], (one.path, status)


def test_every_code_of_the_errors_is_documented(document: dict[str, Any]) -> None:
    assert set(_STATUS) <= set(document["components"]["examples"])


def test_every_answer_in_json_has_a_schema(operations: list[Operation]) -> None:
    # These have the form of a task's pipeline, and the protocol's tensors.
    free = {"/", "/models/{name}", "/models/{name}/pipeline/{task}", "/embed_all"}
    for one in operations:
        for status, response in one.spec["responses"].items():
            content = response.get("content", {}).get("application/json")
            if content is not None and one.path not in free and not one.path.endswith("/infer"):
                assert content.get("schema"), (one.path, status)


def test_predictions_have_a_schema_for_each_task(document: dict[str, Any], client: httpx.Client) -> None:
    answer = document["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    by_task = answer["schema"]["anyOf"][0]["discriminator"]["mapping"]
    assert set(by_task) == set(TASKS)
    served = {task for task in client.get("/v1/limits").json()["tasks"] if not task.endswith("generation")}
    assert served < set(by_task)


def test_every_example_works_when_it_is_sent(
    client: httpx.Client, document: dict[str, Any], operations: list[Operation], ids: dict[str, str]
) -> None:
    for one in operations:
        examples = one.content.get("examples", {})
        assert bool(examples) is bool(one.content), f"{one.method} {one.path} has no example"
        for title, example in examples.items():
            answer = one.send(client, example["value"], ids)
            assert answer.is_success, (one.path, title, answer.text)
            check_answer(document, one, answer)


def test_every_form_with_files_works_when_it_is_sent(
    client: httpx.Client, document: dict[str, Any], operations: list[Operation]
) -> None:
    sent = 0
    for one in operations:
        content = one.spec.get("requestBody", {}).get("content", {}).get("multipart/form-data", {})
        for title, example in content.get("examples", {}).items():
            fields = {name: value for name, value in example["value"].items() if name != "file"}
            files = [("file", (name, PNG)) for name in example["value"]["file"]]
            answer = client.post(one.path, data=fields, files=files)
            assert answer.is_success, (one.path, title, answer.text)
            check_answer(document, one, answer)
            sent += 1
    assert sent


def test_every_route_that_reads_works_with_the_examples_of_its_parameters(
    client: httpx.Client, document: dict[str, Any], operations: list[Operation]
) -> None:
    for one in operations:
        if one.method == "GET":
            answer = one.send(client)
            assert answer.is_success, (one.path, answer.text)
            check_answer(document, one, answer)


def check_answer(document: Mapping[str, Any], one: Operation, answer: httpx.Response) -> None:
    """Check an answer against the documented schema of its status and media type."""
    content = one.spec["responses"][str(answer.status_code)].get("content", {})
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    assert media_type in content, (one.path, media_type)
    schema = content[media_type].get("schema")
    if schema and media_type == "application/json":
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(answer.json())


def test_errors_have_the_documented_statuses_forms_and_codes(
    client: httpx.Client, document: dict[str, Any], operations: list[Operation]
) -> None:
    nobody = {"name": "nobody", "version": 9, "model": "nobody"}
    for one in operations:
        answers = []
        if one.content:
            bodies = [example["value"] for example in one.content["examples"].values()]
            unknown = [body | {"model": "nobody"} for body in bodies if "model" in body]
            answers = [
                one.send(client, body) for body in (b"{", b"", b"[]", {}, {"unknown": 1}, b" " * 2**21, *unknown)
            ]
            answers += [one.send(client, body, nobody) for body in bodies]
        if "{name}" in one.path:
            answers.append(one.send(client, names=nobody))
        for answer in answers:
            if not answer.is_success:
                check_error(document, one, answer)


def check_error(document: Mapping[str, Any], one: Operation, answer: httpx.Response) -> None:
    where = f"{one.method} {one.path}: {answer.status_code} {answer.text}"
    assert str(answer.status_code) in one.spec["responses"], where
    check_answer(document, one, answer)
    error = answer.json()["error"]
    if isinstance(error, dict):
        documented = one.spec["responses"][str(answer.status_code)]["content"]["application/json"]["examples"]
        assert error["code"] in documented, where


def test_the_keys_that_are_documented_are_the_keys_that_are_needed(serve: Callable[..., RunningServer]) -> None:
    running = serve(api_key=READER, admin_key=OWNER)
    with running.client(READER) as client, running.client() as stranger:
        document = client.get("/openapi.json").json()
        validate(document)
        assert set(document["components"]["securitySchemes"]) == {"predict_key", "publish_key", "admin_key"}
        for path, methods in document["paths"].items():
            for method, spec in methods.items():
                one = Operation(method.upper(), path, spec)
                keys = [name for choice in spec["security"] for name in choice]
                assert (one.send(stranger).status_code == 401) is bool(keys), path
                if keys and method != "get":
                    assert (one.send(client, b"{").status_code == 403) is ("predict_key" not in keys), path


def test_a_server_without_keys_documents_that_no_call_needs_one(serve: Callable[..., RunningServer]) -> None:
    with serve().client() as client:
        document = client.get("/openapi.json").json()
    for methods in document["paths"].values():
        for spec in methods.values():
            assert not spec["security"] or {} in spec["security"]


def test_a_server_with_an_admin_key_alone_documents_what_stays_open(document: dict[str, Any]) -> None:
    def needs_a_key(method: str, path: str) -> bool:
        security = document["paths"][path][method]["security"]
        return bool(security) and {} not in security

    assert not needs_a_key("post", "/v1/predict")
    assert not needs_a_key("get", "/v1/adapters")
    assert needs_a_key("get", "/v1/adapters/{name}/versions/{version}/bundle")
    assert needs_a_key("post", "/v1/adapters")
    assert needs_a_key("get", "/v1/keys")
    assert document["paths"]["/v1/keys"]["post"]["security"] == [{"admin_key": []}]
    assert document["paths"]["/v1/adapters"]["post"]["security"] == [{"publish_key": []}, {"admin_key": []}]
