"""Keys and passwords are in no log line, no error message, no list of processes and no child's environment."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from rootstock.adapters.child_process import run_child, without_secrets
from rootstock.service.startup import Startup
from tests.bounds import HANG
from tests.process_tree import tree
from tests.serve_process import ROOTSTOCK, free_port, serving

ADMIN, CALLER, WRONG = "canary-of-the-admin", "canary-of-the-caller", "canary-of-a-stranger"
CANARY = "canary"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"ROOTSTOCK_ADMIN_KEY": f"{ADMIN} with spaces"}, 2),
        ({"ROOTSTOCK_ADMIN_KEY": f"{ADMIN}\x1b[2J"}, 2),
        ({"ROOTSTOCK_ADMIN_KEYS": ADMIN}, 2),
        ({"ROOTSTOCK_ADMIN_KEY": ADMIN, "ROOTSTOCK_SLOTS": "many"}, 2),
        ({"ROOTSTOCK_API_KEY": CALLER, "ROOTSTOCK_HOST": "0.0.0.0"}, 2),
        ({"ROOTSTOCK_API_KEY": CALLER, "ROOTSTOCK_CORS_ORIGINS": "*"}, 2),
        ({"ROOTSTOCK_ADMIN_KEY": ADMIN, "ROOTSTOCK_FOUNDATION": "nowhere"}, 2),
        ({"ROOTSTOCK_ADMIN_KEY": ADMIN, "OTEL_TRACES_EXPORTER": "nowhere"}, 2),
        ({"ROOTSTOCK_WEBHOOK_URLS": f"https://hooks.example.com/{CANARY}"}, 2),
        ({"ROOTSTOCK_WEBHOOK_SECRET": f"whsec_{CANARY}"}, 2),
    ],
)
def test_a_start_that_is_refused_shows_no_key(settings: dict[str, str], code: int, tmp_path: Path) -> None:
    environment = {**os.environ, "ROOTSTOCK_HOME": str(tmp_path), **settings}
    command = [ROOTSTOCK, "serve", "--port", str(free_port())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == code
    assert done.stderr
    assert CANARY not in done.stderr + done.stdout


@pytest.mark.parametrize("server", ["bentoml", "uvicorn"])
def test_no_log_line_and_no_command_line_of_a_server_shows_a_key(
    new_home: Callable[[], Path], server: str
) -> None:
    log: list[str] = []
    keys = {"ROOTSTOCK_ADMIN_KEY": ADMIN, "ROOTSTOCK_API_KEY": CALLER, "ROOTSTOCK_LOG_LEVEL": "debug"}
    with serving(new_home(), server, log=log, ROOTSTOCK_DEMO="false", **keys) as (process, client):
        answers = []
        for key in (ADMIN, CALLER, WRONG, f"{WRONG}\xff", f"{WRONG} {ADMIN}"):
            headers = {"Authorization": f"Bearer {key}".encode("latin-1")}
            answers.append(client.get(f"/v1/models?key={key}", headers=headers))
            answers.append(client.post("/v1/adapters", headers=headers, content=b"{"))
            answers.append(client.post("/v1/predict", headers=headers, json={"model": "x", "inputs": key}))
        shown = [" ".join(one.cmdline()) for one in tree(process)]
    assert {a.status_code for a in answers} >= {200, 403, 404}
    assert not [a.text for a in answers if CANARY in a.text]
    assert not [line for line in shown if CANARY in line]
    assert len(log) >= len(answers)
    assert not [line for line in log if CANARY in line]


def test_a_traceback_of_a_failed_start_shows_no_local_variable(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        key = ADMIN
        await send({"type": "lifespan.startup.failed", "message": ""})
        raise RuntimeError(f"the key of {len(key)} characters does not fit")

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        assert CANARY not in str(message)

    asyncio.run(Startup(broken)({"type": "lifespan"}, receive, send))
    said = capsys.readouterr().err
    assert "RuntimeError: the key of" in said
    assert CANARY not in said


@pytest.mark.parametrize(
    "name",
    [
        "ROOTSTOCK_ADMIN_KEY", "ROOTSTOCK_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
        "PGPASSWORD", "GOOGLE_APPLICATION_CREDENTIALS", "OTEL_EXPORTER_OTLP_HEADERS", "hf_token",
        "ROOTSTOCK_WEBHOOK_SECRET", "ROOTSTOCK_WEBHOOK_URLS",
    ],
)  # fmt: skip
def test_a_child_process_gets_no_variable_that_names_a_secret(name: str) -> None:
    assert without_secrets({name: CANARY, "PATH": "/bin"}) == {"PATH": "/bin"}


def test_a_child_process_gets_no_address_with_a_password_and_keeps_other_settings() -> None:
    kept = {
        "ROOTSTOCK_HOME": "/data/a:b@c",
        "ROOTSTOCK_BATCH_TOKENS": "4096",
        "TOKENIZERS_PARALLELISM": "false",
        "HTTP_PROXY": "http://proxy.example.com:3128",
        "ROOTSTOCK_FOUNDATION": "org/name@main",
    }
    secret = {"HTTPS_PROXY": f"http://me:{CANARY}@proxy:3128", "ANY": f"postgresql+psycopg://u:{CANARY}@db/x"}
    assert without_secrets({**kept, **secret}) == kept


def test_a_child_process_is_started_without_the_secrets_of_its_parent(tmp_path: Path) -> None:
    target = tmp_path / "environment"
    write = f"import os; open({str(target)!r}, 'w').write(repr(dict(os.environ)))"
    given = {**os.environ, "ROOTSTOCK_ADMIN_KEY": ADMIN, "HF_TOKEN": CANARY}
    assert run_child([sys.executable, "-c", write], given, HANG) == 0
    assert CANARY not in target.read_text()
    assert "PATH" in target.read_text()
