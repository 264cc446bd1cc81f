"""Reads a stored bundle member by member: its manifest, its card, and the shapes of its tensors."""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from rootstock.adapters.bundle.archive import (
    CARD,
    CONFIG,
    GOLDEN,
    MANIFEST,
    WEIGHTS,
    Limits,
    open_member,
    open_stored,
)
from rootstock.adapters.bundle.manifest import Manifest, read_manifest
from rootstock.adapters.bundle.tensors import read_shapes
from rootstock.adapters.spec import Rejected
from rootstock.adapters.strict_json.canonical import sha256
from rootstock.adapters.strict_json.json_member import read_json

_PIECE = 2**18
_DOWN_PROJECTION = re.compile(r"\.lora_A(\.|$)")


@dataclass(frozen=True)
class BundleDescription:
    """The content of a bundle without the values of its tensors.

    `kind` is that of PEFT in lower case, or "dora"; None for a head alone. `ranks` are the distinct ranks of its
    modules, ascending; they are empty for a kind without ranks. `parameters` counts the numbers in its tensors,
    the head's included. `card` tells whether the bundle has a model card.
    """

    manifest: Manifest
    kind: str | None
    ranks: tuple[int, ...]
    parameters: int

    @property
    def card(self) -> bool:
        return CARD in self.manifest.files

    @property
    def golden(self) -> bool:
        return GOLDEN in self.manifest.files


class StoredBundle:
    """An open stored bundle. The values of its tensors are never read, so only its text is checked."""

    def __init__(self, archive: zipfile.ZipFile, limits: Limits) -> None:
        """Read the manifest. Raise Rejected (check "members", "size" or "schema") if it is damaged."""
        self._archive = archive
        self._root = _root(archive.namelist())
        self._most = limits.max_text_bytes
        self.manifest = read_manifest(self._text(MANIFEST))

    def describe(self) -> BundleDescription:
        """Return the bundle's description. Raise Rejected for a damaged config or header of the tensors."""
        config = read_json(self._checked(CONFIG), CONFIG)
        with open_member(self._archive, self._root + WEIGHTS) as file:
            shapes = read_shapes(file)
        ranks = {shape[0] for name, shape in shapes.items() if _DOWN_PROJECTION.search(name) and shape}
        kind = config.get("peft_type")
        return BundleDescription(
            manifest=self.manifest,
            kind="dora" if config.get("use_dora") else kind and str(kind).lower(),
            # AdaLoRA may have kept no direction of a module.
            ranks=tuple(sorted(ranks - {0})),
            parameters=sum(math.prod(shape) for shape in shapes.values()),
        )

    def card(self) -> bytes | None:
        """Return the model card in Markdown, or None without one. Raise Rejected if it is damaged."""
        return self._checked(CARD) if CARD in self.manifest.files else None

    def check(self) -> None:
        """Raise Rejected if a member differs from its digest in the manifest; they are read a piece at a time."""
        for name, expected in self.manifest.files.items():
            hashed = hashlib.sha256()
            with open_member(self._archive, self._root + name) as file:
                while piece := file.read(_PIECE):
                    hashed.update(piece)
            if (actual := f"sha256:{hashed.hexdigest()}") != expected:
                raise Rejected("names", name, f"has the digest {actual}; bundle.json has another one")

    def _checked(self, name: str) -> bytes:
        """Return a member of text after a comparison with its digest in the manifest."""
        data = self._text(name)
        if (actual := sha256(data)) != self.manifest.files.get(name):
            raise Rejected("names", name, f"has the digest {actual}; bundle.json has another one")
        return data

    def _text(self, name: str) -> bytes:
        with open_member(self._archive, self._root + name) as file:
            data = file.read(self._most + 1)
        if len(data) > self._most:
            raise Rejected("size", name, f"has more than {self._most} bytes, which is the limit")
        return data


@contextmanager
def open_bundle_file(file: BinaryIO, limits: Limits) -> Iterator[StoredBundle]:
    """Yield the bundle in a seekable file. Raise Rejected if the file is not a stored bundle."""
    with open_stored(file) as archive:
        yield StoredBundle(archive, limits)


def check_bundle_file(file: BinaryIO, digest: str, limits: Limits) -> None:
    """Raise Rejected unless a seekable file is the whole bundle with this digest. No member is held in memory.

    Afterwards the file is at its beginning.
    """
    with open_bundle_file(file, limits) as bundle:
        if bundle.manifest.digest != digest:
            raise Rejected("names", MANIFEST, f"the bundle has the digest {bundle.manifest.digest}")
        bundle.check()
    file.seek(0)


def _root(names: Iterable[str]) -> str:
    """Return the folder of the bundle in the zip, with a slash; "" if its files lie at the root of the zip."""
    roots = {name.removesuffix(MANIFEST) for name in names if name.rpartition("/")[2] == MANIFEST}
    return "" if "" in roots or len(roots) != 1 else roots.pop()
