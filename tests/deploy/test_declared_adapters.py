"""The job of deploy/kubernetes/adapters: its own command, with its own file, against a real server."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.cli.declaration.declared_adapter import (
    DeclaredAdapter,
    InvalidDeclaration,
    read_declarations,
)
from rootstock.adapters.sources.remote.remote_sources import RemoteSources
from rootstock.adapters.sources.remote.source_hosts import SourceHosts
from rootstock.service.settings import Settings
from tests.deploy.conftest import ROOT
from tests.deploy.kustomize import container, environment, needs_kubectl, one, pod_templates
from tests.live_server import OWNER, READER, RunningServer, run_server
from tests.loopback_server import run_loopback

DEMO = ROOT / "service" / "demo"
PUBLIC = "https://models.example.com"


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The address of a web server with the demo bundles."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = (DEMO / Path(self.path).name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            return

    with run_loopback(Handler) as url:
        yield url


@pytest.fixture(scope="module")
def running(new_home: Callable[[], Path], web: str) -> Iterator[RunningServer]:
    """A server with keys, which may fetch from the web server."""
    keys = {"api_key": SecretStr(READER), "admin_key": SecretStr(OWNER)}
    with run_server(Settings(home=new_home(), demo=False, log_level="error", **keys)) as started:
        server = started.app.state.server
        server.sources = RemoteSources(SourceHosts(trusted=[web.removeprefix("http://")]), server.bundle_limits)
        server._views.clear()
        yield started


@needs_kubectl
def test_the_job_of_the_manifest_publishes_once_and_then_changes_nothing(
    running: RunningServer, web: str, tmp_path: Path
) -> None:
    (template,) = pod_templates("adapters")
    file = one("adapters", "ConfigMap")["data"]["adapters.toml"]
    assert f"#sha256={hashlib.sha256((DEMO / 'support-intents.zip').read_bytes()).hexdigest()}" in file
    (tmp_path / "adapters.toml").write_text(file.replace(PUBLIC, web))
    # The pod's volume, its service and its secret.
    (volume,) = (v for v in template["spec"]["volumes"] if "configMap" in v)
    assert volume["configMap"]["name"] == one("adapters", "ConfigMap")["metadata"]["name"]
    (place,) = (m["mountPath"] for m in container(template)["volumeMounts"] if m["name"] == volume["name"])
    entries = environment(template)
    assert entries["ROOTSTOCK_URL"]["value"] == "http://rootstock:3000"
    assert "secretKeyRef" in entries["ROOTSTOCK_ADMIN_KEY"]["valueFrom"]
    program, group, *words = container(template)["command"]
    assert (program, group) == ("rootstock", "adapters")
    words = [word.replace(f"{place}/", f"{tmp_path}/", 1) for word in words]

    def run() -> list[str]:
        given = {"ROOTSTOCK_URL": running.url, "ROOTSTOCK_ADMIN_KEY": OWNER}
        result = CliRunner().invoke(app, words, env=given)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout.splitlines()

    with running.client(OWNER) as client:

        def state() -> Any:
            adapters = [a for a in client.get("/v1/adapters").json()["adapters"] if a["name"] != "entities"]
            return [(a["name"], a["aliases"]) for a in adapters], len(client.get("/v1/events").json()["events"])

        assert run() == [
            "support-intents@1: published, live and prod moved to it",
            "review-sentiment@1: published, live moved to it",
        ]
        published = state()
        assert published[0] == [("review-sentiment", {"live": 1}), ("support-intents", {"live": 1, "prod": 1})]
        assert run() == ["support-intents@1: unchanged", "review-sentiment@1: unchanged"]
        assert state() == published


def test_an_adapter_that_fails_is_named_and_the_others_are_published(
    running: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    file = tmp_path / "adapters.toml"
    file.write_text(
        f"[broken]\npath = 'broken.zip'\n[entities]\npath = '{DEMO / 'entities.zip'}'\naliases = ['canary']\n"
    )

    def run(*more: str) -> Result:
        return CliRunner().invoke(app, ["apply", str(file), "--url", running.url, "--key", OWNER, *more])

    result = run("--json")
    assert result.exit_code == 1
    assert result.stderr.startswith("rootstock adapters: broken: ")
    told = json.loads(result.stdout)
    assert told["failed"] == ["broken"]
    assert [(a["name"], a["version"], a["moved"]) for a in told["adapters"]] == [("entities", 1, ["canary"])]
    with running.client(OWNER) as client:
        assert client.get("/v1/adapters/entities").json()["aliases"] == {"canary": 1}


def test_a_file_states_where_an_adapter_is_and_what_a_plain_folder_lacks(tmp_path: Path) -> None:
    file = tmp_path / "adapters.toml"
    file.write_text(
        '[mood]\npath = "mood"\nlabels = ["bad", "good"]\nmax_length = 64\n[b]\nsource = "hf://a/b@c"\n'
    )
    assert read_declarations(file) == [
        DeclaredAdapter("mood", tmp_path / "mood", None, plain={"labels": ("bad", "good"), "max_length": 64}),
        DeclaredAdapter("b", None, "hf://a/b@c"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "declares no adapter"),
        ("[a", "is not TOML"),
        ("a = 1", "a is no table"),
        ("[a]", "give path, of this machine, or source"),
        ("[a]\npath = 'x'\nsource = 'y'", "one of the two"),
        ("[a]\npath = ''", "path is ''; give a text"),
        ("[a]\npath = 'x'\nalias = 'prod'", "alias is no field of an adapter"),
        ("[a]\npath = 'x'\naliases = 'prod'", "aliases is 'prod'; give a list of texts"),
        ("[a]\npath = 'x'\naliases = ['a b']", "cannot name an alias"),
        ("[a]\npath = 'x'\nmax_length = true", "max_length is True; give a whole number"),
        ("[A]\npath = 'x'", "cannot name an adapter"),
        ("[a.b]\npath = 'x'", "b is no field of an adapter"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_before_anything_is_published(
    text: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "adapters.toml"
    file.write_text(text)
    with pytest.raises(InvalidDeclaration, match=told.replace("(", r"\(")):
        read_declarations(file)
    result = CliRunner().invoke(app, shlex.split(f"apply {file} --url http://127.0.0.1:9"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
