"""What the registry's tests share: contents named by anything, and where the database is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rootstock.adapters.registry import Published, SqlRegistry


def digest(content: object) -> str:
    return "sha256:" + hashlib.sha256(str(content).encode()).hexdigest()


def publish(registry: SqlRegistry, name: str, content: object, *, activate: bool = True) -> Published:
    return registry.publish(
        name, digest(content), task="text-classification", verification={}, size=1, activate=activate
    )


def address(folder: Path) -> str:
    return f"sqlite:///{folder / 'registry.db'}"
