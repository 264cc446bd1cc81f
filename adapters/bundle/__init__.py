"""Bundles: the file form of adapters, identified by digest. docs/bundle-format.md is the specification."""

from rootstock.adapters.bundle.archive import Limits, pack, unpack
from rootstock.adapters.bundle.bundle import Bundle, open_bundle, write_bundle
from rootstock.adapters.bundle.golden import Golden
from rootstock.adapters.bundle.manifest import Manifest
from rootstock.adapters.bundle.plain.folder import PlainFields

__all__ = [
    "Bundle", "Golden", "Limits", "Manifest", "PlainFields", "open_bundle", "pack", "unpack", "write_bundle",
]  # fmt: skip
