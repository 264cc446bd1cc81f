"""A registry on PostgreSQL: programs that share it, a server that goes away, and bytes that a version may use."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import psycopg
import pytest

from rootstock.adapters import errors
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.sql.backends import change_feed, postgres_server
from tests.adapters.registries import digest, publish
from tests.bounds import HANG
from tests.postgres_process import PASSWORD, PostgresProcess

Open = Callable[[], SqlRegistry]


@pytest.fixture
def url(postgres: PostgresProcess) -> str:
    return postgres.new_schema()


@pytest.fixture
def shared(url: str) -> Iterator[Open]:
    """Yield a function that opens the same registry again, as another program would."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(SqlRegistry(url)))


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def plain(url: str) -> str:
    """Return the URL for psycopg itself."""
    return url.replace("+psycopg", "")


def answers(registry: SqlRegistry) -> bool:
    try:
        registry.ping()
    except errors.RegistryUnavailable:
        return False
    return True


def test_processes_that_create_one_registry_at_once_all_open_it(url: str) -> None:
    script = "import sys; from rootstock.adapters.registry import SqlRegistry; SqlRegistry(sys.argv[1]).close()"
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", script, url]) for _ in range(4)]
    assert [process.wait(HANG) for process in processes] == [0] * 4


def test_a_change_is_told_to_other_programs_before_they_ask(
    shared: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "POLL_SECONDS", 10 * HANG)
    server, other = shared(), shared()
    for content in "ab":
        publish(other, "spam", content)
    publish(other, "ham", "a")
    until(lambda: server._resolutions.revision == 3)
    assert (server.resolve("spam").version, server.resolve("ham").version) == (2, 1)
    other.set_alias("spam", "live", 1)
    until(lambda: server.resolve("spam").version == 1)
    assert server._resolutions.get((None, "ham")) is not None, "only what changed is dropped"


def test_a_change_that_nobody_tells_is_found_within_two_seconds(
    shared: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, other = shared(), shared()
    monkeypatch.setattr(other._database._backend, "announce", lambda *told: None)
    publish(other, "spam", "a")
    assert server.resolve("spam").version == 1
    publish(other, "spam", "b")
    began = time.monotonic()
    until(lambda: server.resolve("spam").version == 2)
    assert change_feed.POLL_SECONDS <= 1
    assert time.monotonic() - began < HANG


def test_who_subscribes_hears_of_changes_by_others_alone(shared: Open) -> None:
    server, other = shared(), shared()
    heard = threading.Event()
    server.subscribe(heard.set)
    publish(other, "spam", "a")
    assert heard.wait(HANG)


def test_a_database_that_was_put_back_is_read_afresh(shared: Open, url: str) -> None:
    server = shared()
    for content in "ab":
        publish(server, "spam", content)
    assert server.resolve("spam").version == 2
    with psycopg.connect(plain(url)) as connection:
        connection.execute("UPDATE aliases SET version = 1; UPDATE revision SET number = 1")
    until(lambda: server.resolve("spam").version == 1)
    assert server._resolutions.get((None, "spam")) is not None, "what is read from then on is kept again"


def test_a_server_that_is_killed_costs_no_reference_in_memory_and_is_used_again_once_it_is_back(
    shared: Open, postgres: PostgresProcess
) -> None:
    registry = shared()
    publish(registry, "spam", "a")
    registry.resolve("spam")
    postgres.kill()
    try:
        until(lambda: not answers(registry))
        began = time.monotonic()
        for _ in range(100):
            assert registry.resolve("spam").version == 1
            for use in (
                registry.ping,
                lambda: registry.resolve("spam@1"),
                lambda: publish(registry, "spam", "b"),
            ):
                with pytest.raises(errors.RegistryUnavailable, match="database cannot be used") as away:
                    use()
        # It is known to be away, so nothing tries to connect. 300 connections would be refused more slowly.
        assert time.monotonic() - began < HANG / 4
    finally:
        postgres.start()
    assert PASSWORD not in str(away.value)
    until(lambda: answers(registry))
    assert publish(registry, "spam", "b").version == 2
    assert registry.resolve("spam").version == 2


def test_a_look_up_that_takes_too_long_is_given_up_and_the_registry_is_used_again_after_it(
    shared: Open, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "LOOK_UP_SECONDS", 0.05)
    registry = shared()
    publish(registry, "spam", "a")
    with psycopg.connect(plain(url)) as other:
        other.execute("LOCK TABLE versions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(errors.RegistryUnavailable, match=r"did not answer within 0\.05 s|cannot be used"):
            registry.resolve("spam")
    monkeypatch.setattr(postgres_server, "LOOK_UP_SECONDS", HANG)
    until(lambda: answers(registry))
    assert registry.resolve("spam").version == 1


@pytest.mark.parametrize("wrong", ["password", "database", "port"])
def test_an_address_that_leads_nowhere_is_refused_with_the_address_and_without_the_password(
    url: str, postgres: PostgresProcess, wrong: str
) -> None:
    changed = {
        "password": url.replace(PASSWORD, f"{PASSWORD}-of-yesterday"),
        "database": url.replace("/postgres?", "/postgres_not?"),
        "port": url.replace(f":{postgres.port}/", ":1/"),
    }[wrong]
    with pytest.raises(errors.RegistryUnavailable, match=r"rootstock:\*\*\*@127.0.0.1") as refused:
        SqlRegistry(changed)
    shown = [refused.value, refused.value.__cause__]
    assert PASSWORD not in "".join(map(repr, shown)) + "".join(map(str, shown))


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(errors.RegistryUnavailable, match=r"pip install 'rootstock\[postgres\]'"):
        SqlRegistry(url)


@pytest.mark.parametrize("url", ["mysql://host/database", "not a url", "postgresql+asyncpg://host"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(errors.RegistryUnavailable):
        SqlRegistry(url)


def test_bytes_are_not_removed_while_another_program_is_about_to_publish_them(shared: Open) -> None:
    first, second = shared(), shared()
    publish(second, "ham", "a")
    second.delete_version("ham", 1, force=True)
    store = {digest("a"): b"bytes"}
    stored, may_publish = threading.Event(), threading.Event()

    def publish_slowly() -> None:
        with first.guarding() as guard:
            guard(digest("a"))
            store[digest("a")] = b"bytes"
            stored.set()
            assert may_publish.wait(HANG)
            publish(first, "spam", "a")

    with ThreadPoolExecutor(2) as pool:
        publishing = pool.submit(publish_slowly)
        assert stored.wait(HANG)
        removing = pool.submit(second.remove_unused, digest("a"), store.pop)
        until(lambda: bool(waiting(first)))
        may_publish.set()
        publishing.result()
        assert removing.result() is False
    assert store == {digest("a"): b"bytes"}
    assert second.resolve("spam").digest == digest("a")


def test_bytes_that_are_being_removed_are_stored_again_by_who_publishes_them(shared: Open) -> None:
    first, second = shared(), shared()
    store = {digest("a"): b"bytes"}
    removing, may_remove = threading.Event(), threading.Event()

    def remove(unused: str) -> None:
        removing.set()
        assert may_remove.wait(HANG)
        del store[unused]

    def publish_now() -> None:
        with first.guarding() as guard:
            guard(digest("a"))
            store[digest("a")] = b"bytes"
            publish(first, "spam", "a")

    with ThreadPoolExecutor(2) as pool:
        removed = pool.submit(second.remove_unused, digest("a"), remove)
        assert removing.wait(HANG)
        published = pool.submit(publish_now)
        until(lambda: bool(waiting(first)))
        may_remove.set()
        assert removed.result() is True
        published.result()
    assert store == {digest("a"): b"bytes"}


def test_a_publisher_whose_guard_is_lost_publishes_nothing(shared: Open, url: str) -> None:
    first, second = shared(), shared()
    with ExitStack() as stack:
        stack.enter_context(suppress(errors.RegistryUnavailable))
        guard = stack.enter_context(first.guarding())
        guard(digest("a"))
        with psycopg.connect(plain(url), autocommit=True) as connection:
            holders = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({holders}) AS holders")
        # The other one finds no guard, and no version: to remove is right.
        assert second.remove_unused(digest("a"), lambda unused: None)
        with pytest.raises(errors.RegistryUnavailable):
            publish(first, "spam", "a")
    with pytest.raises(errors.UnknownAdapter):
        second.resolve("spam")
    until(lambda: answers(first))
    assert publish(first, "spam", "a").version == 1


def test_many_digests_are_guarded_at_once_from_several_threads(shared: Open) -> None:
    first, second = shared(), shared()
    with first.guarding() as guard:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(guard, map(digest, range(50))))
        with second.guarding() as other:
            other(digest(7))
        publish(first, "spam", 7)
    assert second.remove_unused(digest(8), lambda unused: None)
    assert not second.remove_unused(digest(7), lambda unused: None)


def waiting(registry: SqlRegistry) -> int:
    """Return how many sessions wait for a lock on bytes."""
    from sqlalchemy import text

    with registry._database.reading() as session:
        asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return session.execute(text(asked)).scalar_one()
