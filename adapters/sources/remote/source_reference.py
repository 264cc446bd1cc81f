"""The address of an adapter: a commit of the Hugging Face hub, a file of a web server, an object in a bucket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

import httpx

from rootstock.adapters.reference import shown
from rootstock.adapters.sources.remote.errors import InvalidSource

_MOST = 2048
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"sha256=(?P<digits>[0-9a-f]{64})")
# The characters of a bucket's name are those of S3. A key may have any that are visible, but no query.
_BUCKET = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[\x21-\x7e]{1,1024})")
FORMS = (
    "hf://org/name@<40 hex digits>, https://host/path.zip, or s3://bucket/key, the last two with #sha256=<64 hex>"
)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the Hugging Face hub at a commit."""

    repo: str
    commit: str

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.commit}"


@dataclass(frozen=True, slots=True)
class WebSource:
    """A zip at an address. `sha256` is the hash that its bytes must have, as 64 hex digits, or None."""

    url: httpx.URL
    sha256: str | None

    def __str__(self) -> str:
        # A query may hold a password, as a presigned address does.
        return f"{self.url.copy_with(query=None, fragment=None)}{_fragment(self.sha256)}"


@dataclass(frozen=True, slots=True)
class BucketSource:
    """A zip in a bucket. `sha256` is as in WebSource."""

    bucket: str
    key: str
    sha256: str | None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}{_fragment(self.sha256)}"


SourceReference = HubSource | WebSource | BucketSource


def read_source_reference(text: str) -> SourceReference:
    """Return the source that a text names. Raise InvalidSource, which states the forms, for any other text."""
    if len(text) > _MOST:
        raise InvalidSource(f"the source has {len(text)} characters and the limit is {_MOST}; give a shorter one")
    if text.startswith("hf://"):
        return _hub(text)
    address, hash_mark, fragment = text.partition("#")
    digest = _DIGEST.fullmatch(fragment)
    if hash_mark and digest is None:
        _refuse(text, "has a fragment that is not sha256= and 64 lower-case hex digits")
    sha256 = None if digest is None else digest["digits"]
    if address.startswith("s3://"):
        return _bucket(address, sha256)
    return _web(address, sha256)


def _hub(text: str) -> HubSource:
    match = _HUB.fullmatch(text)
    if match is None or ".." in match["repo"]:
        _refuse(text, "names no repository of the hub at a commit")
    if not _COMMIT.fullmatch(match["revision"]):
        _refuse(
            text, f"has the revision {match['revision'][:64]!r}, which may move; give the commit's 40 hex digits"
        )
    return HubSource(match["repo"], match["revision"])


def _bucket(address: str, sha256: str | None) -> BucketSource:
    match = _BUCKET.fullmatch(address)
    if match is None or "?" in match["key"] or ".." in match["key"].split("/"):
        _refuse(address, "names no object in a bucket")
    return BucketSource(match["bucket"], match["key"], sha256)


def _web(address: str, sha256: str | None) -> WebSource:
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        _refuse(address, "is no address")
    if url.scheme not in ("http", "https") or not url.host:
        _refuse(address, "is no address of a known kind")
    if url.userinfo:
        raise InvalidSource("the source holds a name or a password; leave it out of the address")
    return WebSource(url, sha256)


def _fragment(sha256: str | None) -> str:
    return "" if sha256 is None else f"#sha256={sha256}"


def _refuse(text: str, reason: str) -> NoReturn:
    raise InvalidSource(f"the source {shown(text)} {reason}; give {FORMS}")
