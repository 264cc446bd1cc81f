"""The files of an adapter in a repository of the Hugging Face hub, at one commit, as a zip."""

from __future__ import annotations

import json
from io import BytesIO
from urllib.parse import quote

import httpx

from rootstock.adapters.bundle import Limits, pack
from rootstock.adapters.bundle.archive import CONFIG, MEMBERS, SIGNATURE, TOKENIZER_FILE, WEIGHTS
from rootstock.adapters.bundle.plain.extras import is_description
from rootstock.adapters.bundle.vocabulary.tokenizer_need import needs_tokenizer
from rootstock.adapters.sources.remote.download import download
from rootstock.adapters.sources.remote.errors import SourceUnavailable
from rootstock.adapters.sources.remote.source_hosts import SourceHosts
from rootstock.adapters.sources.remote.source_reference import HubSource

_MOST_LISTING = 4 * 2**20
_MOST_FILES = 24


async def fetch_repository(
    source: HubSource, endpoint: str, hosts: SourceHosts, limits: Limits, token: str | None
) -> bytes:
    """Return the adapter of a repository as a zip: its members, its signature and what describes the model.

    No other file is fetched, so no pickle and no code is. Raise SourceUnavailable if the repository holds no
    adapter, or is not at this commit; else raise as `download` does.
    """
    base = endpoint.rstrip("/")
    repo = quote(source.repo)
    listing = await download(
        httpx.URL(f"{base}/api/models/{repo}/revision/{source.commit}"), hosts, _MOST_LISTING, token
    )
    listed = _names(listing, source)
    names = [name for name in listed if name in (*MEMBERS, SIGNATURE) or is_description(name)]
    if missing := [name for name in (CONFIG, WEIGHTS) if name not in names]:
        raise SourceUnavailable(
            f"{source} holds no {' and no '.join(missing)}, so it is no adapter; a whole model becomes one with: "
            f"rootstock adapters push {source.repo}@{source.commit}"
        )
    if len(names) > _MOST_FILES:
        raise SourceUnavailable(f"{source} holds {len(names)} files of an adapter; the limit is {_MOST_FILES}")
    files: dict[str, bytes] = {}
    left = limits.max_unpacked_bytes
    for name in [*names, *([TOKENIZER_FILE] if TOKENIZER_FILE in listed else [])]:
        if name == TOKENIZER_FILE and not needs_tokenizer(BytesIO(files[WEIGHTS])):
            continue
        most = left if name in (WEIGHTS, TOKENIZER_FILE) else min(left, limits.max_text_bytes)
        url = httpx.URL(f"{base}/{repo}/resolve/{source.commit}/{quote(name)}")
        files[name] = await download(url, hosts, most, token)
        left -= len(files[name])
    return pack(files)


def _names(listing: bytes, source: HubSource) -> list[str]:
    """Return the names of a repository's files. Raise SourceUnavailable for another answer or commit."""
    try:
        value = json.loads(listing)
        commit, names = value["sha"], sorted({str(file["rfilename"]) for file in value["siblings"]})
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SourceUnavailable(f"the hub gave no list of the files of {source}; check HF_ENDPOINT") from None
    if commit != source.commit:
        raise SourceUnavailable(f"the hub answered for the commit {str(commit)[:64]!r} instead of {source}")
    return names
