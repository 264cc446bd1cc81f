"""Adapters checked against a foundation without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle import Bundle, Limits, PlainFields, open_bundle
from rootstock.adapters.client.client import packed
from rootstock.adapters.foundation.location import FoundationFiles, fingerprint, locate, with_files
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import Adapter, FoundationSpec


def open_offline(path: Path, foundation: str, plain: tuple[Any, ...]) -> tuple[FoundationSpec, Bundle, Adapter]:
    """The opened bundle of a zip or folder with all checks passed that need no model run; Rejected otherwise."""
    data = packed(path) if path.is_dir() else path.read_bytes()
    files = locate(foundation)
    spec = describe_in(None, files)
    bundle = open_bundle(data, Limits(), spec, PlainFields(*plain))
    base = FoundationWeights(files.folder, spec.model_type)
    return spec, bundle, bundle.adapter(spec, Limits().max_rank, base)


def describe_in(home: Path | None, files: FoundationFiles) -> FoundationSpec:
    """The spec of a foundation: as its export in this home says, else described anew, which imports torch."""
    if home is not None and (home / "foundations").is_dir():
        digest = fingerprint(files.folder)
        for export in sorted(home.glob("foundations/*/*/foundation.json"), reverse=True):
            spec = _exported(export)
            if spec is not None and spec.fingerprint == digest:
                return with_files(spec, files)
    from rootstock.adapters.foundation.architecture import describe

    return describe(files)


def _exported(path: Path) -> FoundationSpec | None:
    """The spec in an export's file; None where another version of this program wrote it in another form."""
    try:
        return FoundationSpec.from_json(json.loads(path.read_text(encoding="utf-8"))["spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
