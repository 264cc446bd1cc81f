"""The differences between two versions of an adapter."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

_FOUNDATION = "base"
# Fields of a version, and of its description, that are compared one by one.
_RECORD = ("digest", "task", "size", "status", "created_at")
_DESCRIBED = ("kind", "head", "ranks", "parameters", "problem_type", "max_length", "licence", "golden", "card")


@dataclass(frozen=True)
class FieldChange:
    """A field that has another value in the second version. None stands for no value."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class FigurePair:
    """A figure of the evaluation in both versions; None in one that does not state it."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class VersionDiff:
    """The second version `after` of an adapter beside the first one, `before`.

    `changes` has the fields that differ. `figures` has all figures of both evaluations, also equal ones. `card`
    is a unified diff of the model cards, in lines. `labels_moved` tells that the labels that both versions have
    are in another order.
    """

    name: str
    before: int
    after: int
    changes: tuple[FieldChange, ...]
    labels_added: tuple[str, ...]
    labels_removed: tuple[str, ...]
    labels_moved: bool
    targets_added: tuple[str, ...]
    targets_removed: tuple[str, ...]
    figures: tuple[FigurePair, ...]
    card: tuple[str, ...]

    @classmethod
    def of(cls, name: str, versions: tuple[Mapping[str, Any], Mapping[str, Any]], cards: tuple[str, str]) -> Self:
        """Compare two versions as the server describes them, and their cards."""
        one, two = versions
        described = [version.get("description") or {} for version in versions]
        labels, targets = ([described[i].get(field) or [] for i in (0, 1)] for field in ("labels", "targets"))
        numbers = [dict(_figures(each.get("evaluation") or {})) for each in described]
        common = [[label for label in labels[i] if label in labels[1 - i]] for i in (0, 1)]
        return cls(
            name=name,
            before=one["version"],
            after=two["version"],
            changes=tuple(_changes(one, two)),
            labels_added=_without(labels[1], labels[0]),
            labels_removed=_without(labels[0], labels[1]),
            labels_moved=common[0] != common[1],
            targets_added=_without(targets[1], targets[0]),
            targets_removed=_without(targets[0], targets[1]),
            figures=tuple(
                FigurePair(figure, numbers[0].get(figure), numbers[1].get(figure))
                for figure in {**numbers[0], **numbers[1]}
            ),
            card=tuple(_card_diff(cards, one["version"], two["version"])),
        )

    @property
    def document(self) -> dict[str, Any]:
        """Return the differences as a JSON object."""
        return {
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "changes": [vars(change) for change in self.changes],
            "labels": {
                "added": list(self.labels_added),
                "removed": list(self.labels_removed),
                "moved": self.labels_moved,
            },
            "targets": {"added": list(self.targets_added), "removed": list(self.targets_removed)},
            "evaluation": [vars(figure) for figure in self.figures],
            "card": list(self.card),
        }


def _changes(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[FieldChange]:
    fields = [dict(_fields(version)) for version in (one, two)]
    for name in {**fields[0], **fields[1]}:
        before, after = (each.get(name) for each in fields)
        if before != after:
            yield FieldChange(name, before, after)


def _fields(version: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a version that are compared one by one."""
    yield from ((name, version.get(name)) for name in _RECORD)
    described = version.get("description") or {}
    yield from ((name, described.get(name)) for name in _DESCRIBED)
    foundation = described.get(_FOUNDATION) or {}
    yield from ((f"foundation.{name}", foundation.get(name)) for name in ("name", "revision", "fingerprint"))
    yield "signer", ((version.get("verification") or {}).get("signature") or {}).get("signer")
    yield from _leaves(described.get("provenance") or {}, "provenance.")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}{name}.")
    else:
        yield path.removesuffix("."), value


def _figures(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of an evaluation by their paths, such as `adapter.accuracy`."""
    for path, value in _leaves(evaluation, ""):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield path, value


def _without(values: list[str], others: list[str]) -> tuple[str, ...]:
    known = set(others)
    return tuple(value for value in values if value not in known)


def _card_diff(cards: tuple[str, str], before: int, after: int) -> Iterator[str]:
    one, two = (card.splitlines() for card in cards)
    yield from difflib.unified_diff(one, two, f"version {before}", f"version {after}", lineterm="", n=1)
