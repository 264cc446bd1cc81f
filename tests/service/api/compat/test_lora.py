"""vLLM's /v1/load_lora_adapter and /v1/unload_lora_adapter: what may be loaded, and from where."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rootstock.service.settings import Settings
from tests.live_server import OWNER, READER, RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture(scope="module")
def outside(peft_saved: dict[str, PeftAdapter], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder beside the allowed one, with an adapter in it."""
    return Path(shutil.copytree(peft_saved["first"].folder, tmp_path_factory.mktemp("outside") / "first"))


@pytest.fixture(scope="module")
def folder(peft_saved: dict[str, PeftAdapter], outside: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("allowed")
    for name in ("first", "second"):
        shutil.copytree(peft_saved[name].folder, root / name)
    (root / "bundle.zip").write_bytes(peft_saved["first"].zip())
    (root / "alias").symlink_to(root / "first", target_is_directory=True)
    (root / "leads-out").symlink_to(outside, target_is_directory=True)
    (root / "loop").symlink_to(root / "loop")
    blobs = shutil.copytree(peft_saved["second"].folder, root / "blobs")
    for name, target in (("snapshot", blobs), ("stolen", outside)):
        (root / name).mkdir()
        for path in target.iterdir():
            (root / name / path.name).symlink_to(path)
    shutil.copytree(root / "first", root / "trained")
    (root / "trained" / "optimizer.pt").symlink_to("/dev/zero")
    shutil.copytree(root / "first", root / "piped")
    os.mkfifo(root / "piped" / "notes")
    (root / "empty").mkdir()
    (root / "text.zip").write_text("not a zip")
    crowded = shutil.copytree(root / "first", root / "crowded")
    for i in range(70):
        (crowded / f"file-{i}").touch()
    shutil.copytree(root / "first", root / "pickled")
    (root / "pickled" / "adapter_model.safetensors").rename(root / "pickled" / "adapter_model.bin")
    return root


@pytest.fixture(scope="module")
def client(new_home: Callable[[], Path], folder: Path) -> Iterator[httpx.Client]:
    settings = Settings(home=new_home(), demo=False, log_level="error", adapter_folder=folder, max_bundle_mb=8)
    with run_server(settings) as running, running.client() as client:
        yield client


def load(client: httpx.Client, name: str, path: object, **more: Any) -> httpx.Response:
    return client.post(LOAD, json={"lora_name": name, "lora_path": str(path), **more})


def label(client: httpx.Client, model: str) -> Any:
    return client.post("/v1/predict", json={"model": model, "inputs": "Where is it?"}).json()


@pytest.mark.calls("HTTP", "POST /v1/load_lora_adapter")
@pytest.mark.calls("HTTP", "POST /v1/unload_lora_adapter")
def test_an_adapter_is_loaded_called_and_unloaded_as_with_vllm(client: httpx.Client, folder: Path) -> None:
    answer = load(client, "sql", folder / "first")
    assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'sql' added successfully.")
    assert "sql" in [model["id"] for model in client.get("/v1/models").json()["data"]]
    uploaded = upload(client, "same", (folder / "bundle.zip").read_bytes()).json()
    assert label(client, "sql")["digest"] == uploaded["digest"], "the same verification makes the same bundle"
    gone = client.post(UNLOAD, json={"lora_name": "sql", "lora_int_id": 1})
    assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'sql' removed successfully.")
    assert label(client, "sql")["error"]["code"] == "unknown_adapter"


@pytest.mark.parametrize("path", ["second", "alias", "snapshot", "bundle.zip", "trained", "./first/../second"])
def test_a_path_in_the_folder_may_be_relative_a_link_or_a_zip(
    client: httpx.Client, folder: Path, path: str
) -> None:
    for named in (path, folder / path):
        assert load(client, "linked", named).status_code == 200, named
        assert client.post(UNLOAD, json={"lora_name": "linked"}).status_code == 200


def test_a_name_that_exists_is_replaced_only_in_place(client: httpx.Client) -> None:
    assert load(client, "twice", "first").status_code == 200
    again = load(client, "twice", "second")
    assert (again.status_code, again.json()["error"]["code"]) == (400, "adapter_exists")
    assert "load_inplace" in again.json()["error"]["message"]
    assert label(client, "twice")["version"] == 1
    assert load(client, "twice", "second", load_inplace=True).status_code == 200
    assert label(client, "twice")["version"] == 2


REFUSED = {
    "/etc/passwd": (403, "path_not_allowed"),
    "/": (403, "path_not_allowed"),
    "../outside0/first": (403, "path_not_allowed"),
    "first/../../..": (403, "path_not_allowed"),
    ".": (403, "path_not_allowed"),
    "": (403, "path_not_allowed"),
    "leads-out": (403, "path_not_allowed"),
    "stolen": (403, "path_not_allowed"),
    "nowhere": (404, "path_not_found"),
    "org/name@revision": (404, "path_not_found"),
    "loop": (404, "path_not_found"),
    "piped": (404, "path_not_found"),
    "piped/notes": (404, "path_not_found"),
    "x" * 5000: (404, "path_not_found"),
    "first\0": (404, "path_not_found"),
    "empty": (422, "rejected_members"),
    "text.zip": (422, "rejected_members"),
    "pickled": (422, "rejected_members"),
    "crowded": (422, "rejected_members"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_any_other_path_publishes_nothing(client: httpx.Client, path: str) -> None:
    answer = load(client, "refused", path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == REFUSED[path], answer.text
    assert len(error["message"]) < 1000
    assert client.get("/v1/adapters/refused").status_code == 404


def test_a_path_outside_is_refused_alike_whether_or_not_something_is_there(
    client: httpx.Client, outside: Path
) -> None:
    there, absent = (load(client, "x", path).json()["error"] for path in (outside, outside / "nothing"))
    told = [error["message"].partition(" is not inside")[2] for error in (there, absent)]
    assert told[0] == told[1] != ""


def test_an_adapter_over_the_limit_is_refused_before_it_is_read(client: httpx.Client, folder: Path) -> None:
    for path in (folder / "huge.zip", folder / "huge" / "adapter_model.safetensors"):
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(2**40)
    for path in ("huge.zip", "huge"):
        answer = load(client, "huge", path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "rejected_size"), answer.text


@pytest.mark.parametrize(
    ("route", "body", "status", "code"),
    [
        (LOAD, {"lora_name": "Capital", "lora_path": "first"}, 422, "invalid_name"),
        (LOAD, {"lora_name": "foundation", "lora_path": "first", "load_inplace": True}, 422, "invalid_name"),
        (LOAD, {"lora_name": "", "lora_path": "first"}, 422, "invalid_name"),
        (LOAD, {"lora_name": "x"}, 422, "invalid_request"),
        (LOAD, {"lora_name": "x", "lora_path": 3}, 422, "invalid_request"),
        (LOAD, {"lora_name": "x", "lora_path": None}, 422, "invalid_request"),
        (LOAD, {"lora_name": "x", "lora_path": "first", "load_inplace": "yes"}, 422, "invalid_request"),
        (LOAD, {"lora_name": "x", "lora_path": "first", "base_model_name": "y"}, 422, "invalid_request"),
        (LOAD, [], 422, "invalid_request"),
        (UNLOAD, {"lora_name": "nobody"}, 404, "unknown_adapter"),
        (UNLOAD, {"lora_name": "Ä"}, 404, "unknown_adapter"),
        (UNLOAD, {"lora_name": "nobody", "lora_int_id": "one"}, 422, "invalid_request"),
        (UNLOAD, {}, 422, "invalid_request"),
    ],
)
def test_a_body_that_cannot_be_meant_is_refused(
    client: httpx.Client, route: str, body: Any, status: int, code: str
) -> None:
    answer = client.post(route, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_without_the_setting_no_path_is_taken_and_the_remedy_is_named(
    serve: Callable[..., RunningServer], folder: Path
) -> None:
    with serve().client() as client:
        answer = load(client, "first", folder / "first")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (403, "path_not_allowed")
        assert "rootstock adapters push" in error["message"]
        assert "ROOTSTOCK_ADAPTER_FOLDER" in error["message"]


@pytest.mark.parametrize(("key", "status"), [(None, 401), (READER, 403), (OWNER, 200)])
def test_loading_and_unloading_need_the_admin_key(
    serve: Callable[..., RunningServer], folder: Path, key: str | None, status: int
) -> None:
    with serve(api_key=READER, admin_key=OWNER, adapter_folder=folder).client(key) as client:
        assert load(client, "first", "first").status_code == status
        assert client.post(UNLOAD, json={"lora_name": "first"}).status_code == status
