"""What is particular to a store on object storage: where it is, what it lacks, and what its messages say."""

from __future__ import annotations

import sys

import httpx
import pytest
from fsspec.registry import _registry

from rootstock.adapters.errors import AdapterError, StoreFull, StoreUnavailable
from rootstock.adapters.store.object_store import ObjectStore
from rootstock.adapters.store.port import Store
from tests.object_storage import SECRET, ObjectStorage

ONE = "sha256:" + "1a" * 32


def test_a_bundle_lies_under_the_prefix_and_what_else_lies_there_is_no_bundle(s3: ObjectStorage) -> None:
    bucket = s3.new_bucket()
    store = ObjectStore(f"s3://{bucket}/some/prefix/")
    store.put(ONE, b"bytes")
    for other in ("notes.zip", f"1a/{'3c' * 32}.zip", "1a/notes.zip", "README"):
        httpx.put(f"{s3.endpoint}/{bucket}/some/prefix/{other}", content=b"x").raise_for_status()
    assert f"{bucket}/some/prefix/1a/{'1a' * 32}.zip" in store._fs.find(bucket)
    assert list(store.digests()) == [ONE]
    assert list(ObjectStore(f"s3://{bucket}").digests()) == []


def test_what_another_server_stores_or_removes_is_seen_at_once(s3: ObjectStorage) -> None:
    bucket = s3.new_bucket()
    first, second = (ObjectStore(f"s3://{bucket}/prefix") for _ in range(2))
    for _ in range(2):
        assert list(second.digests()) == []
        first.put(ONE, b"bytes")
        assert list(second.digests()) == [ONE]
        assert second.get(ONE) == b"bytes"
        first.delete(ONE)


def test_a_bucket_that_does_not_exist_is_refused_at_the_start(s3: ObjectStorage) -> None:
    with pytest.raises(StoreUnavailable, match="there is no bucket 'not-there'"):
        ObjectStore("s3://not-there/prefix")


@pytest.mark.parametrize("name", ["s3", "gs", "az"])
def test_a_missing_package_is_named_with_what_installs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(StoreUnavailable, match=r"pip install '(rootstock|gcsfs|adlfs)"):
        ObjectStore(f"{name}://bucket/prefix")


@pytest.mark.parametrize("url", ["ftp://host/folder", "file:///etc", "", "bucket"])
def test_another_kind_of_store_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="give s3://"):
        ObjectStore(url)


def test_a_store_that_is_away_says_so_and_serves_again_once_it_is_back(
    s3: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(f"s3://{s3.new_bucket()}/prefix")
    store.put(ONE, b"bytes" * 200_000)
    with store.open(ONE) as file, monkeypatch.context() as broken:
        file.read(10)
        # Every request of the library goes through this method.
        broken.setattr(type(store._fs), "_call_s3", _refuse)
        uses = (
            lambda: store.get(ONE),
            lambda: store.put(ONE, b"x"),
            lambda: store.delete(ONE),
            lambda: list(store.digests()),
            lambda: file.seek(900_000) and file.read(10),
        )
        for use in uses:
            with pytest.raises(StoreUnavailable) as away:
                use()
            assert_silent(away.value)
    assert store.get(ONE) == b"bytes" * 200_000


def test_a_store_without_room_says_so(s3: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    store = ObjectStore(f"s3://{s3.new_bucket()}/prefix")
    call = type(store._fs)._call_s3

    async def full(self: object, method: str, *arguments: object, **more: object) -> object:
        if method == "put_object":
            raise ClientError({"Error": {"Code": "XMinioStorageFull", "Message": SECRET}}, "PutObject")
        return await call(self, method, *arguments, **more)

    monkeypatch.setattr(type(store._fs), "_call_s3", full)
    with pytest.raises(StoreFull, match="has no room") as refused:
        store.put(ONE, b"bytes")
    assert_silent(refused.value)


def test_credentials_that_are_refused_stand_in_no_message(s3: ObjectStorage, store_of_nobody: Store) -> None:
    with pytest.raises(StoreUnavailable, match=r"AccessDenied|PermissionError") as refused:
        store_of_nobody.get(ONE)
    assert_silent(refused.value)


@pytest.fixture
def store_of_nobody(s3: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> Store:
    from botocore.exceptions import ClientError

    async def denied(self: object, *arguments: object, **more: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": f"{SECRET} is not allowed"}}, "GetObject")

    store = ObjectStore(f"s3://{s3.new_bucket()}/prefix")
    monkeypatch.setattr(type(store._fs), "_call_s3", denied)
    return store


async def _refuse(self: object, *arguments: object, **more: object) -> None:
    raise ConnectionRefusedError(f"https://rootstock:{SECRET}@host")


def assert_silent(error: AdapterError) -> None:
    assert SECRET not in str(error)
    assert "rootstock:" not in str(error)
