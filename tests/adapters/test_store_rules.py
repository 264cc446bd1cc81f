"""The rules of every store, on a folder and on S3."""

from __future__ import annotations

import threading
import zipfile
from io import BytesIO

import pytest

from rootstock.adapters.errors import InvalidDigest, MissingBundle
from rootstock.adapters.store.port import Store

ONE = "sha256:" + "1a" * 32
TWO = "sha256:" + "2b" * 32


def test_what_was_put_is_got_back_whole_and_opened(store: Store) -> None:
    data = bytes(range(256)) * 3000
    store.put(ONE, data)
    assert store.get(ONE) == data
    with store.open(ONE) as file:
        assert file.read(10) == data[:10]
        file.seek(-300, 2)
        assert (file.tell(), file.read()) == (len(data) - 300, data[-300:])
        file.seek(400_000)
        assert file.read(5) == data[400_000:400_005]


def test_an_open_bundle_is_read_as_a_zip(store: Store) -> None:
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("weights", bytes(2_000_000))
        archive.writestr("card.md", "text")
    store.put(ONE, written.getvalue())
    with store.open(ONE) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("card.md") == b"text"
        assert archive.testzip() is None


def test_bytes_that_are_put_again_stay_and_damaged_ones_are_mended(store: Store) -> None:
    for data in (b"bytes", b"bytes", b"bytez", b"other length", b"bytes"):
        store.put(ONE, data)
        assert store.get(ONE) == data


@pytest.mark.parametrize("size", [0, 1])
def test_few_bytes_and_none_are_bytes_too(store: Store, size: int) -> None:
    store.put(ONE, bytes(size))
    assert store.get(ONE) == bytes(size)


def test_bytes_that_are_not_there_are_a_missing_bundle(store: Store) -> None:
    for use in (store.get, store.open):
        with pytest.raises(MissingBundle, match=ONE) as missing:
            use(ONE)
        assert missing.value.code == "missing_bundle"


def test_deleting_removes_one_bundle_and_may_be_repeated(store: Store) -> None:
    assert list(store.digests()) == []
    store.put(TWO, b"2")
    store.put(ONE, b"1")
    assert list(store.digests()) == [ONE, TWO]
    store.delete(ONE)
    store.delete(ONE)
    assert list(store.digests()) == [TWO]


@pytest.mark.parametrize("digest", ["", "1a" * 32, "sha256:" + "1A" * 32, "sha256:../../../../../etc/passwd"])
def test_no_digest_leads_out_of_the_store(store: Store, digest: str) -> None:
    for use in (store.get, store.open, store.delete, lambda text: store.put(text, b"bytes")):
        with pytest.raises(InvalidDigest):
            use(digest)
    assert list(store.digests()) == []


def test_readers_never_see_part_of_a_bundle(store: Store) -> None:
    versions = [bytes([number]) * 300_000 for number in range(2)]
    store.put(ONE, versions[0])
    writer = threading.Thread(target=lambda: [store.put(ONE, versions[number % 2]) for number in range(10)])
    writer.start()
    while writer.is_alive():
        assert store.get(ONE) in versions
    writer.join()
