"""Adapters checked against a foundation without a server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle import Bundle, Limits, PlainFields, open_bundle
from rootstock.adapters.bundle.archive import CONFIG, open_archive
from rootstock.adapters.bundle.manifest import read_json
from rootstock.adapters.bundle.plain.base_model import BASE, FIRST, check_base
from rootstock.adapters.client.client import read_source
from rootstock.adapters.foundation.location import FoundationFiles, fingerprint, locate, with_files
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import Adapter, FoundationSpec, Rejected


def open_offline(
    path: Path, foundation: str | None, plain: tuple[Any, ...]
) -> tuple[FoundationSpec, Bundle, Adapter]:
    """Return the opened bundle of a zip or folder, after all checks that need no model run.

    Raise Rejected where a check fails. Without a `foundation` it is the default one,
    and the adapter has to name it as its base.
    """
    data, ignored = read_source(path)
    files = locate(foundation or "default")
    spec = describe_in(None, files)
    bundle = open_arrived(data, Limits(), spec, foundation is not None, PlainFields(*plain))
    bundle = replace(bundle, ignored=tuple(sorted({*bundle.ignored, *ignored})))
    base = FoundationWeights(files.folder, spec.model_type)
    return spec, bundle, bundle.adapter(spec, Limits().max_rank, base)


def open_arrived(
    data: bytes, limits: Limits, spec: FoundationSpec, stated: bool, plain: PlainFields | None = None
) -> Bundle:
    """Return the bundle in a zip that is not stored yet.

    Raise Rejected as `open_bundle` does, and for another base by name.
    `stated` says that the user named the foundation: that overrides what the adapter calls its base.
    """
    plain = plain or PlainFields()
    try:
        bundle = open_bundle(data, limits, spec, plain)
    except Rejected as error:
        if not stated or error.check != "foundation":
            raise
        return open_bundle(data, limits, spec, replace(plain, foundation=FIRST))
    if not stated:
        bundle.check_named_base(spec)
    return bundle


def check_plain_base(data: bytes, files: FoundationFiles) -> None:
    """Raise Rejected where the plain PEFT folder in a zip names another base than this foundation."""
    config = read_json(open_archive(data, Limits(max_bundle_bytes=len(data))).members[CONFIG], CONFIG)
    check_base(config.get(BASE), None, files)


def describe_in(home: Path | None, files: FoundationFiles) -> FoundationSpec:
    """Return the spec of a foundation, as its export in this home says.

    Without an export it is described anew, which imports torch.
    """
    if home is not None and (home / "foundations").is_dir():
        digest = fingerprint(files.folder)
        for export in sorted(home.glob("foundations/*/*/foundation.json"), reverse=True):
            spec = _exported(export)
            if spec is not None and spec.fingerprint == digest:
                return replace(with_files(spec, files), other_names=files.other_names)
    from rootstock.adapters.foundation.architecture import describe

    return describe(files)


def _exported(path: Path) -> FoundationSpec | None:
    """Return the spec in an export's file.

    It is None where another version of this program wrote it in another form.
    """
    try:
        return FoundationSpec.from_json(json.loads(path.read_text(encoding="utf-8"))["spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
