"""An object of an allowed bucket is read from a real S3 server, in limits."""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from rootstock.adapters.bundle import Limits
from rootstock.adapters.sources.remote.errors import SourceNotAllowed, SourceUnavailable
from rootstock.adapters.sources.remote.remote_sources import RemoteSources
from rootstock.adapters.sources.remote.source_hosts import SourceHosts
from rootstock.adapters.sources.remote.source_reference import read_source_reference
from rootstock.adapters.spec import Rejected
from tests.object_storage import ObjectStorage, object_storage

ZIP = b"PK the bytes of a zip"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    with object_storage(tmp_path_factory.mktemp("storage") / "log") as storage:
        yield storage


@pytest.fixture
def bucket(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    bucket = storage.new_bucket()
    for key in ("released/mood.zip", "drafts/mood.zip", "mood.zip"):
        httpx.put(f"{storage.endpoint}/{bucket}/{key}", content=ZIP).raise_for_status()
    return bucket


def fetch(text: str, *allowed: str, most: int = 100) -> bytes:
    async def run() -> bytes:
        sources = RemoteSources(SourceHosts.parse(",".join(allowed)), Limits(max_bundle_bytes=most))
        async with sources.fetched(read_source_reference(text)) as data:
            return data

    return asyncio.run(run())


def test_an_object_is_read_as_it_is_and_compared_with_its_digest(bucket: str) -> None:
    digest = hashlib.sha256(ZIP).hexdigest()
    assert fetch(f"s3://{bucket}/mood.zip#sha256={digest}", f"s3://{bucket}") == ZIP
    assert fetch(f"s3://{bucket}/mood.zip", f"s3://{bucket}", most=len(ZIP)) == ZIP
    with pytest.raises(SourceUnavailable, match=f"has the SHA-256 {digest}"):
        fetch(f"s3://{bucket}/mood.zip#sha256={'0' * 64}", f"s3://{bucket}")


def test_only_the_allowed_beginning_of_keys_is_read(bucket: str) -> None:
    allowed = f"s3://{bucket}/released/"
    assert fetch(f"s3://{bucket}/released/mood.zip", allowed) == ZIP
    for key in ("drafts/mood.zip", "mood.zip", "releasedness", "./released/mood.zip"):
        with pytest.raises(SourceNotAllowed):
            fetch(f"s3://{bucket}/{key}", allowed)


def test_an_object_over_the_limit_is_not_read(bucket: str) -> None:
    with pytest.raises(Rejected, match=f"has {len(ZIP)} bytes and the limit is {len(ZIP) - 1}"):
        fetch(f"s3://{bucket}/mood.zip", f"s3://{bucket}", most=len(ZIP) - 1)


@pytest.mark.parametrize("name", ["{}/none.zip", "no-such-bucket-here/mood.zip", "{}/released/"])
def test_an_object_that_is_not_there_is_named(name: str, bucket: str) -> None:
    place = name.format(bucket)
    with pytest.raises(SourceUnavailable, match=f"s3://{place} cannot be read"):
        fetch(f"s3://{place}", f"s3://{place.partition('/')[0]}")


def test_a_server_without_s3fs_says_what_to_install(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "s3fs", raising=False)
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "s3fs":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SourceUnavailable, match="pip install s3fs"):
        fetch(f"s3://{bucket}/mood.zip", f"s3://{bucket}")
