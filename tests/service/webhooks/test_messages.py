"""Messages have the form and the signature of the Standard Webhooks specification, by its own library."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from rootstock.adapters.registry.records import Event
from rootstock.adapters.registry.webhook_port import FeedEvent
from rootstock.service.webhooks.message import WebhookMessage
from rootstock.service.webhooks.receiver import WebhookReceiver
from rootstock.service.webhooks.secret import WebhookSecret

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
AT = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)


def fed(position: int = 7, what: str = "alias_set", at: datetime = AT) -> FeedEvent:
    detail = {"before": 1, "after": 2}
    return FeedEvent(position, "acme", Event(3, at, what, "mood", 2, "live", detail, "acme/k1"))


def test_the_specification_s_example_has_the_signature_that_the_specification_states() -> None:
    secret = WebhookSecret.parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_specification_s_library_takes_a_message_and_refuses_one_that_was_changed() -> None:
    message = WebhookMessage.of(fed())
    now = int(time.time())
    headers = {
        "webhook-id": message.id,
        "webhook-timestamp": str(now),
        "webhook-signature": WebhookSecret.parse(SECRET).sign(message.id, now, message.body),
    }
    assert Webhook(SECRET).verify(message.body, headers) == {
        "type": "adapter.alias_set",
        "timestamp": "2026-05-04T03:02:01.123456Z",
        "data": {
            "tenant": "acme",
            "id": 3,
            "name": "mood",
            "version": 2,
            "alias": "live",
            "detail": {"before": 1, "after": 2},
            "who": "acme/k1",
        },
    }
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(message.body.replace(b"mood", b"moon"), headers)


def test_the_id_of_a_message_is_that_of_its_event_and_of_no_other_event_or_registry() -> None:
    ids = [WebhookMessage.of(fed()).id for _ in range(2)]
    others = [fed(8), fed(what="rolled_back"), fed(at=AT.replace(microsecond=1))]
    assert len({*ids, *(WebhookMessage.of(one).id for one in others)}) == 4


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_s3cret", "whsec_" + "AAAA" * 22, "whsec_AAAA" * 2],
)
def test_a_text_that_the_specification_allows_as_no_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes") as refused:
        WebhookSecret.parse(secret)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/s3cret",
        "https:///s3cret",
        "https://host:0/s3cret",
        "https://host:99999/s3cret",
        "https://host:x/s3cret",
        "https://host/s3cret#part",
        "https://host/s3cret\r\nX: y",
        "https://[::1/s3cret",
        "https://h\u00f6st/s3cret",
        "s3cret",
        "https://host/s3cret/" + "a" * 2048,
    ],
)
def test_a_text_that_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="give https://host/path") as refused:
        WebhookReceiver.parse(url)
    assert "s3cret" not in str(refused.value)


def test_a_receiver_s_name_tells_it_apart_and_shows_neither_path_nor_password() -> None:
    one, two = (WebhookReceiver.parse(f"https://user:s3cret@hooks.example.com/s3cret/{n}") for n in range(2))
    assert one.name != two.name
    for receiver in (one, two):
        assert receiver.name.startswith("hooks.example.com#")
        assert "s3cret" not in receiver.name
