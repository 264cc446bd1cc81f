"""`rootstock adapters fsck` on a registry in PostgreSQL and a store in S3, which it finds by the environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner

from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.home.home import Home
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.store.object_store import ObjectStore
from tests.adapters.stored_homes import bundle, record
from tests.object_storage import ObjectStorage
from tests.postgres_process import PostgresProcess


class SharedPlaces:
    """A registry and a store that servers share, with two versions of `mood` and one of `intents`."""

    def __init__(self, registry_url: str, store_url: str, home: Path) -> None:
        self.registry_url = registry_url
        self.store_url = store_url
        self.home = home
        self.store = ObjectStore(store_url)
        self.objects = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        with closing(SqlRegistry(registry_url)) as registry:
            journal = Home(home).journal(registry, self.store)
            for name, number in (("mood", 1), ("mood", 2), ("intents", 3)):
                digest, data = bundle(number)
                journal.publish(digest, data, lambda name=name, digest=digest: record(registry, name, digest))

    def object_of(self, digest: str) -> str:
        """Return the path of a bundle's object."""
        digits = digest.removeprefix("sha256:")
        return f"{self.store_url.removeprefix('s3://')}/{digits[:2]}/{digits}.zip"

    def check(self, *options: str) -> tuple[int, list[dict[str, Any]]]:
        """Run the command. Return its exit code and the findings."""
        told = CliRunner().invoke(app, ["fsck", "--home", str(self.home), "--json", *options])
        assert told.exit_code in (0, 1), told.output
        return told.exit_code, json.loads(told.stdout)["findings"]

    def statuses(self) -> list[str]:
        """Return the marks of the versions of `mood`."""
        with closing(SqlRegistry(self.registry_url)) as registry:
            return [version.status for version in registry.show("mood").versions]


@pytest.fixture
def places(
    postgres: PostgresProcess, s3: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SharedPlaces:
    registry_url, store_url = postgres.new_schema(), f"s3://{s3.new_bucket()}/production"
    monkeypatch.setenv("ROOTSTOCK_REGISTRY_URL", registry_url)
    monkeypatch.setenv("ROOTSTOCK_STORE_URL", store_url)
    return SharedPlaces(registry_url, store_url, tmp_path / "home")


def test_a_whole_registry_and_store_have_no_finding(places: SharedPlaces) -> None:
    assert places.check() == (0, [])
    assert places.check("--repair", "--grace", "0") == (0, [])


def _remove(places: SharedPlaces, path: str) -> None:
    places.objects.rm_file(path)


def _cut(places: SharedPlaces, path: str) -> None:
    places.objects.pipe_file(path, places.objects.cat_file(path)[:-100])


def _flip(places: SharedPlaces, path: str) -> None:
    data = bytearray(places.objects.cat_file(path))
    data[len(data) // 2] ^= 1
    places.objects.pipe_file(path, bytes(data))


def _other(places: SharedPlaces, path: str) -> None:
    places.objects.pipe_file(path, bundle(9)[1])


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (_remove, "missing"),
        (_flip, "wrong"),
        pytest.param(_cut, "wrong", marks=pytest.mark.slow),
        pytest.param(_other, "wrong", marks=pytest.mark.slow),
    ],
)
def test_missing_and_wrong_objects_are_found_marked_and_ready_again_once_they_are_back(
    places: SharedPlaces, damage: Callable[[SharedPlaces, str], None], kind: str
) -> None:
    digest, data = bundle(2)
    damage(places, places.object_of(digest))
    code, (found,) = places.check()
    assert (code, found["kind"], found["digest"], found["versions"], found["done"]) == (
        1,
        kind,
        digest,
        ["mood@2"],
        "",
    )
    assert places.statuses() == ["ready", "ready"], "without --repair nothing changes"
    _, (repaired,) = places.check("--repair")
    assert repaired["done"].startswith("marked damaged; publish the bundle again")
    assert places.statuses() == ["ready", "damaged"]
    places.objects.pipe_file(places.object_of(digest), data)
    _, (mark,) = places.check("--repair")
    assert (mark["kind"], mark["done"]) == ("mark", "marked ready")
    assert places.statuses() == ["ready", "ready"]
    assert places.check() == (0, [])


def test_an_object_that_no_version_has_is_an_orphan_once_it_is_older_than_an_upload_takes(
    places: SharedPlaces,
) -> None:
    digest, data = bundle(4)
    places.store.put(digest, data)
    assert places.check() == (0, []), "an upload may be about to publish it"
    assert places.check("--repair") == (0, [])
    code, (found,) = places.check("--grace", "0")
    assert (code, found["kind"], found["digest"], found["done"]) == (1, "orphan", digest, "")
    _, (repaired,) = places.check("--grace", "0", "--repair")
    assert repaired["done"] == "removed"
    assert not places.objects.exists(places.object_of(digest))
    assert places.check("--grace", "0") == (0, [])


def test_objects_of_another_kind_under_the_prefix_are_left_alone(places: SharedPlaces) -> None:
    note = f"{places.store_url.removeprefix('s3://')}/note.txt"
    places.objects.pipe_file(note, b"not a bundle")
    assert places.check("--repair", "--grace", "0") == (0, [])
    assert places.objects.cat_file(note) == b"not a bundle"


def test_an_empty_registry_beside_a_full_store_is_a_finding_and_a_repair_removes_nothing(
    places: SharedPlaces, postgres: PostgresProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(places.store.digests())
    empty = postgres.new_schema()
    SqlRegistry(empty).close()
    monkeypatch.setenv("ROOTSTOCK_REGISTRY_URL", empty)
    for options in ((), ("--repair", "--grace", "0")):
        code, (found,) = places.check(*options)
        assert (code, found["kind"], found["digest"]) == (1, "empty-registry", None)
    assert list(places.store.digests()) == before
