"""A real server delivers the events of its registry, also those from before it was killed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter
from tests.serve_process import serving
from tests.webhook_target import WebhookTarget, webhook_target

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


@pytest.fixture
def target() -> Iterator[WebhookTarget]:
    with webhook_target() as target:
        yield target


@pytest.mark.slow
def test_what_a_killed_server_could_not_deliver_comes_after_its_restart_and_nothing_waits_for_the_receiver(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter], target: WebhookTarget
) -> None:
    home, log = new_home(), list[str]()
    webhooks = {
        "ROOTSTOCK_WEBHOOK_URLS": target.url,
        "ROOTSTOCK_WEBHOOK_SECRET": SECRET,
        "ROOTSTOCK_DEMO": "false",
    }
    target.status = 500
    with serving(home, "uvicorn", log=log, **webhooks) as (process, client):
        assert upload(client, "mood", peft_saved["first"].zip()).status_code == 201
        assert upload(client, "mood", peft_saved["second"].zip()).status_code == 201
        assert client.post("/v1/adapters/mood/rollback").status_code == 200
        target.wait_for_attempts(2)
        assert client.get("/readyz").status_code == 200
        process.kill()
        process.wait()
    assert {one.place for one in target.received} == {1}
    target.status = 200
    with serving(home, "uvicorn", log=log, **webhooks):
        target.wait(5)
    assert target.whats == ["published", "alias_set", "published", "alias_set", "rolled_back"]
    for one in target.taken:
        Webhook(SECRET).verify(one.body, dict(one.headers))
    assert any("a webhook has not taken an event" in line for line in log)
    assert not any("s3cret-path" in line for line in log)


def test_a_server_without_a_receiver_delivers_nothing_and_has_no_such_metrics(
    serve: Callable[..., RunningServer],
) -> None:
    with serve().client() as client:
        assert "rootstock_webhook" not in client.get("/metrics").text
