"""Checks adapters against a foundation without a server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.adapters.bundle import Bundle, Limits, PlainFields, open_bundle
from rootstock.adapters.bundle.archive import CONFIG, Archive, open_archive
from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.plain.base_model import BASE, FIRST, check_base
from rootstock.adapters.chat_template import special_tokens
from rootstock.adapters.client.upload import read_source
from rootstock.adapters.foundation.location import FoundationFiles, fingerprint, locate, with_files
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import Adapter, FoundationSpec, Rejected
from rootstock.adapters.strict_json.json_member import read_json
from rootstock.adapters.template_process import TemplateProcess, check_template

if TYPE_CHECKING:
    from rootstock.adapters.home.home import Home


def open_offline(
    path: Path, foundation: str | None, plain: tuple[Any, ...], limits: Limits | None = None
) -> tuple[FoundationSpec, Bundle, Adapter]:
    """Run all checks that need no model on a zip or folder, and return the spec, the bundle and the adapter.

    `plain` holds the form fields task, labels, problem_type and max_length. Without `foundation`, the default
    foundation is used, and the adapter may not name another base. Without `limits`, those of a server with the
    default settings hold. Raise Rejected if a check fails.
    """
    limits = limits or Limits()
    data, ignored = read_source(path)
    files = locate(foundation or "default")
    spec = describe_in(None, files)
    base = FoundationWeights(files.folder, spec.model_type)
    bundle = open_arrived(data, limits, spec, foundation is not None, PlainFields(*plain), base)
    bundle = replace(bundle, ignored=tuple(sorted({*bundle.ignored, *ignored})))
    adapter = bundle.adapter(spec, limits.max_rank, base)
    check_template(TemplateProcess(), adapter.prompting, special_tokens(files.folder))
    return spec, bundle, adapter


def open_arrived(
    data: bytes | Archive,
    limits: Limits,
    spec: FoundationSpec,
    stated: bool,
    plain: PlainFields | None = None,
    base: BaseWeights | None = None,
) -> Bundle:
    """Return the bundle in a zip, which may be open already, that is not in the store yet.

    With `stated`, the user has named the foundation, which overrides the base that the adapter names. Raise
    Rejected as `open_bundle` does, and without `stated` also for a bundle that names another base.
    """
    plain = plain or PlainFields()
    try:
        bundle = open_bundle(data, limits, spec, plain, base)
    except Rejected as error:
        if not stated or error.check != "foundation":
            raise
        return open_bundle(data, limits, spec, replace(plain, foundation=FIRST), base)
    if not stated:
        bundle.check_named_base(spec)
    return bundle


def check_plain_base(data: bytes, files: FoundationFiles) -> None:
    """Raise Rejected if the plain PEFT folder in a zip names another base than this foundation."""
    config = read_json(open_archive(data, Limits(max_bundle_bytes=len(data))).members[CONFIG], CONFIG)
    check_base(config.get(BASE), None, files)


def describe_in(home: Home | None, files: FoundationFiles) -> FoundationSpec:
    """Return the spec of a foundation, from its export in this home if there is one.

    Without an export, this builds the spec from the files, which imports torch.
    """
    exports = [] if home is None else home.export_files()
    if exports:
        digest = fingerprint(files.folder)
        for export in exports:
            spec = _exported(export)
            if spec is not None and spec.fingerprint == digest:
                return replace(with_files(spec, files), other_names=files.other_names)
    from rootstock.adapters.foundation.architecture import describe

    return describe(files)


def _exported(path: Path) -> FoundationSpec | None:
    """Return the spec in an export's file; None if the file cannot be read in this version's form."""
    try:
        return FoundationSpec.from_json(json.loads(path.read_text(encoding="utf-8"))["spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
