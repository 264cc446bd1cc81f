"""What the tests of homes share: bundles that need no foundation, and homes that hold them."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import closing
from pathlib import Path

from rootstock.adapters.bundle.archive import MANIFEST, pack
from rootstock.adapters.bundle.manifest import read_manifest
from rootstock.adapters.home.fsck import Check, fsck
from rootstock.adapters.home.home import Home
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.strict_json.json_member import read_json

DEMO = sorted((Path(__file__).parents[2] / "service" / "demo").glob("*.zip"))


def bundle(number: int) -> tuple[str, bytes]:
    """Return the digest and the zip of a whole bundle; each number gives another one."""
    with zipfile.ZipFile(io.BytesIO(DEMO[0].read_bytes())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = read_json(files[MANIFEST], MANIFEST)
    manifest["provenance"] = {**manifest.get("provenance", {}), "number": number}
    changed = read_manifest(_json(manifest))
    return changed.digest, pack({**files, MANIFEST: changed.to_bytes()})


def publish(home: Home, name: str, number: int) -> str:
    """Publish a bundle in a home as a server does; return its digest."""
    digest, data = bundle(number)
    with closing(home.open_registry()) as registry:
        home.journal(registry, home.open_store()).publish(digest, data, lambda: record(registry, name, digest))
    return digest


def record(registry: SqlRegistry, name: str, digest: str) -> int:
    """Publish a version in a registry; return its number."""
    done = registry.publish(name, digest, task="text-classification", verification={}, size=1)
    return done.version


def checked(home: Home, **options: object) -> Check:
    """Check a home as the command does."""
    with closing(home.registry_to_check()) as registry:
        return fsck(registry, home.store_to_check(), **options)  # type: ignore[arg-type]


def kinds(check: Check) -> list[str]:
    """Return the kinds of the findings, in order."""
    return sorted(finding.kind for finding in check.findings)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def filled_home(folder: Path) -> Home:
    """Return a home with two versions of `mood` and one of `intents`, all whole."""
    home = Home(folder)
    for name, number in (("mood", 1), ("mood", 2), ("intents", 3)):
        publish(home, name, number)
    return home
