"""Events reach real HTTP receivers: in order, at least once, from where a delivery stopped, and each apart."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry
from standardwebhooks.webhooks import Webhook
from structlog.testing import capture_logs

from rootstock.adapters.errors import RegistryUnavailable
from rootstock.adapters.registry import SqlRegistry, TenantRegistry
from rootstock.adapters.registry.webhook_port import EventFeed
from rootstock.service.webhooks.delivery import DeliveryTimes, WebhookDelivery
from rootstock.service.webhooks.dispatch import WebhookDispatch
from rootstock.service.webhooks.receiver import WebhookReceiver
from rootstock.service.webhooks.secret import WebhookSecret
from rootstock.service.webhooks.sender import WebhookSender
from rootstock.service.webhooks.series import ReceiverSeries, WebhookMetrics
from tests.adapters.registries import address, publish
from tests.bounds import HANG
from tests.postgres_process import PostgresProcess
from tests.service.webhooks.test_messages import SECRET
from tests.webhook_target import WebhookTarget, webhook_target

# As a server's, but short.
TIMES = DeliveryTimes(look=0.01, attempt=HANG, first_pause=0.02, longest_pause=0.05, hold=3 * HANG)


class Delivering:
    """The delivery of one server to some receivers, with its metrics, until it is closed."""

    def __init__(
        self,
        feed: EventFeed,
        targets: Sequence[WebhookTarget],
        times: DeliveryTimes = TIMES,
        secrets: Sequence[str] = (SECRET,),
    ) -> None:
        self._shown = CollectorRegistry()
        self._receivers = [WebhookReceiver.parse(target.url) for target in targets]
        parsed = [WebhookSecret.parse(secret) for secret in secrets]
        self._dispatch = WebhookDispatch(feed, self._receivers, parsed, WebhookMetrics(self._shown), times)
        self._dispatch.start()

    def close(self) -> None:
        self._dispatch.close()

    def value(self, name: str, target: WebhookTarget, **labels: str) -> float:
        receiver = WebhookReceiver.parse(target.url).name
        value = self._shown.get_sample_value(f"rootstock_webhook_{name}", {"receiver": receiver, **labels})
        assert value is not None
        return value


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    with closing(SqlRegistry(address(tmp_path))) as registry:
        yield registry


@pytest.fixture
def targets() -> Iterator[Callable[[], WebhookTarget]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(webhook_target())


@pytest.fixture
def every_level() -> Iterator[None]:
    """Let lines of every level be captured, also after a server has chosen a level for this process."""
    chosen = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**chosen)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def positions(target: WebhookTarget) -> list[int]:
    return [one.place for one in target.taken]


def test_a_receiver_gets_every_later_event_of_every_tenant_once_in_order_and_signed(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    target = targets()
    publish(registry, "earlier", "a")
    with closing(Delivering(registry.webhooks, [target])) as delivering:
        acme = TenantRegistry(registry, "acme", "acme/k1")
        publish(acme, "mood", "a")
        publish(acme, "mood", "b")
        acme.rollback("mood")
        publish(registry, "spam", "c")
        target.wait(7)
        until(lambda: delivering.value("lag_seconds", target) == 0)
        assert delivering.value("deliveries_total", target, result="delivered") == 7
    told = [Webhook(SECRET).verify(one.body, dict(one.headers)) for one in target.received]
    assert [one["data"] | {"what": one["type"]} for one in told][-3] == {
        "what": "adapter.rolled_back",
        "tenant": "acme",
        "id": 5,
        "name": "mood",
        "version": 1,
        "alias": "live",
        "detail": {"before": 2, "after": 1},
        "who": "acme/k1",
    }
    assert [(one["data"]["tenant"], one["data"]["id"]) for one in told] == [
        *(("acme", n) for n in range(1, 6)),
        ("default", 3),
        ("default", 4),
    ]
    assert {one.headers["content-type"] for one in target.received} == {"application/json"}


def test_an_event_that_is_refused_comes_again_with_the_same_id_before_any_later_one(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    target = targets()
    target.statuses = [500, 503, 404]
    with closing(Delivering(registry.webhooks, [target])) as delivering:
        publish(registry, "spam", "a")
        target.wait(2)
        assert delivering.value("deliveries_total", target, result="failed") == 3
    first, second = target.taken
    assert [one.id for one in target.received] == [first.id] * 4 + [second.id]
    assert {one.body for one in target.received[:4]} == {first.body}


def test_pauses_double_to_the_longest_one_and_retry_after_makes_one_longer_up_to_that(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget], every_level: None
) -> None:
    target = targets()
    target.statuses = [500] * 5
    times = DeliveryTimes(look=0.01, attempt=HANG, first_pause=0.01, longest_pause=0.04, hold=3 * HANG)
    with capture_logs() as logs, closing(Delivering(registry.webhooks, [target], times)):
        publish(registry, "spam", "a")
        target.wait(2)
        target.headers, target.statuses = {"Retry-After": "3600"}, [429]
        publish(registry, "spam", "b")
        target.wait(4)
    waits = [line["retry_in"] for line in logs if line["event"] == "a webhook has not taken an event"]
    assert waits == [0.01, 0.02, 0.04, 0.04, 0.04, 0.04]
    assert not any("s3cret" in str(line) for line in logs)


@pytest.mark.parametrize("header", ["9" * 400, "9" * 5000, "-1", "soon", "1.5"])
def test_an_event_is_taken_whatever_retry_after_says_with_it(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget], header: str
) -> None:
    target = targets()
    target.headers = {"Retry-After": header}
    with closing(Delivering(registry.webhooks, [target])):
        publish(registry, "spam", "a")
        target.wait(2)
    assert len(target.received) == 2


def test_a_redirect_is_a_refusal_and_is_not_followed(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    target, elsewhere = targets(), targets()
    target.headers = {"Location": elsewhere.url}
    target.statuses = [301, 302, 303, 307, 308]
    with closing(Delivering(registry.webhooks, [target])):
        publish(registry, "spam", "a", activate=False)
        target.wait(1)
    assert len(target.received) == 6
    assert not elsewhere.received


def test_a_receiver_that_never_answers_delays_no_other_and_loses_nothing(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    hung, other = targets(), targets()
    hung.answers.clear()
    times = DeliveryTimes(look=0.01, attempt=0.2, first_pause=0.01, longest_pause=0.02, hold=3 * HANG)
    with closing(Delivering(registry.webhooks, [hung, other], times)) as delivering:
        for content in "abc":
            publish(registry, "spam", content)
        other.wait(6)
        until(lambda: delivering.value("deliveries_total", hung, result="failed") >= 2)
        assert delivering.value("lag_seconds", hung) > 0
        assert not hung.received
        hung.answers.set()
        hung.wait(6)
        until(lambda: delivering.value("lag_seconds", hung) == 0)
    assert positions(hung) == positions(other) == [1, 2, 3, 4, 5, 6]


def test_a_receiver_that_is_away_gets_all_events_once_it_is_back(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    target = targets()
    target.status = 503
    with closing(Delivering(registry.webhooks, [target])):
        for content in range(30):
            publish(registry, "spam", content, activate=False)
        target.wait_for_attempts(3)
        target.status = 204
        target.wait(30)
    assert positions(target) == list(range(1, 31))


def test_after_a_restart_a_delivery_goes_on_where_it_stopped_and_a_new_receiver_begins_at_the_newest_event(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    first, second = targets(), targets()
    with closing(Delivering(registry.webhooks, [first])):
        publish(registry, "spam", "a")
        first.wait(2)
        until(lambda: registry.webhooks.oldest_ahead(WebhookReceiver.parse(first.url).address) is None)
    publish(registry, "spam", "b")
    with closing(Delivering(registry.webhooks, [first, second])):
        first.wait(4)
        publish(registry, "spam", "c")
        first.wait(6)
        second.wait(2)
    assert [one.place for one in first.received] == [1, 2, 3, 4, 5, 6], "none comes again without a fault"
    assert positions(second) == [5, 6]


def test_a_stop_does_not_wait_for_a_receiver_and_its_event_comes_after_the_next_start(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    target = targets()
    target.answers.clear()
    delivering = Delivering(registry.webhooks, [target])
    publish(registry, "spam", "a", activate=False)
    until(lambda: delivering.value("lag_seconds", target) > 0)
    began = time.monotonic()
    delivering.close()
    assert time.monotonic() - began < HANG
    target.answers.set()
    # The next server need not wait until the hold of the first one ends.
    with closing(Delivering(registry.webhooks, [target])):
        assert target.wait(1)[0].place == 1


class OneThread(ThreadPoolExecutor):
    """One thread, which some call keeps busy when `last` is to be called. `queued` tells that `last` waits."""

    def __init__(self, last: str) -> None:
        super().__init__(1)
        self._last = last
        self.busy, self.queued = threading.Event(), asyncio.Event()

    def submit(self, call: Any, /, *values: Any, **named: Any) -> Future[Any]:
        last = self._last in repr(call)
        if last:
            super().submit(self.busy.wait, HANG)
        future = super().submit(call, *values, **named)
        if last:
            self.queued.set()
        return future


def test_a_stop_lets_go_of_a_receiver_whose_release_had_not_begun(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    target = targets()
    receiver = WebhookReceiver.parse(target.url)
    registry.webhooks.begin(receiver.address)
    publish(registry, "spam", "a")

    async def deliver_and_stop() -> None:
        threads = OneThread("release")
        asyncio.get_running_loop().set_default_executor(threads)
        series = ReceiverSeries(WebhookMetrics(CollectorRegistry()), receiver.name)
        delivery = WebhookDelivery(registry.webhooks, receiver, "one", series, TIMES)
        async with httpx.AsyncClient() as client:
            sender = WebhookSender(client, receiver, [WebhookSecret.parse(SECRET)], HANG)
            task = asyncio.create_task(delivery.run(sender))
            await threads.queued.wait()
            task.cancel()
            await asyncio.sleep(0)
            threads.busy.set()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(deliver_and_stop())
    assert registry.webhooks.take(receiver.address, "two", 60) == 2


def test_during_a_change_of_secrets_each_of_the_two_verifies_a_message(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    target = targets()
    secrets = [SECRET, "whsec_" + "B" * 40]
    with closing(Delivering(registry.webhooks, [target], secrets=secrets)):
        publish(registry, "spam", "a")
        target.wait(2)
    for secret in secrets:
        assert Webhook(secret).verify(target.taken[0].body, dict(target.taken[0].headers))


class FlakyFeed:
    """A feed whose database is away now and then."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed = feed
        self._dice = random.Random(45)

    def __getattr__(self, name: str) -> Callable[..., object]:
        def use(*values: object) -> object:
            if name != "begin" and self._dice.random() < 0.3:
                raise RegistryUnavailable("the database is away")
            return getattr(self._feed, name)(*values)

        return use


def test_a_database_that_is_away_now_and_then_costs_no_event_and_no_order(
    registry: SqlRegistry, targets: Callable[[], WebhookTarget]
) -> None:
    target = targets()
    with closing(Delivering(FlakyFeed(registry.webhooks), [target])):  # type: ignore[arg-type]
        for content in range(5):
            publish(registry, "spam", content, activate=False)
        target.wait(5)
    assert positions(target) == [1, 2, 3, 4, 5]


def test_two_servers_on_one_registry_deliver_each_event_in_order_and_one_at_a_time(
    postgres: PostgresProcess, targets: Callable[[], WebhookTarget]
) -> None:
    target, url = targets(), postgres.new_schema()
    with (
        closing(SqlRegistry(url)) as one,
        closing(SqlRegistry(url)) as two,
        closing(Delivering(one.webhooks, [target])),
        closing(Delivering(two.webhooks, [target])),
    ):
        for turn in range(20):
            publish((one, two)[turn % 2], "spam", turn)
        target.wait(40)
    places = [one.place for one in target.received]
    assert places == sorted(places)
    assert len(places) == len(set(places)) == 40, "no server died, so none came twice"


def test_a_server_takes_over_once_the_hold_of_one_that_died_has_ended(
    postgres: PostgresProcess, targets: Callable[[], WebhookTarget]
) -> None:
    target, url = targets(), postgres.new_schema()
    address = WebhookReceiver.parse(target.url).address
    with closing(SqlRegistry(url)) as one, closing(SqlRegistry(url)) as two:
        one.webhooks.begin(address)
        publish(one, "spam", "a")
        assert one.webhooks.take(address, "dead", 0.5) == 0
        assert two.webhooks.take(address, "alive", 60) is None
        with closing(Delivering(two.webhooks, [target])):
            target.wait(2)
        assert not one.webhooks.advance(address, "dead", 1, 60), "the one that died holds it no longer"


def test_to_hold_and_to_advance_a_receiver_drops_no_resolution_of_a_reference(registry: SqlRegistry) -> None:
    publish(registry, "spam", "a")
    before = registry.keys.revision()
    registry.webhooks.begin("a" * 64)
    registry.webhooks.take("a" * 64, "me", 1)
    registry.webhooks.advance("a" * 64, "me", 1, 1)
    registry.webhooks.release("a" * 64, "me")
    assert registry.keys.revision() == before
