"""A server fetches an adapter from an allowed address alone, in limits, and nothing leads it elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpcore
import pytest

from rootstock.adapters.bundle import Limits, unpack
from rootstock.adapters.bundle.archive import CARD, CONFIG, SIGNATURE, WEIGHTS
from rootstock.adapters.errors import AdapterError
from rootstock.adapters.sources.remote.errors import InvalidSource, SourceNotAllowed, SourceUnavailable
from rootstock.adapters.sources.remote.remote_sources import RemoteSources, trusted_hub
from rootstock.adapters.sources.remote.source_hosts import SourceHosts
from rootstock.adapters.sources.remote.source_reference import read_source_reference
from rootstock.adapters.spec import Rejected
from tests.adapters.signing_bundles import folder_files
from tests.bounds import HANG
from tests.fake_hub import COMMIT, REPO, run_hub
from tests.raw_server import Answer, endless, plain, raw_server, slow

LIMITS = Limits(max_bundle_bytes=2**20, max_unpacked_bytes=2**21)
ZIP = b"PK the bytes of a zip"
DIGEST = hashlib.sha256(ZIP).hexdigest()


async def fetched(sources: RemoteSources, text: str) -> bytes:
    async with sources.fetched(read_source_reference(text)) as data:
        return data


def fetch(
    answers: Mapping[str, Answer], address: str = "http://{}/a.zip", seconds: float = HANG, trusted: bool = True
) -> tuple[bytes, list[str]]:
    """Fetch from a server with an answer for each path. Return the bytes, and the heads that the server read."""

    async def run() -> tuple[bytes, list[str]]:
        async with raw_server(answers.__getitem__) as (port, heads):
            authority = f"127.0.0.1:{port}"
            hosts = SourceHosts(["models.example"], trusted=[authority] if trusted else [])
            sources = RemoteSources(hosts, LIMITS, seconds=seconds)
            return await fetched(sources, address.format(authority)), heads

    return asyncio.run(run())


def refused(text: str, *hosts: str) -> AdapterError:
    """Return the error with which a server that allows these hosts refuses a source."""
    sources = RemoteSources(SourceHosts.parse(",".join(hosts)), LIMITS, environment={})
    with pytest.raises(AdapterError) as found:
        asyncio.run(fetched(sources, text))
    assert found.value.param == "source"
    assert len(str(found.value)) < 400
    return found.value


def test_a_zip_is_fetched_as_it_is() -> None:
    data, (head,) = fetch({"/a.zip": plain(ZIP)})
    assert data == ZIP
    for absent in ("authorization", "cookie", "gzip"):
        assert absent not in head.lower()


def test_the_digest_in_an_address_is_compared() -> None:
    assert fetch({"/a.zip": plain(ZIP)}, "http://{}/a.zip#sha256=" + DIGEST)[0] == ZIP
    with pytest.raises(SourceUnavailable, match=f"has the SHA-256 {DIGEST}"):
        fetch({"/a.zip": plain(ZIP)}, "http://{}/a.zip#sha256=" + "0" * 64)


def test_a_redirect_to_an_allowed_host_is_followed() -> None:
    answers = {"/a.zip": plain(b"", "302 Found", "Location: /b.zip\r\n"), "/b.zip": plain(ZIP)}
    assert fetch(answers)[0] == ZIP


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://127.0.0.1:1/", "the host '127.0.0.1' is not in ROOTSTOCK_SOURCE_HOSTS"),
        ("http://169.254.169.254/latest/meta-data", "'169.254.169.254' is not in"),
        ("https://cdn.example/a.zip", "'cdn.example' is not in"),
        ("http://models.example/a.zip", "is called by https on port 443 alone"),
        ("https://models.example:8443/a.zip", "is called by https on port 443 alone"),
        ("file:///etc/passwd", "the host '' is not in"),
        ("//[::1]/a.zip", "'::1' is not in"),
        ("http://a:b:c/", "gave no complete answer"),
    ],
)
def test_a_redirect_elsewhere_is_refused(location: str, words: str) -> None:
    with pytest.raises(AdapterError, match=re.escape(words)):
        fetch({"/a.zip": plain(b"", "302 Found", f"Location: {location}\r\n")})


def test_redirects_without_an_end_are_refused() -> None:
    with pytest.raises(SourceUnavailable, match="redirects more than 3 times"):
        fetch({"/a.zip": plain(b"", "307 Moved", "Location: /a.zip\r\n")})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (plain(b"", "404 Not Found"), "answered 404"),
        (plain(ZIP, "206 Partial Content"), "answered 206"),
        (plain(b"", "304 Not Modified"), "answered 304"),
        (plain(ZIP, more="Content-Encoding: gzip\r\n"), "compressed"),
        (plain(ZIP, length="99"), "no complete answer"),
        (plain(ZIP, length="x"), "no complete answer"),
    ],
)
def test_an_answer_that_is_no_file_is_refused(answer: Answer, words: str) -> None:
    with pytest.raises(SourceUnavailable, match=words):
        fetch({"/a.zip": answer})


@pytest.mark.parametrize("answer", [endless, plain(ZIP, length="2000000"), plain(ZIP, length="9" * 18)])
def test_no_more_than_a_bundle_is_read(answer: Answer) -> None:
    with pytest.raises(Rejected, match=r"size: source: 127\.0\.0\.1 sends more than 1048576 bytes"):
        fetch({"/a.zip": answer})


def test_a_slow_answer_ends_at_the_time_limit() -> None:
    with pytest.raises(SourceUnavailable, match=re.escape("took more than 0.2 seconds")):
        fetch({"/a.zip": slow}, seconds=0.2)


@pytest.mark.parametrize("text", ["https://models.example/a.zip", f"hf://{REPO}@{COMMIT}", "s3://models/a.zip"])
def test_without_an_allowed_host_nothing_is_fetched(text: str) -> None:
    error = refused(text)
    assert isinstance(error, SourceNotAllowed)
    assert "this server fetches no adapters" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com.models.example/a.zip", "https://models.example.evil.example/a.zip",
        "https://example/a.zip", "https://127.0.0.1/a.zip", "https://[::ffff:127.0.0.1]/a.zip",
        "https://2130706433/a.zip", "http://models.example/a.zip", "https://models.example:444/a.zip",
        "https://models.example%2F@evil.example/a.zip", "s3://others/a.zip", "s3://models-of-others/a.zip",
        "s3://released/private/a.zip",
    ],
)  # fmt: skip
def test_a_source_that_only_looks_like_an_allowed_one_is_refused(text: str) -> None:
    error = refused(text, "models.example", "s3://models", "s3://released/public/")
    assert error.code in ("source_not_allowed", "invalid_source")


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1", "64:ff9b::7f00:1"]
)
def test_an_allowed_name_with_any_private_address_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(self: Any, host: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
        found = ["93.184.216.34", address]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    error = refused("https://models.example/a.zip", "models.example")
    assert isinstance(error, SourceNotAllowed)
    assert "an address that is not public" in str(error)


def test_the_connection_goes_to_the_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = []

    async def resolve(self: Any, host: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
        assert host == "models.example", "no second lookup"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]

    async def connect(self: Any, host: str, port: int, *rest: Any, **options: Any) -> Any:
        connected.append((host, port))
        raise httpcore.ConnectError

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    monkeypatch.setattr("httpcore._backends.auto.AutoBackend.connect_tcp", connect)
    assert isinstance(refused("https://models.example/a.zip", "models.example"), SourceUnavailable)
    assert connected == [("93.184.216.34", 443)]


@pytest.mark.parametrize(
    "text",
    [
        "", "a.zip", "/etc/passwd", "file:///etc/passwd", "ftp://models.example/a.zip", "hf://org", "hf://org/name",
        "hf://org/name@main", "hf://org/name@" + "a" * 39, "hf://org/name@" + "A" * 40,
        "hf://../name@" + "a" * 40, "hf://org/..@" + "a" * 40, f"hf://{REPO}@{COMMIT}#sha256=" + "0" * 64,
        "https://", "https:///a.zip",
        "https://user:secret@models.example/a.zip", "https://models.example/a.zip#main",
        "https://models.example/a.zip#sha256=", "https://models.example/a.zip#sha256=" + "A" * 64,
        "https://models.example/a.zip#sha1=" + "0" * 40, "s3://", "s3://models", "s3://models/", "s3://UP/a.zip",
        "s3://models/../a.zip", "s3://models/a?versionId=1", "s3://models/a b.zip", "s3:/models/a.zip",
        "gs://models/a.zip", "https://x/" + "a" * 3000, "https://a:b:c/a.zip", "https://\ud800/",
        "data:application/zip;base64,UEs=", "javascript:alert(1)", "https://models.example\r\nX: y/a.zip",
    ],
)  # fmt: skip
def test_a_text_that_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(InvalidSource) as caught:
        read_source_reference(text)
    assert len(str(caught.value)) < 500
    assert "secret" not in str(caught.value)


def test_a_source_is_named_without_its_query() -> None:
    text = "https://models.example/a.zip?X-Amz-Signature=secret#sha256=" + "0" * 64
    assert str(read_source_reference(text)) == "https://models.example/a.zip#sha256=" + "0" * 64


@pytest.mark.parametrize(
    "entry", ["https://models.example", "models.example:443", "*.example", "s3://", "s3:/a", "a/b"]
)
def test_a_wrong_entry_of_the_allowed_hosts_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a host name nor a bucket"):
        SourceHosts.parse(f"models.example,{entry}")


def hub_folder(folder: Path, **files: bytes) -> Path:
    for name, content in {**folder_files(), CARD: b"# card", **files}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return folder


def fetch_from_hub(url: str, text: str = f"hf://{REPO}@{COMMIT}", limits: Limits = LIMITS, **more: str) -> bytes:
    environment = {"HF_ENDPOINT": url, **more}
    hosts = SourceHosts.parse("127.0.0.1", trusted_hub("127.0.0.1", environment))
    return asyncio.run(fetched(RemoteSources(hosts, limits, environment=environment), text))


def test_only_an_adapter_s_own_files_of_a_commit_are_fetched(tmp_path: Path) -> None:
    more = {
        "adapter_model.bin": b"pickle",
        "training_args.bin": b"pickle",
        "code.py": b"",
        "tokenizer.json": b"{}",
    }
    folder = hub_folder(tmp_path, **more, **{SIGNATURE: b"{}", "config.json": b"{}", ".gitattributes": b""})
    with run_hub(folder) as hub:
        data = fetch_from_hub(hub.url)
        assert sorted(hub.fetched) == [CARD, CONFIG, WEIGHTS, "config.json", SIGNATURE]
    assert unpack(data, LIMITS) == {**folder_files(), CARD: b"# card"}


def test_a_repository_without_an_adapter_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with run_hub(tmp_path) as hub, pytest.raises(SourceUnavailable, match=f"adapters push {REPO}@{COMMIT}"):
        fetch_from_hub(hub.url)


def test_a_commit_that_the_hub_does_not_have_is_refused(tmp_path: Path) -> None:
    with run_hub(hub_folder(tmp_path)) as hub, pytest.raises(SourceUnavailable, match="answered 404"):
        fetch_from_hub(hub.url, f"hf://{REPO}@{'f' * 40}")


def test_a_repository_over_the_limit_of_an_upload_is_refused(tmp_path: Path) -> None:
    small = Limits(max_unpacked_bytes=100)
    with run_hub(hub_folder(tmp_path)) as hub, pytest.raises(Rejected, match="more than"):
        fetch_from_hub(hub.url, limits=small)


def test_the_hub_of_the_operator_is_trusted_only_if_its_host_is_allowed(tmp_path: Path) -> None:
    assert trusted_hub("huggingface.co", {"HF_ENDPOINT": "http://127.0.0.1:8080"}) == ()
    assert trusted_hub("127.0.0.1", {"HF_ENDPOINT": "ftp://127.0.0.1"}) == ()
    assert trusted_hub("127.0.0.1", {}) == ()
    assert trusted_hub("hub.internal", {"HF_ENDPOINT": "https://hub.internal"}) == ("hub.internal:443",)


def test_the_token_of_the_hub_goes_to_no_other_host() -> None:
    def answer_to(path: str) -> Answer:
        return plain(b"", "302 Found", f"Location: http://localhost:{ports[0]}/x\r\n" if "/api/" in path else "")

    ports: list[int] = []

    async def run() -> list[str]:
        async with raw_server(answer_to) as (port, heads):
            ports.append(port)
            hosts = SourceHosts(trusted=[f"127.0.0.1:{port}", f"localhost:{port}"])
            environment = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_TOKEN": "hf_secret"}
            with pytest.raises(SourceUnavailable, match="answered 302"):
                await fetched(RemoteSources(hosts, LIMITS, environment=environment), f"hf://{REPO}@{COMMIT}")
            return heads

    heads = asyncio.run(run())
    assert [("hf_secret" in head) for head in heads] == [True, False]


def test_few_sources_are_in_memory_at_once() -> None:
    async def run() -> int:
        sources = RemoteSources(SourceHosts(trusted=["127.0.0.1:1"]), LIMITS, at_once=2)
        inside, most = 0, 0

        async def read(source: Any) -> bytes:
            return ZIP

        sources._read = read  # type: ignore[method-assign]

        async def use() -> None:
            nonlocal inside, most
            async with sources.fetched(read_source_reference("http://127.0.0.1:1/a.zip")):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(use() for _ in range(8)))
        return most

    assert asyncio.run(run()) == 2
