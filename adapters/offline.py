"""An adapter checked against a foundation without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.architecture import describe
from adapters.bundle import Bundle, Limits, PlainFields, open_bundle
from adapters.client import packed
from adapters.foundation import locate
from adapters.spec import Adapter, FoundationSpec


def open_offline(path: Path, foundation: str, plain: tuple[Any, ...]) -> tuple[FoundationSpec, Bundle, Adapter]:
    """The opened bundle of a zip or folder with all checks passed that need no model run; Rejected otherwise."""
    data = packed(path) if path.is_dir() else path.read_bytes()
    spec = describe(locate(foundation))
    bundle = open_bundle(data, Limits(), spec, PlainFields(*plain))
    return spec, bundle, bundle.adapter(spec, Limits().max_rank)
