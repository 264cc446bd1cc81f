"""No upload and no source reaches a reader of pickles: each is refused, and its code never runs."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import pytest
import torch
from safetensors.numpy import save
from typer.testing import CliRunner

from rootstock.adapters.bundle.archive import CARD, CONFIG, GOLDEN, MANIFEST, SIGNATURE, WEIGHTS
from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.sources.remote.remote_sources import RemoteSources, trusted_hub
from rootstock.adapters.sources.remote.source_hosts import SourceHosts
from rootstock.service.settings import Settings
from tests.fake_hub import COMMIT, REPO, run_hub
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "service" / "demo" / "review-sentiment.zip"
# Calls that can run code of a file, by module. A Loader of yaml that is not safe is one too.
READERS = {
    "pickle": {"load", "loads", "Unpickler"},
    "_pickle": {"load", "loads", "Unpickler"},
    "dill": {"load", "loads"},
    "cloudpickle": {"load", "loads"},
    "joblib": {"load"},
    "marshal": {"load", "loads"},
    "shelve": {"open"},
    "skops.io": {"load", "loads"},
    "torch": {"load"},
    "torch.jit": {"load"},
    "torch.package": {"PackageImporter"},
    "numpy": {"load"},
    "pandas": {"read_pickle"},
    "yaml": {"load", "load_all", "unsafe_load", "full_load", "unsafe_load_all", "full_load_all"},
}  # fmt: skip
# Arguments that decide whether a library reads pickles or runs code of a file, with the value that forbids it.
SAFE = {"allow_pickle": "False", "trust_remote_code": "False", "weights_only": "True"}
# Each with the reason. The server imports neither of the first two: an import contract forbids it.
EXCEPTIONS = {
    ("adapters/sources/scikit_learn.py", "joblib.load"): "a user's own file, with --trust-pickle alone",
    ("adapters/sources/scikit_learn.py", "skops.io.load"): "skops builds only the types that it trusts",
    ("adapters/convert/conversion.py", "torch.load"): "is replaced there by a function that refuses",
    ("training/recipe/recipe_file.py", "yaml.load"): "with a subclass of SafeLoader",
}


def _names(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of the attributes and imports of a module that are in READERS."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                modules[one.asname or one.name.partition(".")[0]] = (
                    one.name if one.asname else one.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for one in node.names:
                modules[one.asname or one.name] = f"{node.module}.{one.name}"
                if one.name in READERS.get(node.module, ()):
                    yield f"{node.module}.{one.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts = ast.unparse(node).split(".")
            full = ".".join([modules.get(parts[0], parts[0]), *parts[1:]])
            module, _, name = full.rpartition(".")
            if name in READERS.get(module, ()):
                yield full
        if isinstance(node, ast.keyword) and node.arg in SAFE and ast.unparse(node.value) != SAFE[node.arg]:
            yield f"{node.arg}={ast.unparse(node.value)}"


def readers_in(source: str) -> set[str]:
    return set(_names(ast.parse(source)))


def test_no_code_path_reads_a_pickle_outside_the_stated_exceptions() -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for package in ("adapters", "service", "training")
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in readers_in(path.read_text(encoding="utf-8"))
    }
    assert found == EXCEPTIONS.keys()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle; pickle.loads(b'')", "from pickle import loads", "import pickle as p; p.Unpickler",
        "import torch; torch.load('a.pt')", "from torch import load as l", "import joblib; joblib.load('a')",
        "import numpy as np; np.load('a.npy')", "import numpy as np; f(np.array(1), allow_pickle=True)",
        "import yaml; yaml.load('', Loader=yaml.Loader)", "f(trust_remote_code=flag)", "f(weights_only=False)",
    ],
)  # fmt: skip
def test_the_search_finds_each_reader(source: str) -> None:
    assert readers_in(source)


class Trap:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary") / "ran"


@pytest.fixture(autouse=True)
def _nothing_ran(canary: Path) -> Iterator[None]:
    yield
    assert not canary.exists(), "a pickle ran"


def pickles(canary: Path) -> dict[str, bytes]:
    """Return the same trap in each form in which such files are saved."""
    trap = Trap(canary)
    forms = {f"protocol {i}": pickle.dumps(trap, protocol=i) for i in (0, 2, 4, 5)}
    out = io.BytesIO()
    torch.save({"a": trap}, out)
    forms["torch zip"] = out.getvalue()
    out = io.BytesIO()
    torch.save({"a": trap}, out, _use_new_zipfile_serialization=False)
    forms["torch"] = out.getvalue()
    out = io.BytesIO()
    joblib.dump(trap, out)
    forms["joblib"] = out.getvalue()
    out = io.BytesIO()
    np.save(out, np.array([trap], dtype=object), allow_pickle=True)
    forms["npy"] = out.getvalue()
    out = io.BytesIO()
    np.savez(out, a=np.array([trap], dtype=object))
    forms["npz"] = out.getvalue()
    # safetensors' header is JSON. A reader that falls back to pickle would see one behind it.
    forms["behind a header"] = save({"a": np.zeros(1, np.float32)}) + pickle.dumps(trap)
    return forms


FORMS = sorted(pickles(Path("/nonexistent/canary")))


def test_the_trap_runs_when_it_is_read(tmp_path: Path) -> None:
    for form, data in pickles(tmp_path / "ran").items():
        if form.startswith("protocol"):
            pickle.loads(data)
        elif form.startswith("torch"):
            torch.load(io.BytesIO(data), weights_only=False)
        elif form.startswith("np"):
            read = np.load(io.BytesIO(data), allow_pickle=True)
            assert form != "npz" or len(read["a"]) == 1
        elif form == "joblib":
            joblib.load(io.BytesIO(data))
        else:
            continue
        (tmp_path / "ran").rmdir()


def members(adapter: PeftAdapter) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in adapter.folder.iterdir()}


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def demo_members() -> dict[str, bytes]:
    with zipfile.ZipFile(DEMO) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def abuses(adapter: PeftAdapter, data: bytes) -> dict[str, bytes]:
    """Return uploads with the bytes of a pickle in each place."""
    plain, bundle = members(adapter), demo_members()
    uploads = {f"plain {name}": zipped({**plain, name: data}) for name in (CONFIG, WEIGHTS)}
    uploads |= {
        f"bundle {name}": zipped({**bundle, name: data})
        for name in (CONFIG, WEIGHTS, MANIFEST, GOLDEN, CARD, SIGNATURE)
    }
    without = {name: content for name, content in plain.items() if name != WEIGHTS}
    for name in ("adapter_model.bin", "adapter_model.pt", "adapter_model.pkl", "weights.npy", "model.joblib"):
        uploads[f"beside {name}"] = zipped({**plain, name: data})
        uploads[f"instead {name}"] = zipped({**without, name: data})
    return {"bare": data, **uploads}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("allowed")


@pytest.fixture(scope="module")
def running(new_home: Callable[[], Path], folder: Path) -> Iterator[RunningServer]:
    settings = Settings(home=new_home(), demo=False, log_level="error", adapter_folder=folder)
    with run_server(settings) as running:
        yield running


@pytest.fixture(scope="module")
def calls(running: RunningServer) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def refused(answer: httpx.Response, *codes: str) -> None:
    assert 400 <= answer.status_code < 500, answer.text
    code = answer.json()["error"]["code"]
    assert code.startswith("rejected_") or code in codes, answer.text


@pytest.mark.parametrize("form", FORMS)
def test_an_upload_of_a_pickle_is_refused(
    form: str, calls: httpx.Client, peft_saved: dict[str, PeftAdapter], canary: Path
) -> None:
    for data in abuses(peft_saved["first"], pickles(canary)[form]).values():
        refused(upload(calls, "trap", data))
    assert calls.get("/v1/adapters").json()["adapters"] == []


@pytest.mark.slow  # The conversion starts a process that imports torch.
def test_a_pickle_as_the_weights_of_another_kind_does_not_run_in_its_conversion(
    calls: httpx.Client, peft_saved: dict[str, PeftAdapter], canary: Path
) -> None:
    files = members(peft_saved["first"])
    config = json.dumps({**json.loads(files[CONFIG]), "peft_type": "LOHA"}).encode()
    for form in ("protocol 4", "torch zip"):
        refused(upload(calls, "trap", zipped({**files, CONFIG: config, WEIGHTS: pickles(canary)[form]})))


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_that_the_trainer_leaves_beside_an_adapter_is_not_opened(
    name: str, calls: httpx.Client, peft_saved: dict[str, PeftAdapter], canary: Path
) -> None:
    data = pickles(canary)["torch zip"]
    answer = upload(calls, "trainer", zipped({**members(peft_saved["first"]), name: data}))
    assert answer.status_code in (200, 201), answer.text
    assert name in answer.json()["verification"]["ignored"] or answer.status_code == 200
    assert calls.delete("/v1/adapters/trainer").status_code == 204


@pytest.mark.parametrize("form", ["protocol 4", "torch zip", "npz"])
def test_a_pickle_at_a_path_of_the_server_is_refused(
    form: str, calls: httpx.Client, folder: Path, peft_saved: dict[str, PeftAdapter], canary: Path
) -> None:
    data = pickles(canary)[form]
    (folder / "bare.pkl").write_bytes(data)
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    (folder / "adapter").mkdir()
    for name, content in {**members(peft_saved["first"]), WEIGHTS: data}.items():
        (folder / "adapter" / name).write_bytes(content)
    shutil.rmtree(folder / "pickled", ignore_errors=True)
    (folder / "pickled").mkdir()
    (folder / "pickled" / CONFIG).write_bytes(members(peft_saved["first"])[CONFIG])
    (folder / "pickled" / "adapter_model.bin").write_bytes(data)
    for path in ("bare.pkl", "adapter", "pickled"):
        refused(calls.post("/v1/load_lora_adapter", json={"lora_name": "trap", "lora_path": path}))


@contextmanager
def hub_of(running: RunningServer, folder: Path) -> Iterator[None]:
    """Let the server fetch from a hub with this folder."""
    server = running.app.state.server
    before = server.sources
    with run_hub(folder) as hub:
        environment = {"HF_ENDPOINT": hub.url}
        hosts = SourceHosts.parse("127.0.0.1", trusted_hub("127.0.0.1", environment))
        server.sources = RemoteSources(hosts, server.bundle_limits, environment=environment)
        server._views.clear()
        try:
            yield
        finally:
            server.sources = before
            server._views.clear()


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "adapter_model.bin"])
def test_a_pickle_in_a_source_is_refused(
    name: str,
    running: RunningServer,
    calls: httpx.Client,
    peft_saved: dict[str, PeftAdapter],
    tmp_path: Path,
    canary: Path,
) -> None:
    files = members(peft_saved["first"])
    if name == "adapter_model.bin":
        del files[WEIGHTS]
    for path, content in {**files, name: pickles(canary)["torch zip"]}.items():
        (tmp_path / path).write_bytes(content)
    with hub_of(running, tmp_path):
        body = {"name": "trap", "source": f"hf://{REPO}@{COMMIT}"}
        refused(calls.post("/v1/adapters", json=body), "source_unavailable")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/predict", {"model": "foundation", "inputs": {"image": {"b64": ""}}}),
        ("/v1/predict", {"model": "foundation", "inputs": {"audio": {"b64": ""}}}),
        ("/v1/embeddings", {"model": "foundation", "input": [{"image": {"b64": ""}}]}),
    ],
)
def test_a_pickle_as_a_file_of_a_request_is_refused(
    path: str, body: dict[str, Any], calls: httpx.Client, canary: Path
) -> None:
    from base64 import b64encode

    for data in pickles(canary).values():
        text = json.dumps(body).replace('"b64": ""', f'"b64": "{b64encode(data).decode()}"')
        answer = calls.post(path, content=text, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, answer.text
        raw = calls.post("/models/foundation", content=data, headers={"Content-Type": "image/png"})
        assert 400 <= raw.status_code < 500, raw.text


def test_a_pickle_as_a_json_body_is_refused(calls: httpx.Client, canary: Path) -> None:
    for path in ("/v1/adapters", "/v1/predict", "/v1/load_lora_adapter"):
        answer = calls.post(
            path, content=pickles(canary)["protocol 4"], headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("command", ["verify", "push", "import", "convert"])
def test_the_commands_refuse_a_pickle(
    command: str, running: RunningServer, peft_saved: dict[str, PeftAdapter], tmp_path: Path, canary: Path
) -> None:
    data = pickles(canary)["torch zip"]
    source = tmp_path / "in" / "adapter"
    source.mkdir(parents=True)
    for name, content in {**members(peft_saved["first"]), WEIGHTS: data}.items():
        (source / name).write_bytes(content)
    words = {
        "verify": [str(source)],
        "push": [str(source), "--name", "trap"],
        "import": [str(source.parent), "--home", str(tmp_path / "home")],
        "convert": [str(source), str(tmp_path / "out.zip")],
    }
    result = CliRunner().invoke(app, [command, *words[command]], env={"ROOTSTOCK_URL": running.url})
    assert result.exit_code in (1, 2), result.output
    assert not (tmp_path / "out.zip").exists()
